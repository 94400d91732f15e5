package capture

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// linkID is the id of a pinned link, and the program's that it runs.
func linkID(t *testing.T, pin string) (link.ID, ebpf.ProgramID) {
	t.Helper()
	pinned, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	info, err := pinned.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.ID, info.Program
}

func TestRestartAdoptsPinsAndUpdatesLinksInPlace(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4)
	before := n.enroll(c, name)
	pinned := []string{c.pins.root("sock_ops"), c.pins.root("get_origin"), c.pins.link(before.ID, "connect4"), c.pins.link(before.ID, "connect6")}
	var (
		links    []link.ID
		programs []ebpf.ProgramID
	)
	for _, pin := range pinned {
		id, program := linkID(t, pin)
		links, programs = append(links, id), append(programs, program)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got := dial(t, dir, "connect", db4); got != "ECONNREFUSED" {
		t.Errorf("while nobody runs: %s: want ECONNREFUSED", got)
	}

	c = n.open()
	for i, pin := range pinned {
		id, program := linkID(t, pin)
		if id != links[i] {
			t.Errorf("%s: the link was replaced", pin)
		}
		if program == programs[i] {
			t.Errorf("%s: the link still runs the old program", pin)
		}
	}
	after := c.Workloads()
	if len(after) != 1 || after[0].ID != before.ID || after[0].Generation <= before.Generation {
		t.Fatalf("got %+v: want %+v with a new generation", after, before)
	}
	if status := c.Status(); !status.Effective {
		t.Error(status.Reason)
	}
	// Targets stay in force before anybody sets them.
	r := startReader(t, after[0].Listeners[0])
	client := start(t, dir, "dial", nil, "connect", db4)
	if got := r.report(t); got.Error != "" || got.Origin.Generation != after[0].Generation {
		t.Errorf("got %+v: want generation %d", got, after[0].Generation)
	}
	client.line(t)
}

func TestRestartLeavesNoGap(t *testing.T) {
	n := newNode(t)
	database := newDatabase(t, "127.9.8.7:0")
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, database.address)
	for _, listener := range n.enroll(c, name).Listeners {
		go drain(listener)
	}
	client := start(t, dir, "hammer", nil, database.address)
	client.line(t)
	for range 5 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = n.open()
		for _, e := range c.Workloads() {
			for _, listener := range e.Listeners {
				go drain(listener)
			}
		}
		seen := counter(t, c, "captured")
		wait(t, "the client to be captured again", func() bool { return counter(t, c, "captured") > seen+10 })
	}
	client.in.Close()
	var outcomes map[string]int
	if err := json.Unmarshal([]byte(client.line(t)), &outcomes); err != nil {
		t.Fatal(err)
	}
	for outcome := range outcomes {
		// A connection that waited in a listener's backlog is reset when the listener closes.
		switch outcome {
		case "connected", "ECONNREFUSED", "ECONNRESET", "EPIPE":
		default:
			t.Errorf("outcomes %v: %s is not to be", outcomes, outcome)
		}
	}
	if outcomes["connected"] == 0 {
		t.Errorf("outcomes %v: want some that connected", outcomes)
	}
	if reached := database.reached.Load(); reached != 0 {
		t.Errorf("%d connections reached the database directly", reached)
	}
}

func TestPinsOfDeadCgroupsAreRemoved(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	e := n.enroll(c, name)
	c.Close()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	c = n.open()
	if got := c.Workloads(); len(got) != 0 {
		t.Errorf("got %+v: want none", got)
	}
	if _, err := os.Stat(c.pins.workload(e.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
	if err := c.objects.Workloads.Lookup(e.ID, make([]byte, c.objects.Workloads.ValueSize())); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the entry is left: %v", err)
	}
}

func TestReleaseEndsCaptureAndRemovesAllPins(t *testing.T) {
	n := newNode(t)
	database := newDatabase(t, "127.9.8.7:0")
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, database.address)
	n.enroll(c, name)
	pins := c.Pins()
	c.Close()
	if got := dial(t, dir, "connect", database.address); got != "ECONNREFUSED" {
		t.Errorf("before: %s: want ECONNREFUSED", got)
	}
	for range 2 { // The second finds nothing to do.
		if err := Release(n.options); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(pins); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
	if got := dial(t, dir, "connect", database.address); got != "connected" || database.reached.Load() != 1 {
		t.Errorf("after: %s: want connected", got)
	}
}

func TestStatusSaysWhatIsNotEffective(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db6)
	e := n.enroll(c, name)
	if status := c.Status(); !status.Effective || status.Reason != "" || len(status.Workloads) != 1 || !status.Workloads[0].Effective {
		t.Fatalf("got %+v: want effective", status)
	}
	if err := os.Remove(c.pins.link(e.ID, "connect6")); err != nil {
		t.Fatal(err)
	}
	if status := c.Check(); status.Effective || !strings.Contains(status.Reason, "capture would end with this process") {
		t.Errorf("without a pin: got %+v", status)
	}
	// The link goes with its pin, the guard of the root stays.
	wait(t, "the link to go", func() bool {
		err := c.effective(c.workloads[e.ID])
		return err != nil && strings.Contains(err.Error(), "connect6 does not run")
	})
	if got := dial(t, dir, "connect", db6); got != "EPERM" {
		t.Errorf("without a link: %s: want EPERM", got)
	}
}

func TestForeignExclusiveAttachmentIsAClearError(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	foreign, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	exclusive := link.RawAttachProgramOptions{Target: int(foreign.Fd()), Program: c.objects.Connect4, Attach: ebpf.AttachCGroupInet4Connect}
	if err := link.RawAttachProgram(exclusive); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Enroll(name); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v: want %v", err, ErrForeign)
	}
	n.mkdir(name + "/below")
	if _, err := c.Enroll(name + "/below"); !errors.Is(err, ErrForeign) {
		t.Errorf("below it: got %v: want %v", err, ErrForeign)
	}
	if ids, err := c.pins.ids(); err != nil || len(ids) != 1 {
		t.Errorf("pins of %v are left, %v: want the canary's alone", ids, err)
	}
	if err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(foreign.Fd()), Program: c.objects.Connect4, Attach: ebpf.AttachCGroupInet4Connect}); err != nil {
		t.Fatal(err)
	}
	n.enroll(c, name)
}

func TestWorkloadThatCannotBeEnrolledAgainIsDenied(t *testing.T) {
	n := newNode(t)
	name, dir := n.cgroup("shop")
	c := n.open()
	targets(t, c, db4)
	e := n.enroll(c, name)
	c.mu.Lock()
	err := c.strand(e.ID, name, errors.New("a reason"))
	c.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if got := dial(t, dir, "connect", db4); got != "EPERM" {
		t.Errorf("%s: want EPERM", got)
	}
	if status := c.Status(); status.Effective || !strings.Contains(status.Reason, "a reason") {
		t.Errorf("got %+v", status)
	}
}

func TestCaptureOfAnEarlierVersionIsTakenOverWithoutAGap(t *testing.T) {
	n := newNode(t)
	database := newDatabase(t, "127.9.8.7:0")
	name, dir := n.cgroup("shop")
	gone, goneDir := n.cgroup("gone")
	c := n.open()
	targets(t, c, database.address)
	e := n.enroll(c, name)
	n.enroll(c, gone)
	client := start(t, dir, "hammer", nil, database.address)
	client.line(t)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(goneDir); err != nil {
		t.Fatal(err)
	}
	// What an earlier version leaves differs in maps that nobody reads again.
	before := filepath.Join(n.options.BPFFS, "sallyport", takenOver[0])
	if err := os.Rename(filepath.Join(n.options.BPFFS, "sallyport", abi), before); err != nil {
		t.Fatal(err)
	}
	c = n.open()
	after := c.Workloads()
	if len(after) != 1 || after[0].ID != e.ID || after[0].Generation <= e.Generation {
		t.Fatalf("got %+v: want %+v with a new generation", after, e)
	}
	for _, listener := range after[0].Listeners {
		go drain(listener)
	}
	if left, err := filepath.Glob(before + "/*"); err != nil || len(left) != 0 {
		t.Errorf("the earlier version's pins are left: %v, %v", left, err)
	}
	if err := c.Prove(t.Context()); err != nil {
		t.Error(err)
	}
	if status := c.Check(); !status.Effective {
		t.Error(status.Reason)
	}
	wait(t, "the client to be captured", func() bool { return counter(t, c, "captured") > 10 })
	client.in.Close()
	var outcomes map[string]int
	if err := json.Unmarshal([]byte(client.line(t)), &outcomes); err != nil {
		t.Fatal(err)
	}
	for outcome := range outcomes {
		switch outcome {
		case "connected", "ECONNREFUSED", "ECONNRESET", "EPIPE":
		default:
			t.Errorf("outcomes %v: %s is not to be", outcomes, outcome)
		}
	}
	if reached := database.reached.Load(); reached != 0 {
		t.Errorf("%d connections reached the database directly", reached)
	}
}

func TestCaptureOfAnUnknownVersionIsRefused(t *testing.T) {
	n := newNode(t)
	c := n.open()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(n.options.BPFFS, "sallyport")
	if err := os.Rename(filepath.Join(root, abi), filepath.Join(root, "v999")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(n.options); err == nil || !strings.Contains(err.Error(), "another version of sallyport") {
		t.Errorf("got %v", err)
	}
}
