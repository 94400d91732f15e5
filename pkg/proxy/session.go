package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/pki"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// dialTimeout bounds the TCP connection to an upstream.
const dialTimeout = 10 * time.Second

// A Session is an authorized connection: it has a record and a say on every operation. Its methods, but those that say
// otherwise, are called by one goroutine at a time.
type Session struct {
	*Connection
	// ID names the session everywhere.
	ID      string
	startup Startup
	record  *record.Session
	subject policy.Subject
	grant   policy.Grant

	last struct { // the decision that was counted last, and its counter
		policy, rule string
		action       policy.Action
		counter      prometheus.Counter
	}

	operations atomic.Uint64 // admitted or denied so far

	once    sync.Once
	drainMu sync.Mutex
	onDrain func()
	drained bool
}

// renew makes d the documents that decide; it is false when none of their policies is for this session.
func (s *Session) renew(d *documents) bool {
	s.documents = d
	s.subject = policy.Subject{
		Workload: s.who(),
		Target:   policy.Target{Name: s.Target.Metadata.Name, Protocol: s.Target.Spec.Protocol},
		Session:  policy.Session{Database: s.startup.Database, User: s.startup.User, ApplicationName: s.startup.ApplicationName},
	}
	var ok bool
	s.grant, ok = d.Compiled.Grant(s.subject.Workload, s.subject.Target.Name)
	return ok
}

// Revision changes when the documents do; a decision made under another one is void.
func (s *Session) Revision() uint64 {
	if d := s.proxy.documents.Load(); d != s.documents {
		s.renew(d) // without a policy the grant is the zero one, which denies
	}
	return s.documents.serial
}

// Options say how much of an operation is recorded: its full text, its parameters' values.
func (s *Session) Options() (fullText, fullParameters bool) {
	o := s.grant.RecordOptions()
	return o.Text == "full", o.Parameters == "full"
}

// Decide is policy's word on one statement.
func (s *Session) Decide(units []sql.Unit, searchPath []string) policy.Decision {
	return s.grant.DecideStatement(units, searchPath, &s.subject)
}

// Admit records an operation with its decision, before the operation is forwarded, and counts it. On an error the operation
// must not be forwarded.
func (s *Session) Admit(op *record.Operation, d policy.Decision) (uint64, error) {
	if s.last.counter == nil || s.last.action != d.Action || s.last.rule != d.Rule || s.last.policy != d.Policy {
		s.last.policy, s.last.rule, s.last.action = d.Policy, d.Rule, d.Action
		s.last.counter = s.proxy.Metrics.decisions.WithLabelValues(s.Target.Metadata.Name, d.Policy, d.Rule, d.Action.String())
	}
	s.last.counter.Inc()
	s.operations.Add(1)
	seq, err := s.record.Operation(op)
	if err != nil {
		s.proxy.Metrics.recordErrors.Inc()
		s.proxy.Log.Error("record", zap.String("session", s.ID), zap.Error(err))
	}
	return seq, err
}

// Finish records how an operation ended.
func (s *Session) Finish(r *record.Result) { s.record.Result(r) }

// Added counts the time that deciding on an operation and recording it took.
func (s *Session) Added(d time.Duration) { s.proxy.Metrics.added.Observe(d.Seconds()) }

// Note records something that is no operation.
func (s *Session) Note(kind string, detail record.Fragment) {
	if err := s.record.Note(kind, detail); err != nil {
		s.proxy.Metrics.recordErrors.Inc()
		s.proxy.Log.Error("record", zap.String("session", s.ID), zap.Error(err))
	}
}

// Ready counts how long the session took from accept to its first operation.
func (s *Session) Ready() { s.proxy.Metrics.setup.Observe(time.Since(s.Accepted).Seconds()) }

// Dial connects to the upstream, from the proxy's own network namespace.
func (s *Session) Dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, "tcp", s.UpstreamAddress())
}

// UpstreamTLS is how the upstream leg is to be secured; nil when it is not.
func (s *Session) UpstreamTLS(ctx context.Context) (*tls.Config, error) {
	spec := s.Target.Spec.Upstream.TLS
	var ca []byte
	if spec.CA != nil {
		var err error
		if ca, err = s.proxy.Files.ReadFile(ctx, spec.CA.File); err != nil {
			return nil, fmt.Errorf("certificate authority of target %s: %w", s.Target.Metadata.Name, err)
		}
	}
	c, err := pki.UpstreamTLS(spec, ca)
	if err != nil || c == nil {
		return nil, err
	}
	if c.ServerName == "" {
		c.ServerName = s.Origin.Destination.Addr().String()
	}
	return c, nil
}

// UpstreamVerified is true when the upstream proves by TLS who it is.
func (s *Session) UpstreamVerified() bool {
	return s.Target.Spec.Upstream.TLS.Mode == v1alpha1.TLSVerifyFull
}

// FromClient counts the bytes that clients send, FromServer those of servers.
func (s *Session) FromClient() prometheus.Counter { return s.proxy.Metrics.FromClient }

// FromServer counts the bytes that servers send.
func (s *Session) FromServer() prometheus.Counter { return s.proxy.Metrics.FromServer }

// HalfPanicked counts a panic of this session's relay; it has been logged.
func (s *Session) HalfPanicked() { s.proxy.Metrics.panics.Inc() }

// Pool is how many upstream connections the target keeps between sessions, and how long; 0 is none.
func (s *Session) Pool() (size int, idle time.Duration) {
	pool := s.Target.Spec.Upstream.Pool
	if pool == nil {
		return 0, 0
	}
	idle, err := time.ParseDuration(pool.IdleTimeout)
	if err != nil { // validated
		return 0, 0
	}
	return pool.MaxIdle, idle
}

// PoolIdentity is what two sessions must share to use one upstream connection in turn; the protocol adds what it knows.
func (s *Session) PoolIdentity() []string {
	return append([]string{s.Workload.Cgroup, strconv.FormatUint(s.Workload.ID, 10), strconv.FormatUint(s.Workload.Generation, 10)}, s.TargetIdentity()...)
}

// TargetIdentity is what two sessions share that are of one target, with one upstream and one credential source, under the same documents.
func (s *Session) TargetIdentity() []string {
	return []string{s.Target.Metadata.Name, s.UpstreamAddress(), s.Target.Spec.Credential, strconv.FormatUint(s.documents.serial, 10)}
}

// OnDrain sets what is called, from any goroutine, when the proxy wants the session to end soon.
func (s *Session) OnDrain(f func()) {
	s.drainMu.Lock()
	s.onDrain = f
	drained := s.drained
	s.drainMu.Unlock()
	if drained {
		f()
	}
}

func (s *Session) drain() {
	s.drainMu.Lock()
	s.drained = true
	f := s.onDrain
	s.drainMu.Unlock()
	if f != nil {
		f()
	}
}

// Close ends the session: its record is sealed. Only the first call counts.
func (s *Session) Close(reason string) {
	s.once.Do(func() {
		s.proxy.remove(s)
		s.proxy.Metrics.sessions.WithLabelValues(s.Target.Metadata.Name).Dec()
		s.end(reason)
	})
}

// end seals the record.
func (s *Session) end(reason string) {
	if err := s.record.Close(reason); err != nil {
		s.proxy.Metrics.recordErrors.Inc()
		s.proxy.Log.Error("record not sealed", zap.String("session", s.ID), zap.Error(err))
	}
}
