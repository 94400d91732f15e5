package nft

import (
	"context"
	"strings"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// table is the instance's one of family inet in the tests' network namespace.
func (n *node) table() string {
	n.t.Helper()
	for one := range strings.SplitSeq(n.tables(), "; ") {
		if name, ok := strings.CutPrefix(one, "table inet "); ok {
			return name
		}
	}
	n.t.Fatal("no table")
	return ""
}

// tampers are ways of opening what the rules close, with TABLE for the table.
var tampers = []struct{ name, command string }{
	{"all rules of everybody flushed", "flush ruleset"},
	{"the table deleted", "delete table inet TABLE"},
	{"the table's rules flushed", "flush table inet TABLE"},
	{"the redirection flushed", "flush chain inet TABLE redirected"},
	{"the judgement flushed", "flush chain inet TABLE output"},
	{"an exemption put before the judgement", "insert rule inet TABLE output accept"},
	{"an exemption put before a denial", "insert rule inet TABLE denied_packet return"},
	{"the targets taken out", "flush set inet TABLE targets4"},
	{"the workloads taken out", "flush set inet TABLE workloads-2"},
	{"the table put to sleep", "add table inet TABLE { flags dormant; }"},
}

func TestWhatIsTamperedWithIsPutBack(t *testing.T) {
	n := newNode(t)
	n.options.unowned = true
	shop := n.mkdir("/shop")
	db := n.database("127.9.8.7:0")
	c := n.open()
	if err := c.SetTargets(endpoints(db)); err != nil {
		t.Fatal(err)
	}
	e := n.enrolled(c, shop)
	events := make(chan handoff.CaptureEvent, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Events(ctx, func(e handoff.CaptureEvent) { events <- e }) }()
	for _, test := range tampers {
		t.Run(test.name, func(t *testing.T) {
			before := n.table()
			command := strings.ReplaceAll(test.command, "TABLE", before)
			if out, err := n.nft(strings.Fields(command)...); err != nil {
				t.Fatalf("nft %s: %v: %s", command, err, out)
			}
			n.wait("another table", func() bool { now := n.tables(); return now != "" && !strings.Contains(now, before) })
			if got := n.dial(shop, "tcp", db); got != "proxy for "+db {
				t.Errorf("afterwards: %q", got)
			}
			if got := <-events; got.Reason != tampered {
				t.Errorf("got event %+v", got)
			}
		})
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	counters, err := c.Counters()
	// Two of them delete the counters: what was counted since they were read is lost.
	if want := uint64(len(tampers)); err != nil || counters[tampered] != want || counters[captured] < want-2 {
		t.Errorf("got %v, %v: want %d tampered and %d captured at least", counters, err, want, want-2)
	}
	if status := c.Check(); !status.Effective {
		t.Errorf("got %+v", status)
	}
	if got := c.Workloads(); len(got) != 1 || got[0].Generation != e.Generation {
		t.Errorf("got %+v", got)
	}
}

func TestNobodyElseCanTamperWithAnOwnedTable(t *testing.T) {
	n := newNode(t)
	shop := n.mkdir("/shop")
	db := n.database("127.9.8.7:0")
	c := n.open()
	if !c.places[c.namespace].table.owned {
		// Linux before 6.9 has no such thing, and says so.
		if reason := guardNamed(t, c, guardOwner); reason == "" {
			t.Error("the owner guard is said to be active")
		}
		return
	}
	if err := c.SetTargets(endpoints(db)); err != nil {
		t.Fatal(err)
	}
	n.enrolled(c, shop)
	before := n.table()
	for _, test := range tampers {
		command := strings.ReplaceAll(test.command, "TABLE", before)
		out, err := n.nft(strings.Fields(command)...)
		if err == nil && command != "flush ruleset" {
			t.Errorf("%s: done: %s", test.name, out)
		}
		if got := n.dial(shop, "tcp", db); got != "proxy for "+db {
			t.Errorf("%s: %q", test.name, got)
		}
	}
	if now := n.table(); now != before {
		t.Errorf("table %s is %s now", before, now)
	}
}

func guardNamed(t *testing.T, c *Capture, name string) (reason string) {
	t.Helper()
	for _, g := range c.Status().Guards {
		if g.Name == name {
			return g.Reason
		}
	}
	t.Fatalf("no guard %s", name)
	return ""
}

func TestWithoutRedirectionThereIsNoConnection(t *testing.T) {
	n := newNode(t)
	n.options.unowned = true
	shop := n.mkdir("/shop")
	db4, db6 := n.database("127.9.8.7:0"), n.database("[::1]:0")
	c := n.open()
	if err := c.SetTargets(endpoints(db4, db6)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Enroll(shop); err != nil {
		t.Fatal(err)
	}
	// Nobody puts anything back now.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"list table inet TABLE", "flush chain inet TABLE redirected4", "flush chain inet TABLE redirected", "delete chain inet TABLE redirected"} {
		command = strings.ReplaceAll(command, "TABLE", n.table())
		if out, err := n.nft(strings.Fields(command)...); err != nil {
			t.Fatalf("nft %s: %v: %s", command, err, out)
		}
		for _, db := range []string{db4, db6} {
			if got := n.dial(shop, "tcp", db); got != "ECONNREFUSED" {
				t.Errorf("after %s: %s: %q", command, db, got)
			}
		}
	}
}
