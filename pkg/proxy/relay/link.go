package relay

import (
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A link is a session on a loop.
type link struct {
	loop           *loop
	client, server side
	ended          func(client, server net.Conn, cause error)

	greeting []byte // for the client, before anything else
	ending   bool   // no more input; what is unwritten is still flushed
	finished bool
	cause    error
	deadline time.Time
	done     chan struct{} // closed when ending; nil until somebody waits for it
}

// A side is one socket of a link.
type side struct {
	fd       int
	link     *link
	peer     *side
	half     Half
	received Counter
	in       []byte    // offered to half and not consumed
	need     int       // bytes that half must see at once
	since    time.Time // when in began to wait
	out      []byte    // waiting until the socket takes it
	events   uint32    // registered
	paused   bool      // half waits for the other half
	async    bool      // half waits for work elsewhere
	watched  bool      // … and the socket for its end
	deaf     bool      // half wants no more input
}

// ready handles one event of the side's socket.
func (s *side) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 && len(s.out) > 0 {
		s.flush()
	}
	switch {
	case !s.link.ending && s.wantsInput():
		if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			s.receive()
		}
	case s.link.finished: // the descriptor is the caller's again
	case events&(unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLRDHUP) != 0: // the first two are reported whether asked for or not
		s.out = nil
		if s.deaf && !s.link.ending {
			_ = unix.EpollCtl(s.link.loop.epoll, unix.EPOLL_CTL_DEL, s.fd, nil) // it may go; the other side is not done
			return
		}
		if s.link.ending {
			_ = unix.EpollCtl(s.link.loop.epoll, unix.EPOLL_CTL_DEL, s.fd, nil) // or it would be reported until the link is finished
			s.link.settle()
		} else {
			s.gone()
		}
	}
}

func (s *side) wantsInput() bool { return !s.paused && !s.async && !s.deaf && len(s.peer.out) == 0 }

func (s *side) receive() {
	l := s.link.loop
	buf := l.buf
	if s.need > len(buf)/2 || len(s.in) > len(buf)/2 { // a message larger than the shared buffer gets one of its own
		// It grows with what has come: what a peer announces costs nothing.
		if room := min(max(s.need, len(s.in)+readSize/2), 2*len(s.in)+readSize/2); cap(s.in) < room {
			grown := make([]byte, len(s.in), room)
			copy(grown, s.in)
			s.in = grown
		}
		buf = s.in[:cap(s.in)]
	} else {
		copy(buf, s.in)
	}
	kept := len(s.in)
	n, errno := read(s.fd, buf[kept:])
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno != 0 || n == 0:
		s.gone()
	default:
		s.received.Add(float64(n))
		s.process(buf[:kept+n])
	}
}

// gone ends the link because the side's socket has.
func (s *side) gone() {
	if s == &s.link.client {
		s.link.end(ErrClientGone)
	} else {
		s.link.end(ErrServerGone)
	}
}

// process offers data, which begins with s.in, to the half and writes what comes out.
func (s *side) process(data []byte) {
	k, out := s.link, &s.link.loop.out
	out.Reset()
	n, err := protect(s.half, data, out)
	s.peer.send(out.forward)
	s.send(out.reply)
	if failed := settle(s.half); failed != nil {
		err = failed
	}
	s.keep(data[n:], n > 0)
	s.need = out.Need
	s.paused = out.Pause
	if out.Deaf {
		s.deaf, s.in, s.since = true, nil, time.Now()
	}
	if work := out.Async; work != nil && err == nil {
		s.async = true
		go func() {
			work()
			k.loop.post(s.resume)
		}()
	}
	if out.Await != nil && err == nil {
		s.await(out.Await)
	}
	if err != nil {
		k.end(err)
		return
	}
	if k.ending {
		return
	}
	if s.peer.paused && n > 0 {
		s.peer.paused = false
		s.peer.process(s.peer.in)
		if k.ending {
			return
		}
	}
	s.arm()
	s.peer.arm()
}

func (s *side) resume() {
	s.async, s.watched = false, false
	if !s.link.ending {
		s.process(s.in)
	}
}

// keep remembers what was not consumed; a link with nothing left over holds no memory for it.
func (s *side) keep(rest []byte, progress bool) {
	if len(rest) == 0 {
		s.in, s.since = nil, time.Time{}
		return
	}
	if progress || s.since.IsZero() {
		s.since = time.Now()
	}
	if cap(s.in) >= len(rest) {
		s.in = s.in[:len(rest)]
		copy(s.in, rest)
		return
	}
	s.in = append([]byte(nil), rest...)
}

func (s *side) stalled(now time.Time) bool {
	if s.deaf {
		return now.Sub(s.since) > s.link.loop.times.flush
	}
	return len(s.in) > 0 && s.wantsInput() && now.Sub(s.since) > s.link.loop.times.stall
}

// send writes the segments to the side's socket, and keeps what it does not take.
func (s *side) send(segments [][]byte) {
	for _, b := range segments {
		if len(s.out) == 0 {
			b = s.write(b)
		}
		s.out = append(s.out, b...)
	}
}

// write gives the socket as much of b as it takes and returns the rest.
func (s *side) write(b []byte) []byte {
	for len(b) > 0 {
		n, errno := write(s.fd, b)
		switch errno {
		case 0:
			b = b[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return b
		default:
			s.gone()
			return nil
		}
	}
	return nil
}

// flush writes what was waiting; when all is gone the other side is read again.
func (s *side) flush() {
	rest := s.write(s.out)
	if len(rest) > 0 {
		s.out = s.out[:copy(s.out, rest)]
		return
	}
	s.out = nil
	if s.link.ending {
		s.link.settle()
		return
	}
	s.arm()
	s.peer.arm()
}

// arm registers the events that the side waits for, if they changed.
func (s *side) arm() {
	var want uint32
	if s.wantsInput() && !s.link.ending {
		want |= unix.EPOLLIN
	}
	if len(s.out) > 0 {
		want |= unix.EPOLLOUT
	}
	if s.watched && !s.link.ending {
		want |= unix.EPOLLRDHUP
	}
	if want == s.events || s.link.finished {
		return
	}
	if want&^s.events&unix.EPOLLIN != 0 && len(s.in) > 0 {
		s.since = time.Now() // the peer could not go on before
	}
	s.events = want
	if err := unix.EpollCtl(s.link.loop.epoll, unix.EPOLL_CTL_MOD, s.fd, &unix.EpollEvent{Events: want, Fd: int32(s.fd)}); err != nil {
		s.link.end(os.NewSyscallError("epoll_ctl", err))
	}
}

// end stops reading; the link is finished when both sides have taken what is due to them.
func (k *link) end(err error) {
	if k.ending {
		return
	}
	k.ending, k.cause, k.deadline = true, err, time.Now().Add(k.loop.times.flush)
	if k.done != nil {
		close(k.done)
	}
	if len(k.client.out) > 0 || len(k.server.out) > 0 { // else it is finished before anything else is asked
		k.client.arm()
		k.server.arm()
	}
	// Not at once: the caller may be in the middle of a side's work.
	k.loop.later = append(k.loop.later, k.settle)
}

func (k *link) settle() {
	if gone := k.cause == ErrClientGone; gone || len(k.client.out) == 0 {
		if k.cause == ErrServerGone || gone || len(k.server.out) == 0 {
			k.finish()
		}
	}
}

func (k *link) finish() {
	if k.finished {
		return
	}
	k.finished = true
	l := k.loop
	if _, added := l.links[k]; added {
		delete(l.links, k)
		l.load.Add(-1)
	}
	for _, s := range []*side{&k.client, &k.server} {
		if s.fd < len(l.sides) && l.sides[s.fd] == s {
			l.sides[s.fd] = nil
			_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
		}
	}
	server := &socket{fd: k.server.fd}
	if len(k.server.in) > 0 {
		server.Close()
	}
	k.ended(&socket{fd: k.client.fd}, server, k.cause)
}

// Inject implements Link.
func (k *link) Inject(f func(out *Output) error) {
	k.loop.post(func() {
		if k.ending || k.finished {
			return
		}
		out := &k.loop.out
		out.Reset()
		err := f(out)
		k.client.send(out.forward)
		if err != nil {
			k.end(err)
			return
		}
		k.client.arm()
		k.server.arm()
	})
}

// A PanicError is a panic of a Half: it ends that link and no other.
type PanicError struct {
	Value any
	Stack []byte
}

// Error names the panic's value.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

func protect(h Half, p []byte, out *Output) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			out.Reset()
			n, err = len(p), &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return h.Process(p, out)
}
