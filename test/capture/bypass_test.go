package capture

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// hostile is a running probe.
type hostile struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// hostile starts a probe where start does; passage is inherited as the descriptor to pass sockets over.
func (n *node) hostile(start func(*exec.Cmd), passage *os.File, how string, to netip.AddrPort) *hostile {
	n.t.Helper()
	cmd := prober(how, to)
	if passage != nil {
		cmd.ExtraFiles = []*os.File{passage}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	start(cmd)
	n.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &hostile{Cmd: cmd, in: in, out: bufio.NewReader(out)}
}

func (h *hostile) line(t *testing.T) string {
	t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatalf("output of process %d: %q: %v", h.Process.Pid, line, err)
	}
	return strings.TrimSpace(line)
}

// say lets a probe that waits go on.
func (h *hostile) say(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(h.in, "\n"); err != nil {
		t.Fatal(err)
	}
}

// workload starts a command as the pod's workload; beside starts it in the pod's namespace alone, and outside nowhere at all.
func (p *pod) workload(cmd *exec.Cmd) { p.start(cmd, true) }
func (p *pod) beside(cmd *exec.Cmd)   { p.start(cmd, false) }
func (n *node) outside(cmd *exec.Cmd) {
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// probe runs one to its end.
func (p *pod) probe(t *testing.T, how string, to netip.AddrPort) string {
	t.Helper()
	return p.n.hostile(p.workload, nil, how, to).line(t)
}

// captured is a node with a captured pod, a database that only the agent should reach, and the oracle between them.
type captured struct {
	*node
	*pod
	*sniffer
	proxied  *proxy
	db4, db6 netip.AddrPort
	id       uint64
}

func newCaptured(t *testing.T, flags ...string) *captured {
	t.Helper()
	n := newNode(t)
	n.mkdir("/named")
	c := &captured{node: n, pod: n.pod("/named/shop")}
	c.pause()
	c.db4, c.db6 = c.serve()
	n.protect(n.base+"/named/*", c.db4, c.db6)
	n.start(flags...)
	c.proxied = n.proxy()
	c.await(t)
	c.sniffer = c.sniff()
	return c
}

// await waits until the pod is captured in its own namespace, and the proxy has its listeners.
func (c *captured) await(t *testing.T) {
	t.Helper()
	c.node.wait("the pod to be captured", func() bool {
		status := c.status()
		if !status.Effective || len(status.Workloads) != 1 {
			return false
		}
		c.id = status.Workloads[0].ID
		return get(c.proxied, func() bool { return len(c.proxied.listeners[c.id]) == 2 })
	})
}

// listener is the address of the pod's IPv4 listener.
func (c *captured) listener() netip.AddrPort {
	return get(c.proxied, func() netip.AddrPort { return c.proxied.listeners[c.id][0].Addr().(*net.TCPAddr).AddrPort() })
}

func (c *captured) counter(t *testing.T, reason string) uint64 {
	t.Helper()
	value, ok := c.status().Counters[reason]
	if !ok {
		t.Fatalf("no counter %q", reason)
	}
	return value
}

// active is whether a guard is, as the agent says.
func (c *captured) active(t *testing.T, name string) bool {
	t.Helper()
	var guards []handoff.Guard
	c.node.wait("the guards' state", func() bool {
		guards = get(c.proxied, func() []handoff.Guard { return c.proxied.status.Guards })
		return len(guards) > 0
	})
	i := slices.IndexFunc(guards, func(g handoff.Guard) bool { return g.Name == name })
	if i < 0 {
		t.Fatalf("no guard %q in %+v", name, guards)
	}
	return guards[i].Active
}

func TestNoWayOfOpeningASocketReachesATarget(t *testing.T) {
	c := newCaptured(t)
	mapped := netip.AddrPortFrom(netip.AddrFrom16(c.db4.Addr().As16()), c.db4.Port())
	// Where a kernel does not know a protocol there is nothing to deny.
	const unknown = "EPROTONOSUPPORT ESOCKTNOSUPPORT EPERM"
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
		// Before Linux 6.2 there is no such thing.
		{"MPTCP with MSG_FASTOPEN", "mptcp-fastopen", c.db4, "proxy ENOTSUP", ""},
		{"io_uring, inline", "uring", c.db4, "proxy", "captured"},
		{"io_uring, by a worker", "uring-async", c.db4, "proxy", "captured"},
		{"io_uring, by the kernel's polling thread", "uring-sqpoll", c.db4, "proxy", "captured"},
		{"io_uring over IPv6", "uring-async", c.db6, "proxy", "captured"},
		{"a mark that another agent would exempt", "mark", c.db4, "proxy", "captured"},
		// The kernel is told that a handshake took place; the listener knows of none, and resets.
		{"TCP_REPAIR", "repair", c.db4, "ECONNRESET EPIPE EPERM", ""},
		{"UDP, unconnected", "udp", c.db4, "EPERM", "denied_udp"},
		{"UDP, connected", "udp-connect", c.db4, "EPERM", "denied_udp"},
		{"UDP over IPv6", "udp", c.db6, "EPERM", "denied_udp"},
		{"UDP, connected, over IPv6", "udp-connect", c.db6, "EPERM", "denied_udp"},
		{"UDP to an IPv4 address from an IPv6 socket", "udp", mapped, "EPERM", "denied_udp"},
		{"a raw socket", "raw", c.db4, "EPERM", "denied_socket"},
		{"SCTP, one to one", "sctp", c.db4, unknown, ""},
		{"SCTP, one to many", "seqpacket", c.db4, unknown, ""},
		{"DCCP", "dccp", c.db4, unknown, ""},
		{"UDP-Lite", "udplite", c.db4, unknown, ""},
		{"SMC", "smc", c.db4, unknown, ""},
		{"a nested network namespace", "nested-connect", c.db4, "EPERM", "denied_netns"},
		{"a nested network namespace over IPv6", "nested-connect", c.db6, "EPERM", "denied_netns"},
		{"a nested network namespace with MSG_FASTOPEN", "nested-fastopen", c.db4, "EPERM", "denied_netns"},
		{"the listener itself", "connect", c.listener(), "EPERM", "denied_listener"},
		{"the listener itself with MSG_FASTOPEN", "fastopen", c.listener(), "EPERM", "denied_listener"},
		{"the listener's port, bound beside it", "bind", c.listener(), "EPERM", "denied_bind"},
		{"the listener's port, on all addresses of both families", "bind", netip.AddrPortFrom(netip.IPv6Unspecified(), c.listener().Port()), "EPERM", "denied_bind"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := uint64(0)
			if test.reason != "" {
				before = c.counter(t, test.reason)
			}
			if got := c.probe(t, test.how, test.to); !slices.Contains(strings.Fields(test.want), got) {
				t.Errorf("%s: want %s", got, test.want)
			}
			if test.reason != "" {
				if grown := c.counter(t, test.reason) - before; grown != 1 {
					t.Errorf("%s grew by %d: want 1", test.reason, grown)
				}
			}
			c.none(t, c.pod)
		})
	}
}

// AF_PACKET is below everything that a cgroup's programs see. BPF as an LSM denies the socket; tcx drops what it sends where
// it comes out, behind the oracle, so that the judge is who sees it on its way to the database.
func TestPacketSocketReachesNothing(t *testing.T) {
	c := newCaptured(t)
	if c.active(t, "family") {
		if got := c.probe(t, "packet", c.db4); got != "EPERM" {
			t.Errorf("got %s", got)
		}
		c.none(t, c.pod)
		return
	}
	before := c.counter(t, "denied_packet")
	if got := c.probe(t, "packet", c.db4); got != "sent" {
		t.Errorf("got %s", got)
	}
	if !hasTCX(t) {
		if c.active(t, "device") {
			t.Error("the device guard is said to be active on a kernel without tcx")
		}
		return
	}
	c.node.wait("the frame to be dropped", func() bool { return c.counter(t, "denied_packet") == before+1 })
	c.node.wait("the event", func() bool { return len(c.told("denied_packet")) == 1 })
	if got := c.told("denied_packet")[0]; got.WorkloadID != c.id || got.Cgroup != c.pod.cgroup || got.Destination != c.db4 || got.Protocol != "tcp" {
		t.Errorf("got %+v", got)
	}
	if !c.active(t, "device") {
		t.Error("the device guard is said to be inactive")
	}
}

// hasTCX is whether the kernel is Linux 6.6 or later.
func hasTCX(t *testing.T) bool {
	t.Helper()
	return kernelAtLeast(t, 6, 6)
}

// kernelAtLeast is whether the kernel is of a version or later.
func kernelAtLeast(t *testing.T, wantMajor, wantMinor int) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > wantMajor || major == wantMajor && minor >= wantMinor
}

func TestSocketsMadeBeforeEnrolmentAreCaptured(t *testing.T) {
	n := newNode(t)
	n.mkdir("/named")
	c := &captured{node: n, pod: n.pod("/named/shop")}
	c.pause()
	c.db4, c.db6 = c.serve()
	n.protect(n.base+"/named/*", c.db4, c.db6)
	var held, open []*hostile
	for _, to := range []netip.AddrPort{c.db4, c.db6} {
		held = append(held, n.hostile(c.workload, nil, "held", to))
		open = append(open, n.hostile(c.workload, nil, "open", to))
	}
	for _, h := range slices.Concat(held, open) {
		if got := h.line(t); got != "ready" {
			t.Fatalf("got %s", got)
		}
	}
	n.start()
	c.proxied = n.proxy()
	c.await(t)
	c.sniffer = c.sniff()
	for _, h := range held {
		h.say(t)
		if got := h.line(t); got != "proxy" {
			t.Errorf("a socket that was made before: %s", got)
		}
	}
	for _, h := range open {
		h.say(t)
		// Destroyed; where the kernel can not, its packets are dropped.
		if got := h.line(t); got != "ECONNABORTED" && got != "EAGAIN" {
			t.Errorf("a connection that was open before: %s", got)
		}
	}
	c.none(t, c.pod)
}

func TestPassedSocketsDoNotReachATarget(t *testing.T) {
	c := newCaptured(t)
	sibling := c.sibling()
	for _, test := range []struct {
		name        string
		make        string
		from, to    func(*exec.Cmd)
		want        string
		reason      string
		destination netip.AddrPort
	}{
		{"made beside the workload, dialled in it", "make", c.beside, c.workload, "EPERM", "denied_passed", c.db4},
		{"made beside the workload, dialled in it, over IPv6", "make", c.beside, c.workload, "EPERM", "denied_passed", c.db6},
		{"made on the host, dialled in the workload", "make", c.outside, c.workload, "EPERM", "denied_netns", c.db4},
		{"a datagram socket made beside the workload", "make-udp", c.beside, c.workload, "EPERM", "denied_udp", c.db4},
		{"made in the workload, dialled on the host", "make", c.workload, c.outside, "EPERM", "denied_outside", c.db4},
		{"made in the workload, dialled in another of its namespace", "make", c.workload, sibling.workload, "EPERM", "denied_outside", c.db4},
		{"made in another of its namespace, dialled in the workload", "make", sibling.workload, c.workload, "EPERM", "denied_outside", c.db6},
		// Of the one that dialled it.
		{"connected in the workload, used in another of its namespace", "pass", c.workload, sibling.workload, "proxy", "captured", c.db4},
		// It is the workload's own session, wherever it is read.
		{"connected in the workload, used beside it", "pass", c.workload, c.beside, "proxy", "captured", c.db4},
	} {
		t.Run(test.name, func(t *testing.T) {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			near, far := os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "far")
			defer near.Close()
			defer far.Close()
			before := c.counter(t, test.reason)
			maker := c.hostile(test.from, near, test.make, test.destination)
			taker := c.hostile(test.to, far, "passed", test.destination)
			maker.line(t)
			if got := taker.line(t); got != test.want {
				t.Errorf("%s: want %s", got, test.want)
			}
			if grown := c.counter(t, test.reason) - before; grown != 1 {
				t.Errorf("%s grew by %d: want 1", test.reason, grown)
			}
			c.none(t, c.pod)
		})
	}
}

// sibling is another captured workload in the same network namespace.
func (c *captured) sibling() *pod {
	other := *c.pod
	other.cgroup = c.mkdir("/named/sibling")
	other.pause()
	c.node.wait("the sibling to be captured", func() bool {
		status := c.status()
		return status.Effective && len(status.Workloads) == 2 && status.Workloads[0].NetnsCookie == status.Workloads[1].NetnsCookie
	})
	return &other
}

func TestMovedTasksDoNotReachATarget(t *testing.T) {
	c := newCaptured(t)
	c.sibling()
	c.mkdir("/named/shop/worker")
	c.mkdir("/elsewhere")
	for _, test := range []struct {
		name  string
		start func(*exec.Cmd)
		into  string
		want  string
	}{
		{"to a cgroup inside the workload", c.workload, "/named/shop/worker", "proxy"},
		{"out of the workload, with a socket made in it", c.workload, "/elsewhere", "EPERM"},
		{"into the workload, with a socket made outside", c.beside, "/named/shop", "EPERM"},
		{"from one workload into another, with its socket", c.workload, "/named/sibling", "EPERM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := c.hostile(test.start, nil, "held", c.db4)
			h.line(t)
			procs := c.hierarchy.Dir(c.base+test.into) + "/cgroup.procs"
			if err := os.WriteFile(procs, []byte(strconv.Itoa(h.Process.Pid)), 0); err != nil {
				t.Fatal(err)
			}
			h.say(t)
			if got := h.line(t); got != test.want {
				t.Errorf("%s: want %s", got, test.want)
			}
			c.none(t, c.pod)
		})
	}
}
