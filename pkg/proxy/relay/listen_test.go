package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// front is an engine that accepts on an address of its own.
func front(t *testing.T, loops int, accepted func(*Caller)) (*Engine, *Listener, string) {
	t.Helper()
	e, err := NewEngine(loops)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	tcp := listen(t).l
	address := tcp.Addr().String()
	l, err := e.Listen(tcp, accepted, func(err error) { t.Errorf("accept: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return e, l, address
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func TestCallerBecomesALinkWithItsReplyFirst(t *testing.T) {
	q := listen(t)
	ended := make(chan error, 100)
	upstreams := make(chan net.Conn, 100)
	_, _, address := front(t, 2, func(c *Caller) {
		c.Await(time.Minute, func(first []byte, err error) {
			if err != nil || string(first) != "hello" {
				t.Errorf("heard %q, %v", first, err)
				return
			}
			server := <-upstreams
			if _, err := c.Start([]byte("welcome "), Leg{Half: half(through), Received: &counter{}},
				Leg{Conn: server, Half: half(through), Received: &counter{}},
				func(c, u net.Conn, cause error) { closeBoth(c, u, nil); ended <- cause }); err != nil {
				t.Error(err)
			}
		})
	})
	for i := range 40 {
		outer, inner := q.pair(t)
		_, _ = outer.Write([]byte("early ")) // it must come behind the reply
		upstreams <- inner
		c := dial(t, address)
		if i%2 == 0 {
			time.Sleep(time.Millisecond) // so that the loop finds nothing at first
		}
		_, _ = c.Write([]byte("hello"))
		wantRead(t, c, "welcome early ")
		_, _ = c.Write([]byte("question"))
		wantRead(t, outer, "question")
		_, _ = outer.Write([]byte("answer"))
		wantRead(t, c, "answer")
		c.Close()
		if err := <-ended; !errors.Is(err, ErrClientGone) {
			t.Errorf("cause %v", err)
		}
		outer.Close()
	}
}

func TestCallersAreSpreadOverTheLoops(t *testing.T) {
	q := listen(t)
	var started atomic.Int64
	e, _, address := front(t, 2, func(c *Caller) {
		c.Await(time.Minute, func(_ []byte, err error) {
			outer, inner := q.pair(t)
			t.Cleanup(func() { outer.Close() })
			if _, err := c.Start(nil, Leg{Half: half(through), Received: &counter{}}, Leg{Conn: inner, Half: half(through), Received: &counter{}}, closeBoth); err != nil {
				t.Error(err)
			}
			started.Add(1)
		})
	})
	const callers = 40
	for i := range callers {
		_, _ = dial(t, address).Write([]byte("x"))
		until(t, "the link starts", func() bool { return started.Load() == int64(i+1) })
	}
	until(t, "all links are counted", func() bool { return e.loops[0].load.Load()+e.loops[1].load.Load() == callers })
	if n := e.loops[0].load.Load(); n < callers/2-2 || n > callers/2+2 {
		t.Errorf("one loop has %d of %d links", n, callers)
	}
}

func TestCallerWhoSaysNothingIsToldOf(t *testing.T) {
	for name, test := range map[string]struct {
		timeout time.Duration
		does    func(c net.Conn, e *Engine)
		want    error
	}{
		"in time":     {10 * time.Millisecond, func(net.Conn, *Engine) {}, os.ErrDeadlineExceeded},
		"but leaves":  {time.Minute, func(c net.Conn, _ *Engine) { c.Close() }, io.EOF},
		"to the last": {time.Minute, func(_ net.Conn, e *Engine) { e.Close() }, ErrShutdown},
	} {
		t.Run(name, func(t *testing.T) {
			heard, waits := make(chan error, 1), make(chan struct{})
			e, _, address := front(t, 1, func(c *Caller) {
				c.Await(test.timeout, func(_ []byte, err error) { heard <- err })
				close(waits)
			})
			before := descriptors(t)
			c := dial(t, address)
			<-waits
			test.does(c, e)
			select {
			case err := <-heard:
				if !errors.Is(err, test.want) {
					t.Errorf("it heard %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it heard nothing")
			}
			// Nobody took it, so it is closed.
			if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Errorf("the client reads %d bytes, %v", n, err)
			}
			c.Close()
			until(t, "the descriptors are closed", func() bool { return descriptors(t) <= before })
		})
	}
}

func TestCallerThatLeavesIsReadElsewhere(t *testing.T) {
	left := make(chan net.Conn, 1)
	_, _, address := front(t, 1, func(c *Caller) {
		c.Await(time.Minute, func(first []byte, err error) {
			left <- c.Leave()
			c.Close() // no more its own
		})
	})
	c := dial(t, address)
	_, _ = c.Write([]byte("first"))
	conn := <-left
	defer conn.Close()
	_, _ = c.Write([]byte("second"))
	wantRead(t, conn, "second")
	_, _ = conn.Write([]byte("bye"))
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || string(rest) != "bye" {
		t.Errorf("the client reads %q, %v", rest, err)
	}
}

func TestClosedListenerAcceptsNoMoreAndItsDuplicateDoes(t *testing.T) {
	var accepted atomic.Int64
	_, l, address := front(t, 2, func(c *Caller) { accepted.Add(1); c.Close() })
	dial(t, address)
	until(t, "the first is accepted", func() bool { return accepted.Load() == 1 })
	duplicate, err := l.TCP()
	if err != nil {
		t.Fatal(err)
	}
	defer duplicate.Close()
	l.Close()
	l.Close()
	c := dial(t, address)
	_ = duplicate.SetDeadline(time.Now().Add(20 * time.Second))
	other, err := duplicate.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = other.Write([]byte("here"))
	wantRead(t, c, "here")
	other.Close()
	if n := accepted.Load(); n != 1 {
		t.Errorf("the loops accepted %d", n)
	}
}
