package relay

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// A settler forwards everything, and calls settle when it may.
type settler struct {
	half
	settle func()
}

func (s *settler) Settle() { s.settle() }

func TestHalfSettlesBehindItsOutput(t *testing.T) {
	server, arrived := make(chan net.Conn, 1), make(chan error, 1)
	h := &settler{half: half(through), settle: func() {
		c := <-server
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err := io.ReadFull(c, make([]byte, 4))
		arrived <- err
	}}
	s := start(t, true, h, half(through))
	server <- s.server
	if _, err := s.client.Write([]byte("four")); err != nil {
		t.Fatal(err)
	}
	if err := <-arrived; err != nil {
		t.Errorf("when the half settles, its output has not arrived: %v", err)
	}
}

func TestPanicWhileSettlingEndsTheLink(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		s := start(t, plain, &settler{half: half(through), settle: func() { panic("no") }}, half(through))
		if _, err := s.client.Write([]byte("four")); err != nil {
			t.Fatal(err)
		}
		var panicked *PanicError
		if cause := s.cause(t); !errors.As(cause, &panicked) || panicked.Value != "no" {
			t.Errorf("cause %v", cause)
		}
	})
}
