package nft

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pod is a workload with a network namespace of its own, joined to the tests' by a veth.
type pod struct {
	n         *node
	cgroup    string
	namespace *os.File
	device    string // the tests' side of the veth
	host4     netip.Addr
	host6     netip.Addr
}

var pods int

// pod makes one with a process that does nothing; it ends with the test.
func (n *node) pod(name string) *pod {
	n.t.Helper()
	pods++
	p := &pod{
		n: n, cgroup: n.mkdir(name), device: fmt.Sprintf("pod%d", pods),
		host4: netip.AddrFrom4([4]byte{198, 18, byte(pods), 1}), // RFC 2544
		host6: netip.MustParseAddr(fmt.Sprintf("fd5a:%x::1", pods)),
	}
	p.namespace = n.newNamespace()
	holder := n.start(exec.Command("sleep", "600"), p.cgroup, p.namespace)
	n.t.Cleanup(func() {
		holder.Process.Kill()
		holder.Wait()
	})
	p.host("ip link add %s type veth peer name eth0 netns %d", p.device, holder.Process.Pid)
	n.t.Cleanup(func() { exec.Command("ip", "link", "del", p.device).Run() })
	p.host("ip address add %s/24 dev %s", p.host4, p.device)
	p.host("ip -6 address add %s/64 dev %s nodad", p.host6, p.device)
	p.host("ip link set %s up", p.device)
	for _, command := range []string{
		"ip link set lo up", "ip address add " + p.host4.Next().String() + "/24 dev eth0",
		"ip -6 address add " + p.host6.Next().String() + "/64 dev eth0 nodad", "ip link set eth0 up",
		"ip route add default via " + p.host4.String(),
	} {
		if out, err := p.inside(command); err != nil {
			n.t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	return p
}

func (n *node) newNamespace() *os.File {
	n.t.Helper()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		n.t.Fatal(err)
	}
	defer own.Close()
	var made *os.File
	// From the own one and back into it.
	if err := within(own, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		made, err = os.Open("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { made.Close() })
	return made
}

func (p *pod) host(format string, arguments ...any) {
	p.n.t.Helper()
	fields := strings.Fields(fmt.Sprintf(format, arguments...))
	if out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput(); err != nil {
		p.n.t.Fatalf("%s: %v: %s", strings.Join(fields, " "), err, out)
	}
}

// inside runs a command in the pod's network namespace, beside the workload.
func (p *pod) inside(command string) (string, error) {
	p.n.t.Helper()
	fields := strings.Fields(command)
	return p.n.start(exec.Command(fields[0], fields[1:]...), p.n.base, p.namespace).output()
}

// dial dials as the workload; dialBeside from its namespace alone.
func (p *pod) dial(network, address string) string {
	p.n.t.Helper()
	return p.n.run(p.cgroup, p.namespace, dialVariable+"="+network+" "+address)
}

func (p *pod) dialBeside(network, address string) string {
	p.n.t.Helper()
	return p.n.run(p.n.base, p.namespace, dialVariable+"="+network+" "+address)
}

func TestEverythingInAPodIsTheWorkloads(t *testing.T) {
	n := newNode(t)
	shop := n.pod("/shop")
	db4 := n.database(netip.AddrPortFrom(shop.host4, 5432).String())
	db6 := n.database(netip.AddrPortFrom(shop.host6, 5432).String())
	open := n.database(netip.AddrPortFrom(shop.host4, 5433).String())
	c := n.open()
	if err := c.SetTargets(endpoints(db4, db6)); err != nil {
		t.Fatal(err)
	}
	n.enrolled(c, shop.cgroup)
	for _, test := range []struct {
		name, want string
		got        string
	}{
		{"the workload, over IPv4", "proxy for " + db4, shop.dial("tcp", db4)},
		{"the workload, over IPv6", "proxy for " + db6, shop.dial("tcp", db6)},
		{"somebody beside it", "proxy for " + db4, shop.dialBeside("tcp", db4)},
		{"UDP", "EPERM", shop.dial("udp", db4)},
		{"UDP of somebody beside it", "EPERM", shop.dialBeside("udp", db6)},
		{"what is no target", "database", shop.dial("tcp", open)},
		{"its cgroup in the agent's network namespace", "ECONNREFUSED", n.dial(shop.cgroup, "tcp", db4)},
		{"another cgroup in the agent's network namespace", "database", n.dial(n.base, "tcp", db4)},
	} {
		if test.got != test.want {
			t.Errorf("%s: %q, want %q", test.name, test.got, test.want)
		}
	}
	status := c.Check()
	if !status.Effective {
		t.Errorf("got %+v", status)
	}
	for _, g := range status.Guards {
		if !g.Active && g.Name != guardOwner { // Linux 6.9.
			t.Errorf("guard %+v", g)
		}
	}
	if err := c.Withdraw(c.IDs()[0]); err != nil {
		t.Fatal(err)
	}
	if got := shop.dial("tcp", db4); got != "database" {
		t.Errorf("withdrawn: %q", got)
	}
	if out, err := shop.inside("nft list tables"); err != nil || strings.Contains(out, n.options.Instance) {
		t.Errorf("withdrawn: %s, %v", out, err)
	}
}

func TestWorkloadThatComesToANamespaceIsCapturedThere(t *testing.T) {
	n := newNode(t)
	empty := n.mkdir("/late")
	shop := n.pod("/other")
	db := n.database(netip.AddrPortFrom(shop.host4, 5432).String())
	c := n.open()
	if err := c.SetTargets(endpoints(db)); err != nil {
		t.Fatal(err)
	}
	before := n.enrolled(c, empty)
	if moved := c.Relocate(false); len(moved) != 0 {
		t.Errorf("moved without a process: %+v", moved)
	}
	sleeper := n.start(exec.Command("sleep", "600"), empty, shop.namespace)
	defer func() {
		sleeper.Process.Kill()
		sleeper.Wait()
	}()
	moved := c.Relocate(false)
	if len(moved) != 1 || moved[0].Generation <= before.Generation || moved[0].NetnsCookie == before.NetnsCookie {
		t.Fatalf("got %+v, before it was %+v", moved, before)
	}
	n.proxy(moved[0])
	if got := shop.dialBeside("tcp", db); got != "proxy for "+db {
		t.Errorf("got %q", got)
	}
	if got := n.dial(empty, "tcp", db); got != "ECONNREFUSED" {
		t.Errorf("where its listeners were: %q", got)
	}
	if moved := c.Relocate(true); len(moved) != 0 {
		t.Errorf("moved again: %+v", moved)
	}
}

func TestProcessInAnotherNamespaceThanTheListenersIsDenied(t *testing.T) {
	n := newNode(t)
	shop, second := n.pod("/shop"), n.pod("/second")
	db := n.database(netip.AddrPortFrom(second.host4, 5432).String())
	c := n.open()
	if err := c.SetTargets(endpoints(db)); err != nil {
		t.Fatal(err)
	}
	n.enrolled(c, shop.cgroup)
	stray := n.start(exec.Command("sleep", "600"), shop.cgroup, second.namespace)
	if moved := c.Relocate(false); len(moved) != 0 {
		t.Errorf("moved: %+v", moved)
	}
	if got := n.run(shop.cgroup, second.namespace, dialVariable+"=tcp "+db); got != "ECONNREFUSED" {
		t.Errorf("in another namespace: %q", got)
	}
	stray.Process.Kill()
	stray.Wait()
	n.wait("the other namespace to be left", func() bool {
		c.Relocate(true)
		out, err := second.inside("nft list tables")
		return err == nil && !strings.Contains(out, n.options.Instance)
	})
}
