package approval

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	alice = Person{UID: 1001, User: "alice", Groups: []string{"alice", "dba"}, Cgroup: "/user.slice"}
	bob   = Person{UID: 1002, User: "bob", Groups: []string{"bob"}, Cgroup: "/user.slice"}
	root  = Person{UID: 0, User: "root", Groups: []string{"root"}, Cgroup: "/user.slice"}
	shop  = Workload{Name: "shop", Cgroup: "/sallyport/shop", UID: 1000}
)

func openDesk(t testing.TB, dir string) *Desk {
	t.Helper()
	d, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newDesk(t testing.TB) *Desk {
	t.Helper()
	d := openDesk(t, filepath.Join(t.TempDir(), "approvals"))
	t.Cleanup(func() { d.Close() })
	return d
}

func request(hash string) Request {
	return Request{Hash: Hash(hash), Workload: shop, Target: "orders", Policy: "p", Rule: "big", Approvers: []string{"group:dba"},
		Kind: "query", Text: "DELETE FROM t", Recorded: "DELETE FROM t"}
}

func mustAsk(t testing.TB, d *Desk, r Request) *Ticket {
	t.Helper()
	ticket, err := d.Ask(r, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

func mustDecide(t testing.TB, d *Desk, who Person, ticket *Ticket, approve bool) {
	t.Helper()
	if _, err := d.Decide(who, ticket.Request().ID, approve, ""); err != nil {
		t.Fatal(err)
	}
}

func final(t testing.TB, ticket *Ticket) State {
	t.Helper()
	select {
	case <-ticket.Done():
		return ticket.Request().State
	case <-time.After(10 * time.Second):
		t.Fatal("the request does not end")
		return ""
	}
}

func TestApprovalServesOnce(t *testing.T) {
	d := newDesk(t)
	first := mustAsk(t, d, request("a"))
	mustDecide(t, d, alice, first, true)
	if s := final(t, first); s != Approved {
		t.Fatalf("it is %s", s)
	}
	if err := first.Use(); err != nil {
		t.Fatal(err)
	}
	second := mustAsk(t, d, request("a"))
	if second.Earlier() || second.Request().State != Pending {
		t.Errorf("the approval serves again: %+v", second.Request())
	}
	if by := first.Request().Decision.By; by.User != "alice" || by.UID != 1001 {
		t.Errorf("decided by %+v", by)
	}
}

func TestApprovalServesWithinItsWindowForTheSameHashAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "approvals")
	d := openDesk(t, dir)
	r := request("a")
	r.Window = 60
	first := mustAsk(t, d, r)
	mustDecide(t, d, alice, first, true)
	final(t, first)
	if err := first.Use(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDesk(t, dir) // another proxy
	defer d.Close()
	for range 3 {
		again := mustAsk(t, d, r)
		if !again.Earlier() || again.Request().ID != first.Request().ID || again.Use() != nil {
			t.Errorf("the approval does not serve: %+v", again.Request())
		}
	}
	if other := mustAsk(t, d, request("b")); other.Earlier() {
		t.Error("it serves for another hash")
	}
	name := grantName(r.Hash, first.Request().ID)
	var g grant
	if err := d.store.read(grantsDir, name, &g); err != nil {
		t.Fatal(err)
	}
	g.Until = time.Now().Add(-time.Second)
	if err := d.store.write(grantsDir, name, g); err != nil {
		t.Fatal(err)
	}
	if late := mustAsk(t, d, r); late.Earlier() {
		t.Error("it serves after its window")
	}
}

func TestApprovalThatCameTooLateServesTheNextOne(t *testing.T) {
	d := newDesk(t)
	gone := mustAsk(t, d, request("a"))
	mustDecide(t, d, alice, gone, true)
	// While its own statement may still use it, it is nobody else's.
	if other := mustAsk(t, d, request("a")); other.Earlier() {
		t.Error("another statement took the approval")
	}
	if gone.Withdraw("the client has gone") {
		t.Error("an approved request is withdrawn")
	}
	next := mustAsk(t, d, request("a"))
	if !next.Earlier() || next.Use() != nil {
		t.Error("the approval is lost")
	}
	if err := gone.Use(); err == nil {
		t.Error("it serves twice")
	}
}

func TestRequestEndsOnce(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(d *Desk, ticket *Ticket)
		want State
	}{
		{"denied", func(d *Desk, ticket *Ticket) { _, _ = d.Decide(alice, ticket.Request().ID, false, "no") }, Denied},
		{"withdrawn", func(_ *Desk, ticket *Ticket) { ticket.Withdraw("gone") }, Withdrawn},
		{"withdrawn with its desk", func(d *Desk, _ *Ticket) { d.Close() }, Withdrawn},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "approvals")
			d := openDesk(t, dir)
			ticket := mustAsk(t, d, request("a"))
			test.end(d, ticket)
			if s := final(t, ticket); s != test.want {
				t.Errorf("it is %s", s)
			}
			if err := ticket.Use(); err == nil {
				t.Error("it can be used")
			}
			if ticket.Withdraw("again") {
				t.Error("it can be withdrawn again")
			}
			d.Close()
			d = openDesk(t, dir)
			defer d.Close()
			if _, err := d.Decide(alice, ticket.Request().ID, true, ""); !errors.Is(err, ErrDecided) {
				t.Errorf("it can be approved: %v", err)
			}
			if next := mustAsk(t, d, request("a")); next.Earlier() {
				t.Error("it serves the next one")
			}
		})
	}
}

func TestRequestExpires(t *testing.T) {
	d := newDesk(t)
	ticket, err := d.Ask(request("a"), 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if s := final(t, ticket); s != Expired {
		t.Errorf("it is %s", s)
	}
	if _, err := d.Decide(alice, ticket.Request().ID, true, ""); !errors.Is(err, ErrDecided) {
		t.Errorf("it can be approved: %v", err)
	}
}

func TestWhoMaySeeAndDecide(t *testing.T) {
	d := newDesk(t)
	r := request("a")
	r.Approvers = []string{"group:dba", "user:carol", "uid:1004"}
	id := mustAsk(t, d, r).Request().ID
	for _, test := range []struct {
		name   string
		who    Person
		sees   bool
		decide error
	}{
		{"an approver by group", alice, true, ErrNeedsReason},
		{"an approver by name", Person{UID: 1003, User: "carol", Cgroup: "/user.slice"}, true, ErrNeedsReason},
		{"an approver by number", Person{UID: 1004, Cgroup: "/user.slice"}, true, ErrNeedsReason},
		{"somebody else", bob, false, ErrNotFound},
		{"root, whom the rule does not name", root, true, ErrForbidden},
		{"a user whose name looks like a number", Person{UID: 1005, User: "1004", Cgroup: "/user.slice"}, false, ErrNotFound},
		{"a user without a name", Person{UID: 1006, Cgroup: "/user.slice"}, false, ErrNotFound},
		{"an approver who runs the workload", Person{UID: 1000, User: "carol", Cgroup: "/user.slice"}, true, ErrForbidden},
		{"an approver within the workload", Person{UID: 1003, User: "carol", Cgroup: "/sallyport/shop/inner"}, false, ErrNotFound},
		{"an approver in a cgroup of a like name", Person{UID: 1003, User: "carol", Cgroup: "/sallyport/shop2"}, true, ErrNeedsReason},
		{"an approver whose cgroup is not known", Person{UID: 1003, User: "carol"}, false, ErrNotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			// A rule that needs a reason, so that nobody decides.
			if err := d.store.locked(func() error {
				stored, err := d.store.pending(id)
				if err != nil {
					return err
				}
				stored.NeedsReason = true
				return d.store.write(pendingDir, id, stored)
			}); err != nil {
				t.Fatal(err)
			}
			list, err := d.List(test.who, true)
			if err != nil || (len(list) == 1) != test.sees {
				t.Errorf("lists %d, %v", len(list), err)
			}
			if _, err := d.Get(test.who, id); (err == nil) != test.sees {
				t.Errorf("get: %v", err)
			}
			for _, approve := range []bool{true, false} {
				if _, err := d.Decide(test.who, id, approve, " "); !errors.Is(err, test.decide) {
					t.Errorf("decide: %v", err)
				}
			}
		})
	}
	if _, err := d.Decide(alice, "../lock", true, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a path: %v", err)
	}
	if got, err := d.Decide(alice, id, true, " because\n"); err != nil || got.Decision.Reason != "because" {
		t.Errorf("with a reason: %+v, %v", got.Decision, err)
	}
}

func TestFirstOfTwoApproversAtOnceWins(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "approvals")
	desks := []*Desk{openDesk(t, dir), openDesk(t, dir)} // as of two processes
	for _, d := range desks {
		defer d.Close()
	}
	for round := range 10 {
		r := request(fmt.Sprint(round))
		r.Approvers = []string{"uid:1001", "uid:1002"}
		ticket := mustAsk(t, desks[0], r)
		var wg sync.WaitGroup
		won := make(chan State, 16)
		for i := range 8 {
			wg.Go(func() {
				decided, err := desks[i%2].Decide([]Person{alice, bob}[i%2], ticket.Request().ID, i%3 == 0, "")
				switch {
				case err == nil:
					won <- decided.State
				case !errors.Is(err, ErrDecided):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d won", len(won))
		}
		if s, said := final(t, ticket), <-won; s != said {
			t.Errorf("the statement is %s, and who won said %s", s, said)
		}
	}
}

func TestDecisionOfAnotherProcessReachesTheTicket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "approvals")
	old, next := openDesk(t, dir), openDesk(t, dir)
	defer old.Close()
	defer next.Close()
	ticket := mustAsk(t, old, request("a"))
	mustDecide(t, next, alice, ticket, true)
	// The other process must not take what the first one waits for.
	if other := mustAsk(t, next, request("a")); other.Earlier() {
		t.Error("another process took the approval")
	}
	if s := final(t, ticket); s != Approved || ticket.Use() != nil {
		t.Errorf("it is %s", s)
	}
}

func TestRequestsOfADeadProcessAreWithdrawn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "approvals")
	dead := openDesk(t, dir)
	pending, approved := mustAsk(t, dead, request("a")), mustAsk(t, dead, request("b"))
	mustDecide(t, dead, alice, approved, true)
	// Its locks go with it, and nothing is said.
	dead.held.Close()
	var told []string
	d, err := Open(Options{Dir: dir, Changed: func(r Request) { told = append(told, r.ID+" "+string(r.State)) }})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := d.Get(alice, pending.Request().ID)
	if err != nil || got.State != Withdrawn || !strings.Contains(got.Decision.Reason, "proxy") {
		t.Errorf("it is %+v, %v", got, err)
	}
	if diff := cmp.Diff([]string{got.ID + " withdrawn"}, told); diff != "" {
		t.Error(diff)
	}
	if next := mustAsk(t, d, request("b")); !next.Earlier() {
		t.Error("the approval did not survive its process")
	}
}

func TestWorkloadHasALimit(t *testing.T) {
	d := newDesk(t)
	var tickets []*Ticket
	for i := range maxPending {
		tickets = append(tickets, mustAsk(t, d, request(fmt.Sprint(i))))
	}
	if _, err := d.Ask(request("more"), time.Minute); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v", err)
	}
	for _, ticket := range tickets {
		ticket.Withdraw("gone")
	}
	if _, err := d.Ask(request("later"), time.Minute); !errors.Is(err, ErrTooMany) {
		t.Errorf("asking and going away is free: %v", err)
	}
	other := request("other")
	other.Workload.Cgroup = "/sallyport/other"
	if _, err := d.Ask(other, time.Minute); err != nil {
		t.Errorf("another workload: %v", err)
	}
	if n := d.Waiting(); n != 1 {
		t.Errorf("%d are waiting", n)
	}
}

func TestWhatCanNotBeWrittenIsNotAskedFor(t *testing.T) {
	d := newDesk(t)
	if err := os.RemoveAll(filepath.Join(d.options.Dir, pendingDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Ask(request("a"), time.Minute); err == nil {
		t.Error("there is a ticket")
	}
	if n := d.Waiting(); n != 0 {
		t.Errorf("%d are waiting", n)
	}
}

func TestFinishedRequestsKeepNoMoreThanTheBeginning(t *testing.T) {
	d := newDesk(t)
	r := request("a")
	r.Text, r.Recorded, r.Executes = strings.Repeat("x", 3*keptText), strings.Repeat("$", 3*keptText), []string{"secret"}
	ticket := mustAsk(t, d, r)
	if got, err := d.Get(alice, ticket.Request().ID); err != nil || len(got.Text) != len(r.Text) {
		t.Errorf("an approver sees %d bytes of %d, %v", len(got.Text), len(r.Text), err)
	}
	ticket.Withdraw("gone")
	got, err := d.Get(alice, ticket.Request().ID)
	if err != nil || got.Text != strings.Repeat("$", keptText) || got.Executes != nil || got.Recorded != "" || !got.Cut {
		t.Errorf("%.20q… of %d bytes and %q are kept, %v", got.Text, len(got.Text), got.Executes, err)
	}
}

func TestHashTellsApartWhatDiffers(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"ab", "c"}, {"a", "bc"}, {"abc"}, {"a", "b", "c"}} {
		h := Hash(parts...)
		if other, ok := seen[h]; ok {
			t.Errorf("%q and %q have one hash", parts, other)
		}
		seen[h] = parts
	}
}

func TestOldFilesAreRemoved(t *testing.T) {
	d := newDesk(t)
	old, fresh := mustAsk(t, d, request("old")), mustAsk(t, d, request("fresh"))
	mustDecide(t, d, alice, old, false)
	mustDecide(t, d, alice, fresh, true)
	long := time.Now().Add(-keepFor - time.Hour)
	if err := os.Chtimes(filepath.Join(d.options.Dir, doneDir, old.Request().ID), long, long); err != nil {
		t.Fatal(err)
	}
	if err := d.store.clean(time.Now()); err != nil {
		t.Fatal(err)
	}
	list, err := d.List(alice, true)
	if err != nil || len(list) != 1 || list[0].ID != fresh.Request().ID {
		t.Errorf("left are %+v, %v", list, err)
	}
	if err := d.store.clean(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if names, err := d.store.names(grantsDir); err != nil || len(names) != 0 {
		t.Errorf("approvals left: %v, %v", names, err)
	}
}
