package relay

import (
	"encoding/binary"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	readSize   = 128 << 10 // bytes; one read for each event
	batch      = 256       // events for each epoll_wait
	sweepEvery = time.Second
)

// A loop is one goroutine with one epoll instance. Everything below runs there alone; others reach it by post. It is not locked to a
// thread: to go on after the runtime has had its processor, it would need another thread's help, which takes long on a busy machine.
type loop struct {
	epoll, wake int
	buf         []byte  // what was just read; shared by all links of the loop
	out         Output  // of the Process call under way
	sides       []*side // by descriptor
	links       map[*link]struct{}
	load        atomic.Int64  // how many links there are; others read it
	peers       []*loop       // of the engine, this one too
	front       map[int]guest // listeners and callers, by descriptor
	later       []func()      // to be run when the events at hand are handled
	times       times
	stopped     bool
	spare       bool // there are processors (GOMAXPROCS) beside those of the loops
	quiet       bool // nothing has happened for a while

	mu     sync.Mutex
	queue  []func()
	closed bool // the descriptors are: their numbers may be another's
}

func newLoop(times times) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(ep)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &loop{epoll: ep, wake: wake, buf: make([]byte, readSize), links: map[*link]struct{}{}, front: map[int]guest{}, times: times}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}); err != nil {
		unix.Close(ep)
		unix.Close(wake)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return l, nil
}

// post runs f in the loop, soon; it is false when the loop has ended.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.queue = append(l.queue, f)
	if len(l.queue) == 1 {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(l.wake, one[:]) // full means that a wake-up is due already
	}
	return true
}

func (l *loop) run() {
	events := make([]unix.EpollEvent, batch)
	var callers []unix.EpollEvent
	began := time.Now()
	var swept time.Duration // since began: one reading of one clock
	for !l.stopped {
		n := l.wait(events)
		queued := false
		callers = callers[:0]
		for i := range n {
			fd := int(events[i].Fd)
			if fd == l.wake {
				queued = true
				continue
			}
			if fd < len(l.sides) && l.sides[fd] != nil {
				l.sides[fd].ready(events[i].Events)
				continue
			}
			callers = append(callers, events[i])
		}
		l.runLater()
		// Only here, between two batches, does a descriptor's number get a new meaning.
		if queued {
			l.runQueue()
		}
		for i := range callers {
			if g := l.front[int(callers[i].Fd)]; g != nil {
				g.ready(callers[i].Events)
			}
		}
		l.runLater()
		if now := time.Since(began); now-swept >= sweepEvery {
			swept = now
			l.sweep(time.Now())
		}
	}
	l.mu.Lock()
	l.closed = true
	queue := l.queue
	l.queue = nil
	unix.Close(l.epoll)
	unix.Close(l.wake)
	l.mu.Unlock()
	for _, f := range queue { // a link that was added meanwhile has to end too
		f()
	}
}

// wait sleeps until there are events, or until the next sweep is due.
//
// The scheduler is not told of a wait at first. Where it is told of each, it takes a busy loop for a goroutine that computes for ever:
// it takes the loop's processor away each 10 ms, and then looks every 20 µs for another one to take, which costs more than
// the waits. What it does instead, when it wants the processor (for a collection, or because the loop has had it for
// 10 ms), is to interrupt the wait by a signal. The next wait then is one that it knows of, so that an idle loop holds
// no processor and is interrupted no more. Without processors to spare other goroutines would wait for such signals.
func (l *loop) wait(events []unix.EpollEvent) int {
	const milliseconds = int(sweepEvery / time.Millisecond)
	if l.spare && !l.quiet {
		n, errno := epollWait(l.epoll, events, milliseconds)
		l.quiet = errno != 0 // EINTR
		return max(n, 0)
	}
	n, err := unix.EpollWait(l.epoll, events, milliseconds)
	if err != nil {
		return 0 // EINTR
	}
	l.quiet = n == 0
	return n
}

func (l *loop) runQueue() {
	var count [8]byte
	_, _ = unix.Read(l.wake, count[:])
	l.mu.Lock()
	queue := l.queue
	l.queue = nil
	l.mu.Unlock()
	for _, f := range queue {
		f()
	}
}

// runLater runs what was put off, and what that puts off.
func (l *loop) runLater() {
	for i := 0; i < len(l.later); i++ {
		l.later[i]()
		l.later[i] = nil
	}
	l.later = l.later[:0]
}

func (l *loop) stop() {
	for k := range l.links {
		k.end(ErrShutdown)
		k.finish()
	}
	l.stopped = true
	l.dismiss(ErrShutdown, func(*Caller) bool { return true })
}

func (l *loop) add(k *link) {
	if l.stopped {
		k.cause = ErrShutdown
		k.finish()
		return
	}
	l.links[k] = struct{}{}
	l.load.Add(1)
	for _, s := range []*side{&k.server, &k.client} {
		for len(l.sides) <= s.fd {
			l.sides = append(l.sides, nil)
		}
		l.sides[s.fd] = s
		if s.events != 0 { // it was watched before
			continue
		}
		s.events = unix.EPOLLIN
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: s.events, Fd: int32(s.fd)}); err != nil {
			k.end(os.NewSyscallError("epoll_ctl", err))
			return
		}
	}
	if len(k.greeting) > 0 {
		k.client.send([][]byte{k.greeting})
		k.greeting = nil
		if !k.ending {
			k.client.arm()
			k.server.arm()
		}
	}
	for _, s := range []*side{&k.server, &k.client} {
		if len(s.in) > 0 && !k.ending {
			s.process(s.in)
		}
	}
}

// sweep ends links whose peer left a message unfinished, or does not take the last bytes of an ended one.
func (l *loop) sweep(now time.Time) {
	l.dismiss(os.ErrDeadlineExceeded, func(c *Caller) bool { return c.overdue(now) })
	for k := range l.links {
		switch {
		case k.ending:
			if now.After(k.deadline) {
				k.finish()
			}
		case k.client.stalled(now), k.server.stalled(now):
			k.end(ErrStalled)
		}
	}
}

func epollWait(epoll int, events []unix.EpollEvent, milliseconds int) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
		uintptr(len(events)), uintptr(milliseconds), 0, 0)
	return int(n), errno
}

// read and write do not tell the scheduler: the sockets never block.
func read(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return int(n), errno
}

func write(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "relayed socket")
	defer f.Close()
	return net.FileConn(f)
}
