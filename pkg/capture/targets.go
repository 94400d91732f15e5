package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// portBits are the bits of a target's key before its address.
const portBits = 32

// SetTargets makes the endpoints the ones that are captured. New ones are added before old ones are removed, so that nothing
// that is in both is ever open; on an error all old ones still stand. Connections that workloads have to new ones are ended.
func (c *Capture) SetTargets(endpoints []handoff.Endpoint) error {
	want4, want6 := canaryTargets()
	for _, endpoint := range endpoints {
		prefix, err := canonical(endpoint.Prefix)
		if err != nil {
			return fmt.Errorf("target %s: %w", endpoint.Target, err)
		}
		if prefix.Addr().Is4() {
			want4[key4(prefix, endpoint.Port)] = true
		} else {
			want6[key6(prefix, endpoint.Port)] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ports := portsOf(want4, want6)
	if err := c.protectPorts(ports, true); err != nil {
		return err
	}
	stale4, added4, err := add(c.objects.Targets4, want4)
	if err != nil {
		return err
	}
	stale6, added6, err := add(c.objects.Targets6, want6)
	if err != nil {
		return err
	}
	if added4 || added6 {
		for _, w := range c.workloads {
			if err := c.reset(w); err != nil {
				return fmt.Errorf("workload %s: %w", w.facts.Cgroup, err)
			}
		}
	}
	if err := errors.Join(remove(c.objects.Targets4, stale4), remove(c.objects.Targets6, stale6)); err != nil {
		return err
	}
	return c.protectPorts(ports, false)
}

// portsOf are the ports of targets.
func portsOf(want4 map[bpf.CaptureTarget4]bool, want6 map[bpf.CaptureTarget6]bool) bpf.CapturePortSet {
	var set bpf.CapturePortSet
	for key := range want4 {
		set.Words[key.Port/64] |= 1 << (key.Port % 64)
	}
	for key := range want6 {
		set.Words[key.Port/64] |= 1 << (key.Port % 64)
	}
	return set
}

// protectPorts writes the ports of targets: with more, beside those that are there.
func (c *Capture) protectPorts(set bpf.CapturePortSet, more bool) error {
	var there bpf.CapturePortSet
	if err := c.objects.TargetPorts.Lookup(uint32(0), &there); err != nil {
		return fmt.Errorf("read the ports of targets: %w", err)
	}
	if more {
		for i, word := range there.Words {
			set.Words[i] |= word
		}
	}
	if err := c.objects.TargetPorts.Put(uint32(0), set); err != nil {
		return fmt.Errorf("write the ports of targets: %w", err)
	}
	return nil
}

// canonical is the prefix with a v4-mapped range as IPv4, and no bits beyond its length.
func canonical(prefix netip.Prefix) (netip.Prefix, error) {
	if !prefix.IsValid() {
		return netip.Prefix{}, errors.New("an endpoint without an address")
	}
	if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

func key4(prefix netip.Prefix, port uint16) bpf.CaptureTarget4 {
	addr := prefix.Addr().As4()
	return bpf.CaptureTarget4{
		Prefixlen: portBits + uint32(prefix.Bits()),
		Port:      uint32(port),
		Addr:      binary.NativeEndian.Uint32(addr[:]),
	}
}

func key6(prefix netip.Prefix, port uint16) bpf.CaptureTarget6 {
	key := bpf.CaptureTarget6{Prefixlen: portBits + uint32(prefix.Bits()), Port: uint32(port)}
	addr := prefix.Addr().As16()
	for i := range key.Addr {
		key.Addr[i] = binary.NativeEndian.Uint32(addr[4*i:])
	}
	return key
}

// add writes the wanted keys that are missing, and yields those that are not wanted any more.
func add[K comparable](m *ebpf.Map, want map[K]bool) (stale []K, added bool, err error) {
	have := map[K]bool{}
	var (
		key   K
		value uint32
	)
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		have[key] = true
		if !want[key] {
			stale = append(stale, key)
		}
	}
	if err := entries.Err(); err != nil {
		return nil, false, fmt.Errorf("read targets: %w", err)
	}
	for key := range want {
		if have[key] {
			continue
		}
		if err := m.Put(key, uint32(1)); err != nil {
			return nil, false, fmt.Errorf("write a target: %w", err)
		}
		added = true
	}
	return stale, added, nil
}

func remove[K comparable](m *ebpf.Map, keys []K) error {
	for _, key := range keys {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove a target: %w", err)
		}
	}
	return nil
}
