package relay

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// acceptPause is for how long a loop leaves a listener alone when there is no descriptor for another connection.
const acceptPause = 50 * time.Millisecond

// A Listener is a listening socket on which the loops accept.
type Listener struct {
	engine *Engine
	fd     int
	once   sync.Once
}

// Listen has the loops accept connections of l, which is the Listener's from then on. accepted is called on a loop's thread for
// each, and must not block; failed for an error of accept(2), after which the loop pauses a moment.
func (e *Engine) Listen(l *net.TCPListener, accepted func(*Caller), failed func(error)) (*Listener, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	fd, optErr := -1, error(nil)
	if err := raw.Control(func(p uintptr) {
		// Accepted sockets inherit both.
		optErr = errors.Join(unix.SetsockoptInt(int(p), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.SetsockoptInt(int(p), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
		if optErr == nil {
			fd, optErr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3)
		}
	}); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if optErr != nil {
		return nil, fmt.Errorf("listen: %w", optErr)
	}
	l.Close() // or the runtime's poller would wake a thread for each connection too
	listener := &Listener{engine: e, fd: fd}
	for _, loop := range e.loops {
		d := &door{listener: listener, loop: loop, accepted: accepted, failed: failed}
		loop.post(d.open)
	}
	return listener, nil
}

// TCP is a duplicate of the listening socket.
func (l *Listener) TCP() (*net.TCPListener, error) {
	fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// Close stops accepting; when it returns, accepted is not called any more. It must not be called on a loop's thread.
func (l *Listener) Close() {
	l.once.Do(func() {
		var removed sync.WaitGroup
		for _, loop := range l.engine.loops {
			removed.Add(1)
			if !loop.post(func() { loop.forget(l.fd); removed.Done() }) {
				removed.Done()
			}
		}
		removed.Wait()
		unix.Close(l.fd)
	})
}

// A door is a listener on one loop.
type door struct {
	listener *Listener
	loop     *loop
	accepted func(*Caller)
	failed   func(error)
}

func (d *door) open() {
	d.loop.front[d.listener.fd] = d
	d.watch()
}

// watch asks for connections. Of the loops that sleep, one is woken for each (EPOLLEXCLUSIVE, since Linux 4.5).
func (d *door) watch() {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: int32(d.listener.fd)}
	if err := unix.EpollCtl(d.loop.epoll, unix.EPOLL_CTL_ADD, d.listener.fd, &event); err != nil {
		d.failed(os.NewSyscallError("epoll_ctl", err))
	}
}

func (d *door) ready(uint32) {
	fd, _, err := unix.Accept4(d.listener.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
	case err != nil:
		_ = unix.EpollCtl(d.loop.epoll, unix.EPOLL_CTL_DEL, d.listener.fd, nil)
		time.AfterFunc(acceptPause, func() {
			d.loop.post(func() {
				if d.loop.front[d.listener.fd] == d {
					d.watch()
				}
			})
		})
		d.failed(os.NewSyscallError("accept4", err))
	default:
		d.accepted(&Caller{loop: d.loop, fd: fd})
	}
}
