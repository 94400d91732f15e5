package relay

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// A patient half waits for release before it forwards what it was given first.
type patient struct {
	release  chan struct{}
	waiting  chan struct{} // closed when it waits
	released chan struct{} // closed when its work was told that the link has ended
	offered  []string
	resumed  bool
}

func newPatient() *patient {
	return &patient{release: make(chan struct{}), waiting: make(chan struct{}), released: make(chan struct{})}
}

func (h *patient) Process(p []byte, out *Output) (int, error) {
	if h.resumed {
		return through(p, out)
	}
	h.offered = append(h.offered, string(p))
	if len(h.offered) == 2 {
		h.resumed = true
		return through(p, out)
	}
	out.Reply([]byte("please wait;"))
	out.Await = func(done <-chan struct{}) {
		close(h.waiting)
		select {
		case <-h.release:
		case <-done:
			close(h.released)
		}
	}
	return 0, nil
}

func TestHeldInputIsOfferedAgainWhenTheWorkIsDone(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		h := newPatient()
		s := start(t, plain, h, half(through))
		say(t, s.client, "held;")
		<-h.waiting
		expect(t, s.client, "please wait;")
		// The other direction goes on meanwhile, and what is sent behind waits.
		say(t, s.client, strings.Repeat("x", 64<<10))
		say(t, s.server, "news;")
		expect(t, s.client, "news;")
		s.link.Inject(func(out *Output) error { out.Forward([]byte("injected;")); return nil })
		expect(t, s.client, "injected;")
		close(h.release)
		expect(t, s.server, "held;"+strings.Repeat("x", 64<<10))
		s.client.Close()
		if err := s.cause(t); !errors.Is(err, ErrClientGone) {
			t.Errorf("cause %v", err)
		}
		if h.offered[0] != h.offered[1] {
			t.Errorf("offered %d and then %d bytes", len(h.offered[0]), len(h.offered[1]))
		}
	})
}

func TestEndOfAPeerIsNoticedWhileInputIsHeld(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(t *testing.T, s *setup)
		want error
	}{
		{"the client closes", func(_ *testing.T, s *setup) { s.client.Close() }, ErrClientGone},
		{"the client closes behind bytes that nobody has read", func(t *testing.T, s *setup) {
			say(t, s.client, strings.Repeat("x", 64<<10))
			s.client.Close()
		}, ErrClientGone},
		{"the client says that nothing more comes", func(_ *testing.T, s *setup) { _ = s.client.(*net.TCPConn).CloseWrite() }, ErrClientGone},
		{"the client resets", func(_ *testing.T, s *setup) {
			_ = s.client.(*net.TCPConn).SetLinger(0)
			s.client.Close()
		}, ErrClientGone},
		{"the server closes", func(_ *testing.T, s *setup) { s.server.Close() }, ErrServerGone},
		{"the link is told to end", func(_ *testing.T, s *setup) {
			s.link.Inject(func(*Output) error { return ErrDone })
		}, ErrDone},
	} {
		t.Run(test.name, func(t *testing.T) {
			engines(t, func(t *testing.T, plain bool) {
				h := newPatient()
				s := start(t, plain, h, half(through))
				say(t, s.client, "held;")
				<-h.waiting
				test.end(t, s)
				if err := s.cause(t); !errors.Is(err, test.want) {
					t.Errorf("cause %v", err)
				}
				<-h.released
			})
		})
	}
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %.60q, %v", got, err)
	}
}
