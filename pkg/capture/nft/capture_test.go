package nft

import (
	"maps"
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// endpoint is a target at "prefix port" or at "address:port".
func endpoint(text string) handoff.Endpoint {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return handoff.Endpoint{Target: "db", Prefix: netip.PrefixFrom(at.Addr(), at.Addr().BitLen()), Port: at.Port()}
	}
	prefix, port, err := net.SplitHostPort(text)
	if err != nil {
		panic(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		panic(err)
	}
	return handoff.Endpoint{Target: "db", Prefix: netip.MustParsePrefix(prefix), Port: uint16(number)}
}

func TestWorkloadsConnectionsToTargetsReachItsListener(t *testing.T) {
	n := newNode(t)
	shop, other := n.mkdir("/shop"), n.mkdir("/other")
	db4, db6, open := n.database("127.9.8.7:0"), n.database("[::1]:0"), n.database("127.9.8.7:0")
	c := n.open()
	if err := c.SetTargets(endpoints(db4, db6)); err != nil {
		t.Fatal(err)
	}
	listeners := n.enrolled(c, shop).Listeners
	port := netip.MustParseAddrPort(db4).Port()
	for _, test := range []struct{ name, cgroup, network, to, want string }{
		{"over IPv4", shop, "tcp", db4, "proxy for " + db4},
		{"over IPv6", shop, "tcp", db6, "proxy for " + db6},
		{"what is no target", shop, "tcp", open, "database"},
		{"from another cgroup", other, "tcp", db4, "database"},
		{"UDP", shop, "udp", db4, "EPERM"},
		{"UDP over IPv6", shop, "udp", db6, "EPERM"},
		{"UDP to another port of the target's address", shop, "udp", netip.AddrPortFrom(netip.MustParseAddr("127.9.8.7"), port+1).String(), "sent"},
		{"UDP from another cgroup", other, "udp", db4, "sent"},
		{"the listener itself", shop, "tcp", listeners[0].Addr().String(), ""},
		{"the listener itself over IPv6", shop, "tcp", listeners[1].Addr().String(), ""},
		{"the listener itself from another cgroup", other, "tcp", listeners[0].Addr().String(), ""},
	} {
		if got := n.dial(test.cgroup, test.network, test.to); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	if err := c.Prove(t.Context()); err != nil {
		t.Error(err)
	}
	if status := c.Check(); !status.Effective || len(status.Workloads) != 1 {
		t.Errorf("got %+v", status)
	}
	want := map[string]uint64{
		captured: 2, canaryDialled: 2, deniedUDP: 2, deniedPacket: 0, deniedProtocol: 0, deniedHeader: 0, tampered: 0,
	}
	if got, err := c.Counters(); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v: want %v", got, err, want)
	}
}
