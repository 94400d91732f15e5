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
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/config"
	"github.com/sallyport-dev/sallyport/pkg/credential"
	"github.com/sallyport-dev/sallyport/pkg/credential/sources"
	"github.com/sallyport-dev/sallyport/pkg/credential/static"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
)

// A Protocol speaks one wire protocol on captured connections.
type Protocol interface {
	// Serve speaks with the client from its first byte to the session's end, or to where the session goes on without a
	// goroutine: see Connection.Detach. It owns c.Client and closes it.
	Serve(ctx context.Context, c *Connection)
}

// An Opener is a Protocol that can do without a goroutine of its own.
type Opener interface {
	// Open begins to serve on a relay loop's thread, so it must not block: it waits by the caller's Await, and leaves what
	// takes longer to Connection.Go. It owns the caller, which is the client; c.Client is nil.
	Open(ctx context.Context, c *Connection, caller *relay.Caller)
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
	Engine       *relay.Engine       // accepts, and relays
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
	approvals approvals

	mu        sync.Mutex
	workloads map[uint64]*served // by cgroup id
	sessions  map[*Session]struct{}
	draining  bool
	conns     sync.WaitGroup
	stop      context.CancelFunc
	ctx       context.Context
}

// documents are what is in force.
type documents struct {
	*config.Snapshot
	sources   credential.Sources
	endpoints map[uint16][]handoff.Endpoint // by port, the longest prefix first
	replaced  chan struct{}                 // closed when others are in force
	serial    uint64                        // differs between any two that this proxy was given; a restarted capture counts revisions anew
}

// served is a workload with its listeners.
type served struct {
	handoff.Workload
	listeners []*relay.Listener
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
	snapshot.Compiled, err = snapshot.Compiled.Keyed(p.hashKey)
	if err != nil {
		p.Metrics.documentErrors.Inc()
		return err
	}
	made, err := sources.New(snapshot.CredentialSources, p.Files, p.Log)
	if err != nil {
		p.Metrics.documentErrors.Inc()
		return err
	}
	next := &documents{Snapshot: snapshot, sources: made, endpoints: map[uint16][]handoff.Endpoint{}, replaced: make(chan struct{}), serial: p.serial.Add(1)}
	for _, e := range d.Endpoints {
		next.endpoints[e.Port] = append(next.endpoints[e.Port], e)
	}
	for _, list := range next.endpoints {
		slices.SortStableFunc(list, func(a, b handoff.Endpoint) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	}
	if before := p.documents.Swap(next); before != nil {
		go before.sources.Retire() // it may wait for a server
		close(before.replaced)
	}
	p.Metrics.revision.Set(float64(d.Revision))
	return nil
}

// keyTimeout is how long documents wait for the key of hashes.
const keyTimeout = 3 * time.Second

func (p *Proxy) hashKey(from v1alpha1.SecretSource) ([]byte, error) {
	ctx, cancel := context.WithTimeout(p.ctx, keyTimeout)
	defer cancel()
	return static.Read(ctx, from, p.Files)
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
	s := &served{Workload: w}
	p.mu.Lock()
	if p.draining {
		p.mu.Unlock()
		for _, l := range listeners {
			l.Close()
		}
		return
	}
	before := p.workloads[w.ID]
	p.workloads[w.ID] = s
	for _, l := range listeners {
		p.listen(s, l)
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
		Workload: record.Workload{Cgroup: e.Cgroup, PID: e.PID, UID: e.UID, Comm: e.Comm, ProcessUnknown: e.Comm == ""},
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

// Ready is "ready", with what is to be known beside, when documents are in force and capture is effective; else why not.
func (p *Proxy) Ready() (string, error) {
	s := p.captured.Load()
	switch {
	case s == nil:
		return "", errors.New("nothing was heard from capture yet")
	case !s.Effective:
		return "", errors.New("capture is not effective: " + s.Reason)
	case p.documents.Load() == nil:
		return "", errors.New("no documents are in force")
	case s.ModeReason != "":
		return fmt.Sprintf("ready; capture is by %s, because: %s", s.Mode, s.ModeReason), nil
	}
	return "ready", nil
}

func (s *served) close() {
	for _, l := range s.listeners {
		l.Close()
	}
}

// listen has the engine accept; the backlog keeps what it can not accept yet. The caller holds mu.
func (p *Proxy) listen(s *served, l *net.TCPListener) {
	failed := func(err error) { p.Log.Warn("accept", zap.String("cgroup", s.Cgroup), zap.Error(err)) }
	listener, err := p.Engine.Listen(l, func(c *relay.Caller) { p.accepted(s, c) }, failed)
	if err != nil {
		l.Close()
		failed(err)
		return
	}
	s.listeners = append(s.listeners, listener)
}

// accepted takes one accepted connection, on a loop's thread.
func (p *Proxy) accepted(s *served, caller *relay.Caller) {
	p.conns.Add(1)
	conn := &Connection{Workload: s.Workload, Accepted: time.Now(), proxy: p, documents: p.documents.Load()}
	defer func() {
		if v := recover(); v != nil {
			conn.Panicked(v)
			caller.Close()
			conn.end()
		}
	}()
	if err := p.identify(s, conn, caller.FD()); err != nil {
		caller.Close()
		conn.end()
		return
	}
	if !p.enter(conn) {
		caller.Close()
		conn.end()
		return
	}
	protocol, ok := p.Protocols[conn.Target.Spec.Protocol]
	if !ok { // documents are validated, so this is another version's
		conn.Refuse(ReasonProtocol, fmt.Sprintf("protocol %s is not known", conn.Target.Spec.Protocol))
		caller.Close()
		conn.end()
		return
	}
	if opener, ok := protocol.(Opener); ok {
		opener.Open(p.ctx, conn, caller)
		return
	}
	conn.Client = caller.Leave()
	conn.Go(func() { protocol.Serve(p.ctx, conn) })
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
		if err := s.offer(offer); err != nil {
			return err
		}
	}
	return nil
}

func (s *served) offer(offer func(handoff.Workload, []*net.TCPListener) error) error {
	var listeners []*net.TCPListener
	for _, l := range s.listeners {
		duplicate, err := l.TCP()
		if err != nil {
			return err
		}
		defer duplicate.Close()
		listeners = append(listeners, duplicate)
	}
	return offer(s.Workload, listeners)
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
