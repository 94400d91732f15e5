package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/record"
)

// TestSessionsScripts runs the scripts about recorded sessions. Each has a record in $STATE of the sessions $ONE, $TWO and $THREE.
func TestSessionsScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/sessions*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts %v, %v", scripts, err)
	}
	testscript.Run(t, testscript.Params{
		Files: scripts,
		Setup: func(env *testscript.Env) error {
			state := filepath.Join(env.WorkDir, "state")
			ids, err := recordSessions(state)
			if err != nil {
				return err
			}
			env.Setenv("STATE", state)
			for i, name := range []string{"ONE", "TWO", "THREE"} {
				env.Setenv(name, ids[i])
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// alter FILE OLD NEW replaces text in a file.
			"alter": func(ts *testscript.TestScript, neg bool, args []string) {
				path := ts.MkAbs(args[0])
				before, err := os.ReadFile(path)
				ts.Check(err)
				after := bytes.Replace(before, []byte(args[1]), []byte(args[2]), 1)
				if bytes.Equal(before, after) {
					ts.Fatalf("%s does not hold %q", path, args[1])
				}
				ts.Check(os.WriteFile(path, after, 0o600))
			},
			// status N CMD… runs a command that must end with status N.
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				have := "0"
				if err != nil {
					have = err.Error()
				}
				if have != args[0] && have != "exit status "+args[0] {
					ts.Fatalf("it ended with %s, want %s", have, args[0])
				}
			},
		},
	})
}

// recordSessions records three sessions: a quiet one; one of another workload with a denied statement that attacks terminals;
// and one that a killed writer left open.
func recordSessions(dir string) (ids []string, err error) {
	store, err := record.OpenStore(dir, zap.NewNop())
	if err != nil {
		return nil, err
	}
	defer store.Close()
	meta := record.Meta{
		Workload: record.Workload{Name: "shop", Cgroup: "/system.slice/shop.service", PID: 42, UID: 1000, Comm: "psql"},
		Target:   "orders-db", Protocol: "postgres", Destination: "10.8.0.5:5432", Upstream: "10.8.0.5:5432",
	}
	statement := func(text string) record.Fragment {
		return record.NewFragment(struct {
			Text        string `json:"text"`
			Fingerprint string `json:"fingerprint"`
		}{text, "0123456789abcdef"})
	}
	allow := record.Fragment(`"decision":"allow","policy":"shop-orders","rule":"rest"`)
	deny := record.Fragment(`"decision":"deny","policy":"shop-orders","rule":"no-ddl"`)

	begin := func() *record.Session {
		if err != nil {
			return nil
		}
		var session *record.Session
		if session, err = store.Begin(meta); err == nil {
			ids = append(ids, session.ID())
		}
		return session
	}
	operate := func(session *record.Session, text string, decision record.Fragment, result *record.Result) {
		if err != nil {
			return
		}
		op := record.Operation{Kind: "query", Statement: statement(text), Decision: decision}
		var seq uint64
		if seq, err = session.Operation(&op); err == nil && result != nil {
			result.Operation = seq
			session.Result(result)
		}
	}
	closeIt := func(session *record.Session) {
		if err == nil {
			err = session.Close("client closed")
		}
	}

	one := begin()
	operate(one, "SELECT $1", allow, &record.Result{Rows: 3, Bytes: 120, Duration: 1234567 * time.Nanosecond})
	operate(one, "SELECT * FROM nowhere", allow, &record.Result{Duration: time.Millisecond, Error: "42P01"})
	closeIt(one)

	meta.Workload.Name, meta.Workload.Cgroup, meta.Workload.Comm = "report", "/sallyport/report", "\xffevil\x1b[2J"
	two := begin()
	if err == nil {
		err = two.Note("tls", record.NewFragment(map[string]string{"version": "1.3\x1b]0;title\a"}))
	}
	operate(two, "DROP TABLE t\n[+9.999s] query: allow by nobody \x1b[31m\u202e\u009b\r\n-- \xc3(", deny, nil)
	closeIt(two)

	meta.Target = "billing-db"
	three := begin()
	operate(three, "SELECT 3", allow, &record.Result{Rows: 1, Bytes: 10, Duration: time.Second})
	if err != nil {
		return nil, err
	}
	// What a killed writer leaves behind: a copy of the store before it closes.
	crashed := dir + ".crashed"
	err = os.CopyFS(crashed, os.DirFS(dir))
	for errors.Is(err, os.ErrNotExist) { // a new head of the ledger was just renamed
		if err := os.RemoveAll(crashed); err != nil {
			return nil, err
		}
		err = os.CopyFS(crashed, os.DirFS(dir))
	}
	if err != nil {
		return nil, err
	}
	if err := store.Close(); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	return ids, os.Rename(crashed, dir)
}

func TestRecordedTextCanNotReachTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain ä €":            "plain ä €",
		"\x1b[31m\x07\x7f":     `\x1b[31m\x07\x7f`,
		"a\r\n\tb":             `a\r\n\tb`,
		"\u009b1m\u202e\u2066": `\u009b1m\u202e\u2066`,
		"\xff\xc3(":            `\xff\xc3(`,
		"\U000e0001\ufffd":     "\\U000e0001\ufffd",
	} {
		if have := sessionsClean(in); have != want {
			t.Errorf("%q is printed as %q, want %q", in, have, want)
		}
	}
	for _, value := range []string{"plain ä €", "\x1b[31m\x7f\u009b\u202e\U000e0001\U0010f8ff", "\"\\\n"} {
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		text := sessionsCleanJSON(encoded)
		var have string
		if err := json.Unmarshal([]byte(text), &have); err != nil || have != value {
			t.Errorf("%q is printed as %s, which is %q", value, text, have)
		}
		if sessionsClean(text) != text {
			t.Errorf("%q is printed as %q", value, text)
		}
	}
}

func TestReplayKeepsItsPace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	ids, err := recordSessions(dir)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var out bytes.Buffer
	if err := sessionsReplay(t.Context(), &out, dir, ids[0], sessionsPace{speed: 1e-4, maxWait: 20 * time.Millisecond}, false); err != nil {
		t.Fatal(err)
	}
	// Three pauses, each cut to the longest that is allowed, save what was faster than the clock tells.
	if took := time.Since(began); took < 20*time.Millisecond || took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	began = time.Now()
	if err := sessionsReplay(t.Context(), &out, dir, ids[0], sessionsPace{}, true); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("at once took %v", took)
	}
}

func TestSinceIsADurationATimeOrADate(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2h30m":                time.Date(2026, 1, 31, 9, 30, 0, 0, time.UTC),
		"2026-01-30T08:00:00Z": time.Date(2026, 1, 30, 8, 0, 0, 0, time.UTC),
		"2026-01-30":           time.Date(2026, 1, 30, 0, 0, 0, 0, time.UTC),
	} {
		if have, err := sessionsSince(text, now); err != nil || !have.Equal(want) {
			t.Errorf("%s is %v, %v", text, have, err)
		}
	}
	for _, text := range []string{"yesterday", "-2h", "2026-13-01"} {
		if have, err := sessionsSince(text, now); err == nil {
			t.Errorf("%s is %v", text, have)
		}
	}
}
