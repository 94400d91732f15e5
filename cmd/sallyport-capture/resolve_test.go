package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// names is a resolver's world: what each name stands for now.
type names map[string][]string

func (n names) lookup(_ context.Context, _, host string) ([]netip.Addr, error) {
	answer, ok := n[host]
	if !ok {
		return nil, errors.New("no such host")
	}
	var addresses []netip.Addr
	for _, text := range answer {
		addresses = append(addresses, netip.MustParseAddr(text))
	}
	return addresses, nil
}

func target(endpoints ...v1alpha1.Endpoint) map[string]v1alpha1.Target {
	return map[string]v1alpha1.Target{"db": {Spec: v1alpha1.TargetSpec{Endpoints: endpoints}}}
}

func prefixes(endpoints []handoff.Endpoint) string {
	var list []string
	for _, endpoint := range endpoints {
		list = append(list, endpoint.Prefix.String())
	}
	return strings.Join(list, " ")
}

func TestEndpointsStandForAllTheirAddresses(t *testing.T) {
	r := newResolver(names{"db.internal": {"10.0.0.2", "::ffff:10.0.0.1", "fe80::1%eth0"}}.lookup)
	endpoints, unknown := r.resolve(t.Context(), target(
		v1alpha1.Endpoint{Host: "db.internal", Port: 5432},
		v1alpha1.Endpoint{Host: "db.internal", Port: 5432},
		v1alpha1.Endpoint{Host: "192.0.2.1", Port: 5432},
		v1alpha1.Endpoint{CIDR: "10.8.0.7/24", Port: 5432},
	))
	if got, want := prefixes(endpoints), "10.0.0.1/32 10.0.0.2/32 10.8.0.0/24 192.0.2.1/32 fe80::1/128"; got != want || len(unknown) != 0 {
		t.Errorf("got %s, %v: want %s", got, unknown, want)
	}
}

func TestResolverFailureKeepsTheLastGoodAddresses(t *testing.T) {
	world := names{"db.internal": {"10.0.0.1"}}
	now := time.Unix(0, 0)
	r := newResolver(world.lookup)
	r.now = func() time.Time { return now }
	targets := target(v1alpha1.Endpoint{Host: "db.internal", Port: 5432})
	step := func(after time.Duration, want string, wantUnknown bool) {
		t.Helper()
		now = now.Add(after)
		endpoints, unknown := r.resolve(t.Context(), targets)
		if got := prefixes(endpoints); got != want || (len(unknown) != 0) != wantUnknown {
			t.Errorf("got %q, %v: want %q", got, unknown, want)
		}
	}
	step(0, "10.0.0.1/32", false)
	delete(world, "db.internal")
	step(time.Hour, "10.0.0.1/32", false)
	world["db.internal"] = []string{}
	step(0, "10.0.0.1/32", false)
	// An address that is gone from the answers stays for a while.
	world["db.internal"] = []string{"10.0.0.1"}
	step(0, "10.0.0.1/32", false)
	world["db.internal"] = []string{"10.0.0.2"}
	step(retention, "10.0.0.1/32 10.0.0.2/32", false)
	step(time.Second, "10.0.0.2/32", false)
	// What no document names is forgotten.
	r.resolve(t.Context(), nil)
	delete(world, "db.internal")
	step(0, "", true)
}

func TestUnknownNamesAreSaid(t *testing.T) {
	r := newResolver(names{}.lookup)
	endpoints, unknown := r.resolve(t.Context(), target(v1alpha1.Endpoint{Host: "db.internal", Port: 5432}))
	if want := []string{"target db: no address of db.internal is known: no such host"}; len(endpoints) != 0 || !slices.Equal(unknown, want) {
		t.Errorf("got %v, %q: want %q", endpoints, unknown, want)
	}
}
