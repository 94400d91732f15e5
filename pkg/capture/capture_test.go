package capture

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// Addresses of documentation, RFC 5737 and RFC 3849: nothing answers there.
const (
	db4 = "192.0.2.10:5432"
	db6 = "[2001:db8::10]:5432"
)

func TestEveryWayToConnectIsCapturedAndItsOriginIsExact(t *testing.T) {
	t.Run("while slots are free", func(t *testing.T) { everyWayToConnect(t, func(*Capture) {}) })
	t.Run("while slots are taken", func(t *testing.T) { everyWayToConnect(t, func(c *Capture) { occupySlots(t, c, 0) }) })
	t.Run("while slots were not emptied for long", func(t *testing.T) {
		everyWayToConnect(t, func(c *Capture) { occupySlots(t, c, time.Minute) })
	})
}

func everyWayToConnect(t *testing.T, prepare func(*Capture)) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4, db6)
	prepare(c)
	e := n.enroll(c, name)
	if len(e.Listeners) != 2 {
		t.Fatalf("%d listeners: want one of each family", len(e.Listeners))
	}
	readers := map[bool]*process{false: startReader(t, e.Listeners[0]), true: startReader(t, e.Listeners[1])}

	for _, test := range []struct {
		name, how, to, want string
		v6                  bool // where it arrives
	}{
		{"IPv4", "connect", db4, db4, false},
		{"an IPv4 address from an IPv6 socket", "connect", "[::ffff:192.0.2.10]:5432", db4, false},
		{"IPv6", "connect", db6, db6, true},
		{"sendto with MSG_FASTOPEN", "fastopen", db4, db4, false},
		{"sendto with MSG_FASTOPEN over IPv6", "fastopen", db6, db6, true},
		{"sendto with MSG_FASTOPEN to a mapped address", "fastopen", "[::ffff:192.0.2.10]:5432", db4, false},
		{"TCP_FASTOPEN_CONNECT", "fastopen-connect", db4, db4, false},
		{"TCP_FASTOPEN_CONNECT over IPv6", "fastopen-connect", db6, db6, true},
		{"MPTCP", "mptcp", db4, db4, false},
		{"MPTCP over IPv6", "mptcp", db6, db6, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := start(t, dir, "dial", nil, test.how, test.to)
			got := readers[test.v6].report(t)
			if said := client.line(t); said != "connected" {
				t.Errorf("client: %s", said)
			}
			want := report{
				Origin: handoff.Origin{
					Destination: netip.MustParseAddrPort(test.want),
					WorkloadID:  e.ID, Generation: e.Generation, CgroupID: e.ID,
					NetnsCookie: e.NetnsCookie,
					PID:         uint32(client.Process.Pid),
					Comm:        "exe",
				},
				Payload: payload, UID: 65534, CapEff: "0000000000000000",
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("origin (-want +got):\n%s", diff)
			}
		})
	}
	if left := pendingEntries(t, c); left != 0 {
		t.Errorf("%d entries are left in pending", left)
	}
	if usage, err := c.usage(e.ID); err != nil || usage != 0 {
		t.Errorf("the workload still uses %d, %v", usage, err)
	}
}

func TestOriginNamesTheTaskOfADescendantCgroup(t *testing.T) {
	n := newNode(t)
	name, _ := n.cgroup("shop")
	_, dir := n.cgroup("shop/worker")
	c := n.open()
	targets(t, c, db4)
	e := n.enroll(c, name)
	r := startReader(t, e.Listeners[0])
	client := start(t, dir, "dial", func(cmd *exec.Cmd) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 1234, Gid: 1234}
	}, "connect", db4)
	got := r.report(t).Origin
	client.line(t)
	worker, err := n.options.Hierarchy.ID(name + "/worker")
	if err != nil {
		t.Fatal(err)
	}
	if got.WorkloadID != e.ID || got.CgroupID != worker || got.UID != 1234 {
		t.Errorf("got %+v: want workload %d, cgroup %d, user 1234", got, e.ID, worker)
	}
}

func TestInnermostEnrolledCgroupWins(t *testing.T) {
	n := newNode(t)
	outer, outerDir := n.cgroup("shop")
	inner, innerDir := n.cgroup("shop/worker")
	c := n.open()
	targets(t, c, db4)
	n.enroll(c, outer)
	n.enroll(c, inner)
	for cgroup, dir := range map[string]string{outer: outerDir, inner: innerDir} {
		e := n.enroll(c, cgroup)
		r := startReader(t, e.Listeners[0])
		client := start(t, dir, "dial", nil, "connect", db4)
		got := r.report(t)
		client.line(t)
		if got.Error != "" || got.Origin.WorkloadID != e.ID {
			t.Errorf("%s: got %+v: want workload %d", cgroup, got, e.ID)
		}
	}
}

func TestOtherNamesOfLoopbackDoNotAvoidCapture(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, "127.0.0.1:7777", "[::1]:7778")
	e := n.enroll(c, name)
	r4, r6 := startReader(t, e.Listeners[0]), startReader(t, e.Listeners[1])
	for _, test := range []struct {
		to, want string
		reader   *process
	}{
		{"0.0.0.0:7777", "127.0.0.1:7777", r4},
		{"[::ffff:0.0.0.0]:7777", "127.0.0.1:7777", r4},
		{"[::]:7777", "127.0.0.1:7777", r4},
		{"[::]:7778", "[::1]:7778", r6},
	} {
		client := start(t, dir, "dial", nil, "connect", test.to)
		got := test.reader.report(t)
		client.line(t)
		if got.Origin.Destination != netip.MustParseAddrPort(test.want) {
			t.Errorf("%s: got %+v: want %s", test.to, got, test.want)
		}
	}
}

func TestListenerCanNotBeDialledDirectly(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	_, other := n.cgroup("other")
	c := n.open()
	targets(t, c, db4)
	e := n.enroll(c, name)
	denied := uint64(0)
	for _, from := range []string{dir, other, ""} {
		for _, listener := range e.Listeners {
			if got := dial(t, from, "connect", listener.Addr().String()); got != "EPERM" {
				t.Errorf("from %q to %s: %s: want EPERM", from, listener.Addr(), got)
			}
			denied++
		}
		// By their other names.
		for _, host := range []string{"0.0.0.0", "[::ffff:127.0.0.1]", "[::]"} {
			_, port, _ := net.SplitHostPort(e.Listeners[0].Addr().String())
			if got := dial(t, from, "fastopen", host+":"+port); got != "EPERM" {
				t.Errorf("from %q to %s: %s: want EPERM", from, host, got)
			}
			denied++
		}
	}
	if got := counter(t, c, "denied_listener"); got != denied {
		t.Errorf("denied_listener is %d: want %d", got, denied)
	}
}

func TestConnectionWithoutAnEntryHasNoOrigin(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4)
	e := n.enroll(c, name)
	r := startReader(t, e.Listeners[0])
	// As if the guard were not there.
	if err := c.disown(c.workloads[e.ID].listeners.keys()); err != nil {
		t.Fatal(err)
	}
	client := start(t, dir, "dial", nil, "connect", e.Listeners[0].Addr().String())
	if got := r.report(t); got.Error != handoff.ErrNoOrigin.Error() {
		t.Errorf("got %+v: want %q", got, handoff.ErrNoOrigin)
	}
	client.line(t)
}

func TestOtherNetworkNamespaceIsDenied(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4, db6)
	n.enroll(c, name)
	for _, to := range []string{db4, db6} {
		client := start(t, dir, "dial", func(cmd *exec.Cmd) { cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET }, "connect", to)
		if got := client.line(t); got != "EPERM" {
			t.Errorf("%s: %s: want EPERM", to, got)
		}
	}
	if got := counter(t, c, "denied_netns"); got != 2 {
		t.Errorf("denied_netns is %d: want 2", got)
	}
}

func TestSocketCarriedOutOfItsWorkloadIsDenied(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	inner, innerDir := n.cgroup("shop/worker")
	sibling, siblingDir := n.cgroup("sibling")
	_, other := n.cgroup("other")
	c := n.open()
	targets(t, c, db4)
	for _, workload := range []string{name, inner, sibling} {
		for _, listener := range n.enroll(c, workload).Listeners {
			go drain(listener)
		}
	}
	for i, test := range []struct{ name, from, to string }{
		{"to where nobody is enrolled", dir, other},
		{"to another workload", dir, siblingDir},
		{"to a workload inside it", dir, innerDir},
		{"out of a workload inside one", innerDir, dir},
	} {
		client := start(t, test.from, "moved", nil, db4)
		client.line(t)
		if err := os.WriteFile(test.to+"/cgroup.procs", []byte(strconv.Itoa(client.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		client.in.Write([]byte("\n"))
		if got := client.line(t); got != "EPERM" {
			t.Errorf("%s: %s: want EPERM", test.name, got)
		}
		if got := counter(t, c, "denied_outside"); got != uint64(i+1) {
			t.Errorf("%s: denied_outside is %d: want %d", test.name, got, i+1)
		}
	}
	// Deeper in the same workload is no other.
	_, below := n.cgroup("sibling/below")
	client := start(t, siblingDir, "moved", nil, db4)
	client.line(t)
	if err := os.WriteFile(below+"/cgroup.procs", []byte(strconv.Itoa(client.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	client.in.Write([]byte("\n"))
	if got := client.line(t); got != "connected" {
		t.Errorf("moved within its workload: %s", got)
	}
}

func TestRefusedConnectionLeavesNothingPending(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4, db6)
	e := n.enroll(c, name)
	for _, listener := range e.Listeners {
		listener.Close()
		occupyPort(t, listener.Addr().(*net.TCPAddr).AddrPort())
	}
	for _, how := range []string{"connect", "fastopen", "fastopen-connect", "mptcp"} {
		for _, to := range []string{db4, db6, "[::ffff:192.0.2.10]:5432"} {
			if got := dial(t, dir, how, to); got != "ECONNREFUSED" {
				t.Errorf("%s to %s: %s: want ECONNREFUSED", how, to, got)
			}
		}
	}
	if left := pendingEntries(t, c); left != 0 {
		t.Errorf("%d entries are left in pending", left)
	}
	if got := counter(t, c, "captured"); got != 12 {
		t.Errorf("captured is %d: want 12", got)
	}
}

// occupyPort binds a port, so that the kernel gives it to nobody who would listen there.
func occupyPort(t *testing.T, address netip.AddrPort) {
	t.Helper()
	family := unix.AF_INET
	if address.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.Bind(fd, sockaddr(address))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFamilyWithoutAListenerIsDenied(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db6)
	e := n.enroll(c, name)
	if err := c.put(e.Workload, listeners{}, false); err != nil {
		t.Fatal(err)
	}
	if got := dial(t, dir, "connect", db6); got != "EPERM" {
		t.Errorf("%s: want EPERM", got)
	}
	if got := counter(t, c, "denied_no_listener"); got != 1 {
		t.Errorf("denied_no_listener is %d: want 1", got)
	}
}

func TestWhatIsNotEnrolledOrNoTargetIsUntouched(t *testing.T) {
	n := newNode(t)
	database := newDatabase(t, "127.9.8.7:0")
	elsewhere := newDatabase(t, "127.9.8.6:0")
	name, dir := n.cgroup("shop")
	_, other := n.cgroup("other")
	c := n.open()
	targets(t, c, database.address)
	e := n.enroll(c, name)
	e.Listeners[0].Close()

	if got := dial(t, other, "connect", database.address); got != "connected" || database.reached.Load() != 1 {
		t.Errorf("a cgroup that is not enrolled: %s", got)
	}
	if got := dial(t, dir, "connect", elsewhere.address); got != "connected" || elsewhere.reached.Load() != 1 {
		t.Errorf("a destination that is no target: %s", got)
	}
	if got := dial(t, dir, "connect", database.address); got != "ECONNREFUSED" {
		t.Errorf("the workload: %s", got)
	}
	if err := c.Withdraw(e.ID); err != nil {
		t.Fatal(err)
	}
	if got := dial(t, dir, "connect", database.address); got != "connected" || database.reached.Load() != 2 {
		t.Errorf("after it was withdrawn: %s", got)
	}
}

func TestLongestPrefixAndWholePortAreMatched(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	e := n.enroll(c, name)
	for _, listener := range e.Listeners {
		go drain(listener)
	}
	set := func(prefixes ...string) {
		t.Helper()
		var list []handoff.Endpoint
		for _, prefix := range prefixes {
			list = append(list, handoff.Endpoint{Target: "db", Prefix: netip.MustParsePrefix(prefix), Port: 5432})
		}
		if err := c.SetTargets(list); err != nil {
			t.Fatal(err)
		}
	}
	captured := func(to string) bool {
		t.Helper()
		before := counter(t, c, "captured")
		dial(t, dir, "connect", to)
		return counter(t, c, "captured") > before
	}
	// Whatever is not captured is refused by loopback.
	set("127.9.0.0/16", "::ffff:127.8.0.0/112")
	for to, want := range map[string]bool{
		"127.9.1.2:5432":          true,
		"127.9.1.2:5433":          false,
		"127.10.1.2:5432":         false,
		"127.8.1.2:5432":          true,
		"[::ffff:127.8.1.2]:5432": true,
	} {
		if got := captured(to); got != want {
			t.Errorf("%s: captured is %v", to, got)
		}
	}
	set("127.10.0.0/16")
	if captured("127.9.1.2:5432") || !captured("127.10.1.2:5432") {
		t.Error("the targets were not replaced")
	}
}

func TestEnrolRefuses(t *testing.T) {
	n := newNode(t)
	c := n.open()
	own, err := n.options.Hierarchy.Own()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, cgroup string
		want         error
	}{
		{"the root", "/", ErrAgent},
		{"the agent's own cgroup", own, ErrAgent},
		{"a cgroup that does not exist", n.base + "/nobody", fs.ErrNotExist},
	} {
		if _, err := c.Enroll(test.cgroup); !errors.Is(err, test.want) {
			t.Errorf("%s: %v: want %v", test.name, err, test.want)
		}
	}
	for _, cgroup := range []string{"relative", "/a/../b", ""} {
		if _, err := c.Enroll(cgroup); err == nil {
			t.Errorf("%q was enrolled", cgroup)
		}
	}
}

func TestListenersArePlainTCP(t *testing.T) {
	opened, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer opened.close()
	for _, listener := range opened.all() {
		raw, err := listener.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if protocol, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != syscall.IPPROTO_TCP {
				t.Errorf("%s: protocol %d, %v", listener.Addr(), protocol, err)
			}
			if reuse, err := syscall.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || reuse != 0 {
				t.Errorf("%s: SO_REUSEPORT is %d, %v", listener.Addr(), reuse, err)
			}
		})
		if second, err := net.Listen("tcp", listener.Addr().String()); err == nil {
			second.Close()
			t.Errorf("%s was bound twice", listener.Addr())
		} else if !strings.Contains(err.Error(), "in use") {
			t.Error(err)
		}
	}
}

func TestOtherSocketOptionsAreLeftAlone(t *testing.T) {
	n := newNode(t)
	read := func(size int) (int, byte, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		value, length := make([]byte, size), uint32(size)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
			uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&length)), 0)
		if errno != 0 {
			return 0, 0, errno
		}
		return int(length), value[0], nil
	}
	for _, size := range []int{1, 64, os.Getpagesize(), os.Getpagesize() + 1, 1 << 20} {
		length, first, err := read(size)
		if err != nil {
			t.Fatal(err)
		}
		c := n.open()
		lengthWith, firstWith, errWith := read(size)
		if lengthWith != length || firstWith != first || errWith != nil {
			t.Errorf("%d bytes: got %d, %d, %v: want %d, %d", size, lengthWith, firstWith, errWith, length, first)
		}
		c.Close()
		if err := Release(n.options); err != nil {
			t.Fatal(err)
		}
	}
}
