package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A guest is a descriptor of a loop that belongs to no link.
type guest interface{ ready(events uint32) }

// A Caller is a connection that a loop has accepted and that nobody serves yet. Its methods are called on the loop's thread: in
// accepted of Listen, and in what Await was given.
type Caller struct {
	loop     *loop
	fd       int // -1 when it is somebody else's
	watched  bool
	deadline time.Time
	heard    func(first []byte, err error)
}

// FD is the socket's descriptor, which stays the Caller's.
func (c *Caller) FD() int { return c.fd }

// Await calls heard once: with the first bytes that the client sends, which are valid until it returns, or with why there are none:
// io.EOF, os.ErrDeadlineExceeded about a second after timeout, ErrShutdown, or an error of the socket. heard must take the
// connection by Leave, Start or Close.
func (c *Caller) Await(timeout time.Duration, heard func(first []byte, err error)) {
	c.heard, c.deadline = heard, time.Now().Add(timeout)
	if c.loop.stopped {
		c.tell(nil, ErrShutdown)
		return
	}
	// Mostly the client has said something by now.
	if c.listen(); c.heard == nil {
		return
	}
	if err := unix.EpollCtl(c.loop.epoll, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.fd)}); err != nil {
		c.tell(nil, os.NewSyscallError("epoll_ctl", err))
		return
	}
	c.watched = true
	c.loop.front[c.fd] = c
}

func (c *Caller) ready(uint32) { c.listen() }

// listen reads what there is.
func (c *Caller) listen() {
	n, errno := read(c.fd, c.loop.buf)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno != 0:
		c.tell(nil, os.NewSyscallError("read", errno))
	case n == 0:
		c.tell(nil, io.EOF)
	default:
		c.tell(c.loop.buf[:n], nil)
	}
}

func (c *Caller) tell(first []byte, err error) {
	heard := c.heard
	c.heard = nil
	heard(first, err)
	c.Close() // where nobody took it
}

// overdue is true when the client has not said anything in time.
func (c *Caller) overdue(now time.Time) bool { return c.heard != nil && now.After(c.deadline) }

// take gives up the descriptor; the loop may watch it still.
func (c *Caller) take() int {
	fd := c.fd
	c.fd, c.heard = -1, nil
	if c.watched {
		delete(c.loop.front, fd)
	}
	return fd
}

// Leave makes the connection the caller's of this method, who reads and writes it anywhere. Of one that was left, Started or Closed
// before it gives a closed connection.
func (c *Caller) Leave() net.Conn {
	fd := c.take()
	if c.watched && fd >= 0 {
		c.watched = false
		_ = unix.EpollCtl(c.loop.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	}
	return &socket{fd: fd}
}

// Close closes the connection, unless it is somebody else's by now.
func (c *Caller) Close() {
	if c.fd >= 0 {
		unix.Close(c.take())
	}
}

// Start is Engine.Start for the Caller as the client, whose Leg has no Conn: reply is written to it before anything else. The server
// must be plain TCP.
func (c *Caller) Start(reply []byte, client, server Leg, ended func(client, server net.Conn, cause error)) (Link, error) {
	if c.fd < 0 || !plain(server.Conn) {
		return nil, errors.New("relay: not a pair of plain connections")
	}
	sfd, err := descriptor(server.Conn)
	if err != nil {
		return nil, err
	}
	k := newLink(c.loop.choose(), client, server, ended)
	k.client.fd, k.server.fd = c.take(), sfd
	k.greeting = append([]byte(nil), reply...)
	switch {
	case k.loop == c.loop:
		if c.watched {
			k.client.events = unix.EPOLLIN
		}
		k.loop.add(k)
		return k, nil
	case c.watched:
		_ = unix.EpollCtl(c.loop.epoll, unix.EPOLL_CTL_DEL, k.client.fd, nil)
	}
	if !k.loop.post(func() { k.loop.add(k) }) {
		ended(&socket{fd: k.client.fd}, &socket{fd: sfd}, ErrShutdown)
	}
	return k, nil
}

// choose is the loop for a link of a Caller: this one, unless another one has fewer.
func (l *loop) choose() *loop {
	least := l
	for _, other := range l.peers {
		if other.load.Load()+1 < least.load.Load() {
			least = other
		}
	}
	return least
}

// forget stops watching a guest.
func (l *loop) forget(fd int) {
	if _, ok := l.front[fd]; ok {
		delete(l.front, fd)
		_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

// dismiss ends what waits for guests.
func (l *loop) dismiss(why error, due func(*Caller) bool) {
	var callers []*Caller
	for _, g := range l.front {
		if c, ok := g.(*Caller); ok && c.heard != nil && due(c) {
			callers = append(callers, c)
		}
	}
	for _, c := range callers {
		c.tell(nil, why)
	}
}
