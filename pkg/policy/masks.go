package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/mask"
)

// minHashKey is the length, in bytes, that a key of hashes has at least.
const minHashKey = 16

// Masks are what results do not show to the session; nil when nothing is masked. Sessions that the same policies of a Set are for
// have the very same.
func (g Grant) Masks() *mask.Rules {
	if g.grant == nil {
		return nil
	}
	return g.masks
}

// masks are rules that were made already, by the names of their policies.
type masks struct {
	mu   sync.Mutex
	made map[string]*mask.Rules
}

func (m *masks) of(sources []mask.Source) *mask.Rules {
	var names []string
	for _, s := range sources {
		if len(s.Masks) > 0 {
			names = append(names, s.Policy)
		}
	}
	if len(names) == 0 {
		return nil
	}
	key := strings.Join(names, "/")
	m.mu.Lock()
	defer m.mu.Unlock()
	rules, ok := m.made[key]
	if !ok {
		rules = mask.Compile(sources)
		if m.made == nil {
			m.made = map[string]*mask.Rules{}
		}
		m.made[key] = rules
	}
	return rules
}

// Keyed is the Set with the keys of its policies' hashes, which read reads; without them, what is to be hashed is NULL. The Set's
// grants of before have none.
func (s *Set) Keyed(read func(v1alpha1.SecretSource) ([]byte, error)) (*Set, error) {
	keyed := &Set{policies: slices.Clone(s.policies)}
	for i, p := range keyed.policies {
		source := p.masks.Masking.HashKey
		if source == nil {
			continue
		}
		key, err := read(*source)
		switch {
		case err != nil:
			return nil, fmt.Errorf("policy %s: spec.masking.hashKey: %w", p.name, err)
		case len(key) < minHashKey:
			return nil, fmt.Errorf("policy %s: spec.masking.hashKey: it has %d bytes; expected %d at least", p.name, len(key), minHashKey)
		}
		with := *p
		with.masks.Key = key
		keyed.policies[i] = &with
	}
	return keyed, nil
}
