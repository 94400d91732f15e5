package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// half is a Half made of a function.
type half func(p []byte, out *Output) (int, error)

func (h half) Process(p []byte, out *Output) (int, error) { return h(p, out) }

// through forwards everything as it comes.
func through(p []byte, out *Output) (int, error) {
	out.Forward(p)
	return len(p), nil
}

type counter struct{ n atomic.Int64 }

func (c *counter) Add(f float64) { c.n.Add(int64(f)) }

// hidden keeps the engine from seeing a TCP connection, as TLS would.
type hidden struct{ net.Conn }

func (h hidden) NetConn() net.Conn { return h.Conn }

// a setup is a link with its outer ends.
type setup struct {
	client, server         net.Conn // the outer ends
	link                   Link
	fromClient, fromServer counter
	ended                  chan error
}

// tcpPair is both ends of a TCP connection on loopback.
func tcpPair(t *testing.T) (outer, inner net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	outer, err = net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if inner, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outer.Close(); inner.Close() })
	for _, c := range []net.Conn{outer, inner} {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return outer, inner
}

func start(t *testing.T, plain bool, client, server Half) *setup {
	t.Helper()
	e, err := NewEngine(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	s := &setup{ended: make(chan error, 2)}
	var c, u net.Conn
	s.client, c = tcpPair(t)
	s.server, u = tcpPair(t)
	_, _ = c.SetDeadline(time.Time{}), u.SetDeadline(time.Time{})
	if !plain {
		c = hidden{c}
	}
	s.link, err = e.Start(Leg{Conn: c, Half: client, Received: &s.fromClient}, Leg{Conn: u, Half: server, Received: &s.fromServer},
		func(c, u net.Conn, cause error) {
			c.Close()
			u.Close()
			s.ended <- cause
		})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *setup) cause(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the link did not end")
		return nil
	}
}

// engines runs a test with either way of relaying.
func engines(t *testing.T, f func(t *testing.T, plain bool)) {
	t.Run("epoll", func(t *testing.T) { f(t, true) })
	t.Run("goroutines", func(t *testing.T) { f(t, false) })
}

func TestBytesArriveInOrderBothWaysAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		s := start(t, plain, half(through), half(through))
		data := make([]byte, 8<<20)
		_, _ = rand.Read(data)
		done := make(chan error, 4)
		send := func(c net.Conn) { _, err := c.Write(data); done <- err }
		receive := func(c net.Conn) {
			got := make([]byte, len(data))
			_, err := io.ReadFull(c, got)
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("bytes differ")
			}
			done <- err
		}
		go send(s.client)
		go send(s.server)
		go receive(s.client)
		go receive(s.server)
		for range 4 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		s.client.Close()
		if err := s.cause(t); !errors.Is(err, ErrClientGone) {
			t.Errorf("cause %v", err)
		}
		if s.fromClient.n.Load() != int64(len(data)) || s.fromServer.n.Load() != int64(len(data)) {
			t.Errorf("counted %d and %d bytes", s.fromClient.n.Load(), s.fromServer.n.Load())
		}
	})
}

func TestSlowReaderHoldsUpOnlyItsOwnLink(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		s := start(t, plain, half(through), half(through))
		data := make([]byte, 32<<20) // more than sockets hold
		sent := make(chan struct{})
		go func() { _, _ = s.server.Write(data); close(sent) }()
		select {
		case <-sent:
			t.Fatal("the relay took all of it without a reader")
		case <-time.After(300 * time.Millisecond):
		}
		if _, err := s.client.Write([]byte("up")); err != nil { // the other direction still goes
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s.server, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, s.client, int64(len(data))); err != nil {
			t.Fatal(err)
		}
	})
}

func TestHalfSeesWhatItNeedsAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		const size = 1 << 20
		s := start(t, plain, half(func(p []byte, out *Output) (int, error) {
			if len(p) < size {
				out.Need = size
				return 0, nil
			}
			out.Forward([]byte("whole"))
			return size, nil
		}), half(through))
		go func() {
			for range 64 {
				_, _ = s.client.Write(make([]byte, size/64))
			}
		}()
		got := make([]byte, 5)
		if _, err := io.ReadFull(s.server, got); err != nil || string(got) != "whole" {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

func TestLastWordsArriveBeforeTheEnd(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		s := start(t, plain, half(func(p []byte, out *Output) (int, error) {
			out.Forward([]byte("to the server"))
			out.Reply([]byte("to the client"))
			return len(p), ErrDone
		}), half(through))
		_, _ = s.client.Write([]byte("x"))
		for c, want := range map[net.Conn]string{s.client: "to the client", s.server: "to the server"} {
			if got, err := io.ReadAll(c); err != nil || string(got) != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		}
		if err := s.cause(t); !errors.Is(err, ErrDone) {
			t.Errorf("cause %v", err)
		}
	})
}

func TestServersLastBytesReachTheClientWhenItCloses(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		s := start(t, plain, half(through), half(through))
		data := make([]byte, 4<<20)
		go func() { _, _ = s.server.Write(data); s.server.Close() }()
		if got, err := io.ReadAll(s.client); err != nil || len(got) != len(data) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if err := s.cause(t); !errors.Is(err, ErrServerGone) {
			t.Errorf("cause %v", err)
		}
	})
}

func TestPausedHalfGoesOnAfterTheOther(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		var allowed atomic.Bool
		s := start(t, plain, half(func(p []byte, out *Output) (int, error) {
			if !allowed.Load() {
				out.Pause = true
				return 0, nil
			}
			return through(p, out)
		}), half(func(p []byte, out *Output) (int, error) {
			allowed.Store(true)
			return through(p, out)
		}))
		_, _ = s.client.Write([]byte("wait"))
		_, _ = s.server.Write([]byte("go"))
		got := make([]byte, 4)
		if _, err := io.ReadFull(s.server, got); err != nil || string(got) != "wait" {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

func TestWorkElsewhereLetsTheOtherDirectionGo(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		release, worked := make(chan struct{}), false
		s := start(t, plain, half(func(p []byte, out *Output) (int, error) {
			if !worked {
				out.Async = func() { <-release; worked = true }
				return 0, nil
			}
			return through(p, out)
		}), half(through))
		_, _ = s.client.Write([]byte("slow"))
		_, _ = s.server.Write([]byte("meanwhile"))
		if _, err := io.ReadFull(s.client, make([]byte, 9)); err != nil {
			t.Fatal(err)
		}
		close(release)
		if _, err := io.ReadFull(s.server, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPanicEndsItsLinkAlone(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		s := start(t, plain, half(func([]byte, *Output) (int, error) { panic("hostile") }), half(through))
		_, _ = s.client.Write([]byte("x"))
		var p *PanicError
		if err := s.cause(t); !errors.As(err, &p) || !strings.Contains(string(p.Stack), "relay_test") {
			t.Errorf("cause %v", err)
		}
	})
}

func TestInjectedBytesReachTheClient(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		s := start(t, plain, half(through), half(through))
		s.link.Inject(func(out *Output) error { out.Forward([]byte("goodbye")); return ErrDone })
		if got, err := io.ReadAll(s.client); err != nil || string(got) != "goodbye" {
			t.Errorf("%q, %v", got, err)
		}
		s.link.Inject(func(*Output) error { t.Error("called after the end"); return nil })
	})
}

func TestPendingBytesAreProcessedFirst(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		e, err := NewEngine(1)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		outer, c := tcpPair(t)
		server, u := tcpPair(t)
		_, _ = outer.Write([]byte("second"))
		if !plain {
			c = hidden{c}
		}
		done := make(chan struct{})
		_, err = e.Start(Leg{Conn: c, Half: half(through), Pending: []byte("first "), Received: &counter{}}, Leg{Conn: u, Half: half(through), Received: &counter{}},
			func(c, u net.Conn, _ error) { c.Close(); u.Close(); close(done) })
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 12)
		if _, err := io.ReadFull(server, got); err != nil || string(got) != "first second" {
			t.Errorf("%q, %v", got, err)
		}
		outer.Close()
		<-done
	})
}

func TestClosedEngineEndsItsLinks(t *testing.T) {
	e, err := NewEngine(1)
	if err != nil {
		t.Fatal(err)
	}
	_, c := tcpPair(t)
	_, u := tcpPair(t)
	ended := make(chan error, 1)
	if _, err := e.Start(Leg{Conn: c, Half: half(through), Received: &counter{}}, Leg{Conn: u, Half: half(through), Received: &counter{}},
		func(c, u net.Conn, cause error) { c.Close(); u.Close(); ended <- cause }); err != nil {
		t.Fatal(err)
	}
	e.Close()
	if err := <-ended; !errors.Is(err, ErrShutdown) {
		t.Errorf("cause %v", err)
	}
}

func TestResetBySlowClientWhileServerIsHeldBack(t *testing.T) {
	s := start(t, true, half(through), half(through))
	go func() { _, _ = s.server.Write(make([]byte, 32<<20)) }()
	_, _ = io.ReadFull(s.client, make([]byte, 1))
	_ = s.client.(*net.TCPConn).SetLinger(0)
	s.client.Close()
	if err := s.cause(t); !errors.Is(err, ErrClientGone) {
		t.Errorf("cause %v", err)
	}
}
