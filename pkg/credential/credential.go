// Package credential issues leases: one upstream credential each, for one workload and one target. Secrets are read late,
// held briefly, and can not be printed: a Secret is a closure, so that no verb, encoder or logger reaches its bytes.
package credential

import (
	"context"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// A Source issues leases. Implementations are safe for concurrent use.
type Source interface {
	// Issue returns a credential for one session. It obeys ctx; its errors name the source and the cause, never the secret.
	Issue(ctx context.Context, req Request) (*Lease, error)
}

// A Request says who asks for a lease, and for what.
type Request struct {
	Workload string // the workload's name
	Target   string // the target's name
	Session  string // the session's id
	Database string // that the client wants
	// Role is what policy lets a just-in-time role do.
	Role v1alpha1.RoleTemplate
}

// A Lease is one issued credential.
type Lease struct {
	Source   string // the CredentialSource's name
	Username string
	Password Secret
	// Expires is when the credential ends, and the session with it; zero when it does not.
	Expires time.Time
	// Release returns or revokes the credential; it may be called more than once. Never nil.
	Release func(ctx context.Context) error
}
