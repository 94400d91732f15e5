package capture

import (
	"context"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// files are duplicates of listeners, as a proxy sends them.
func files(t *testing.T, listeners ...*net.TCPListener) []*os.File {
	t.Helper()
	var all []*os.File
	for _, listener := range listeners {
		file, err := listener.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		all = append(all, file)
	}
	return all
}

// socketFile is any socket.
func socketFile(t *testing.T, prepare func() (int, error)) *os.File {
	t.Helper()
	fd, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { file.Close() })
	return file
}

func TestListenersThatAProxyHoldsAreAdoptedWithTheirGeneration(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4)
	before := n.enroll(c, name)
	offer := handoff.Offer{Generation: before.Generation, Listeners: files(t, before.Listeners...)}
	// What dials while nobody runs waits in the backlog: the listeners live.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	waiting := start(t, dir, "dial", nil, "connect", db4)

	left, err := Left(n.options)
	if err != nil || !slices.Equal(left, []uint64{before.ID}) {
		t.Errorf("left are %v, %v: want %d", left, err, before.ID)
	}
	n.options.Offers = map[uint64]handoff.Offer{before.ID: offer}
	c = n.open()
	after := c.Workloads()
	if len(after) != 1 || after[0].Workload != before.Workload {
		t.Fatalf("got %+v: want %+v", after, before)
	}
	for i, listener := range after[0].Listeners {
		if listener.Addr().String() != before.Listeners[i].Addr().String() {
			t.Errorf("a listener at %s: want %s", listener.Addr(), before.Listeners[i].Addr())
		}
	}
	if status := c.Status(); !status.Effective {
		t.Error(status.Reason)
	}
	r := startReader(t, after[0].Listeners[0])
	if got := r.report(t); got.Error != "" || got.Origin.Generation != before.Generation {
		t.Errorf("what waited: got %+v", got)
	}
	waiting.line(t)
	client := start(t, dir, "dial", nil, "connect", db4)
	if got := r.report(t); got.Error != "" || got.Origin.Generation != before.Generation {
		t.Errorf("what came after: got %+v", got)
	}
	client.line(t)
}

func TestOffersThatAreNotWhatThePinsSayAreDropped(t *testing.T) {
	tests := []struct {
		name  string
		offer func(t *testing.T, before Enrolled) handoff.Offer
	}{
		{"listeners of another generation", func(t *testing.T, before Enrolled) handoff.Offer {
			return handoff.Offer{Generation: before.Generation - 1, Listeners: files(t, before.Listeners...)}
		}},
		{"one listener of two", func(t *testing.T, before Enrolled) handoff.Offer {
			return handoff.Offer{Generation: before.Generation, Listeners: files(t, before.Listeners[:1]...)}
		}},
		{"one listener twice", func(t *testing.T, before Enrolled) handoff.Offer {
			return handoff.Offer{Generation: before.Generation, Listeners: files(t, before.Listeners[0], before.Listeners[0])}
		}},
		{"a listener at another port", func(t *testing.T, before Enrolled) handoff.Offer {
			other, err := listen()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { other.close() })
			return handoff.Offer{Generation: before.Generation, Listeners: files(t, other.all()...)}
		}},
		{"sockets that do not listen", func(t *testing.T, before Enrolled) handoff.Offer {
			return handoff.Offer{Generation: before.Generation, Listeners: []*os.File{socketFile(t, func() (int, error) {
				return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			})}}
		}},
		{"a listener of MPTCP", func(t *testing.T, before Enrolled) handoff.Offer {
			return handoff.Offer{Generation: before.Generation, Listeners: []*os.File{socketFile(t, func() (int, error) {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
				if err == nil {
					err = unix.Listen(fd, 1)
				}
				return fd, err
			})}}
		}},
		{"a datagram socket", func(t *testing.T, before Enrolled) handoff.Offer {
			return handoff.Offer{Generation: before.Generation, Listeners: []*os.File{socketFile(t, func() (int, error) {
				return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			})}}
		}},
		{"a Unix socket", func(t *testing.T, before Enrolled) handoff.Offer {
			return handoff.Offer{Generation: before.Generation, Listeners: []*os.File{socketFile(t, func() (int, error) {
				return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			})}}
		}},
		{"no socket at all", func(t *testing.T, before Enrolled) handoff.Offer {
			return handoff.Offer{Generation: before.Generation, Listeners: []*os.File{socketFile(t, func() (int, error) {
				return unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			})}}
		}},
		{"a listener with the right address in another network namespace", func(t *testing.T, before Enrolled) handoff.Offer {
			return handoff.Offer{Generation: before.Generation, Listeners: files(t, listenElsewhere(t, before.Listeners[0].Addr().String()))}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			name, dir := n.cgroup("shop")
			c := n.open()
			targets(t, c, db4)
			before := n.enroll(c, name)
			offer := tt.offer(t, before)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			n.options.Offers = map[uint64]handoff.Offer{before.ID: offer}
			c = n.open()
			after := c.Workloads()
			if len(after) != 1 || after[0].Generation <= before.Generation || len(after[0].Listeners) != len(before.Listeners) {
				t.Fatalf("got %+v: want %+v with a new generation", after, before)
			}
			r := startReader(t, after[0].Listeners[0])
			client := start(t, dir, "dial", nil, "connect", db4)
			if got := r.report(t); got.Error != "" || got.Origin.Generation != after[0].Generation {
				t.Errorf("got %+v: want generation %d", got, after[0].Generation)
			}
			client.line(t)
		})
	}
}

// listenElsewhere listens in a new network namespace.
func listenElsewhere(t *testing.T, address string) *net.TCPListener {
	t.Helper()
	type listened struct {
		listener net.Listener
		err      error
	}
	done := make(chan listened)
	go func() {
		// Never unlocked: the thread ends with its namespace.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- listened{err: err}
			return
		}
		config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
			var up error
			err := conn.Control(func(fd uintptr) {
				request, err := unix.NewIfreq("lo")
				if err == nil {
					request.SetUint16(unix.IFF_UP)
					err = unix.IoctlIfreq(int(fd), unix.SIOCSIFFLAGS, request)
				}
				up = err
			})
			if err != nil {
				return err
			}
			return up
		}}
		config.SetMultipathTCP(false)
		listener, err := config.Listen(context.Background(), "tcp4", address)
		done <- listened{listener, err}
	}()
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	t.Cleanup(func() { got.listener.Close() })
	return got.listener.(*net.TCPListener)
}
