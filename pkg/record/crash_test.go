package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// writerVariable makes the test binary a writer that another test kills; it holds the state directory.
const writerVariable = "SALLYPORT_RECORD_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerVariable); dir != "" {
		if err := write(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// write begins, uses and closes sessions for ever, several at once, and prints each operation that was accepted.
func write(dir string) error {
	store, err := OpenStore(dir, zap.NewNop())
	if err != nil {
		return err
	}
	failed := make(chan error)
	for range 4 {
		go func() {
			for {
				session, err := store.Begin(testMeta, Note{"startup", Fragment(`"user":"app"`)})
				for i := 0; err == nil && i < 50; i++ {
					text := strings.Repeat("SELECT ", 10*i)
					if i == 20 {
						text = strings.Repeat(text, 100) // needs text events
					}
					var seq uint64
					if seq, err = session.Operation(query(text)); err == nil {
						fmt.Printf("%s %d\n", session.ID(), seq)
						session.Result(&Result{Operation: seq, Rows: 1})
					}
				}
				if err == nil {
					err = session.Close("done")
				}
				if err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

func TestAcceptedEventsSurviveAKill(t *testing.T) {
	dir := t.TempDir()
	accepted := map[string][]uint64{}
	for round := range 3 {
		writer := exec.Command(os.Args[0])
		writer.Env = append(os.Environ(), writerVariable+"="+dir)
		writer.Stderr = os.Stderr
		stdout, err := writer.StdoutPipe()
		must(t, err)
		must(t, writer.Start())
		lines := bufio.NewReader(stdout)
		for n := 0; ; n++ {
			line, err := lines.ReadString('\n')
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			var id string
			var seq uint64
			if _, err := fmt.Sscanf(line, "%s %d\n", &id, &seq); err != nil {
				t.Fatal(err)
			}
			accepted[id] = append(accepted[id], seq)
			if n == 400+round*333 {
				must(t, writer.Process.Kill())
			}
		}
		if err := writer.Wait(); err == nil {
			t.Fatal("the writer ended by itself")
		}
	}
	must(t, openTestStore(t, dir).Close())
	report := wantSound(t, dir)
	if report.Open != 0 || report.Sessions < len(accepted) {
		t.Errorf("the report is %+v, and %d sessions had operations", report, len(accepted))
	}
	for id, sequence := range accepted {
		have := map[uint64]bool{}
		for _, e := range entries(t, dir, id) {
			have[e.Seq] = e.Operation != nil && !e.Incomplete
		}
		for _, seq := range sequence {
			if !have[seq] {
				t.Errorf("operation %d of session %s is lost", seq, id)
			}
		}
	}
}

// crashed is a copy of a store that is open: what a killed writer leaves behind.
func crashed(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "state")
	err := os.CopyFS(to, os.DirFS(dir))
	for errors.Is(err, os.ErrNotExist) { // a new head was just renamed
		must(t, os.RemoveAll(to))
		err = os.CopyFS(to, os.DirFS(dir))
	}
	must(t, err)
	must(t, os.Chmod(filepath.Join(to, keyName), 0o600)) // CopyFS adds the umask's bits
	return to
}

// tree is the content of every file.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files[path] = string(content(t, path))
		}
		return err
	}))
	return files
}

func TestIncompleteLastEventIsCutAndSaidSo(t *testing.T) {
	source := t.TempDir()
	session := begin(t, openTestStore(t, source))
	operate(t, session, query("SELECT 1"))
	before := len(content(t, sessionPath(source, session.ID())))
	operate(t, session, query("SELECT 'the last'"))
	after := len(content(t, sessionPath(source, session.ID())))
	for length := before; length <= after; length += 7 {
		dir := crashed(t, source)
		path := sessionPath(dir, session.ID())
		must(t, os.Truncate(path, int64(length)))
		if report := wantSound(t, dir); report.Open != 1 {
			t.Errorf("before recovery the report is %+v", report)
		}
		must(t, openTestStore(t, dir).Close())
		wantSound(t, dir)
		recovered := tree(t, dir)
		var event recoveredEvent
		for _, e := range entries(t, dir, session.ID()) {
			if e.Type == typeRecovered {
				must(t, json.Unmarshal(e.JSON, &event))
			}
		}
		want := int64(length - before)
		if length == after {
			want = 0
		}
		if event.DroppedBytes != want {
			t.Errorf("cut to %d bytes: it says that %d were dropped, want %d", length, event.DroppedBytes, want)
		}
		list, err := List(dir)
		must(t, err)
		if list[0].Reason != reasonInterrupted || list[0].Open {
			t.Errorf("the session is %+v", list[0])
		}
		// Another start finds nothing to do.
		must(t, openTestStore(t, dir).Close())
		again := tree(t, dir)
		for _, name := range slices.Sorted(maps.Keys(recovered)) {
			if filepath.Base(name) == eventsName && recovered[name] != again[name] {
				t.Errorf("a second start changes %s", name)
			}
		}
	}
}

func TestIncompleteContinuationIsShownAsSuch(t *testing.T) {
	source := t.TempDir()
	session := begin(t, openTestStore(t, source))
	operate(t, session, query(strings.Repeat("SELECT ", 20_000)))
	dir := crashed(t, source)
	path := sessionPath(dir, session.ID())
	must(t, os.Truncate(path, int64(len(content(t, path))-20)))
	must(t, openTestStore(t, dir).Close())
	wantSound(t, dir)
	e := entries(t, dir, session.ID())[1]
	if !e.Incomplete || e.Operation == nil || e.Operation.Decision != "allow" {
		t.Errorf("the operation is %+v", e)
	}
}

func TestSealThatTheLedgerMissedIsEntered(t *testing.T) {
	source := t.TempDir()
	store := openTestStore(t, source)
	session := begin(t, store)
	operate(t, session, query("SELECT 1"))
	before := content(t, source, ledgerName)
	head := content(t, source, headName)
	must(t, session.Close("client closed"))
	dir := crashed(t, source)
	must(t, os.WriteFile(filepath.Join(dir, ledgerName), before, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, headName), head, 0o600))
	must(t, openTestStore(t, dir).Close())
	wantSound(t, dir)
	list, err := List(dir)
	must(t, err)
	if list[0].Reason != "client closed" || list[0].Operations != 1 {
		t.Errorf("the session is %+v", list[0])
	}
}

func TestIncompleteLedgerIsCutAndUnbegunSessionsCleared(t *testing.T) {
	source := t.TempDir()
	store := openTestStore(t, source)
	before := len(content(t, source, ledgerName))
	head := content(t, source, headName)
	session := begin(t, store)
	after := len(content(t, source, ledgerName))
	for length := before; length < after; length += 37 {
		dir := crashed(t, source)
		must(t, os.Truncate(filepath.Join(dir, ledgerName), int64(length)))
		must(t, os.WriteFile(filepath.Join(dir, headName), head, 0o600))
		must(t, openTestStore(t, dir).Close())
		if report := wantSound(t, dir); report.Sessions != 0 {
			t.Errorf("cut to %d bytes, there are %d sessions", length, report.Sessions)
		}
		ledger := content(t, dir, ledgerName)
		if !bytes.Contains(ledger, []byte(`"type":"abandoned"`)) || !bytes.Contains(ledger, []byte(session.ID())) {
			t.Errorf("the ledger does not say what became of session %s", session.ID())
		}
	}
}

func TestSessionThatCanNotBeSealedIsNotForgotten(t *testing.T) {
	source := t.TempDir()
	session := begin(t, openTestStore(t, source))
	operate(t, session, query("SELECT 1"))
	operate(t, session, query("SELECT 2"))
	for _, test := range []struct {
		name  string
		spoil func(path string) error
		what  string
	}{
		{"its directory was removed", func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, "it is missing"},
		{"its file was emptied", func(path string) error { return os.Truncate(path, 0) }, "it has no event"},
		{"an event in its midst was changed", func(path string) error {
			return os.WriteFile(path, bytes.Replace(content(t, path), []byte("SELECT 1"), []byte("SELECT 9"), 1), 0o600)
		}, "prev is not the hash"},
		{"it was written anew", func(path string) error {
			c := sessionChain(session.ID())
			other := testMeta
			other.Workload.Name = "other"
			return os.WriteFile(path, appendEvent(nil, &c, session.began, &event{typ: typeOpen, head: NewFragment(
				openEvent{Version: 1, Session: session.ID(), Meta: other})}), 0o600)
		}, "not the event that the ledger has"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := crashed(t, source)
			must(t, test.spoil(sessionPath(dir, session.ID())))
			for range 2 { // the second start does not forget it either
				must(t, openTestStore(t, dir).Close())
				report := verify(t, dir)
				if len(report.Faults) != 1 || !strings.Contains(report.Faults[0].What, test.what) {
					t.Errorf("the faults are %+v", report.Faults)
				}
			}
			list, err := List(dir)
			must(t, err)
			if len(list) != 1 || list[0].Damaged == "" || list[0].Open {
				t.Errorf("the list is %+v", list)
			}
		})
	}
}

func TestStoreThatWasTamperedWithIsNotWrittenOn(t *testing.T) {
	source := t.TempDir()
	store := openTestStore(t, source)
	must(t, begin(t, store).Close("done"))
	must(t, store.Close())
	other := t.TempDir()
	must(t, openTestStore(t, other).Close())
	for _, test := range []struct {
		name  string
		spoil func(dir string) error
	}{
		{"the ledger was cut short", func(dir string) error {
			ledger := content(t, dir, ledgerName)
			last := bytes.LastIndexByte(ledger[:len(ledger)-1], '\n')
			return os.Truncate(filepath.Join(dir, ledgerName), int64(last+1))
		}},
		{"the ledger was removed", func(dir string) error { return os.Remove(filepath.Join(dir, ledgerName)) }},
		{"the ledger and its head were removed", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, ledgerName)), os.Remove(filepath.Join(dir, headName)))
		}},
		{"a line of the ledger was changed", func(dir string) error {
			ledger := content(t, dir, ledgerName)
			return os.WriteFile(filepath.Join(dir, ledgerName), bytes.Replace(ledger, []byte("psql"), []byte("pgql"), 1), 0o600)
		}},
		{"the head is another store's", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, headName), content(t, other, headName), 0o600)
		}},
		{"the key is another store's", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, keyName), content(t, other, keyName), 0o600)
		}},
		{"the public key is another store's", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, publicName), content(t, other, publicName), 0o644)
		}},
		{"the key is gone", func(dir string) error { return os.Remove(filepath.Join(dir, keyName)) }},
		{"the key is no key", func(dir string) error { return os.WriteFile(filepath.Join(dir, keyName), nil, 0o600) }},
		{"everybody can read the key", func(dir string) error { return os.Chmod(filepath.Join(dir, keyName), 0o644) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := crashed(t, source)
			must(t, test.spoil(dir))
			if store, err := OpenStore(dir, zap.NewNop()); err == nil {
				store.Close()
				t.Error("it is opened for writing")
			}
		})
	}
}
