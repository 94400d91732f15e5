package capture

import (
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// byNFT makes the program capture by nftables.
const byNFT = "--capture=nft"

func TestNoWayOfOpeningASocketReachesATargetByNFT(t *testing.T) {
	c := newCaptured(t, byNFT)
	mapped := netip.AddrPortFrom(netip.AddrFrom16(c.db4.Addr().As16()), c.db4.Port())
	// Where a kernel knows a protocol, its packets are dropped.
	const unknown = "EPROTONOSUPPORT ESOCKTNOSUPPORT EPERM EINPROGRESS"
	for _, test := range []struct {
		name, how string
		to        netip.AddrPort
		want      string // any of these
		reason    string // the counter that grows; "" for none in particular
	}{
		{"connect over IPv4", "connect", c.db4, "proxy", "captured"},
		{"connect over IPv6", "connect", c.db6, "proxy", "captured"},
		{"connect to an IPv4 address from an IPv6 socket", "connect", mapped, "proxy", "captured"},
		{"sendto with MSG_FASTOPEN", "fastopen", c.db4, "proxy", "captured"},
		{"sendto with MSG_FASTOPEN over IPv6", "fastopen", c.db6, "proxy", "captured"},
		{"TCP_FASTOPEN_CONNECT and a write", "fastopen-connect", c.db4, "proxy", "captured"},
		{"MPTCP", "mptcp", c.db4, "proxy", "captured"},
		{"MPTCP over IPv6", "mptcp", c.db6, "proxy", "captured"},
		{"MPTCP with MSG_FASTOPEN", "mptcp-fastopen", c.db4, "proxy ENOTSUP", ""},
		{"io_uring, inline", "uring", c.db4, "proxy", "captured"},
		{"io_uring, by a worker", "uring-async", c.db4, "proxy", "captured"},
		{"io_uring, by the kernel's polling thread", "uring-sqpoll", c.db4, "proxy", "captured"},
		{"io_uring over IPv6", "uring-async", c.db6, "proxy", "captured"},
		{"a mark that another agent would exempt", "mark", c.db4, "proxy", "captured"},
		{"TCP_REPAIR", "repair", c.db4, "ECONNRESET EPIPE ECONNREFUSED", ""},
		{"UDP, unconnected", "udp", c.db4, "EPERM", "denied_udp"},
		{"UDP, connected", "udp-connect", c.db4, "EPERM", "denied_udp"},
		{"UDP over IPv6", "udp", c.db6, "EPERM", "denied_udp"},
		{"UDP, connected, over IPv6", "udp-connect", c.db6, "EPERM", "denied_udp"},
		{"UDP to an IPv4 address from an IPv6 socket", "udp", mapped, "EPERM", "denied_udp"},
		// The kernel resets a connection that it knows no socket of.
		{"a raw socket", "raw", c.db4, "sent", "captured"},
		{"SCTP, one to one", "sctp", c.db4, unknown, ""},
		{"SCTP, one to many", "seqpacket", c.db4, unknown, ""},
		{"DCCP", "dccp", c.db4, unknown, ""},
		{"UDP-Lite", "udplite", c.db4, unknown, ""},
		{"SMC", "smc", c.db4, "proxy " + unknown, ""},
		{"a nested network namespace", "nested-connect", c.db4, "ENETUNREACH", ""},
		{"a nested network namespace over IPv6", "nested-connect", c.db6, "ENETUNREACH EADDRNOTAVAIL", ""},
		// The proxy closes what has no origin.
		{"the listener itself", "connect", c.listener(), "", ""},
		{"the listener's port, bound beside it", "bind", c.listener(), "EADDRINUSE", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := uint64(0)
			if test.reason != "" {
				before = c.counter(t, test.reason)
			}
			got := c.probe(t, test.how, test.to)
			if got != test.want && !slices.Contains(strings.Fields(test.want), got) {
				t.Errorf("%q: want %q", got, test.want)
			}
			if test.reason != "" {
				if grown := c.counter(t, test.reason) - before; grown != 1 {
					t.Errorf("%s grew by %d: want 1", test.reason, grown)
				}
			}
			c.none(t, c.pod)
		})
	}
	if origin := get(c.proxied, func() handoff.Origin { return c.proxied.origin }); !origin.ProcessUnknown || origin.WorkloadID != c.id {
		t.Errorf("the last origin is %+v", origin)
	}
}

// A workload that is root in its own network namespace can add rules, and reaches no target by any: ours are the first to
// translate and the last to judge, and, where the kernel knows owners of tables, nobody else's to change.
func TestRulesOfAWorkloadsOwnReachNoTarget(t *testing.T) {
	c := newCaptured(t, byNFT)
	decoy := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), c.db4.Port())
	for _, test := range []struct {
		name, rules string
		how         string
		to          netip.AddrPort
		want        string
	}{
		{"no tracking", "chain out {type filter hook output priority -300; notrack; }", "connect", c.db4, "ECONNREFUSED"},
		{"a translation before ours", "chain out {type nat hook output priority -199; ip daddr 192.0.2.9 dnat to DB; }", "connect", decoy, "ECONNREFUSED"},
		{"a late translation", "chain out {type nat hook output priority 2147483647; ip daddr 192.0.2.9 dnat to DB; }", "connect", decoy, "ECONNREFUSED"},
		// A connection would be tried for minutes: nobody answers.
		{"a destination written over", "chain out {type filter hook output priority 2147483647; ip daddr 192.0.2.9 ip daddr set DB; }", "udp", decoy, "EPERM"},
		{
			"everything accepted, early and late",
			"chain early {type nat hook output priority -199; accept; }\nchain late {type filter hook output priority 2147483647; accept; }",
			"connect", c.db4, "proxy",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.nft(t, "table ip evil {\n"+strings.ReplaceAll(test.rules, "DB", c.db4.Addr().String())+"\n}")
			defer c.nft(t, "delete table ip evil")
			if got := c.probe(t, test.how, test.to); got != test.want {
				t.Errorf("%s: want %s", got, test.want)
			}
			c.none(t, c.pod)
		})
	}
	// Before Linux 6.9 there is a moment until the rules are back.
	if kernelAtLeast(t, 6, 9) {
		c.nft(t, "flush ruleset")
		if got := c.probe(t, "connect", c.db4); got != "proxy" {
			t.Errorf("everything flushed: %s", got)
		}
		c.none(t, c.pod)
	}
}

// nft gives rules to the pod's network namespace, as the workload.
func (c *captured) nft(t *testing.T, rules string) {
	t.Helper()
	var said strings.Builder
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin, cmd.Stderr = strings.NewReader(rules+"\n"), &said
	if err := c.pod.start(cmd, true).Wait(); err != nil {
		t.Fatalf("nft: %s: %v: %s", rules, err, said.String())
	}
}

// The oracle sits before the guard, so that the judge is who sees the frame on its way to the database.
func TestPacketSocketReachesNothingByNFT(t *testing.T) {
	c := newCaptured(t, byNFT)
	if !c.active(t, "device") {
		t.Fatal("the device guard is not active")
	}
	before := c.counter(t, "denied_packet")
	if got := c.probe(t, "packet", c.db4); got != "sent" {
		t.Errorf("got %s", got)
	}
	c.node.wait("the frame to be dropped", func() bool { return c.counter(t, "denied_packet") == before+1 })
}

func TestDeadAgentsRulesRefuse(t *testing.T) {
	n := newNode(t)
	n.mkdir("/named")
	c := &captured{node: n, pod: n.pod("/named/shop")}
	c.pause()
	c.db4, c.db6 = c.serve()
	n.protect(n.base+"/named/*", c.db4, c.db6)
	agent := n.start(byNFT)
	c.proxied = n.proxy()
	c.await(t)
	c.sniffer = c.sniff()
	// The proxy serves on without the agent, and nobody is there without the proxy.
	stop(agent, syscall.SIGKILL)
	if got := c.probe(t, "connect", c.db4); got != "proxy" {
		t.Errorf("without the agent: %s", got)
	}
	c.proxied.stop()
	for _, db := range []netip.AddrPort{c.db4, c.db6} {
		if got := c.probe(t, "connect", db); got != "ECONNREFUSED" {
			t.Errorf("without both: %s", got)
		}
	}
	c.none(t, c.pod)
	n.start(byNFT)
	c.proxied = n.proxy()
	c.await(t)
	if got := c.probe(t, "connect", c.db4); got != "proxy" {
		t.Errorf("with the next agent: %s", got)
	}
	c.none(t, c.pod)
}

func TestForeignProgramMakesAutoCaptureByNFT(t *testing.T) {
	n := newNode(t)
	shop := n.mkdir("/shop")
	defer attachExclusively(t, n.hierarchy.Dir(n.base))()
	n.document(shop)
	n.start()
	p := n.proxy()
	n.wait("capture to be effective", func() bool { return n.status().Effective })
	status := n.status()
	if status.Mode != handoff.ModeNFT || !strings.Contains(status.ModeReason, "a foreign BPF program is attached exclusively") || len(status.Limits) == 0 {
		t.Errorf("got %+v", status)
	}
	if got := n.dial(shop, n.database); got != "proxy" {
		t.Errorf("got %s", got)
	}
	n.wait("the proxy to know", func() bool {
		return get(p, func() bool { return p.status.Mode == handoff.ModeNFT && p.status.ModeReason != "" })
	})
}

// attachExclusively attaches a program that allows everything to a cgroup in the old way, and returns what detaches it.
func attachExclusively(t *testing.T, dir string) (detach func()) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cgroup, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer cgroup.Close()
	if err := link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(cgroup.Fd()), Program: program, Attach: ebpf.AttachCGroupInet4Connect,
	}); err != nil {
		t.Fatal(err)
	}
	id, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	number, ok := id.ID()
	if !ok {
		t.Fatal("a program without an id")
	}
	return func() {
		again, err := ebpf.NewProgramFromID(number)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		cgroup, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer cgroup.Close()
		if err := link.RawDetachProgram(link.RawDetachProgramOptions{
			Target: int(cgroup.Fd()), Program: again, Attach: ebpf.AttachCGroupInet4Connect,
		}); err != nil {
			t.Fatal(err)
		}
	}
}
