package relay

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// StallTimeout is how long a side may leave a message that the relay must see whole incomplete.
const StallTimeout = 30 * time.Second

// flushTimeout is how long an ended link may take to hand over what was still to be written.
const flushTimeout = 5 * time.Second

// An Engine relays links on a fixed number of threads.
type Engine struct {
	loops []*loop
	next  atomic.Uint64
	times times
}

// times are how long peers may take.
type times struct {
	stall time.Duration // with a message that must be seen whole
	flush time.Duration // with the last bytes of an ended link
}

// NewEngine starts threads epoll loops. They work best where GOMAXPROCS is greater than their number: a loop that is busy keeps its
// processor while it waits.
func NewEngine(threads int) (*Engine, error) {
	return newEngine(threads, times{stall: StallTimeout, flush: flushTimeout})
}

func newEngine(threads int, times times) (*Engine, error) {
	e := &Engine{times: times}
	for range max(threads, 1) {
		l, err := newLoop(times)
		if err != nil {
			e.Close()
			return nil, err
		}
		l.spare = runtime.GOMAXPROCS(0) > threads
		e.loops = append(e.loops, l)
	}
	for _, l := range e.loops {
		l.peers = e.loops
		go l.run()
	}
	return e, nil
}

// Close ends every link of the loops with ErrShutdown and stops them. What is started afterwards ends at once.
func (e *Engine) Close() {
	for _, l := range e.loops {
		l.post(l.stop)
	}
}

// A Leg is one side of a link before it starts.
type Leg struct {
	Conn net.Conn
	// Half processes what Conn sends.
	Half Half
	// Pending was read from Conn already and not yet processed.
	Pending []byte
	// Received counts the bytes that Conn sends.
	Received Counter
}

// A Counter counts bytes; prometheus.Counter is one.
type Counter interface{ Add(float64) }

// A Link is one session being relayed.
type Link interface {
	// Inject calls f, which may put into out (Forward) bytes for the client, when no half is running. An error that f returns ends the link.
	Inject(f func(out *Output) error)
}

// Start relays between client and server until either ends, then calls ended, once, which must not block, with the
// cause and with the two connections, which are the caller's again. The server's is closed where bytes that it sent were read
// and not processed: nobody could use it on. Plain TCP goes to the epoll loops, anything else to a pair of goroutines.
func (e *Engine) Start(client, server Leg, ended func(client, server net.Conn, cause error)) (Link, error) {
	if !plain(client.Conn) || !plain(server.Conn) {
		return startPair(client, server, e.times, ended), nil
	}
	cfd, err := descriptor(client.Conn)
	if err != nil {
		return nil, err
	}
	sfd, err := descriptor(server.Conn)
	if err != nil {
		unix.Close(cfd)
		return nil, err
	}
	l := e.loops[e.next.Add(1)%uint64(len(e.loops))]
	k := newLink(l, client, server, ended)
	k.client.fd, k.server.fd = cfd, sfd
	if !l.post(func() { l.add(k) }) {
		ended(&socket{fd: cfd}, &socket{fd: sfd}, ErrShutdown)
	}
	return k, nil
}

// newLink makes a link without sockets.
func newLink(l *loop, client, server Leg, ended func(client, server net.Conn, cause error)) *link {
	k := &link{loop: l, ended: ended}
	k.client = side{fd: -1, link: k, peer: &k.server, half: client.Half, in: client.Pending, received: client.Received}
	k.server = side{fd: -1, link: k, peer: &k.client, half: server.Half, in: server.Pending, received: server.Received}
	return k
}

// plain is true for what an epoll loop can read and write itself.
func plain(conn net.Conn) bool {
	switch conn.(type) {
	case *net.TCPConn, *socket:
		return true
	}
	return false
}

// descriptor takes the socket of a plain connection.
func descriptor(conn net.Conn) (int, error) {
	if s, ok := conn.(*socket); ok {
		return s.release()
	}
	return take(conn.(*net.TCPConn))
}

// take moves the socket of c out of the runtime's poller: a duplicate descriptor stays, c is closed. Two pollers on one socket
// would wake two threads for each message.
func take(c *net.TCPConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("take socket: %w", err)
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(p uintptr) { fd, dupErr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return -1, fmt.Errorf("take socket: %w", err)
	}
	if dupErr != nil {
		return -1, fmt.Errorf("take socket: %w", dupErr)
	}
	c.Close() // the duplicate keeps the connection open
	return fd, nil
}

// cause is the first of the errors that tells something.
func cause(err error, fallback error) error {
	if err == nil || errors.Is(err, ErrDone) {
		return fallback
	}
	return err
}
