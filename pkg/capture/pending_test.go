package capture

import (
	"net"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// pendingShare is PENDING_SHARE of bpf/maps.h.
const pendingShare = 4

func TestWorkloadThatFillsPendingIsDeniedAndOthersAreNot(t *testing.T) {
	n := newNode(t)
	n.options.pendingQuota = 8
	greedy, greedyDir := n.cgroup("greedy")
	modest, modestDir := n.cgroup("modest")
	c := n.open()
	targets(t, c, db4)
	g, m := n.enroll(c, greedy), n.enroll(c, modest)
	go drain(m.Listeners[0])
	stall(t, g.Listeners[0])
	client := start(t, greedyDir, "fill", nil, db4)
	if got := client.line(t); got != "EPERM" {
		t.Fatalf("the greedy one: %s: want EPERM", got)
	}
	if got := pendingEntries(t, c); got != 8+pendingShare {
		t.Errorf("%d connections are in their handshake: want %d", got, 8+pendingShare)
	}
	if got := dial(t, modestDir, "connect", db4); got != "connected" {
		t.Errorf("the modest one: %s", got)
	}
	if got := counter(t, c, "denied_quota"); got != 1 {
		t.Errorf("denied_quota is %d: want 1", got)
	}
	client.in.Close()
	client.Wait()
	wait(t, "the connections to be forgotten", func() bool { return pendingEntries(t, c) == 0 })
	usage, err := c.usage(g.ID)
	if err != nil || usage != 0 {
		t.Errorf("the greedy one still uses %d, %v", usage, err)
	}
	go drain(g.Listeners[0])
	if got := dial(t, greedyDir, "connect", db4); got != "connected" {
		t.Errorf("afterwards: %s", got)
	}
}

func TestWorkloadsThatFillThePoolLeaveOthersTheirShare(t *testing.T) {
	n := newNode(t)
	n.options.pendingQuota, n.options.pendingPool = 6, 8
	c := n.open()
	targets(t, c, db4)
	var clients []*process
	for i, want := range []int{6 + pendingShare, 2 + pendingShare, pendingShare, pendingShare} {
		name, dir := n.cgroup("greedy" + strconv.Itoa(i))
		e := n.enroll(c, name)
		stall(t, e.Listeners[0])
		before := pendingEntries(t, c)
		client := start(t, dir, "fill", nil, db4)
		if got := client.line(t); got != "EPERM" {
			t.Errorf("workload %d: %s: want EPERM", i, got)
		}
		if got := pendingEntries(t, c) - before; got != want {
			t.Errorf("workload %d has %d connections in their handshake: want %d", i, got, want)
		}
		clients = append(clients, client)
	}
	for _, client := range clients {
		client.in.Close()
		client.Wait()
	}
	wait(t, "the connections to be forgotten", func() bool { return pendingEntries(t, c) == 0 })
	for _, e := range append(c.Workloads(), Enrolled{}) { // The last one stands for all of them.
		if usage, err := c.usage(e.ID); err != nil || usage != 0 {
			t.Errorf("workload %d still uses %d, %v", e.ID, usage, err)
		}
	}
}

// stall lets a listener's backlog take one connection and no more: handshakes end no more then.
func stall(t *testing.T, listener *net.TCPListener) {
	t.Helper()
	raw, err := listener.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestFullPendingMapGivesNoOrigin(t *testing.T) {
	n := newNode(t)
	n.options.pendingEntries = 1
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4)
	e := n.enroll(c, name)
	if err := c.objects.Pending.Put(bpf.CaptureFlow{Sport: 1}, bpf.CaptureOrigin{Pid: 1}); err != nil {
		t.Fatal(err)
	}
	r := startReader(t, e.Listeners[0])
	client := start(t, dir, "dial", nil, "connect", db4)
	if got := r.report(t); got.Error != handoff.ErrNoOrigin.Error() {
		t.Errorf("got %+v: want %q", got, handoff.ErrNoOrigin)
	}
	client.line(t)
	if got := counter(t, c, "lost_pending"); got != 1 {
		t.Errorf("lost_pending is %d: want 1", got)
	}
}
