package postgres

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

func TestDecisionUnderOtherDocumentsIsVoid(t *testing.T) {
	change := func(a *audience, held func(*sql.Unit) *policy.Approval, forbidden func(*sql.Unit, []string) bool) {
		a.judge.revision++
		a.judge.held, a.judge.forbidden = held, forbidden
		close(a.replaced)
		a.replaced = make(chan struct{})
	}
	allows, holdsNothing := func(*sql.Unit, []string) bool { return false }, func(*sql.Unit) *policy.Approval { return nil }
	state := func(a *audience, id string) approval.State {
		r, err := a.desk.Get(dba, id)
		if err != nil {
			t.Fatal(err)
		}
		return r.State
	}
	t.Run("what is denied now is denied at once", func(t *testing.T) {
		a := newAudience(t)
		a.client(qry("UPDATE t SET a = 1"))
		a.work()
		id := a.pending().ID
		change(a, a.judge.held, func(*sql.Unit, []string) bool { return true })
		a.work()
		a.expect("Q!", "N")
		if s := state(a, id); s != approval.Withdrawn {
			t.Errorf("the request is %s", s)
		}
	})
	t.Run("what is allowed now goes on", func(t *testing.T) {
		a := newAudience(t)
		a.client(qry("UPDATE t SET a = 1"))
		a.work()
		id := a.pending().ID
		change(a, holdsNothing, allows)
		a.work()
		a.expect("Q", "N")
		if s := state(a, id); s != approval.Withdrawn {
			t.Errorf("the request is %s", s)
		}
	})
	t.Run("what another rule holds now is asked anew", func(t *testing.T) {
		a := newAudience(t)
		a.client(qry("UPDATE t SET a = 1"))
		a.work()
		id := a.pending().ID
		other := &policy.Approval{Policy: "p", Rule: "other", Timeout: time.Minute, Approvers: []string{"user:dba"}}
		change(a, func(*sql.Unit) *policy.Approval { return other }, allows)
		if _, err := a.desk.Decide(dba, id, true, ""); err != nil { // in this very moment
			t.Fatal(err)
		}
		a.work()
		if r := a.asks(true); r.Rule != "other" {
			t.Errorf("asked is %s", r.Rule)
		}
		a.expect("Q", "N N")
	})
	t.Run("what is held as before waits on, and the client is told once", func(t *testing.T) {
		a := newAudience(t)
		a.client(qry("UPDATE t SET a = 1"))
		a.work()
		id := a.pending().ID
		change(a, a.judge.held, allows)
		a.work()
		if r := a.pending(); r.ID != id {
			t.Error("another request is pending")
		}
		if _, err := a.desk.Decide(dba, id, true, ""); err != nil {
			t.Fatal(err)
		}
		a.work()
		a.expect("Q", "N")
	})
	t.Run("a portal that was bound before the rule is not run", func(t *testing.T) {
		a := newAudience(t)
		held := a.judge.held
		a.judge.held = nil
		a.client(prs("", "UPDATE t SET a = 1") + bnd("", "") + flsh)
		a.server(parseOK + bindOK)
		a.forwarded()
		a.answered()
		change(a, held, allows)
		a.client(exe("") + syn)
		a.expect("P! S", "")
		a.server(errMsg("42601") + idleNow)
		a.expect("", "E(42501) Z(I)")
	})
	t.Run("a statement whose text nobody kept is not run", func(t *testing.T) {
		a := newAudience(t)
		held := a.judge.held
		a.judge.held, a.judge.asker = nil, nobodyAsks{}
		a.client(prs("s", "UPDATE t SET a = 1") + syn)
		a.server(parseOK + idleNow)
		a.forwarded()
		a.answered()
		a.judge.asker = a.crowd
		change(a, held, allows)
		a.client(bnd("", "s") + exe("") + syn)
		a.expect("P! S", "")
	})
}

func TestWhatIsTooLongToBeReadIsDenied(t *testing.T) {
	a := newAudience(t)
	a.client(qry("UPDATE t SET a = '" + strings.Repeat("x", maxHeld) + "'"))
	a.expect("Q!", "")
	a.server(errMsg("42601") + idleNow)
	a.expect("", "E(54000) Z(I)")
	a.client(prs("s", "UPDATE t SET a = $1") + syn)
	a.server(parseOK + idleNow)
	a.forwarded()
	a.answered()
	long := strings.Repeat("x", maxHeld)
	a.client(mk(msgBind, "\x00s\x00\x00\x00\x00\x01", uint32Bytes(uint32(len(long))), long, "\x00\x00") + syn)
	a.expect("P! S", "")
}

func TestBindThatIsLongerThanWhatIsMostlyLookedAtIsHeldWhole(t *testing.T) {
	a := newAudience(t)
	a.client(prs("s", "UPDATE t SET a = $1") + syn)
	a.server(parseOK + idleNow)
	a.forwarded()
	a.answered()
	var hashes []string
	for _, last := range []string{"a", "b"} { // they differ where a Bind is not looked at otherwise
		value := strings.Repeat("x", 2*maxControl) + last
		a.client(mk(msgBind, "\x00s\x00\x00\x00\x00\x01", uint32Bytes(uint32(len(value))), value, "\x00\x00") + syn)
		hashes = append(hashes, a.asks(false).Hash)
		a.server(errMsg("42601") + idleNow)
	}
	if hashes[0] == hashes[1] {
		t.Error("they have one hash")
	}
}

func TestTooManyRequestsAreDenied(t *testing.T) {
	a := newAudience(t)
	for i := range 64 {
		r := approval.Request{Hash: fmt.Sprint(i), Workload: approval.Workload{Cgroup: "/w"}, Approvers: []string{"user:dba"}}
		if _, err := a.desk.Ask(r, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	a.client(qry("UPDATE t SET a = 1"))
	a.work()
	a.expect("Q!", "")
	a.server(errMsg("42601") + idleNow)
	a.expect("", "E(42501) Z(I)")
	if !strings.Contains(string(a.toConn), "asks for too many approvals") {
		t.Errorf("the client reads %q", a.toConn)
	}
}
