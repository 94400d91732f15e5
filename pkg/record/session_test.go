package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestResultIsWrittenWithinASecondWithoutAnotherEvent(t *testing.T) {
	dir := t.TempDir()
	session := begin(t, openTestStore(t, dir))
	seq := operate(t, session, query("SELECT 1"))
	began := time.Now()
	session.Result(&Result{Operation: seq, Rows: 7})
	waitFor(t, "the result", func() bool {
		return bytes.Contains(content(t, sessionPath(dir, session.ID())), []byte(`"rows":7`))
	})
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestLongStatementsAreStoredWhole(t *testing.T) {
	long := strings.Repeat("SELECT 'ä\x01\"\\' -- ", 20_000)
	values := strings.Repeat("µ", 100_000)
	for _, test := range []struct {
		name             string
		text, parameters string
		parts            int
	}{
		{"a statement that just fits stays in one line", strings.Repeat("x", 50<<10), "", 0},
		{"a long statement is continued", long, "", 17},
		{"a short statement with long parameters is continued", "SELECT $1", values, 8},
		{"a long statement with long parameters is continued", long, values, 24},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			session := begin(t, openTestStore(t, dir))
			op := query(test.text)
			if test.parameters != "" {
				op.Parameters = NewFragment(map[string][]string{"parameters": {test.parameters}})
			}
			seq := operate(t, session, op)
			next := operate(t, session, query("SELECT 2"))
			session.Result(&Result{Operation: seq, Rows: 1})
			must(t, session.Close("done"))
			if int(next-seq) != test.parts+1 {
				t.Errorf("there are %d events between the operations, want %d", next-seq-1, test.parts)
			}
			for line := range bytes.Lines(content(t, sessionPath(dir, session.ID()))) {
				if len(line) > 64<<10 {
					t.Errorf("a line has %d bytes", len(line))
				}
			}
			e := entries(t, dir, session.ID())[1]
			if e.Operation.Text != test.text || e.Operation.Fingerprint != "0123456789abcdef" || e.Operation.Result == nil {
				t.Error("the statement is not what was written")
			}
			if test.parameters != "" {
				var got []string
				must(t, json.Unmarshal(e.Operation.Parameters, &got))
				if got[0] != test.parameters {
					t.Error("the parameters are not what was written")
				}
			}
			wantSound(t, dir)
		})
	}
}

func TestStringsOfAnyBytesSurvive(t *testing.T) {
	for _, s := range []string{
		"", "plain", "ä€𝄞", "\xff", "a\xc3", "\xed\xa0\x80", "\x00\x01\x1b[31m\x7f", "\u2028<>&\"\\", "\ufffd", "\U0010f8ff\xff", "\U0010f880",
		"\xf4\x90\x80\x80",
	} {
		type inner struct{ S any }
		fragment := NewFragment(struct {
			A string            `json:"a"`
			B []string          `json:"b"`
			C map[string]string `json:"c"`
			D *inner            `json:"d"`
			E [1]string         `json:"e"`
		}{s, []string{"", s}, map[string]string{"k" + s: s}, &inner{s}, [1]string{s}})
		var got struct {
			A string
			B []string
			C map[string]string
			D inner
			E []string
		}
		must(t, json.Unmarshal([]byte("{"+string(fragment)+"}"), &got))
		for where, g := range map[string]string{
			"a field": got.A, "a slice": got.B[1], "a map": got.C["k"+escapeInvalid(s)], "an interface": got.D.S.(string), "an array": got.E[0],
		} {
			if Unescape(g) != s {
				t.Errorf("%q in %s comes back as %q", s, where, Unescape(g))
			}
		}
		// The form that is written without allocating reads the same.
		var appended string
		must(t, json.Unmarshal(appendString(nil, s), &appended))
		if Unescape(appended) != s {
			t.Errorf("%q appended comes back as %q", s, Unescape(appended))
		}
	}
}

func TestFragmentOfWhatIsNoObjectPanics(t *testing.T) {
	for _, v := range []any{[]string{"a"}, "a", map[string]any{"a": make(chan int)}, nil} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T makes a fragment", v)
				}
			}()
			NewFragment(v)
		}()
	}
}

func TestEventsThatWouldBreakTheRecordAreRefused(t *testing.T) {
	dir := t.TempDir()
	session := begin(t, openTestStore(t, dir))
	before := content(t, sessionPath(dir, session.ID()))
	for _, test := range []struct {
		name string
		err  error
	}{
		{"an operation without a decision", second(session.Operation(&Operation{Kind: "query"}))},
		{"a fragment with a newline", second(session.Operation(&Operation{Kind: "query", Decision: allowed, Statement: Fragment("\"text\":\n\"\"")}))},
		{"a decision that is too long", second(session.Operation(&Operation{Kind: "query", Decision: make(Fragment, maxInline+1)}))},
		{"a note of a type that is taken", session.Note("seal", nil)},
		{"a note of an impossible type", session.Note(`x","type":"seal`, nil)},
		{"a note without a type", session.Note("", nil)},
	} {
		if test.err == nil {
			t.Errorf("%s is recorded", test.name)
		}
	}
	if after := content(t, sessionPath(dir, session.ID())); !bytes.Equal(before, after) {
		t.Error("something of it is in the file")
	}
	operate(t, session, query("SELECT 1"))
	must(t, session.Close(strings.Repeat("long ", 100_000)))
	wantSound(t, dir)
}

func second[T any](_ T, err error) error { return err }

func TestSessionThatCanNotBeginDoesNotExist(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	must(t, os.Remove(filepath.Join(dir, sessionsName)))
	if _, err := store.Begin(testMeta); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its directory, a session begins: %v", err)
	}
	must(t, os.Mkdir(filepath.Join(dir, sessionsName), 0o700))
	if _, err := store.Begin(Meta{Target: strings.Repeat("x", maxInline)}); err == nil {
		t.Error("a session begins that has too much to say of itself")
	}
	must(t, store.Close())
	if _, err := store.Begin(testMeta); !errors.Is(err, ErrClosed) {
		t.Errorf("in a closed store, a session begins: %v", err)
	}
	if report := wantSound(t, dir); report.Sessions != 0 {
		t.Errorf("there are %d sessions", report.Sessions)
	}
}

func TestOneProcessWrites(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	if _, err := OpenStore(dir, store.log); !errors.Is(err, ErrLocked) {
		t.Errorf("a second writer gets %v", err)
	}
	must(t, store.Close())
	openTestStore(t, dir)
}

func TestClosingTheStoreSealsItsSessions(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	session := begin(t, store)
	session.Result(&Result{Operation: operate(t, session, query("SELECT 1")), Rows: 5})
	must(t, store.Close())
	list, err := List(dir)
	must(t, err)
	if len(list) != 1 || list[0].Reason != reasonStopped || list[0].Rows != 5 {
		t.Errorf("the list is %+v", list)
	}
	wantSound(t, dir)
}

func TestManyWritersAtOnce(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	const sessions, operations = 20, 100
	checked := make(chan struct{})
	stop := make(chan struct{})
	go func() { // an auditor meanwhile
		defer close(checked)
		for {
			report, err := Verify(dir, VerifyOptions{})
			if err != nil || len(report.Faults) > 0 {
				t.Errorf("while it is being written: %v %+v", err, report.Faults)
				return
			}
			if _, err := List(dir); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	var group sync.WaitGroup
	for range sessions {
		group.Go(func() {
			session, err := store.Begin(testMeta)
			if err != nil {
				t.Error(err)
				return
			}
			sequence := make(chan uint64, operations)
			var answers sync.WaitGroup
			answers.Go(func() {
				for seq := range sequence {
					session.Result(&Result{Operation: seq, Rows: 1, Bytes: 10})
				}
			})
			for i := range operations {
				seq, err := session.Operation(query(fmt.Sprintf("SELECT %d", i)))
				if err != nil {
					t.Error(err)
				}
				sequence <- seq
				store.Refuse("identity", testMeta)
			}
			close(sequence)
			answers.Wait()
			if err := session.Close("done"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	close(stop)
	<-checked
	must(t, store.Close())
	report := wantSound(t, dir)
	if report.Sessions != sessions || report.Open != 0 {
		t.Errorf("the report is %+v", report)
	}
	list, err := List(dir)
	must(t, err)
	ids := map[string]bool{}
	for i, s := range list {
		ids[s.ID] = true
		if want := (Totals{Operations: operations, Rows: operations, Bytes: 10 * operations}); s.Totals != want {
			t.Errorf("session %d has %+v", i, s.Totals)
		}
	}
	if len(ids) != sessions {
		t.Errorf("there are %d ids", len(ids))
	}
}

func TestOperationAndResultAllocateNothing(t *testing.T) {
	session := begin(t, openTestStore(t, t.TempDir()))
	op, r := query("SELECT * FROM customers WHERE id = $1"), &Result{Rows: 1, Error: "57014"}
	op.Parameters = Fragment(`"parameters":{"count":1}`)
	n := testing.AllocsPerRun(1000, func() {
		seq, err := session.Operation(op)
		if err != nil {
			t.Fatal(err)
		}
		r.Operation = seq
		session.Result(r)
	})
	if n >= 1 {
		t.Errorf("an operation and its result allocate %v times", n)
	}
}

func TestIDsSortAndAreSafe(t *testing.T) {
	var g ids
	now := time.UnixMilli(1_700_000_000_000)
	last := ""
	for i := range 10_000 {
		switch i {
		case 4000:
			now = now.Add(-time.Hour) // the clock is set back
		case 8000:
			now = now.Add(2 * time.Hour)
		}
		id := g.next(now)
		if !ValidID(id) || id <= last {
			t.Fatalf("%q follows %q", id, last)
		}
		last = id
	}
	g.high, g.low = ^uint16(0), ^uint64(0)
	if id := g.next(now); !ValidID(id) || id <= last {
		t.Errorf("%q follows %q", id, last)
	}
	if id := encodeID(1_700_000_000_000<<16, 0); id != "01HF7YAT000000000000000000" {
		t.Errorf("the time is encoded as %s", id)
	}
	for _, bad := range []string{"", "..", "01HF7YAT00000000000000000", "01HF7YAT00000000000000000/", "81HF7YAT000000000000000000", "01HF7YAT0000000000000000U0"} {
		if ValidID(bad) {
			t.Errorf("%q is an id", bad)
		}
	}
}
