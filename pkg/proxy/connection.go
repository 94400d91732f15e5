package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/record"
)

// Reasons for which a connection is refused; values of the metric's label.
const (
	ReasonNoOrigin   = "no_origin"        // it was not captured: somebody dialled the listener
	ReasonIdentity   = "identity"         // the kernel's word on who dialled does not fit the listener
	ReasonNoTarget   = "no_target"        // no document claims the destination (any more)
	ReasonProtocol   = "protocol"         // the client does not speak the target's protocol
	ReasonTimeout    = "timeout"          // the client did not say in time what it wants
	ReasonClientGone = "client_gone"      // the client left before it said what it wants
	ReasonTLS        = "tls"              // TLS with the client failed, or is required
	ReasonQuota      = "quota"            // the workload, or the proxy, has as many sessions as it may have
	ReasonNoPolicy   = "no_policy"        // no policy lets the workload use the target
	ReasonDenied     = "denied"           // policy denies what the client asks for at its start
	ReasonRecord     = "record"           // the record can not be written
	ReasonLease      = "lease"            // no credential was issued
	ReasonUpstream   = "upstream"         // the target can not be reached
	ReasonLogin      = "upstream_login"   // the target refused the credential
	ReasonCancel     = "cancel_not_found" // a cancel request that fits no session of the workload
)

// A Connection is an accepted connection whose workload is certain and whose target is known.
type Connection struct {
	Client    net.Conn
	Origin    handoff.Origin
	Workload  handoff.Workload
	Target    *v1alpha1.Target
	Accepted  time.Time
	proxy     *Proxy
	documents *documents
	full      string // why it can not become a session; see quota
	leave     func() // gives its place in the quota back; nil before it has one

	detached bool      // the session outlasts the goroutine that made it
	over     sync.Once // nothing is left of it
}

var errRefused = errors.New("refused")

// identify asks the kernel who dialled and compares: the listener's workload, the cgroup's and the network namespace's must be
// one, and it must be enrolled still.
func (p *Proxy) identify(s *served, conn *Connection, fd int) error {
	origin, err := s.Workload.OriginOfSocket(fd)
	if err != nil {
		return conn.refuse(ReasonNoOrigin, err.Error())
	}
	conn.Origin = origin
	switch {
	case origin.WorkloadID != s.ID, origin.Generation != s.Generation, origin.NetnsCookie != s.NetnsCookie, !p.live(s):
		return conn.refuse(ReasonIdentity, fmt.Sprintf("dialled by workload %d generation %d in namespace %d, accepted for %d generation %d in namespace %d",
			origin.WorkloadID, origin.Generation, origin.NetnsCookie, s.ID, s.Generation, s.NetnsCookie))
	case conn.documents == nil:
		return conn.refuse(ReasonNoTarget, "no documents are loaded")
	}
	if conn.Target = conn.documents.target(origin.Destination); conn.Target == nil {
		return conn.refuse(ReasonNoTarget, "no target claims the destination")
	}
	p.Metrics.captured.WithLabelValues(conn.Target.Metadata.Name).Inc()
	return nil
}

// Go has the connection served on a goroutine. When f returns nothing must be left of the connection, unless it was detached.
func (c *Connection) Go(f func()) {
	go func() {
		defer func() {
			if v := recover(); v != nil {
				c.Panicked(v)
				c.end()
			}
		}()
		f()
		if !c.detached {
			c.end()
		}
	}()
}

// Detach says that the session goes on without the goroutine, or the call, that serves it now; done must be called at its end.
func (c *Connection) Detach() (done func()) {
	c.detached = true
	return c.end
}

// end counts the connection off.
func (c *Connection) end() {
	c.over.Do(func() {
		if c.leave != nil {
			c.leave()
		}
		c.proxy.conns.Done()
	})
}

// Panicked counts and logs a panic of the connection; v is what was recovered.
func (c *Connection) Panicked(v any) {
	c.proxy.Metrics.panics.Inc()
	c.proxy.Log.Error("panic in a session", zap.String("workload", c.Workload.Cgroup), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
}

func (c *Connection) refuse(reason, detail string) error {
	c.Refuse(reason, detail)
	return errRefused
}

// Refuse counts and records that the connection became no session. detail is for the operator.
func (c *Connection) Refuse(reason, detail string) {
	c.proxy.Metrics.refused.WithLabelValues(reason).Inc()
	c.proxy.Records.Refuse(reason, c.meta())
	c.proxy.Log.Warn("connection refused", zap.String("reason", reason), zap.String("detail", detail),
		zap.String("workload", c.Workload.Cgroup), zap.Stringer("destination", c.Origin.Destination),
		zap.Uint32("pid", c.Origin.PID), zap.String("comm", c.Origin.Comm))
}

func (c *Connection) meta() record.Meta {
	m := record.Meta{
		Workload: record.Workload{
			Name: c.Workload.Name, Cgroup: c.Workload.Cgroup, PID: c.Origin.PID, UID: c.Origin.UID, Comm: c.Origin.Comm,
			ProcessUnknown: c.Origin.ProcessUnknown,
		},
	}
	if c.Origin.Destination.IsValid() {
		m.Destination = c.Origin.Destination.String()
	}
	if c.Target != nil {
		m.Target, m.Protocol, m.Upstream = c.Target.Metadata.Name, c.Target.Spec.Protocol, c.UpstreamAddress()
	}
	return m
}

// UpstreamAddress is host:port to dial: the target's own, else where the workload meant to go.
func (c *Connection) UpstreamAddress() string {
	if a := c.Target.Spec.Upstream.Address; a != "" {
		return a
	}
	return c.Origin.Destination.String()
}

// ServerTLS is how the proxy proves itself to the client.
func (c *Connection) ServerTLS() *tls.Config {
	return c.proxy.Certificates.ServerTLS(append(c.Target.Hosts(), c.Origin.Destination.Addr().String())...)
}

// Startup is what a client says of itself at its start; nothing of it is proven.
type Startup struct {
	User, Database, ApplicationName string
	// Detail is recorded as the session's startup note.
	Detail record.Fragment
}

// A Refusal is why a connection can not become a session.
type Refusal struct {
	Reason  string
	Message string // for the client
	cause   error
}

// Error is the message for the client with its cause.
func (r *Refusal) Error() string {
	if r.cause != nil {
		return r.Message + ": " + r.cause.Error()
	}
	return r.Message
}

// Authorize makes the connection a session: a policy lets the workload use the target, and a record is being written. On a Refusal the caller tells the client and calls Refuse.
func (c *Connection) Authorize(startup Startup) (*Session, *Refusal) {
	s := &Session{Connection: c, startup: startup}
	target := c.Target.Metadata.Name
	if c.full != "" {
		return nil, &Refusal{Reason: ReasonQuota, Message: c.full}
	}
	if !s.renew(c.documents) {
		return nil, &Refusal{Reason: ReasonNoPolicy, Message: fmt.Sprintf("no policy lets workload %s use target %s", c.Workload.Name, target)}
	}
	var err error
	if s.record, err = c.proxy.Records.Begin(c.meta(), record.Note{Kind: "startup", Detail: startup.Detail}); err != nil {
		c.proxy.Metrics.recordErrors.Inc()
		return nil, &Refusal{Reason: ReasonRecord, Message: "the record of the session can not be written", cause: err}
	}
	s.ID = s.record.ID()
	c.proxy.add(s)
	c.proxy.Metrics.sessions.WithLabelValues(target).Inc()
	return s, nil
}

// who is the workload as policy sees it.
func (c *Connection) who() policy.Workload {
	return policy.Workload{
		Name: c.Workload.Name, Cgroup: c.Workload.Cgroup, UID: c.Origin.UID, Comm: c.Origin.Comm, ProcessUnknown: c.Origin.ProcessUnknown,
	}
}
