package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

const (
	// resolveInterval is how often names are resolved again.
	resolveInterval = 10 * time.Second
	// resolveTimeout bounds one look-up.
	resolveTimeout = 3 * time.Second
	// retention is how long an address is protected after it was last in an answer: clients cache answers, and servers give
	// a part of their addresses at a time.
	retention = 5 * time.Minute
	// resolveParallel bounds look-ups at one time.
	resolveParallel = 8
)

// lookup is net.Resolver.LookupNetIP.
type lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// A resolver turns endpoints of documents into addresses. It remembers what names stood for: a failure changes nothing.
// It is for one goroutine.
type resolver struct {
	lookup lookup
	now    func() time.Time
	known  map[string]map[netip.Addr]time.Time // when each address of a name was last in an answer
}

func newResolver(lookup lookup) *resolver {
	return &resolver{lookup: lookup, now: time.Now, known: map[string]map[netip.Addr]time.Time{}}
}

// resolve yields all endpoints, sorted, and a sentence for each name that no address is known of: what is dialled by it is
// not captured.
func (r *resolver) resolve(ctx context.Context, targets map[string]v1alpha1.Target) ([]handoff.Endpoint, []string) {
	failures := r.refresh(ctx, hostsOf(targets))
	var (
		endpoints []handoff.Endpoint
		unknown   []string
	)
	for name, target := range targets {
		for _, endpoint := range target.Spec.Endpoints {
			if endpoint.CIDR != "" {
				prefix, err := netip.ParsePrefix(endpoint.CIDR)
				if err != nil {
					unknown = append(unknown, fmt.Sprintf("target %s: %v", name, err))
					continue
				}
				endpoints = append(endpoints, handoff.Endpoint{Target: name, Prefix: prefix.Masked(), Port: uint16(endpoint.Port)})
				continue
			}
			addresses := r.known[endpoint.Host]
			if len(addresses) == 0 {
				unknown = append(unknown, fmt.Sprintf("target %s: no address of %s is known: %v", name, endpoint.Host, failures[endpoint.Host]))
			}
			for address := range addresses {
				endpoints = append(endpoints, handoff.Endpoint{
					Target: name,
					Prefix: netip.PrefixFrom(address, address.BitLen()),
					Port:   uint16(endpoint.Port),
				})
			}
		}
	}
	slices.SortFunc(endpoints, func(a, b handoff.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), a.Prefix.Addr().Compare(b.Prefix.Addr()),
			cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Port, b.Port))
	})
	slices.Sort(unknown)
	return slices.Compact(endpoints), slices.Compact(unknown)
}

// refresh looks every name up, and forgets names and addresses that are of no use any more. It yields what failed.
func (r *resolver) refresh(ctx context.Context, hosts []string) map[string]error {
	answers := make([][]netip.Addr, len(hosts))
	errs := make([]error, len(hosts))
	var group errgroup.Group
	group.SetLimit(resolveParallel)
	for i, host := range hosts {
		group.Go(func() error {
			answers[i], errs[i] = r.one(ctx, host)
			return nil
		})
	}
	_ = group.Wait() // It never fails.

	now, failures := r.now(), map[string]error{}
	for i, host := range hosts {
		if errs[i] != nil {
			failures[host] = errs[i]
			continue
		}
		known := r.known[host]
		if known == nil {
			known = map[netip.Addr]time.Time{}
			r.known[host] = known
		}
		for _, address := range answers[i] {
			known[address.WithZone("").Unmap()] = now
		}
		maps.DeleteFunc(known, func(_ netip.Addr, last time.Time) bool { return now.Sub(last) > retention })
	}
	maps.DeleteFunc(r.known, func(host string, _ map[netip.Addr]time.Time) bool { return !slices.Contains(hosts, host) })
	return failures
}

func (r *resolver) one(ctx context.Context, host string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{address}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addresses, err := r.lookup(ctx, "ip", host)
	if err == nil && len(addresses) == 0 {
		err = fmt.Errorf("it has none")
	}
	return addresses, err
}

func hostsOf(targets map[string]v1alpha1.Target) []string {
	hosts := map[string]bool{}
	for _, target := range targets {
		for _, endpoint := range target.Spec.Endpoints {
			if endpoint.Host != "" {
				hosts[endpoint.Host] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(hosts))
}
