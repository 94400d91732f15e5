package credential

import (
	"context"
	"fmt"
)

// Sources are the sources of one set of documents by the names of their CredentialSources. It is not changed once made.
type Sources map[string]Source

// Retire ends what sources do of their own accord, once no new session comes to them. Leases that are out stay good.
func (s Sources) Retire() {
	for _, source := range s {
		if r, ok := source.(interface{ Retire() }); ok {
			r.Retire()
		}
	}
}

// Issue asks the named source for a lease.
func (s Sources) Issue(ctx context.Context, source string, req Request) (*Lease, error) {
	issuer, ok := s[source]
	if !ok {
		return nil, fmt.Errorf("credential source %s: there is none of that name", source)
	}
	return issuer.Issue(ctx, req)
}
