// Package postgresrole issues leases of PostgreSQL login roles that it makes just in time and drops after use.
//
// A role is valid for a few minutes, and made valid again while it is leased. So what a crashed proxy leaves expires by itself, and
// any proxy may drop it: expired means that nobody holds it.
package postgresrole

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/credential"
	"github.com/sallyport-dev/sallyport/pkg/credential/static"
)

const (
	// validity is how long a role can be logged in with before it has to be renewed.
	validity = 5 * time.Minute
	// renewal is how often leased roles are renewed, and leftovers looked for.
	renewal = time.Minute
	// patience bounds what is done for no session.
	patience = 30 * time.Second
)

// A Source makes roles by one administrator.
type Source struct {
	name  string
	spec  v1alpha1.PostgresRole
	ttl   time.Duration
	admin *admin
	log   *zap.Logger

	mu      sync.Mutex
	held    map[string]*role // by name: leased, or being made or dropped
	shared  map[string]*role // by what sessions must have in common, for scope workload
	retired bool
	stop    context.CancelFunc
	done    chan struct{}
}

// A role is one that was made.
type role struct {
	name, password, key string
	expires             time.Time
	leases              int
	made                chan struct{} // closed when it is made, or failed to be
	err                 error
}

// New makes a source of a CredentialSource document with spec.postgresRole. It looks for leftovers at once, and renews roles until Retire.
func New(doc v1alpha1.CredentialSource, files static.Files, log *zap.Logger) (*Source, error) {
	spec := *doc.Spec.PostgresRole
	ttl, err := time.ParseDuration(spec.TTL)
	if err != nil {
		return nil, fmt.Errorf("credential source %s: spec.postgresRole.ttl: %w", doc.Metadata.Name, err)
	}
	administrator := static.New(v1alpha1.CredentialSource{Metadata: doc.Metadata, Spec: v1alpha1.CredentialSourceSpec{Static: &spec.Admin}}, files)
	ctx, stop := context.WithCancel(context.Background())
	s := &Source{
		name: doc.Metadata.Name, spec: spec, ttl: ttl, log: log.With(zap.String("source", doc.Metadata.Name)),
		admin: &admin{spec: spec, files: files, credential: administrator},
		held:  map[string]*role{}, shared: map[string]*role{}, stop: stop, done: make(chan struct{}),
	}
	go s.keep(ctx)
	return s, nil
}

// Retire ends renewal and the search for leftovers; leases that are out are still dropped when they are released. It waits.
func (s *Source) Retire() {
	s.mu.Lock()
	s.retired = true
	idle := len(s.held) == 0
	s.mu.Unlock()
	if idle {
		s.end()
	}
}

// end stops the source's own work.
func (s *Source) end() {
	s.stop()
	<-s.done
	s.admin.close()
}

// keep renews roles and drops leftovers until ctx ends.
func (s *Source) keep(ctx context.Context) {
	defer close(s.done)
	ticker := time.NewTicker(renewal)
	defer ticker.Stop()
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("roles that were left behind could not be dropped", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.renew(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("roles could not be renewed", zap.Error(err))
		}
	}
}

// Issue makes a role, or for scope workload gives one that others of the workload use.
func (s *Source) Issue(ctx context.Context, req credential.Request) (*credential.Lease, error) {
	template := merge(s.spec.Role, req.Role)
	r, mine, err := s.find(req, template)
	if err != nil {
		return nil, fmt.Errorf("credential source %s: %w", s.name, err)
	}
	if mine {
		r.err = s.make(ctx, r, req, template)
		close(r.made)
	}
	select {
	case <-r.made:
		err = r.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("credential source %s: %w", s.name, err), s.release(ctx, r))
	}
	password := credential.NewSecret([]byte(r.password))
	var once sync.Once
	return &credential.Lease{
		Source: s.name, Username: r.name, Password: password, Expires: r.expires,
		Release: func(ctx context.Context) (err error) {
			password.Clear()
			once.Do(func() { err = s.release(ctx, r) })
			return err
		},
	}, nil
}

// find is a role for a request, with a lease on it; mine says that the caller has to make it.
func (s *Source) find(req credential.Request, template v1alpha1.RoleTemplate) (r *role, mine bool, err error) {
	var key string
	if s.spec.Scope == v1alpha1.ScopeWorkload {
		encoded, err := json.Marshal([]any{req.Workload, req.Database, template})
		if err != nil {
			return nil, false, err
		}
		key = string(encoded)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// In the second half of a role's life new sessions get another one; those that have it keep it.
	if r := s.shared[key]; key != "" && r != nil && time.Until(r.expires) > s.ttl/2 {
		r.leases++
		return r, false, nil
	}
	r = &role{name: roleName(req.Workload), password: rand.Text(), key: key, expires: time.Now().Add(s.ttl), leases: 1, made: make(chan struct{})}
	s.held[r.name] = r
	if key != "" {
		s.shared[key] = r
	}
	return r, true, nil
}

// release gives a lease back; with the last one the role is dropped.
func (s *Source) release(ctx context.Context, r *role) error {
	s.mu.Lock()
	r.leases--
	last := r.leases == 0
	if last && s.shared[r.key] == r {
		delete(s.shared, r.key)
	}
	s.mu.Unlock()
	if !last {
		return nil
	}
	err := s.admin.drop(ctx, r.name)
	s.mu.Lock()
	delete(s.held, r.name) // what could not be dropped expires, and is swept
	end := s.retired && len(s.held) == 0
	s.mu.Unlock()
	if end {
		s.end()
	}
	if err != nil {
		return fmt.Errorf("credential source %s: drop role %s: %w", s.name, r.name, err)
	}
	return nil
}

// renew makes held roles valid for longer.
func (s *Source) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var errs []error
	for _, r := range s.holding() {
		until := min(time.Until(r.expires), validity)
		if until <= 0 {
			continue
		}
		if err := s.admin.renew(ctx, r.name, until); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// holding are the roles that are made and leased.
func (s *Source) holding() []*role {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*role
	for _, r := range s.held {
		select {
		case <-r.made:
			if r.err == nil && r.leases > 0 {
				all = append(all, r)
			}
		default:
		}
	}
	return all
}

// sweep drops roles that have expired, whoever made them.
func (s *Source) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dropped, err := s.admin.sweep(ctx)
	for _, name := range dropped {
		s.log.Info("dropped a role that was left behind", zap.String("role", name))
	}
	return err
}

// prefix begins the names of all roles that are made here.
const prefix = "sallyport_"

// roleName tells people whose role it is; the rest makes it unique.
func roleName(workload string) string {
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(workload))
	return prefix + base[:min(len(base), 24)] + "_" + strings.ToLower(rand.Text())[:16]
}

// merge is what both templates allow together.
func merge(a, b v1alpha1.RoleTemplate) v1alpha1.RoleTemplate {
	return v1alpha1.RoleTemplate{
		MemberOf: append(a.MemberOf[:len(a.MemberOf):len(a.MemberOf)], b.MemberOf...),
		Grants:   append(a.Grants[:len(a.Grants):len(a.Grants)], b.Grants...),
	}
}
