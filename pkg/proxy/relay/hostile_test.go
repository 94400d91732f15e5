package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

func closeBoth(c, u net.Conn, _ error) { c.Close(); u.Close() }

// quick makes many connections to one listener.
type quick struct{ l *net.TCPListener }

func listen(t *testing.T) quick {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return quick{l}
}

func (q quick) pair(t *testing.T) (outer, inner net.Conn) {
	t.Helper()
	outer, err := net.Dial("tcp4", q.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if inner, err = q.l.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = outer.SetDeadline(time.Now().Add(30 * time.Second))
	return outer, inner
}

func (q quick) link(t *testing.T, e *Engine, plain bool, client, server Half, ended func(c, u net.Conn, cause error)) (c, u net.Conn, l Link) {
	t.Helper()
	c, inner := q.pair(t)
	u, upstream := q.pair(t)
	if !plain {
		inner = hidden{inner}
	}
	l, err := e.Start(Leg{Conn: inner, Half: client, Received: &counter{}}, Leg{Conn: upstream, Half: server, Received: &counter{}}, ended)
	if err != nil {
		t.Fatal(err)
	}
	return c, u, l
}

func TestThousandLinksLeaveNoDescriptorBehind(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		e, err := NewEngine(2)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		q := listen(t)
		before := descriptors(t)
		var ended sync.WaitGroup
		for i := range 1000 {
			ended.Add(1)
			c, u, _ := q.link(t, e, plain, half(through), half(through), func(c, u net.Conn, _ error) { closeBoth(c, u, nil); ended.Done() })
			first, second := c, u
			if i%2 == 0 {
				first, second = u, c
			}
			switch i % 3 {
			case 0: // one end goes at once
			case 1:
				_, _ = first.Write([]byte("last words"))
			case 2:
				_ = first.(*net.TCPConn).SetLinger(0)
			}
			first.Close()
			second.Close()
		}
		ended.Wait()
		until(t, "all descriptors are closed", func() bool { return descriptors(t) <= before })
	})
}

func TestThousandsOfLinksAtOnceAllMakeProgress(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	links := min(3000, (int(limit.Cur)-200)/4)
	e, err := NewEngine(2)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	q := listen(t)
	type ends struct{ c, u net.Conn }
	all := make([]ends, links)
	var ended atomic.Int64
	for i := range all {
		all[i].c, all[i].u, _ = q.link(t, e, true, half(through), half(through), func(c, u net.Conn, _ error) { closeBoth(c, u, nil); ended.Add(1) })
	}
	message := []byte("0123456789")
	for range 3 {
		for _, a := range all {
			if _, err := a.c.Write(message); err != nil {
				t.Fatal(err)
			}
		}
		for _, a := range all {
			if _, err := io.ReadFull(a.u, make([]byte, len(message))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, a := range all {
		a.c.Close()
		a.u.Close()
	}
	until(t, "all links end", func() bool { return ended.Load() == int64(links) })
}

func TestOtherLinksOfTheLoopGoOnBesideASlowReader(t *testing.T) {
	e, err := NewEngine(1)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	q := listen(t)
	slow, flood, _ := q.link(t, e, true, half(through), half(through), closeBoth)
	defer slow.Close()
	var moved atomic.Int64
	go func() {
		for chunk := make([]byte, 64<<10); ; {
			n, err := flood.Write(chunk)
			moved.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	defer flood.Close()
	until(t, "the flood is held up", func() bool {
		before := moved.Load()
		time.Sleep(50 * time.Millisecond)
		return before > 0 && moved.Load() == before
	})
	c, u, _ := q.link(t, e, true, half(through), half(through), closeBoth)
	defer c.Close()
	defer u.Close()
	for range 1000 {
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(u, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnfinishedMessageEndsTheLinkInTime(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		e, err := newEngine(1, times{stall: 200 * time.Millisecond, flush: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		ended := make(chan error, 1)
		wants := half(func(p []byte, out *Output) (int, error) { out.Need = 100; return 0, nil })
		c, u, _ := listen(t).link(t, e, plain, wants, half(through), func(c, u net.Conn, cause error) { closeBoth(c, u, nil); ended <- cause })
		defer u.Close()
		// Byte by byte is no more time.
		go func() {
			for _, err := c.Write([]byte("x")); err == nil; _, err = c.Write([]byte("x")) {
				time.Sleep(50 * time.Millisecond)
			}
		}()
		defer c.Close()
		select {
		case err := <-ended:
			if !errors.Is(err, ErrStalled) {
				t.Errorf("cause %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it waits on")
		}
	})
}

func TestIdleLinkDoesNotStall(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		e, err := newEngine(1, times{stall: 10 * time.Millisecond, flush: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		q := listen(t)
		paused := half(func(p []byte, out *Output) (int, error) { out.Pause = true; return 0, nil })
		ended := make(chan error, 2)
		note := func(c, u net.Conn, cause error) { closeBoth(c, u, nil); ended <- cause }
		c, u, _ := q.link(t, e, plain, half(through), half(through), note)
		d, v, _ := q.link(t, e, plain, paused, half(through), note) // it waits for the server, which may take its time
		_, _ = d.Write([]byte("x"))
		select {
		case err := <-ended:
			t.Errorf("ended: %v", err)
		case <-time.After(2*sweepEvery + 100*time.Millisecond):
		}
		for _, c := range []net.Conn{c, u, d, v} {
			c.Close()
		}
	})
}

func TestAnnouncedSizeCostsNoMemory(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		e, err := NewEngine(1)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		q := listen(t)
		const links, announced = 20, 64 << 20
		var seen atomic.Int64
		greedy := half(func(p []byte, out *Output) (int, error) {
			seen.Add(1)
			out.Need = announced
			return 0, nil
		})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range links {
			c, u, _ := q.link(t, e, plain, greedy, half(through), closeBoth)
			defer c.Close()
			defer u.Close()
			had := seen.Load()
			_, _ = c.Write(make([]byte, 1000))
			until(t, "the first bytes are seen", func() bool { return seen.Load() > had })
			_, _ = c.Write(make([]byte, 1000))
			until(t, "what follows is seen", func() bool { return seen.Load() > had+1 })
		}
		runtime.ReadMemStats(&after)
		if grown := after.HeapAlloc - before.HeapAlloc; int64(grown) > announced {
			t.Errorf("%d MiB for %d kB", grown>>20, 2*links)
		}
	})
}

func TestServerOfWhichBytesAreLostIsNotHandedBackForUse(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		e, err := NewEngine(1)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		var waiting atomic.Bool
		partial := half(func(p []byte, out *Output) (int, error) { waiting.Store(true); out.Need = len(p) + 1; return 0, nil })
		done := half(func(p []byte, out *Output) (int, error) { return len(p), ErrDone })
		usable := make(chan error, 1)
		c, u, _ := listen(t).link(t, e, plain, done, partial, func(c, u net.Conn, _ error) {
			_, err := u.Write([]byte("x"))
			usable <- err
			closeBoth(c, u, nil)
		})
		defer c.Close()
		defer u.Close()
		_, _ = u.Write([]byte("half a message"))
		until(t, "the half message is seen", waiting.Load)
		_, _ = c.Write([]byte("goodbye"))
		if err := <-usable; err == nil {
			t.Error("the connection can still be used")
		}
	})
}

func TestClientThatReadsNothingCanBeCutOff(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		for name, cut := range map[string]func(c net.Conn, l Link){
			"from outside": func(_ net.Conn, l Link) {
				l.Inject(func(out *Output) error { out.Forward([]byte("bye")); return ErrDone })
			},
			"because of its words": func(c net.Conn, _ Link) { _, _ = c.Write([]byte("hostile")) },
		} {
			e, err := newEngine(1, times{stall: time.Minute, flush: 500 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			answers := half(func(p []byte, out *Output) (int, error) { out.Reply([]byte("no")); return len(p), ErrDone })
			ended := make(chan struct{})
			var moved atomic.Int64
			flood := half(func(p []byte, out *Output) (int, error) { moved.Add(int64(len(p))); return through(p, out) })
			c, u, l := listen(t).link(t, e, plain, answers, flood, func(c, u net.Conn, _ error) { closeBoth(c, u, nil); close(ended) })
			go func() { _, _ = u.Write(make([]byte, 32<<20)) }()
			until(t, "the client's socket is full", func() bool {
				before := moved.Load()
				time.Sleep(50 * time.Millisecond)
				return before > 0 && moved.Load() == before
			})
			cut(c, l)
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Errorf("%s: it goes on", name)
			}
			c.Close()
			u.Close()
			e.Close()
		}
	})
}

func TestLinkStartedBesideTheEnginesEndEnds(t *testing.T) {
	q := listen(t)
	before := descriptors(t)
	for range 100 {
		e, err := NewEngine(1)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go e.Close()
		c, u, l := q.link(t, e, true, half(through), half(through), func(c, u net.Conn, cause error) { closeBoth(c, u, nil); ended <- cause })
		l.Inject(func(*Output) error { return nil })
		select {
		case err := <-ended:
			if !errors.Is(err, ErrShutdown) {
				t.Fatalf("cause %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the link never ends")
		}
		c.Close()
		u.Close()
	}
	until(t, "all descriptors are closed", func() bool { return descriptors(t) <= before })
}

func TestEndsThatRaceEndOnce(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		e, err := NewEngine(2)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		q := listen(t)
		for range 200 {
			var calls atomic.Int64
			ended := make(chan struct{}, 4)
			slow := half(func(p []byte, out *Output) (int, error) {
				if string(p) == "async" {
					out.Async = func() {}
					return 0, nil
				}
				return through(p, out)
			})
			c, u, l := q.link(t, e, plain, slow, half(through), func(c, u net.Conn, _ error) { calls.Add(1); closeBoth(c, u, nil); ended <- struct{}{} })
			var all sync.WaitGroup
			all.Go(func() { _, _ = c.Write([]byte("async")); c.Close() })
			all.Go(func() { _, _ = u.Write([]byte("x")); u.Close() })
			all.Go(func() { l.Inject(func(out *Output) error { out.Forward([]byte("bye")); return ErrDone }) })
			all.Wait()
			<-ended
			l.Inject(func(*Output) error { t.Error("called after the end"); return nil })
			if n := calls.Load(); n != 1 {
				t.Fatalf("ended %d times", n)
			}
		}
	})
}

func TestDeafClientEndsWithTheServersAnswerOrSoonAfter(t *testing.T) {
	engines(t, func(t *testing.T, plain bool) {
		for name, test := range map[string]struct {
			answer string
			want   error
		}{"answered": {"done", ErrDone}, "not answered": {"", ErrStalled}} {
			e, err := newEngine(1, times{stall: time.Minute, flush: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			goodbye := half(func(p []byte, out *Output) (int, error) {
				out.Forward([]byte("reset"))
				out.Deaf = true
				return len(p), nil
			})
			last := half(func(p []byte, out *Output) (int, error) { return len(p), ErrDone })
			ended := make(chan error, 1)
			c, u, _ := listen(t).link(t, e, plain, goodbye, last, func(c, u net.Conn, cause error) { closeBoth(c, u, nil); ended <- cause })
			_, _ = c.Write([]byte("x"))
			if _, err := io.ReadFull(u, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			c.Close() // it is not listened to, so this ends nothing
			_, _ = io.WriteString(u, test.answer)
			select {
			case err := <-ended:
				if !errors.Is(err, test.want) {
					t.Errorf("%s: cause %v", name, err)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s: it goes on", name)
			}
			u.Close()
			e.Close()
		}
	})
}
