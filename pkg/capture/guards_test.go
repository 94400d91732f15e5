package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

func TestStrangerOnADeadListenersPortServesAllButTheWorkload(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	_, other := n.cgroup("other")
	c := n.open()
	targets(t, c, db4, db6)
	e := n.enroll(c, name)
	for i, to := range []string{db4, db6} {
		address := e.Listeners[i].Addr().String()
		// As when the agent was killed: the pins live on.
		if err := e.Listeners[i].Close(); err != nil {
			t.Fatal(err)
		}
		stranger := newDatabase(t, address)
		for place, from := range map[string]string{"another cgroup": other, "the host": "", "the workload": dir} {
			before := stranger.reached.Load()
			if got := dial(t, from, "connect", address); got != "connected" || stranger.reached.Load() != before+1 {
				t.Errorf("from %s to %s: %s", place, address, got)
			}
		}
		before, denied := stranger.reached.Load(), counter(t, c, "denied_squatted")
		if got := dial(t, dir, "connect", to); got != "EPERM" || stranger.reached.Load() != before {
			t.Errorf("redirected to %s: %s: want EPERM", address, got)
		}
		if got := counter(t, c, "denied_squatted"); got != denied+1 {
			t.Errorf("denied_squatted grew by %d: want 1", got-denied)
		}
	}
	if got := counter(t, c, "denied_listener"); got != 0 {
		t.Errorf("denied_listener is %d: want 0", got)
	}
}

func TestListenersOfTwoWorkloadsHaveThePortsOfOneAnother(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	other, _ := n.cgroup("other")
	c := n.open()
	targets(t, c, db4, db6)
	e, o := n.enroll(c, name), n.enroll(c, other)
	keys := c.workloads[e.ID].listeners.keys()
	if len(keys) != 2 || keys[0].V6 == keys[1].V6 {
		t.Fatalf("got %+v", keys)
	}
	// As if the other one's listeners had the same ports: its IPv4 one that of this one's IPv6, and the other way round.
	for _, key := range keys {
		key.V6 = 1 - key.V6
		if err := c.objects.ListenerPorts.Put(key, o.ID); err != nil {
			t.Fatal(err)
		}
	}
	for i, to := range []string{db4, db6} {
		go drain(e.Listeners[i])
		if got := dial(t, dir, "connect", to); got != "connected" {
			t.Errorf("to %s: %s", to, got)
		}
	}
}

func TestAnotherInstanceOnADeadListenersPortIsEffective(t *testing.T) {
	dead := newNode(t)
	name, _ := dead.cgroup("shop")
	c := dead.open()
	e := dead.enroll(c, name)
	n := newNode(t)
	n.options.Instance = "ba9876543210"
	other := n.open()
	// As if the kernel had chosen the ports of its canary's listeners for the dead one before.
	for _, key := range other.canary.listeners.keys() {
		if err := c.objects.ListenerPorts.Put(key, e.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Prove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPacketsToTargetsAreDroppedHoweverTheyAreMade(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4, db6, "127.9.8.7:5432", "[::1]:5432")
	// A raw socket that is older than the enrolment; none can be made later.
	client := start(t, dir, "packets", func(cmd *exec.Cmd) { cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET })
	if got := client.line(t); got != "ready" {
		t.Fatalf("got %s", got)
	}
	n.enroll(c, name)
	before, err := c.Counters()
	if err != nil {
		t.Fatal(err)
	}
	client.in.Close()
	want := map[string]uint64{}
	for _, p := range packets {
		expected := "sent"
		if p.reason != "" {
			expected = "EPERM"
			want[p.reason]++
		}
		if got := client.line(t); got != expected {
			t.Errorf("%s: %s: want %s", p.name, got, expected)
		}
	}
	after, err := c.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range []string{"denied_packet", "denied_header"} {
		if grown := after[reason] - before[reason]; grown != want[reason] {
			t.Errorf("%s grew by %d: want %d", reason, grown, want[reason])
		}
	}
}

func TestFramesToTargetsAreDroppedBesideTheKernelsOwnFragments(t *testing.T) {
	n := newNode(t)
	c := n.open()
	targets(t, c, "127.9.8.7:5432", "[::1]:5432")
	const ipv4, ipv6, arp, vlan = 0x0800, 0x86dd, 0x0806, 0x8100
	frame := func(kind uint16, packet []byte) []byte {
		return append(binary.BigEndian.AppendUint16(make([]byte, 12), kind), packet...)
	}
	const next, shot = ^uint32(0), 2 // TC_ACT_UNSPEC and TC_ACT_SHOT
	run := func(name string, frame []byte, want uint32) {
		t.Helper()
		got, _, err := c.objects.GuardDevice.Test(frame)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v: want %d", name, int32(got), err, int32(want))
		}
	}
	// A fragment of a port that is no target's, or that has no port, is none of capture's business here.
	fragments := map[string]bool{"a later fragment": true, "a fragment header": true, "a fragment header behind another": true}
	for _, p := range packets {
		want, kind := next, uint16(ipv4)
		if p.reason != "" && !fragments[p.name] {
			want = shot
		}
		if p.v6 {
			kind = ipv6
		}
		run(p.name, frame(kind, p.bytes), want)
	}
	run("the first fragment over IPv6 to a target", frame(ipv6, packet6(5432, unix.IPPROTO_FRAGMENT, unix.IPPROTO_TCP)), shot)
	run("half a header", frame(ipv4, packet4(unix.IPPROTO_TCP, 5432, 0, nil)[:21]), shot)
	run("ARP", frame(arp, make([]byte, 28)), next)
	run("a tagged frame", frame(vlan, append([]byte{0, 1, 8, 0}, packet4(unix.IPPROTO_TCP, 5432, 0, nil)...)), shot)
}

func TestConnectionsOlderThanTheEnrolmentAreEnded(t *testing.T) {
	n := newNode(t)
	n.options.pendingQuota = 8
	name, _ := n.cgroup("shop")
	_, dir := n.cgroup("shop/worker")
	database, elsewhere := newHolder(t, "127.9.8.7:0"), newHolder(t, "127.9.8.6:0")
	c := n.open()
	targets(t, c, database)
	inside := start(t, dir, "hold", nil, database)
	mapped := start(t, dir, "hold", nil, "[::ffff:127.9.8.7]:"+strings.Split(database, ":")[1])
	untouched := start(t, dir, "hold", nil, elsewhere)
	outside := start(t, "", "hold", nil, database)
	all := []*process{inside, mapped, untouched, outside}
	for _, p := range all {
		if got := p.line(t); got != "ready" {
			t.Fatalf("got %s", got)
		}
	}
	e := n.enroll(c, name)
	if e.Reset+e.Left != 2 {
		t.Errorf("%d connections were ended and %d left: want 2 in all", e.Reset, e.Left)
	}
	for i, want := range []string{"ECONNABORTED", "ECONNABORTED", "written", "written"} {
		all[i].in.Close()
		if got := all[i].line(t); got != want {
			t.Errorf("connection %d: %s: want %s", i, got, want)
		}
	}

	// A new target is no different from a new workload.
	late := start(t, dir, "hold", nil, elsewhere)
	late.line(t)
	targets(t, c, database, elsewhere)
	late.in.Close()
	if got := late.line(t); got != "ECONNABORTED" {
		t.Errorf("a connection to a new target: %s", got)
	}
}

func TestCanaryProvesThatCaptureIsEffective(t *testing.T) {
	n := newNode(t)
	c := n.open()
	if err := c.Prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status := c.Status(); !status.Effective {
		t.Error(status.Reason)
	}
	if got := counter(t, c, "canary"); got != 2 {
		t.Errorf("canary is %d: want one of each family", got)
	}
	if got := counter(t, c, "captured"); got != 0 {
		t.Errorf("captured is %d: the canary is no workload", got)
	}
	// Whatever takes the redirection away, the canary finds it; the guard denies what it dials.
	pinned, err := link.LoadPinnedLink(c.pins.link(c.canary.facts.ID, "connect4"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	if err := pinned.Detach(); err != nil {
		t.Fatal(err)
	}
	// It says itself what happened to it.
	if err := c.Prove(t.Context()); err == nil || !strings.Contains(err.Error(), "dial tcp "+canary4.String()+": connect: operation not permitted") {
		t.Errorf("without connect4: %v", err)
	}
	if status := c.Check(); status.Effective || !strings.Contains(status.Reason, "canary") {
		t.Errorf("got %+v", status)
	}
	if got := counter(t, c, "denied_passed"); got != 1 {
		t.Errorf("denied_passed is %d: want 1", got)
	}
}

func TestPassingFailureIsProvenOverSoonAndLoggedOnce(t *testing.T) {
	n := newNode(t)
	core, logs := observer.New(zap.InfoLevel)
	n.options.Log = zap.New(core)
	c := n.open()
	detach := func() {
		t.Helper()
		pinned, err := link.LoadPinnedLink(c.pins.link(c.canary.facts.ID, "connect4"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(pinned.Detach(), pinned.Close(), os.Remove(c.pins.link(c.canary.facts.ID, "connect4"))); err != nil {
			t.Fatal(err)
		}
	}
	detach()
	began := time.Now()
	ctx, stop := context.WithCancel(t.Context())
	proofs, ended := make(chan Status), make(chan struct{})
	go func() {
		c.KeepProving(ctx, func() { proofs <- c.Status() })
		close(ended)
	}()
	for range 3 {
		if status := <-proofs; status.Effective || !strings.Contains(status.Reason, "canary") {
			t.Errorf("without connect4: %+v", status)
		}
	}
	if err := c.attach(c.canary, "connect4"); err != nil {
		t.Fatal(err)
	}
	// One may have begun before.
	for status := range proofs {
		if status.Effective {
			break
		}
	}
	if took := time.Since(began); took > proofInterval/2 {
		t.Errorf("it took %s", took)
	}
	stop()
	<-ended
	said := []string{}
	for _, entry := range logs.All() {
		if strings.HasPrefix(entry.Message, "capture is ") {
			said = append(said, entry.Message)
		}
	}
	if diff := cmp.Diff([]string{"capture is not effective", "capture is effective again"}, said); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestProofsAfterFailuresAreLessAndLessFrequent(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		0: time.Minute, 1: 250 * time.Millisecond, 2: 500 * time.Millisecond, 3: time.Second, 8: 32 * time.Second, 9: time.Minute, 1 << 40: time.Minute,
	} {
		if got := untilProof(failures); got != want {
			t.Errorf("after %d failures: %s: want %s", failures, got, want)
		}
	}
}

func TestStatusNamesEveryGuard(t *testing.T) {
	n := newNode(t)
	name, _ := n.cgroup("shop")
	c := n.open()
	n.enroll(c, name)
	for _, g := range c.Status().Guards {
		// Whether the kernel runs BPF as an LSM is not ours to say, and the workload has no network namespace of its own.
		if !g.Active && (!optional[g.Name] || g.Reason == "") {
			t.Errorf("got %+v", g)
		}
	}
	pinned, err := link.LoadPinnedLink(c.pins.root("guard_sendmsg6"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	if err := pinned.Detach(); err != nil {
		t.Fatal(err)
	}
	if status := c.Check(); status.Effective || !strings.Contains(status.Reason, "guard_sendmsg6 does not run") {
		t.Errorf("without a guard: %+v", status)
	}
}

func TestEventsSayWhatCountersCount(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4)
	e := n.enroll(c, name)
	if err := c.put(e.Workload, listeners{}, false); err != nil {
		t.Fatal(err)
	}
	events := make(chan handoff.CaptureEvent, 16)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Events(ctx, func(e handoff.CaptureEvent) { events <- e }) }()
	client := start(t, dir, "dial", nil, "connect", db4)
	client.line(t)
	got := <-events
	want := handoff.CaptureEvent{
		Time: got.Time, Reason: "denied_no_listener", WorkloadID: e.ID, Cgroup: name, CgroupID: e.ID, NetnsCookie: e.NetnsCookie,
		Destination: got.Destination, Protocol: "tcp", PID: uint32(client.Process.Pid), UID: uint32(os.Getuid()), Comm: "exe",
	}
	if got != want || got.Destination.String() != db4 {
		t.Errorf("got %+v: want %+v", got, want)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(events) != 0 {
		t.Errorf("one denial made more than one event: %+v", <-events)
	}
}
