package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/config"
	"github.com/sallyport-dev/sallyport/pkg/credential"
	"github.com/sallyport-dev/sallyport/pkg/credential/sources"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/record"
)

// A Protocol speaks one wire protocol on captured connections.
type Protocol interface {
	// Serve speaks with the client from its first byte to the session's end. It owns c.Client and closes it.
	Serve(ctx context.Context, c *Connection)
}

// Certificates makes server certificates for the client leg.
type Certificates interface {
	ServerTLS(names ...string) *tls.Config
}

// Files reads files that documents name.
type Files interface {
	ReadFile(ctx context.Context, path string) ([]byte, error)
}

// Options are what a Proxy is made of; every field but Limits is needed.
type Options struct {
	Protocols    map[string]Protocol // by the name that a Target uses
	Records      *record.Store
	Certificates Certificates
	Files        Files
	Metrics      *Metrics
	Log          *zap.Logger
	Limits       Limits
}

// A Proxy serves all workloads of a node.
type Proxy struct {
	Options
	documents atomic.Pointer[documents]
	serial    atomic.Uint64
	captured  atomic.Pointer[handoff.CaptureStatus]
	quota     *quota

	mu        sync.Mutex
	workloads map[uint64]*served // by cgroup id
	sessions  map[*Session]struct{}
	draining  bool
	acceptors sync.WaitGroup
	conns     sync.WaitGroup
	stop      context.CancelFunc
	ctx       context.Context
}

// documents are what is in force.
type documents struct {
	*config.Snapshot
	sources   credential.Sources
	endpoints map[uint16][]handoff.Endpoint // by port, the longest prefix first
	serial    uint64                        // differs between any two that this proxy was given; a restarted capture counts revisions anew
}

// served is a workload with its listeners.
type served struct {
	handoff.Workload
	listeners []*net.TCPListener
}

// New makes a Proxy that serves nothing yet.
func New(o Options) *Proxy {
	p := &Proxy{Options: o, quota: newQuota(o.Limits), workloads: map[uint64]*served{}, sessions: map[*Session]struct{}{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// Documents puts documents in force; on an error those before them stay.
func (p *Proxy) Documents(d handoff.Documents) error {
	snapshot, err := config.Parse(d.Files)
	if err != nil {
		p.Metrics.documentErrors.Inc()
		return err
	}
	made, err := sources.New(snapshot.CredentialSources, p.Files, p.Log)
	if err != nil {
		p.Metrics.documentErrors.Inc()
		return err
	}
	next := &documents{Snapshot: snapshot, sources: made, endpoints: map[uint16][]handoff.Endpoint{}, serial: p.serial.Add(1)}
	for _, e := range d.Endpoints {
		next.endpoints[e.Port] = append(next.endpoints[e.Port], e)
	}
	for _, list := range next.endpoints {
		slices.SortStableFunc(list, func(a, b handoff.Endpoint) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	}
	if before := p.documents.Swap(next); before != nil {
		go before.sources.Retire() // it may wait for a server
	}
	p.Metrics.revision.Set(float64(d.Revision))
	return nil
}

// target finds the target that a destination belongs to.
func (d *documents) target(destination netip.AddrPort) *v1alpha1.Target {
	for _, e := range d.endpoints[destination.Port()] {
		if e.Prefix.Contains(destination.Addr()) {
			if t, ok := d.Targets[e.Target]; ok {
				return &t
			}
		}
	}
	return nil
}

// Enroll serves a workload on its listeners, which are the Proxy's from here on.
func (p *Proxy) Enroll(w handoff.Workload, listeners []*net.TCPListener) {
	s := &served{Workload: w, listeners: listeners}
	p.mu.Lock()
	if p.draining {
		p.mu.Unlock()
		s.close()
		return
	}
	before := p.workloads[w.ID]
	p.workloads[w.ID] = s
	for _, l := range listeners {
		p.acceptors.Go(func() { p.accept(s, l) })
	}
	p.mu.Unlock()
	if before != nil {
		before.close()
	}
	p.Log.Info("workload enrolled", zap.String("cgroup", w.Cgroup), zap.Uint64("id", w.ID))
}

// Withdraw stops serving a workload; its sessions go on.
func (p *Proxy) Withdraw(id uint64) {
	p.mu.Lock()
	s := p.workloads[id]
	delete(p.workloads, id)
	p.mu.Unlock()
	if s != nil {
		s.close()
		p.Log.Info("workload withdrawn", zap.String("cgroup", s.Cgroup), zap.Uint64("id", id))
	}
}

// CaptureStatus publishes what the privileged half says of itself.
func (p *Proxy) CaptureStatus(s handoff.CaptureStatus) {
	p.Metrics.capture(s)
	p.captured.Store(&s)
}

// CaptureEvent records a denial by the kernel; the privileged half logs and counts it.
func (p *Proxy) CaptureEvent(e handoff.CaptureEvent) {
	meta := record.Meta{
		Protocol: e.Protocol,
		Workload: record.Workload{Cgroup: e.Cgroup, PID: e.PID, UID: e.UID, Comm: e.Comm},
	}
	if e.Cgroup != "" { // it is a workload's
		meta.Workload.Name = path.Base(e.Cgroup)
	}
	if e.Destination.IsValid() {
		meta.Destination = e.Destination.String()
		if d := p.documents.Load(); d != nil {
			if t := d.target(e.Destination); t != nil {
				meta.Target = t.Metadata.Name
			}
		}
	}
	p.Records.Refuse(e.Reason, meta)
}

// Ready is nil when documents are in force and capture is effective.
func (p *Proxy) Ready() error {
	s := p.captured.Load()
	switch {
	case s == nil:
		return errors.New("nothing was heard from capture yet")
	case !s.Effective:
		return errors.New("capture is not effective: " + s.Reason)
	case p.documents.Load() == nil:
		return errors.New("no documents are in force")
	}
	return nil
}

func (s *served) close() {
	for _, l := range s.listeners {
		l.Close()
	}
}

func (p *Proxy) accept(s *served, l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.Log.Warn("accept", zap.String("cgroup", s.Cgroup), zap.Error(err))
			time.Sleep(50 * time.Millisecond) // out of descriptors, mostly: the backlog keeps
			continue
		}
		p.conns.Add(1)
		go p.serve(s, c)
	}
}

// serve takes one accepted connection to its end.
func (p *Proxy) serve(s *served, c *net.TCPConn) {
	defer p.conns.Done()
	defer func() {
		if v := recover(); v != nil {
			p.Metrics.panics.Inc()
			p.Log.Error("panic in a session", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
			c.Close()
		}
	}()
	conn, err := p.identify(s, c)
	if err != nil {
		c.Close()
		return
	}
	leave, ok := p.enter(conn)
	defer leave()
	if !ok {
		c.Close()
		return
	}
	protocol, ok := p.Protocols[conn.Target.Spec.Protocol]
	if !ok { // documents are validated, so this is another version's
		conn.Refuse(ReasonProtocol, fmt.Sprintf("protocol %s is not known", conn.Target.Spec.Protocol))
		c.Close()
		return
	}
	protocol.Serve(p.ctx, conn)
}

// live is true while the workload that a listener was made for is enrolled. It may have been handed over again meanwhile.
func (p *Proxy) live(s *served) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.workloads[s.ID]
	return now != nil && now.Generation == s.Generation
}

// Offer calls offer for each workload with its listeners, which stay the Proxy's; it stops at an error. A Proxy that drains has
// none.
func (p *Proxy) Offer(offer func(handoff.Workload, []*net.TCPListener) error) error {
	p.mu.Lock()
	var all []*served
	if !p.draining {
		all = slices.Collect(maps.Values(p.workloads))
	}
	p.mu.Unlock()
	for _, s := range all {
		if err := offer(s.Workload, s.listeners); err != nil {
			return err
		}
	}
	return nil
}

func (p *Proxy) add(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions[s] = struct{}{}
}

func (p *Proxy) remove(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, s)
}
