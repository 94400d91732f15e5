package record

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

// testTime is some time.
var testTime = time.Unix(1_700_000_000, 0)

var testMeta = Meta{
	Workload: Workload{Name: "demo", Cgroup: "/sallyport/demo", PID: 42, UID: 1000, Comm: "psql"},
	Target:   "orders-db", Protocol: "postgres", Destination: "10.8.0.5:5432", Upstream: "10.8.0.5:5432", Node: "node-1",
}

var (
	allowed = NewFragment(decided{"allow", "checkout", "rest"})
	denied  = NewFragment(decided{"deny", "checkout", "no-ddl"})
)

type decided struct {
	Decision string `json:"decision"`
	Policy   string `json:"policy"`
	Rule     string `json:"rule"`
}

type stated struct {
	Text        string `json:"text"`
	Fingerprint string `json:"fingerprint,omitempty"`
}

func query(text string) *Operation {
	return &Operation{Kind: "query", Statement: NewFragment(stated{Text: text, Fingerprint: "0123456789abcdef"}), Decision: allowed}
}

func openTestStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func begin(t testing.TB, s *Store) *Session {
	t.Helper()
	session, err := s.Begin(testMeta)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func operate(t testing.TB, s *Session, op *Operation) uint64 {
	t.Helper()
	seq, err := s.Operation(op)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func verify(t testing.TB, dir string) Report {
	t.Helper()
	report, err := Verify(dir, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func wantSound(t testing.TB, dir string) Report {
	t.Helper()
	report := verify(t, dir)
	if len(report.Faults) > 0 {
		t.Fatalf("faults in a sound record: %+v", report.Faults)
	}
	return report
}

func entries(t testing.TB, dir, id string) (list []Entry) {
	t.Helper()
	for e, err := range Read(dir, id) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// waitFor waits until ok.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func content(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir := t.TempDir()
	store, err := OpenStore(dir, zaptest.NewLogger(t))
	must(t, err)
	session := begin(t, store)
	must(t, session.Note("tls", NewFragment(map[string]string{"version": "1.3"})))
	first := operate(t, session, query("SELECT 1"))
	second := operate(t, session, &Operation{
		Kind: "execute", Statement: NewFragment(stated{Text: "DROP TABLE t"}), Parameters: Fragment(`"parameters":{"count":2}`), Decision: denied,
	})
	third := operate(t, session, query("SELECT 3"))
	// The answers come later than other operations, and out of order.
	masked := NewFragment(map[string]any{"masked": map[string]int{"checkout/cards": 3}})
	session.Result(&Result{Operation: third, Rows: 3, Bytes: 30, Duration: 3 * time.Millisecond, Masked: masked})
	session.Result(&Result{Operation: first, Bytes: 10, Duration: time.Millisecond, Error: "57014"})
	must(t, session.Close("client closed"))
	must(t, session.Close("again"))
	if _, err := session.Operation(query("SELECT 4")); err == nil {
		t.Error("a closed session takes an operation")
	}
	must(t, store.Close())
	must(t, store.Close())

	list := entries(t, dir, session.ID())
	var types []string
	for _, e := range list {
		types = append(types, e.Type)
	}
	if want := "[open tls operation operation operation close]"; fmt.Sprint(types) != want {
		t.Fatalf("types are %v, want %s", types, want)
	}
	if op := list[2].Operation; list[2].Seq != first || op.Text != "SELECT 1" || op.Fingerprint != "0123456789abcdef" || op.Result == nil ||
		op.Result.Error != "57014" || op.Rule != "rest" || op.Policy != "checkout" {
		t.Errorf("the first operation is %+v", op)
	}
	if op := list[3].Operation; list[3].Seq != second || op.Decision != "deny" || string(op.Parameters) != `{"count":2}` || op.Result != nil {
		t.Errorf("the second operation is %+v", op)
	}
	if op := list[4].Operation; list[4].Seq != third || op.Result == nil || op.Result.Rows != 3 || op.Result.Duration != 3*time.Millisecond {
		t.Errorf("the third operation is %+v", op)
	}
	if !strings.Contains(string(list[4].JSON), `"masked":{"checkout/cards":3}`) || strings.Contains(string(list[2].JSON), "masked") {
		t.Errorf("masks in %s and %s", list[4].JSON, list[2].JSON)
	}

	report := wantSound(t, dir)
	if report.Sessions != 1 || report.Open != 0 || report.Events != 8 || report.Covered != report.LedgerLines || len(report.Notes) != 0 {
		t.Errorf("the report is %+v", report)
	}
	sessions, err := List(dir)
	must(t, err)
	want := Totals{Operations: 3, Denied: 1, Rows: 3, Bytes: 40}
	if len(sessions) != 1 || sessions[0].Totals != want || sessions[0].Meta != testMeta || sessions[0].Open || sessions[0].Reason != "client closed" {
		t.Errorf("the list is %+v", sessions)
	}
}
