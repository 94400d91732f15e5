package handoff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"go.uber.org/zap"
)

// A Server is capture's side of the seam. It serves one proxy, and during an upgrade two: the newest alone is given
// workloads, all are told of documents and withdrawals. It is safe for concurrent use.
type Server struct {
	listener *net.UnixListener
	proxyUID uint32
	log      *zap.Logger

	mu        sync.Mutex
	changed   chan struct{}        // closed and replaced when a proxy comes, goes or answers
	proxies   []*proxy             // the newest last
	documents *Documents           // in force; nil before the first Publish
	files     map[string]struct{}  // what documents name
	workloads map[uint64]enrolment // by id
	status    *CaptureStatus       // the last one
	offers    map[uint64]Offer     // by workload; nil when none are taken any more
}

// enrolment is a workload with capture's own listeners: while they are open, connections wait in their backlogs, proxy or no
// proxy. They belong to whoever enrolled the workload.
type enrolment struct {
	workload  Workload
	listeners []*net.TCPListener
}

// ProxyState is what the server knows of a proxy.
type ProxyState struct {
	// Connected is true when there is one.
	Connected bool `json:"connected"`
	// PID is its process.
	PID uint32 `json:"pid,omitempty"`
	// Revision is that of the documents that it applied last; 0 for none.
	Revision uint64 `json:"revision"`
	// Error is why it did not apply the documents in force; "" when it did, or has not answered yet.
	Error string `json:"error,omitempty"`
	// Pending are the workloads whose listeners it has not taken over.
	Pending int `json:"pending,omitempty"`
	// Ready is true when it has applied the documents in force and taken over every workload.
	Ready bool `json:"ready"`
	// Leaving is true when it accepts no more connections and waits for its sessions to end.
	Leaving bool `json:"leaving,omitempty"`
}

// ErrNoProxy says that no proxy is connected.
var ErrNoProxy = errors.New("no proxy is connected")

// Listen makes the socket at path, which only proxyUID may connect to; another socket there is replaced.
func Listen(path string, proxyUID uint32, log *zap.Logger) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace %s: %w", path, err)
	}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// To connect is to write. Who connected before this line is refused by SO_PEERCRED.
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, int(proxyUID), -1)); err != nil {
		listener.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &Server{
		listener:  listener,
		proxyUID:  proxyUID,
		log:       log,
		changed:   make(chan struct{}),
		workloads: map[uint64]enrolment{},
		offers:    map[uint64]Offer{},
	}, nil
}

// Serve accepts proxies until ctx ends, and returns when all are gone.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.listener.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range s.proxies {
			p.conn.Close()
		}
	})
	defer stop()
	var proxies sync.WaitGroup
	defer proxies.Wait()
	for {
		conn, err := s.listener.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a proxy: %w", err)
		}
		proxies.Go(func() { s.serve(ctx, conn) })
	}
}

// serve serves one proxy until its socket breaks.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	uid, pid, err := Peer(conn)
	if err != nil {
		s.log.Error("refused a proxy", zap.Error(err))
		return
	}
	if uid != s.proxyUID {
		s.log.Error("refused a proxy of another user", zap.Uint32("uid", uid), zap.Uint32("pid", pid))
		return
	}
	p := newProxy(conn, pid)
	s.add(p)
	defer s.remove(p)
	// The context may have ended before add, when nobody closed this socket.
	if ctx.Err() != nil {
		return
	}
	log := s.log.With(zap.Uint32("proxy", pid))
	log.Info("proxy connected")
	writer := make(chan error, 1)
	go func() {
		err := p.write()
		conn.Close()
		writer <- err
	}()
	err = p.read(s)
	p.stop()
	conn.Close()
	if failure := <-writer; failure != nil {
		err = failure
	}
	log.Info("proxy disconnected", zap.Error(err))
}

// add makes p the newest proxy, and gives it all there is.
func (s *Server) add(p *proxy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proxies = append(s.proxies, p)
	p.put(outgoing{message: &message{Kind: kindHello, Version: version}})
	if s.documents != nil {
		p.put(outgoing{message: &message{Kind: kindDocuments}, documents: s.documents})
	}
	s.give(p)
	if s.status != nil {
		p.put(outgoing{message: &message{Kind: kindStatus, Status: s.status}})
	}
	s.announce()
}

// remove forgets p; the newest of those left gets the workloads that it lacks.
func (s *Server) remove(p *proxy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.proxies {
		if other == p {
			s.proxies = append(s.proxies[:i:i], s.proxies[i+1:]...)
			break
		}
	}
	if newest := s.newest(); newest != nil {
		s.give(newest)
	}
	s.announce()
}

// give enrols what a proxy has not been given.
func (s *Server) give(p *proxy) {
	for id, e := range s.workloads {
		if p.given[id] == e.workload.Generation {
			continue
		}
		p.given[id] = e.workload.Generation
		p.put(outgoing{message: &message{Kind: kindEnroll, Workload: &e.workload}, listeners: e.listeners})
	}
}

// newest is the newest proxy that accepts connections.
func (s *Server) newest() *proxy {
	for _, p := range slices.Backward(s.proxies) {
		if !p.leaving {
			return p
		}
	}
	return nil
}

// announce wakes those who wait; the lock is held.
func (s *Server) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Publish makes documents the ones in force: every proxy gets them, and may ask for the files that they name.
func (s *Server) Publish(documents Documents, files map[string]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.documents, s.files = &documents, files
	for _, p := range s.proxies {
		p.put(outgoing{message: &message{Kind: kindDocuments}, documents: &documents})
	}
}

// Allow lets proxies ask for files before the first Publish: one that has documents from an earlier capture goes on with them.
func (s *Server) Allow(files map[string]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = files
}

// Enroll gives a workload and its listeners to the newest proxy, and to those that come. The listeners stay the caller's,
// who closes them after Withdraw.
func (s *Server) Enroll(workload Workload, listeners []*net.TCPListener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workloads[workload.ID] = enrolment{workload: workload, listeners: listeners}
	if newest := s.newest(); newest != nil {
		s.give(newest)
	}
}

// Withdraw tells every proxy that a workload is not captured any more.
func (s *Server) Withdraw(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.workloads, id)
	for _, p := range s.proxies {
		if _, given := p.given[id]; given {
			delete(p.given, id)
			delete(p.enrolled, id)
			p.put(outgoing{message: &message{Kind: kindWithdraw, ID: id}})
		}
	}
}

// Status tells every proxy how capture is.
func (s *Server) Status(status CaptureStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = &status
	for _, p := range s.proxies {
		p.put(outgoing{message: &message{Kind: kindStatus, Status: &status}})
	}
}

// Event tells the newest proxy of a denial. Where it does not keep up, it is not told of all.
func (s *Server) Event(event CaptureEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if newest := s.newest(); newest != nil {
		newest.put(outgoing{message: &message{Kind: kindEvent, Event: &event}})
	}
}

// Proxy is the state of the proxy that serves: the newest that is ready, else the newest.
func (s *Server) Proxy() ProxyState {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range slices.Backward(s.proxies) {
		if state := s.state(p); state.Ready {
			return state
		}
	}
	if newest := s.newest(); newest != nil {
		return s.state(newest)
	}
	return ProxyState{}
}

// Proxies are the states of all proxies, the newest last.
func (s *Server) Proxies() []ProxyState {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]ProxyState, 0, len(s.proxies))
	for _, p := range s.proxies {
		states = append(states, s.state(p))
	}
	return states
}

func (s *Server) state(p *proxy) ProxyState {
	state := ProxyState{Connected: true, PID: p.pid, Revision: p.applied, Error: p.refusal, Leaving: p.leaving}
	for id, e := range s.workloads {
		if p.enrolled[id] != e.workload.Generation {
			state.Pending++
		}
	}
	state.Ready = !p.leaving && p.refusal == "" && state.Pending == 0 && s.documents != nil && p.applied == s.documents.Revision
	return state
}

// AwaitDocuments waits until the newest proxy has answered for a revision. It is ErrNoProxy when there is none, and the
// proxy's own words when it refused.
func (s *Server) AwaitDocuments(ctx context.Context, revision uint64) error {
	return s.await(ctx, func() (bool, error) {
		p := s.newest()
		switch {
		case p == nil:
			return false, ErrNoProxy
		case p.answered < revision:
			return false, nil
		case p.refusal != "":
			return false, fmt.Errorf("the proxy refused the documents: %s", p.refusal)
		}
		return true, nil
	})
}

// AwaitEnrolled waits until the newest proxy has taken over the listeners of a workload. A proxy that comes meanwhile counts;
// with none, it waits for one until ctx ends.
func (s *Server) AwaitEnrolled(ctx context.Context, id, generation uint64) error {
	return s.await(ctx, func() (bool, error) {
		if e, ok := s.workloads[id]; !ok || e.workload.Generation != generation {
			return false, fmt.Errorf("workload %d was withdrawn", id)
		}
		p := s.newest()
		return p != nil && p.enrolled[id] == generation, nil
	})
}

// await waits until done says so or fails; done is called with the lock held.
func (s *Server) await(ctx context.Context, done func() (bool, error)) error {
	for {
		s.mu.Lock()
		ok, err := done()
		changed, connected := s.changed, s.newest() != nil
		s.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if !connected {
				return fmt.Errorf("%w: %w", ErrNoProxy, ctx.Err())
			}
			return fmt.Errorf("the proxy did not answer: %w", ctx.Err())
		}
	}
}

// content encodes documents into a sealed memfd.
func content(documents *Documents) (*os.File, error) {
	data, err := json.Marshal(documents)
	if err != nil {
		return nil, fmt.Errorf("encode documents: %w", err)
	}
	if len(data) > maxDocumentsBytes {
		return nil, fmt.Errorf("documents of %d bytes are more than %d", len(data), maxDocumentsBytes)
	}
	return sealed(data)
}
