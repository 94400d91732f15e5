package relay

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// await does long work elsewhere; the loop watches the side's socket for its end, which it would not notice behind unread input.
func (s *side) await(work func(done <-chan struct{})) {
	k := s.link
	if k.done == nil {
		k.done = make(chan struct{})
	}
	s.async, s.watched = true, true
	done := k.done
	go func() {
		work(done)
		k.loop.post(s.resume)
	}()
}

// watch does long work and watches conn for its end. It is false when the pair ends.
func (p *pair) watch(conn net.Conn, gone error, work func(done <-chan struct{})) bool {
	p.mu.Lock()
	if p.cause != nil {
		p.mu.Unlock()
		return false
	}
	if p.done == nil {
		p.done = make(chan struct{})
	}
	p.mu.Unlock()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if awaitHangUp(conn) {
			p.end(gone)
		}
	}()
	work(p.done)
	// This ends the watch; where the pair ends, its own deadline does.
	p.setReadDeadline(conn, time.Unix(1, 0))
	<-watched
	return p.setReadDeadline(conn, time.Time{})
}

// awaitHangUp reads nothing. It is true when the other end of a TCP connection has closed its direction or all of it, and false when
// the read deadline comes before that, or where there is no socket to ask.
func awaitHangUp(conn net.Conn) (hungUp bool) {
	for {
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = outer.NetConn()
	}
	asker, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := asker.SyscallConn()
	if err != nil {
		return false
	}
	// The runtime's poller wakes this for each arrival and for the end. POLLRDHUP is seen behind what has not been read; poll(2).
	_ = raw.Read(func(fd uintptr) bool {
		state := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(state, 0)
		hungUp = err == nil && n > 0 && state[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
		return hungUp
	})
	return hungUp
}
