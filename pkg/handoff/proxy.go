package handoff

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"time"
)

// sendTimeout is how long a proxy may leave its socket full before it is dropped.
const sendTimeout = 10 * time.Second

// proxy is one connected proxy, seen from the server. The fields after queue are guarded by the server's lock.
type proxy struct {
	conn *net.UnixConn
	pid  uint32

	lock    sync.Mutex
	queue   []outgoing
	events  int // in the queue
	stopped bool
	wake    chan struct{}

	given    map[uint64]uint64 // generations by workload that it was given
	enrolled map[uint64]uint64 // generations by workload that it has taken over
	offered  bool              // it has offered all that it has
	leaving  bool              // it accepts no more connections
	answered uint64            // the newest revision that it answered for
	applied  uint64            // the newest revision that it applied
	refusal  string            // why it did not apply the answered one
}

// outgoing is a message before its descriptors are made.
type outgoing struct {
	message   *message
	documents *Documents
	listeners []*net.TCPListener
	content   []byte
	person    *net.UnixConn // closed when it was sent, and when it can not be
}

func newProxy(conn *net.UnixConn, pid uint32) *proxy {
	return &proxy{
		conn:     conn,
		pid:      pid,
		wake:     make(chan struct{}, 1),
		given:    map[uint64]uint64{},
		enrolled: map[uint64]uint64{},
	}
}

// put queues a message and never blocks; a status replaces one that was not sent yet, and events beyond the most that may
// wait are dropped: capture has logged them.
func (p *proxy) put(out outgoing) {
	p.lock.Lock()
	if p.stopped {
		out.drop()
	}
	last := len(p.queue) - 1
	switch kind := out.message.Kind; {
	case last >= 0 && kind == kindStatus && p.queue[last].message.Kind == kindStatus:
		p.queue[last] = out
	case kind == kindEvent && p.events >= maxQueuedEvents:
	default:
		if kind == kindEvent {
			p.events++
		}
		p.queue = append(p.queue, out)
	}
	p.lock.Unlock()
	p.signal()
}

// stop ends write.
func (p *proxy) stop() {
	p.lock.Lock()
	p.stopped = true
	for _, out := range p.queue {
		out.drop()
	}
	p.lock.Unlock()
	p.signal()
}

func (p *proxy) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// write sends what is queued until stop, or until the socket breaks.
func (p *proxy) write() error {
	for range p.wake {
		p.lock.Lock()
		queue, stopped := p.queue, p.stopped
		p.queue, p.events = nil, 0
		p.lock.Unlock()
		if stopped {
			return nil
		}
		for i, out := range queue {
			err := p.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
			if err == nil {
				err = p.send(out)
			}
			if err != nil {
				for _, out := range queue[i:] {
					out.drop()
				}
				return err
			}
		}
	}
	return nil
}

// send makes the descriptors of a message and sends it.
func (p *proxy) send(out outgoing) error {
	switch {
	case out.documents != nil:
		file, err := content(out.documents)
		if err != nil {
			return err
		}
		defer file.Close()
		return send(p.conn, out.message, int(file.Fd()))
	case out.content != nil:
		file, err := sealed(out.content)
		clear(out.content)
		if err != nil {
			return err
		}
		defer file.Close()
		return send(p.conn, out.message, int(file.Fd()))
	case out.person != nil:
		return sendPerson(p.conn, out)
	case out.listeners != nil:
		return sendListeners(p.conn, out.message, out.listeners, nil)
	}
	return send(p.conn, out.message)
}

// sendListeners collects the descriptors of listeners, each held while the message is sent. A listener that is closed
// belongs to a workload that was withdrawn meanwhile: there is nothing to send.
func sendListeners(conn *net.UnixConn, m *message, listeners []*net.TCPListener, descriptors []int) error {
	if len(listeners) == 0 {
		return send(conn, m, descriptors...)
	}
	raw, err := listeners[0].SyscallConn()
	if err != nil {
		return fmt.Errorf("hand over a listener: %w", err)
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		sent = sendListeners(conn, m, listeners[1:], append(descriptors, int(fd)))
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return errors.Join(err, sent)
}

// read takes the proxy's messages until the socket breaks; nil is a clean close.
func (p *proxy) read(s *Server) error {
	buffer := make([]byte, maxMessageBytes)
	greeted := false
	for {
		m, files, err := receive(p.conn, buffer)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if greeted && m.Kind == kindOffer {
			s.offered(m, files)
			continue
		}
		closeAll(files)
		switch {
		case m.Kind == kindHello && m.Version != version:
			return fmt.Errorf("the proxy speaks version %d of the protocol, not %d", m.Version, version)
		case m.Kind == kindHello:
			greeted = true
		case !greeted:
			return fmt.Errorf("%w: %s before hello", errMessage, m.Kind)
		case m.Kind == kindApplied:
			s.applied(p, m)
		case m.Kind == kindEnrolled:
			s.enrolled(p, m)
		case m.Kind == kindRead:
			p.put(s.file(m))
		case m.Kind == kindOffered:
			s.offeredAll(p)
		case m.Kind == kindLeave:
			s.left(p)
		default:
			return fmt.Errorf("%w: %s from a proxy", errMessage, m.Kind)
		}
	}
}

func (s *Server) applied(p *proxy, m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.answered, p.refusal = m.Revision, m.Error
	if m.Error == "" {
		p.applied = m.Revision
	}
	s.announce()
}

func (s *Server) enrolled(p *proxy, m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.given[m.ID] == m.Generation {
		p.enrolled[m.ID] = m.Generation
	}
	s.announce()
}

// file answers a request to read a file, which must be named by the documents in force.
func (s *Server) file(m *message) outgoing {
	answer := &message{Kind: kindFile, Request: m.Request}
	s.mu.Lock()
	_, named := s.files[m.Path]
	s.mu.Unlock()
	if !named {
		answer.Error = fmt.Sprintf("read %s: no document names it", m.Path)
		return outgoing{message: answer}
	}
	content, err := readRegular(m.Path)
	if err != nil {
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		answer.Error = fmt.Sprintf("read %s: %v", m.Path, err)
		return outgoing{message: answer}
	}
	return outgoing{message: answer, content: content}
}
