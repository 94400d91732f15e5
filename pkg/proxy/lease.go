package proxy

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/credential"
)

// leaseTimeout is how long a session waits for its credential, and how long giving it back may take.
const leaseTimeout = 10 * time.Second

// A Lease is a credential that was issued for a session. It lives as long as the upstream connection that was logged in with it.
type Lease struct {
	*credential.Lease
	proxy *Proxy
}

// Issue asks the target's credential source for a lease. On a Refusal the caller tells the client and closes the session.
func (s *Session) Issue(ctx context.Context) (*Lease, *Refusal) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	source := s.Target.Spec.Credential
	lease, err := s.documents.sources.Issue(ctx, source,
		credential.Request{Workload: s.Workload.Name, Target: s.Target.Metadata.Name, Session: s.ID, Database: s.startup.Database, Role: s.grant.Role()})
	if err != nil {
		s.proxy.Metrics.leaseErrors.WithLabelValues(source).Inc()
		return nil, &Refusal{Reason: ReasonLease, Message: fmt.Sprintf("credential source %s issued no credential", source), cause: err}
	}
	s.proxy.Metrics.leases.WithLabelValues(source).Inc()
	return &Lease{lease, s.proxy}, nil
}

// Close gives the credential back.
func (l *Lease) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), leaseTimeout)
	defer cancel()
	if err := l.Release(ctx); err != nil {
		l.proxy.Metrics.leaseErrors.WithLabelValues(l.Source).Inc()
		l.proxy.Log.Error("lease not released", zap.String("source", l.Source), zap.Error(err))
	}
}
