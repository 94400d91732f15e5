package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// The canary's targets: addresses that every network namespace has a route to, at a port that nobody serves. They are targets
// for as long as capture is.
var (
	canary4 = netip.MustParseAddrPort("127.255.255.254:1")
	canary6 = netip.MustParseAddrPort("[::1]:1")
)

// A target is one range of addresses at one port.
type target struct {
	prefix netip.Prefix
	port   uint16
}

// targets are ranges of which none contains another: the sets of nftables hold no two that overlap, and two prefixes overlap
// only where one contains the other.
type targets []target

// newTargets makes them of endpoints, and adds the canary's.
func newTargets(endpoints []handoff.Endpoint) (targets, error) {
	all := targets{
		{netip.PrefixFrom(canary4.Addr(), canary4.Addr().BitLen()), canary4.Port()},
		{netip.PrefixFrom(canary6.Addr(), canary6.Addr().BitLen()), canary6.Port()},
	}
	for _, endpoint := range endpoints {
		prefix, err := capture.Canonical(endpoint.Prefix)
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", endpoint.Target, err)
		}
		all = append(all, target{prefix, endpoint.Port})
	}
	// Sorted like this, what contains a range comes right before it, or before others that it contains.
	slices.SortFunc(all, func(a, b target) int {
		return cmp.Or(cmp.Compare(a.port, b.port), a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	kept := all[:0]
	for _, one := range all {
		if last := len(kept) - 1; last >= 0 && kept[last].port == one.port && kept[last].prefix.Overlaps(one.prefix) {
			continue
		}
		kept = append(kept, one)
	}
	return kept, nil
}

// contain is whether an address is a target's.
func (t targets) contain(address netip.AddrPort) bool {
	return slices.ContainsFunc(t, func(one target) bool {
		return one.port == address.Port() && one.prefix.Contains(address.Addr().Unmap())
	})
}

// elements are those of the sets of both address families: from the first address and the port to the last address and the port.
func (t targets) elements() (of4, of6 []nftables.SetElement) {
	for _, one := range t {
		first := one.prefix.Addr().AsSlice()
		element := nftables.SetElement{Key: withPort(first, one.port), KeyEnd: withPort(last(one.prefix), one.port)}
		if one.prefix.Addr().Is4() {
			of4 = append(of4, element)
		} else {
			of6 = append(of6, element)
		}
	}
	return of4, of6
}

// withPort is an address and a port as a set keeps them: each fills whole words of 4 bytes.
func withPort(address []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(slices.Clone(address), port), 0, 0)
}

// last is the last address of a prefix.
func last(prefix netip.Prefix) []byte {
	address := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < 8*len(address); bit++ {
		address[bit/8] |= 0x80 >> (bit % 8)
	}
	return address
}
