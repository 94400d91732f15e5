package postgres

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

func (j *fakeJudge) holds(units []sql.Unit) (d policy.Decision) {
	if j.held == nil {
		return d
	}
	for i := range units {
		if a := j.held(&units[i]); a != nil {
			if d.Action != policy.Hold {
				d = policy.Decision{Action: policy.Hold, Policy: a.Policy, Rule: a.Rule}
			}
			d.Holds = policy.Join(d.Holds, []*policy.Approval{a})
		}
	}
	return d
}

// A crowd asks a real desk, for a judge.
type crowd struct {
	desk     *approval.Desk
	replaced chan struct{}
	asked    []proxy.Operation
}

func (c *crowd) Holds() bool { return true }
func (c *crowd) Question(a *policy.Approval, op proxy.Operation) approval.Request {
	c.asked = append(c.asked, op)
	return approval.Request{
		Hash: approval.Hash(slices.Concat([]string{a.Rule, op.Kind}, op.Binding)...), Workload: approval.Workload{Cgroup: "/w", UID: 7},
		Policy: a.Policy, Rule: a.Rule, Approvers: a.Approvers, Window: int64(a.Window.Seconds()), Kind: op.Kind, Text: op.Text, Executes: op.Executes,
	}
}
func (c *crowd) Ask(a *policy.Approval, r approval.Request) (*approval.Ticket, error) {
	return c.desk.Ask(r, a.Timeout)
}
func (c *crowd) Replaced() <-chan struct{} { return c.replaced }

var dba = approval.Person{UID: 1, User: "dba", Cgroup: "/user.slice"}

// An audience is a wire with people who decide.
type audience struct {
	*wire
	*crowd
	t *testing.T
}

// newAudience has updates held by one rule, inserts by another, and functions by a third.
func newAudience(t *testing.T) *audience {
	t.Helper()
	desk, err := approval.Open(approval.Options{Dir: filepath.Join(t.TempDir(), "approvals")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { desk.Close() })
	a := &audience{wire: newWire(), crowd: &crowd{desk: desk, replaced: make(chan struct{})}, t: t}
	by := map[string]*policy.Approval{}
	for _, verb := range []string{"UPDATE", "INSERT", "FUNCTION CALL"} {
		rule := strings.ToLower(strings.ReplaceAll(verb, " ", "-"))
		by[verb] = &policy.Approval{Policy: "p", Rule: rule, Timeout: time.Minute, Approvers: []string{"user:dba"}}
	}
	a.wire.judge.held = func(u *sql.Unit) *policy.Approval { return by[u.Verb] }
	a.wire.judge.asker = a.crowd
	return a
}

// work does what the client's half waits for, and lets it go on.
func (a *audience) work() {
	a.t.Helper()
	f := a.awaited
	if f == nil {
		a.t.Fatal("nothing is awaited")
	}
	f(make(chan struct{}))
	a.awaited = nil
	a.pumpClient()
}

// pending is the one request that waits.
func (a *audience) pending() approval.Request {
	a.t.Helper()
	list, err := a.desk.List(dba, false)
	if err != nil || len(list) != 1 {
		a.t.Fatalf("%d requests are pending, %v", len(list), err)
	}
	return list[0]
}

// asks works until people are asked, and says who decides what.
func (a *audience) asks(approve bool) approval.Request {
	a.t.Helper()
	a.work() // the request is made
	r := a.pending()
	if _, err := a.desk.Decide(dba, r.ID, approve, ""); err != nil {
		a.t.Fatal(err)
	}
	a.work()
	return r
}

func (a *audience) expect(server, client string) {
	a.t.Helper()
	if got := a.forwarded(); got != server {
		a.t.Errorf("the server got %q, want %q", got, server)
	}
	if got := a.answered(); got != client {
		a.t.Errorf("the client got %q, want %q", got, client)
	}
	a.check(a.t)
}

func TestApprovedQueryIsForwardedAndWhatIsBehindItWaits(t *testing.T) {
	a := newAudience(t)
	a.client(qry("SELECT 1") + qry("UPDATE t SET a = 1") + qry("SELECT 2"))
	// The answer to what was sent before comes first.
	a.expect("Q H", "")
	a.server(rows + row + tag("SELECT 1") + idleNow)
	a.expect("", "T D C Z(I)")
	r := a.asks(true)
	if !strings.Contains(string(a.toConn), "held by rule \"update\" of policy \"p\" until ") || !strings.Contains(string(a.toConn), r.ID) {
		t.Errorf("the client reads %q", a.toConn)
	}
	a.expect("Q Q", "N")
	a.server(tag("UPDATE 1") + idleNow + tag("SELECT 0") + idleNow)
	a.expect("", "C Z(I) C Z(I)")
	want := []string{"query allow SELECT $1", "query allow UPDATE t SET a = $1", "query allow SELECT $1"}
	if diff := cmp.Diff(want, a.judge.ops); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"held", "approved"}, a.judge.notes); diff != "" {
		t.Error(diff)
	}
	// Once is once.
	a.client(qry("UPDATE t SET a = 1"))
	a.work()
	a.expect("", "N")
}

func TestDeniedRequestIsAnErrorInItsPlace(t *testing.T) {
	a := newAudience(t)
	a.client(qry("UPDATE t SET a = 1") + qry("SELECT 2"))
	a.asks(false)
	a.expect("Q! Q", "N")
	a.server(errMsg("42601") + idleNow + tag("SELECT 0") + idleNow)
	a.expect("", "E(42501) Z(I) C Z(I)")
	if !strings.Contains(string(a.toConn), `held by rule "update" of policy "p", was denied by dba`) {
		t.Errorf("the client reads %q", a.toConn)
	}
	if diff := cmp.Diff([]string{"query deny UPDATE t SET a = $1", "query allow SELECT $1"}, a.judge.ops); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"held", "denied"}, a.judge.notes); diff != "" {
		t.Error(diff)
	}
}

func TestRequestThatNobodyDecidesExpires(t *testing.T) {
	a := newAudience(t)
	short := &policy.Approval{Policy: "p", Rule: "short", Timeout: 200 * time.Millisecond, Approvers: []string{"user:dba"}}
	a.judge.held = func(*sql.Unit) *policy.Approval { return short }
	a.client(qry("SELECT 1"))
	a.work()
	a.work()
	a.expect("Q!", "N")
	a.server(errMsg("42601") + idleNow)
	a.expect("", "E(42501) Z(I)")
	if !strings.Contains(string(a.toConn), `held by rule "short" of policy "p", was not decided in time`) {
		t.Errorf("the client reads %q", a.toConn)
	}
}

func TestCancelRequestWithdraws(t *testing.T) {
	for _, test := range []struct {
		name string
		when func(a *audience, cancel func() bool)
	}{
		{"while the client waits", func(a *audience, cancel func() bool) {
			a.work()
			if !cancel() {
				t.Error("it was for nobody")
			}
			a.work()
		}},
		{"before people were asked", func(a *audience, cancel func() bool) {
			if !cancel() {
				t.Error("it was for nobody")
			}
			a.work()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAudience(t)
			a.client(qry("UPDATE t SET a = 1") + qry("SELECT 1"))
			test.when(a, a.holding.cancel)
			if got := a.forwarded(); got != "Q! Q" {
				t.Errorf("the server got %q", got)
			}
			a.server(errMsg("42601") + idleNow + tag("SELECT 0") + idleNow)
			if got := strings.TrimPrefix(a.answered(), "N "); got != "E(57014) Z(I) C Z(I)" {
				t.Errorf("the client got %q", got)
			}
			if list, err := a.desk.List(dba, true); err != nil || len(list) != 1 || list[0].State != approval.Withdrawn {
				t.Errorf("the requests are %+v, %v", list, err)
			}
			if a.holding.cancel() {
				t.Error("a cancel request for nothing is taken")
			}
		})
	}
}

func TestCancelRequestAfterTheDecisionGoesToTheServer(t *testing.T) {
	a := newAudience(t)
	a.client(qry("UPDATE t SET a = 1"))
	a.work()
	if _, err := a.desk.Decide(dba, a.pending().ID, true, ""); err != nil {
		t.Fatal(err)
	}
	if a.holding.cancel() {
		t.Error("an approved request is withdrawn")
	}
	a.work()
	a.expect("Q", "N")
}

func TestBindIsHeldWithItsParametersAndParseIsNot(t *testing.T) {
	a := newAudience(t)
	bound := func(value string) string {
		return mk(msgBind, "\x00s\x00\x00\x00\x00\x01", uint32Bytes(uint32(len(value))), value, "\x00\x00")
	}
	a.client(prs("s", "UPDATE t SET a = $1") + dsc("S", "s") + syn)
	a.expect("P D S", "")
	a.server(parseOK + mk(msgParameterDescription, "\x00\x00") + mk(msgNoData) + idleNow)
	a.expect("", "1 t n Z(I)")
	a.client(bound("1") + exe("") + syn)
	r := a.asks(true)
	if r.Kind != "execute" || r.Text != "UPDATE t SET a = $1" {
		t.Errorf("approvers see %s %q", r.Kind, r.Text)
	}
	a.expect("B E S", "N")
	a.server(bindOK + tag("UPDATE 1") + idleNow)
	a.expect("", "2 C Z(I)")
	a.client(bound("2") + exe("") + syn)
	second := a.asks(false)
	if second.Hash == r.Hash {
		t.Error("another parameter has the same hash")
	}
	a.expect("P! S", "N")
	a.server(errMsg("42601") + idleNow)
	a.expect("", "E(42501) Z(I)")
	if diff := cmp.Diff([]string{"execute allow UPDATE t SET a = $1", "bind deny UPDATE t SET a = $1"}, a.judge.ops); diff != "" {
		t.Error(diff)
	}
}

func TestPipelineIsFlushedBeforeABindIsHeld(t *testing.T) {
	a := newAudience(t)
	a.client(prs("", "UPDATE t SET a = 1") + bnd("", "") + exe("") + syn)
	a.expect("P H", "") // the server would keep its answer to Parse until the Sync, which waits
	a.server(parseOK)
	a.asks(true)
	a.expect("B E S", "1 N")
	a.server(bindOK + tag("UPDATE 1") + idleNow)
	a.expect("", "2 C Z(I)")
}

func TestNobodyIsAskedAboutWhatIsSkipped(t *testing.T) {
	a := newAudience(t)
	a.client(prs("", "UPDATE t SET a = 1") + bnd("", "") + exe("") + syn + qry("SELECT 1"))
	a.expect("P H", "")
	a.server(errMsg("42P01"))
	a.expect("S Q", "E(42P01)")
	a.server(idleNow + tag("SELECT 0") + idleNow)
	a.expect("", "Z(I) C Z(I)")
	if list, err := a.desk.List(dba, true); err != nil || len(list) != 0 {
		t.Errorf("the requests are %+v, %v", list, err)
	}
}

func TestStringThatTwoRulesHoldNeedsBoth(t *testing.T) {
	a := newAudience(t)
	const text = "UPDATE t SET a = 1; SELECT 1; INSERT INTO t VALUES (2)"
	a.client(qry(text))
	first := a.asks(true)
	a.expect("", "N")
	second := a.asks(true)
	a.expect("Q", "N")
	if first.Rule != "update" || second.Rule != "insert" || first.Text != text {
		t.Errorf("asked are %s and %s about %q", first.Rule, second.Rule, first.Text)
	}
	a.server(tag("UPDATE 1") + tag("SELECT 1") + tag("INSERT 0 1") + idleNow)
	a.expect("", "C C C Z(I)")
	a.client(qry(text))
	a.asks(true)
	a.asks(false)
	a.expect("Q!", "N N")
}

func TestDenialWithinAStringIsAskedNobody(t *testing.T) {
	a := newAudience(t)
	a.client(qry("UPDATE t SET a = 1; DELETE FROM t"))
	a.expect("Q!", "")
}

func TestPreparedStatementIsHeldWhenItRuns(t *testing.T) {
	run := func(a *audience, text string) {
		a.client(qry(text))
		a.server(tag("DONE") + idleNow)
		a.forwarded()
		a.answered()
	}
	t.Run("by EXECUTE", func(t *testing.T) {
		a := newAudience(t)
		run(a, "PREPARE s (int) AS UPDATE t SET a = $1")
		a.client(qry("EXECUTE s(1)"))
		r := a.asks(true)
		if r.Text != "EXECUTE s(1)" || len(r.Executes) != 1 || r.Executes[0] != "PREPARE s (int) AS UPDATE t SET a = $1" {
			t.Errorf("approvers see %q and %q", r.Text, r.Executes)
		}
		a.expect("Q", "N")
	})
	t.Run("by Bind", func(t *testing.T) {
		a := newAudience(t)
		run(a, "PREPARE s AS UPDATE t SET a = 1")
		a.client(bnd("", "s") + exe("") + syn)
		a.asks(true)
		a.expect("B E S", "N")
	})
	t.Run("by EXECUTE in the same string", func(t *testing.T) {
		a := newAudience(t)
		a.client(qry("PREPARE s AS UPDATE t SET a = 1; EXECUTE s"))
		a.asks(true)
		a.expect("Q", "N")
	})
	t.Run("and another under the same name is another", func(t *testing.T) {
		a := newAudience(t)
		var hashes []string
		for _, text := range []string{"UPDATE t SET a = 1", "UPDATE t SET a = 2"} {
			run(a, "PREPARE s AS "+text)
			a.client(qry("EXECUTE s"))
			hashes = append(hashes, a.asks(true).Hash)
			a.server(tag("UPDATE 1") + idleNow)
			run(a, "DEALLOCATE s")
		}
		if hashes[0] == hashes[1] {
			t.Error("they have one hash")
		}
	})
}

func TestBoundPortalCanNotBeRunByFetchUnasked(t *testing.T) {
	a := newAudience(t)
	a.client(qry("BEGIN"))
	a.server(tag("BEGIN") + inTx)
	a.client(prs("s", "UPDATE t SET a = 1 RETURNING a") + syn)
	a.server(parseOK + inTx)
	a.forwarded()
	a.answered()
	a.client(bnd("p", "s") + syn + qry("FETCH ALL FROM p"))
	a.expect("", "")
	a.asks(false)
	a.expect("P! S Q", "N")
}

func TestSessionThatEndsWithdraws(t *testing.T) {
	a := newAudience(t)
	a.client(qry("UPDATE t SET a = 1"))
	a.work()
	id := a.pending().ID
	a.endHold("the client has closed its connection")
	r, err := a.desk.Get(dba, id)
	if err != nil || r.State != approval.Withdrawn || r.Decision.Reason != "the client has closed its connection" {
		t.Errorf("the request is %+v, %v", r, err)
	}
	if diff := cmp.Diff([]string{"held", "withdrawn"}, a.judge.notes); diff != "" {
		t.Error(diff)
	}
	early := newAudience(t)
	early.client(qry("UPDATE t SET a = 1"))
	ask := early.awaited
	early.endHold("gone")
	ask(nil) // which was on its way
	if list, err := early.desk.List(dba, false); err != nil || len(list) != 0 {
		t.Errorf("pending are %+v, %v", list, err)
	}
}

func TestDrainEndsASessionThatIsHeld(t *testing.T) {
	a := newAudience(t)
	a.client(qry("BEGIN"))
	a.server(tag("BEGIN") + inTx)
	a.client(qry("UPDATE t SET a = 1"))
	a.work()
	a.answered()
	var none []byte
	_, out := a.process(drainer{a.machine}, &none)
	if a.err == nil || summary(out.Forwarded(), true) != "E(57P01)" {
		t.Errorf("the client gets %q, %v", out.Forwarded(), a.err)
	}
}

func TestFunctionCallIsHeldWhole(t *testing.T) {
	a := newAudience(t)
	a.bytewise = true // its arguments come late
	a.client(mk(msgFunctionCall, uint32Bytes(953), "\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x63\x00\x01"))
	r := a.asks(true)
	if r.Text != "lo_close (oid 953)" {
		t.Errorf("approvers see %q", r.Text)
	}
	a.expect("F", "N")
	a.server(mk(msgFunctionCallResponse, "\xff\xff\xff\xff") + idleNow)
	a.client(mk(msgFunctionCall, uint32Bytes(953), "\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x64\x00\x01"))
	if other := a.asks(false); other.Hash == r.Hash {
		t.Error("another argument has the same hash")
	}
	a.expect("Q!", "V Z(I) N")
}

func TestEarlierApprovalServesWithinItsWindow(t *testing.T) {
	a := newAudience(t)
	lasting := &policy.Approval{Policy: "p", Rule: "lasting", Timeout: time.Minute, Window: time.Hour, Approvers: []string{"user:dba"}}
	a.judge.held = func(*sql.Unit) *policy.Approval { return lasting }
	a.client(qry("SELECT 1"))
	a.asks(true)
	a.expect("Q", "N")
	a.server(tag("SELECT 1") + idleNow)
	a.answered()
	a.client(qry("SELECT 1"))
	a.work()
	a.expect("Q", "") // and nobody is told
	if diff := cmp.Diff([]string{"held", "approved", "approved"}, a.judge.notes); diff != "" {
		t.Error(diff)
	}
}

func TestApprovalIsInTheRecordOfTheOperation(t *testing.T) {
	var got struct {
		Decision  string
		Approvals []struct {
			Request, State string
			By             approval.By
		}
	}
	r := approval.Request{ID: "0123abcd", State: approval.Approved, Decision: &approval.Decision{By: &approval.By{UID: 1, User: "dba"}}}
	fragment := approvalFragment(policy.Decision{Action: policy.Allow, Policy: "p", Rule: "update"}, r, approval.Request{})
	if err := json.Unmarshal([]byte("{"+string(fragment)+"}"), &got); err != nil {
		t.Fatal(err)
	}
	if got.Decision != "allow" || len(got.Approvals) != 1 || got.Approvals[0].By.User != "dba" || !strings.HasPrefix(string(fragment), `"decision":"allow"`) {
		t.Errorf("the fragment is %s", fragment)
	}
}
