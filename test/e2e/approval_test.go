package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sallyport-dev/sallyport/test/env"
)

// Users who decide: no entry of the host has the first, and every host has nobody of group nogroup.
const (
	approverUID = 64101
	strangerUID = 64102
	nobodyUID   = 65534
)

// approving are rules that hold, for people of whom some do not exist.
const approving = `
  - {name: no-ddl, when: 'statement.kind == "ddl"', action: deny}
  - {name: big-delete, when: 'statement.verb == "DELETE" && !statement.filtered', action: approve, message: ask the owners,
     approval: {approvers: ["group:dba-of-nowhere", "group:nogroup", "uid:64101", "user:root"]}}
  - {name: short, when: '"pg_sleep" in statement.functions', action: approve, approval: {timeout: 1s, approvers: ["uid:64101"]}}
  - {name: lasting, when: 'statement.verb == "UPDATE"', action: approve, approval: {window: 1h, reason: required, approvers: ["uid:64101"]}}
  - {name: rest, action: allow}`

// A held is a world in which statements are held.
type held struct {
	*world
	command string // sallyport, where every user finds it
}

func holding(t *testing.T, o options) *held {
	t.Helper()
	o.rules = approving
	w := &held{world: start(t, o)}
	dir, err := os.MkdirTemp("", "sallyport-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(w.Bin, "sallyport"))
	if err != nil {
		t.Fatal(err)
	}
	w.command = filepath.Join(dir, "sallyport")
	if err := os.WriteFile(w.command, program, 0o755); err != nil {
		t.Fatal(err)
	}
	admin := w.admin()
	for _, sql := range []string{"CREATE TABLE orders (id int)", "INSERT INTO orders SELECT generate_series(1, 10)"} {
		if _, err := admin.Exec(timeout(t), sql); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// approvals is "sallyport approvals" as a user of the host.
func (w *held) approvals(uid uint32, arguments ...string) env.Result {
	w.t.Helper()
	command := exec.Command(w.command, append(append([]string{"approvals"}, arguments...), "--run-dir", w.RunDir)...)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	command.Dir = "/"
	return env.Execute(w.t, command)
}

// A shown is what "sallyport approvals" prints of a request.
type shown struct {
	ID, State, Text, Rule, Session, Kind string
	Parameters                           json.RawMessage
	MayDecide                            bool
	Workload                             struct {
		PID, UID int
	}
	Decision struct {
		By     struct{ User string }
		Reason string
	}
}

func (w *held) list(uid uint32, flags ...string) (list []shown) {
	w.t.Helper()
	got := w.approvals(uid, append([]string{"list", "-o", "json"}, flags...)...)
	if err := json.Unmarshal([]byte(got.Stdout), &list); err != nil {
		w.t.Fatalf("list: %v %s", err, got.Stderr)
	}
	return list
}

// pending waits until one request does.
func (w *held) pending() (r shown) {
	w.t.Helper()
	await(w.t, "a request is pending", func() bool {
		list := w.list(approverUID)
		if len(list) == 1 {
			r = list[0]
		}
		return len(list) == 1
	})
	return r
}

func (w *held) decide(uid uint32, arguments ...string) {
	w.t.Helper()
	if got := w.approvals(uid, arguments...); got.Status != 0 {
		w.t.Fatalf("%v ended with %d: %s", arguments, got.Status, got.Stderr)
	}
}

// becomes waits until a request has a state.
func (w *held) becomes(id, state string) (r shown) {
	w.t.Helper()
	await(w.t, "the request is "+state, func() bool {
		got := w.approvals(approverUID, "show", id, "-o", "json")
		return json.Unmarshal([]byte(got.Stdout), &r) == nil && r.State == state
	})
	return r
}

// psqlHeld starts psql, which will be held.
func (w *held) psqlHeld(environment string, statements ...string) <-chan env.Result {
	inside := w.workload()
	done := make(chan env.Result, 1)
	invocation := w.psqlInvocation(statements...)
	if environment != "" {
		invocation.env = append(invocation.env, environment)
	}
	go func() { done <- inside.run(invocation) }()
	return done
}

func TestHeldStatementRunsWhenAnotherUserApproves(t *testing.T) {
	t.Parallel()
	w := holding(t, options{})
	for name, mode := range map[string]string{"plain": "PGSSLMODE=disable", "with TLS": "PGSSLMODE=require"} {
		t.Run(name, func(t *testing.T) {
			psql := w.psqlHeld(mode, "DELETE FROM orders", "INSERT INTO orders SELECT generate_series(1, 10)")
			r := w.pending()
			if r.Text != "DELETE FROM orders" || r.Rule != "big-delete" || !r.MayDecide || r.Kind != "query" {
				t.Errorf("the request is %+v", r)
			}
			if n := w.value("SELECT count(*) FROM orders"); n != "10" {
				t.Errorf("%s orders are left while it is held", n)
			}
			w.decide(nobodyUID, "approve", r.ID, "--reason", "change 4711")
			got := <-psql
			if got.Status != 0 || got.Stdout != "DELETE 10\nINSERT 0 10\n" {
				t.Errorf("psql ended with %d: %q %s", got.Status, got.Stdout, got.Stderr)
			}
			for _, part := range []string{"NOTICE:  01000: sallyport: held by rule \"big-delete\" of policy \"orders\" until ", "request " + r.ID,
				"waits for group:dba-of-nowhere or group:nogroup or uid:64101 or user:root: ask the owners", "sallyport approvals approve " + r.ID} {
				if !strings.Contains(got.Stderr, part) {
					t.Errorf("psql does not print %q:\n%s", part, got.Stderr)
				}
			}
			if r := w.becomes(r.ID, "approved"); r.Decision.By.User != "nobody" || r.Decision.Reason != "change 4711" {
				t.Errorf("decided is %+v", r.Decision)
			}
			// All of it is in the record.
			record := w.sessionsCommand("show", r.Session)
			for _, part := range []string{"held", "approved", "change 4711", r.ID, "nobody"} {
				if !strings.Contains(record.Stdout, part) {
					t.Errorf("the record does not have %q:\n%s", part, record.Stdout)
				}
			}
		})
	}
	if n := w.metric(`sallyport_approval_requests_total{outcome="approved",policy="orders",rule="big-delete",target="orders-db"}`); n != 2 {
		t.Errorf("%v requests are counted", n)
	}
	if got := w.sessionsCommand("verify"); got.Status != 0 {
		t.Errorf("verify: %s", got.Stderr)
	}
}

func TestHeldStatementThatIsNotApprovedLeavesTheSessionUsable(t *testing.T) {
	t.Parallel()
	w := holding(t, options{})
	t.Run("denied", func(t *testing.T) {
		psql := w.psqlHeld("", "DELETE FROM orders", "SELECT 1")
		r := w.pending()
		w.decide(approverUID, "deny", r.ID, "--reason", "give it a WHERE clause")
		got := <-psql
		if want := fmt.Sprintf(`ERROR:  42501: sallyport: not approved: request %s, held by rule "big-delete" of policy "orders", was denied by uid 64101: give it a WHERE clause`, r.ID); !strings.Contains(got.Stderr, want) || got.Stdout != "1\n" {
			t.Errorf("psql prints %q %s", got.Stdout, got.Stderr)
		}
	})
	t.Run("not decided in time", func(t *testing.T) {
		got := <-w.psqlHeld("", "SELECT pg_sleep(0)", "SELECT 1")
		if !strings.Contains(got.Stderr, "42501") || !strings.Contains(got.Stderr, "was not decided in time") || got.Stdout != "1\n" {
			t.Errorf("psql prints %q %s", got.Stdout, got.Stderr)
		}
	})
	t.Run("canceled by Ctrl-C", func(t *testing.T) {
		psql := w.psqlHeld("", "DELETE FROM orders")
		r := w.pending()
		if err := syscall.Kill(r.Workload.PID, syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		got := <-psql
		if !strings.Contains(got.Stderr, "ERROR:  57014: canceling statement due to user request") {
			t.Errorf("psql prints %s", got.Stderr)
		}
		w.becomes(r.ID, "withdrawn")
	})
	t.Run("canceled in the middle of a pipeline", func(t *testing.T) {
		c := w.wire()
		c.send(append(unnamed("DELETE FROM orders"), execute(""), syncMessage(), &pgproto3.Query{String: "SELECT 1"})...)
		r := w.pending()
		sendCancel(t, w.workload().mustDial(w.address()), pgproto3.CancelRequest{ProcessID: c.key.ProcessID, SecretKey: c.key.SecretKey})
		if diff := cmp.Diff([]string{"ParseComplete", "NoticeResponse", "Error 57014", "Ready I"}, c.batch()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(selected, c.batch()); diff != "" {
			t.Errorf("what is behind (-want +got):\n%s", diff)
		}
		w.becomes(r.ID, "withdrawn")
	})
	if n := w.value("SELECT count(*) FROM orders"); n != "10" {
		t.Errorf("%s orders are left", n)
	}
}

func TestHeldStatementIsWithdrawnWhenItsClientGoes(t *testing.T) {
	t.Parallel()
	w := holding(t, options{})
	c := w.wire()
	// What is sent behind hides the end.
	c.send(&pgproto3.Query{String: "DELETE FROM orders"}, &pgproto3.Query{String: "SELECT 1"})
	r := w.pending()
	c.conn.Close()
	w.becomes(r.ID, "withdrawn")
	if got := w.approvals(approverUID, "approve", r.ID); got.Status == 0 || !strings.Contains(got.Stderr, "it is withdrawn") {
		t.Errorf("it can be approved: %s", got.Stderr)
	}
	secured := w.psqlHeld("PGSSLMODE=require", "DELETE FROM orders")
	r = w.pending()
	if err := syscall.Kill(r.Workload.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-secured
	w.becomes(r.ID, "withdrawn")
	if n := w.value("SELECT count(*) FROM orders"); n != "10" {
		t.Errorf("%s orders are left", n)
	}
}

func TestWhoAsksCanNotDecide(t *testing.T) {
	t.Parallel()
	w := holding(t, options{})
	psql := w.psqlHeld("", "DELETE FROM orders")
	r := w.pending()
	for _, test := range []struct {
		name string
		run  func() env.Result
		want string
	}{
		{"the user who asks, whom the rule names", func() env.Result { return w.approvals(0, "approve", r.ID) }, "who asks can not decide"},
		{"a user whom no rule names", func() env.Result { return w.approvals(strangerUID, "approve", r.ID) }, "there is no such request"},
		{"an approver within the workload", func() env.Result {
			return w.run(nil, "setpriv", "--reuid", itoa(approverUID), "--regid", itoa(approverUID), "--clear-groups",
				w.command, "approvals", "approve", r.ID, "--run-dir", w.RunDir)
		}, "processes of workloads do not decide"},
	} {
		if got := test.run(); got.Status == 0 || !strings.Contains(got.Stderr, test.want) {
			t.Errorf("%s: status %d, %s", test.name, got.Status, got.Stderr)
		}
	}
	if list := w.list(strangerUID); len(list) != 0 {
		t.Errorf("a stranger sees %+v", list)
	}
	if list := w.list(0); len(list) != 1 || list[0].MayDecide {
		t.Errorf("root sees %+v", list)
	}
	w.decide(approverUID, "deny", r.ID)
	<-psql
	if n := w.metric("sallyport_approval_people_refused_total"); n != 2 {
		t.Errorf("%v refusals are counted", n)
	}
}

func TestApprovalIsForTheVeryStatementWithItsParameters(t *testing.T) {
	t.Parallel()
	w := holding(t, options{record: "{parameters: full}"})
	c := w.connect()
	update := func(id int) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(context.Background(), "UPDATE orders SET id = id WHERE id = $1", id)
			done <- err
		}()
		return done
	}
	first := update(1)
	r := w.pending()
	if r.Kind != "execute" || r.Text != "UPDATE orders SET id = id WHERE id = $1" || !strings.Contains(string(r.Parameters), `00000001`) {
		t.Errorf("the request is %+v %s", r, r.Parameters)
	}
	if got := w.approvals(approverUID, "approve", r.ID); got.Status == 0 || !strings.Contains(got.Stderr, "wants a reason") {
		t.Errorf("without a reason: %s", got.Stderr)
	}
	w.decide(approverUID, "approve", r.ID, "--reason", "ticket")
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	// Within the window, the same again; and it outlives the proxy.
	if err := <-update(1); err != nil {
		t.Error(err)
	}
	kill(t, w.proxyPID())
	c = w.connect()
	if err := <-update(1); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	other := update(2)
	r = w.pending()
	w.decide(approverUID, "deny", r.ID, "--reason", "not this one")
	if err := <-other; sqlstate(err) != "42501" || !strings.Contains(err.Error(), "not this one") {
		t.Errorf("another parameter: %v", err)
	}
	if err := <-update(1); err != nil {
		t.Errorf("the session is of no use: %v", err)
	}
}

func TestPipelinedBatchWaitsBehindWhatIsHeld(t *testing.T) {
	t.Parallel()
	w := holding(t, options{})
	c := w.connect()
	run := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			batch := &pgx.Batch{}
			for _, sql := range []string{"INSERT INTO orders VALUES (11)", "DELETE FROM orders", "INSERT INTO orders VALUES (12)"} {
				batch.Queue(sql)
			}
			done <- c.SendBatch(context.Background(), batch).Close()
		}()
		return done
	}
	// A batch is one transaction: what is before the held statement is undone with it.
	done := run()
	w.decide(approverUID, "deny", w.pending().ID)
	if err := <-done; sqlstate(err) != "42501" {
		t.Errorf("denied: %v", err)
	}
	if n := w.value("SELECT count(*) FROM orders"); n != "10" {
		t.Errorf("%s orders are left", n)
	}
	done = run()
	w.decide(approverUID, "approve", w.pending().ID)
	if err := <-done; err != nil {
		t.Errorf("approved: %v", err)
	}
	if n := w.value("SELECT count(*) FROM orders WHERE id = 12"); n != "1" || w.value("SELECT count(*) FROM orders") != "1" {
		t.Error("the batch did not run in order")
	}
}

func TestNoticeStandsBetweenAnswers(t *testing.T) {
	t.Parallel()
	w := holding(t, options{})
	c := w.wire()
	c.send(parse("s", "DELETE FROM orders"), &pgproto3.Describe{ObjectType: 'S', Name: "s"}, syncMessage())
	if diff := cmp.Diff([]string{"ParseComplete", "ParameterDescription", "NoData", "Ready I"}, c.batch()); diff != "" {
		t.Fatalf("Parse is held (-want +got):\n%s", diff)
	}
	c.send(parse("", "SELECT 1"), bind("", ""), execute(""), bind("p", "s"), execute("p"), syncMessage(), &pgproto3.Query{String: "SELECT 2"})
	w.decide(approverUID, "approve", w.pending().ID)
	want := []string{"ParseComplete", "BindComplete", "Row 1", "SELECT 1", "NoticeResponse", "BindComplete", "DELETE 10", "Ready I"}
	if diff := cmp.Diff(want, c.batch()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"RowDescription", "Row 2", "SELECT 1", "Ready I"}, c.batch()); diff != "" {
		t.Errorf("what is behind (-want +got):\n%s", diff)
	}
}

func TestRestartEndsTheConnectionAndWithdraws(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stop func(t *testing.T, w *held)
		want []string
	}{
		"a proxy that is killed":   {func(t *testing.T, w *held) { kill(t, w.proxyPID()) }, nil},
		"a proxy that is replaced": {func(t *testing.T, w *held) { w.upgrade(t) }, []string{"FATAL 57P01"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := holding(t, options{})
			c := w.wire()
			c.send(&pgproto3.Query{String: "BEGIN"})
			c.batch()
			c.send(&pgproto3.Query{String: "DELETE FROM orders"})
			if got := inWords(c.receive()); got != "NoticeResponse" {
				t.Fatalf("the client gets %s", got)
			}
			r := w.pending()
			test.stop(t, w)
			if diff := cmp.Diff(test.want, c.rest()); diff != "" {
				t.Errorf("the client gets (-want +got):\n%s", diff)
			}
			await(t, "it is ready again", func() bool { return w.status().Ready })
			w.becomes(r.ID, "withdrawn")
			if n := w.value("SELECT count(*) FROM orders"); n != "10" {
				t.Errorf("%s orders are left", n)
			}
		})
	}
}

func (w *held) upgrade(t *testing.T) {
	t.Helper()
	if got := env.Execute(t, w.Command("upgrade", "--run-dir", w.RunDir)); got.Status != 0 {
		t.Fatalf("upgrade: %s%s", got.Stdout, got.Stderr)
	}
}

func TestOtherSessionsGoOnWhileOneIsHeld(t *testing.T) {
	t.Parallel()
	w := holding(t, options{})
	var held []*wire
	for range 8 { // more than there are relay threads
		c := w.wire()
		c.send(&pgproto3.Query{String: "DELETE FROM orders"})
		if got := inWords(c.receive()); got != "NoticeResponse" {
			t.Fatalf("the client gets %s", got)
		}
		held = append(held, c)
	}
	if diff := cmp.Diff(selected, w.wire().query("SELECT 1")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := w.metric("sallyport_approval_requests_pending"); n != 8 {
		t.Errorf("%v are pending", n)
	}
	for _, r := range w.list(approverUID) {
		w.decide(approverUID, "deny", r.ID)
	}
	for _, c := range held {
		if diff := cmp.Diff(deniedQuery, c.batch()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestChangedDocumentsDecideAgain(t *testing.T) {
	t.Parallel()
	w := holding(t, options{})
	c := w.connect()
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "DELETE FROM orders")
		done <- err
	}()
	r := w.pending()
	w.WriteDocument("policy.yaml", w.policy("[{name: nothing-goes, when: 'statement.verb == \"DELETE\"', action: deny}, {name: rest, action: allow}]"))
	var refused *pgconn.PgError
	if err := <-done; !errors.As(err, &refused) || !strings.Contains(refused.Message, `denied by rule "nothing-goes"`) {
		t.Errorf("got %v", err)
	}
	w.becomes(r.ID, "withdrawn")
}

func TestStartupSettingCanNotBeHeld(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: `
  - {name: paths, when: 'statement.setting == "search_path"', action: approve, approval: {approvers: ["uid:64101"]}}
  - {name: rest, action: allow}`})
	config := w.config()
	config.RuntimeParams["search_path"] = "public"
	_, err := pgx.ConnectConfig(timeout(t), config)
	if err == nil || !strings.Contains(err.Error(), "a startup parameter can not: use SET") {
		t.Errorf("got %v", err)
	}
}
