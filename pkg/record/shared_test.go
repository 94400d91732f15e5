package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// placements say whether sessions share a file.
var placements = map[string]bool{"directories of their own": false, "a shared file": true}

// shareAll has sessions share a file as if very many had begun.
func (s *Store) shareAll() {
	s.places.mu.Lock()
	defer s.places.mu.Unlock()
	s.places.owing = time.Now().Add(time.Hour)
}

func openSharingStore(t testing.TB, dir string) *Store {
	t.Helper()
	s := openTestStore(t, dir)
	s.shareAll()
	return s
}

// only is the one shared file of a state directory.
func only(t testing.TB, dir string) string {
	t.Helper()
	names, other, err := sharedFiles(dir)
	must(t, err)
	if len(names) != 1 || len(other) != 0 {
		t.Fatalf("the shared files are %v and %v", names, other)
	}
	return filepath.Join(dir, names[0])
}

// ownedLines are a session's lines in a shared file.
func ownedLines(b []byte, id string) (lines []byte) {
	for line := range bytes.Lines(b) {
		if ownerOf(line) == id {
			lines = append(lines, line...)
		}
	}
	return lines
}

func TestManySessionsShareAFileAndAreReadLikeOthers(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	var ids []string
	for i := range ownBurst + 30 {
		session := begin(t, store)
		ids = append(ids, session.ID())
		must(t, session.Note("startup", NewFragment(map[string]int{"number": i})))
		session.Result(&Result{Operation: operate(t, session, query(fmt.Sprintf("SELECT %d", i))), Rows: int64(i)})
		must(t, session.Close("terminated"))
	}
	if entries, err := os.ReadDir(filepath.Join(dir, sessionsName)); err != nil || len(entries) > ownBurst+10 {
		t.Errorf("%d sessions have directories, %v", len(entries), err)
	}
	only(t, dir)
	check := func() {
		t.Helper()
		list, err := List(dir)
		must(t, err)
		if len(list) != len(ids) {
			t.Fatalf("%d sessions are listed", len(list))
		}
		for i, s := range list {
			if s.ID != ids[i] || s.Open || s.Reason != "terminated" || s.Rows != int64(i) || s.Meta != testMeta {
				t.Errorf("session %d is listed as %+v", i, s)
			}
			e := entries(t, dir, s.ID)
			if len(e) != 4 || e[0].Type != typeOpen || e[2].Operation == nil || e[2].Operation.Text != fmt.Sprintf("SELECT %d", i) ||
				e[2].Operation.Result == nil || e[3].Type != typeClose {
				t.Errorf("session %d is read as %+v", i, e)
			}
			var opened openEvent
			must(t, json.Unmarshal(e[0].JSON, &opened))
			if opened.Session != s.ID {
				t.Errorf("session %d opens as %s", i, e[0].JSON)
			}
			if found, err := Find(dir, s.ID[:idLength-1]); err == nil && found != s.ID {
				t.Errorf("of session %s %s is found", s.ID, found)
			}
		}
		if report := wantSound(t, dir); report.Sessions != len(ids) || report.Open != 0 || report.Events != uint64(5*len(ids)) {
			t.Errorf("the report is %+v", report)
		}
	}
	check() // the ledger may not have the seals yet
	must(t, store.Close())
	check()
	if report := wantSound(t, dir); report.Covered != report.LedgerLines {
		t.Errorf("the report is %+v", report)
	}
	if _, err := Find(dir, ids[0][:8]); err == nil {
		t.Error("one of many is found")
	}
	if !bytes.Contains(content(t, dir, ledgerName), []byte(`"type":"signed"`)) {
		t.Error("no line of the ledger signs")
	}
}

func TestSessionThatGrowsGoesOnInADirectoryOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	store := openSharingStore(t, dir)
	small, large := begin(t, store), begin(t, store)
	text := strings.Repeat("SELECT ", 1000)
	n := 3 * moveAbove / len(text)
	for i := range n {
		operate(t, large, query(fmt.Sprintf("%s%d", text, i)))
		operate(t, small, query("SELECT 1"))
	}
	check := func(open bool) {
		t.Helper()
		wantSound(t, dir)
		e := entries(t, dir, large.ID())
		if e[0].Type != typeOpen || len(e) < n+1 {
			t.Fatalf("%d events are read, the first is %s", len(e), e[0].Type)
		}
		for i, e := range e[1 : n+1] {
			if e.Operation == nil || e.Operation.Text != fmt.Sprintf("%s%d", text, i) {
				t.Errorf("operation %d is read as %s", i, e.JSON)
			}
		}
		list, err := List(dir)
		must(t, err)
		if len(list) != 2 || list[1].Open != open || list[1].Operations != uint64(n) {
			t.Errorf("the list is %+v", list)
		}
	}
	check(true)
	if size := len(content(t, only(t, dir))); size > 2*moveAbove {
		t.Errorf("the shared file has %d bytes", size)
	}
	must(t, large.Close("terminated"))
	must(t, small.Close("terminated"))
	check(false)
	must(t, store.Close())
	check(false)
	if end := content(t, sessionPath(dir, large.ID())); !bytes.Contains(end, []byte(`"signature"`)) {
		t.Error("the seal in its own file is not signed")
	}
}

func TestSharedFileThatIsFullTakesNoMoreSessions(t *testing.T) {
	dir := t.TempDir()
	store := openSharingStore(t, dir)
	old := begin(t, store)
	old.shared.mu.Lock()
	old.shared.file.size += shareUntil
	old.shared.mu.Unlock()
	young := begin(t, store)
	if young.shared == old.shared {
		t.Error("they share a file")
	}
	first := old.shared.file.file
	must(t, old.Close("terminated"))
	must(t, store.enterSeals(time.Now()))
	if _, err := first.Write(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the full file is still open: %v", err)
	}
	must(t, young.Close("terminated"))
	must(t, store.Close())
	wantSound(t, dir)
}

func TestTamperingWithASharedFileIsFound(t *testing.T) {
	rewrite := func(t *testing.T, dir string, f func([]byte) []byte) {
		path := only(t, dir)
		must(t, os.WriteFile(path, f(content(t, path)), 0o600))
	}
	// replace puts other lines in the place of a session's.
	replace := func(b []byte, id string, lines []byte) []byte {
		others := slices.DeleteFunc(bytes.SplitAfter(b, []byte("\n")), func(line []byte) bool { return ownerOf(line) == id })
		return append(bytes.Join(others, nil), lines...)
	}
	for _, test := range []struct {
		name   string
		tamper func(t *testing.T, dir string, ids []string)
		what   string
	}{
		{"an event was removed", func(t *testing.T, dir string, ids []string) {
			rewrite(t, dir, func(b []byte) []byte { return removeLine(b, 2) })
		}, "its number is 4, expected 3"},
		{"an event was removed, and the chain made to fit", func(t *testing.T, dir string, ids []string) {
			rewrite(t, dir, func(b []byte) []byte {
				return replace(b, ids[0], rechain(t, sharedChain(ids[0]), removeLine(ownedLines(b, ids[0]), 2)))
			})
		}, "the seal does not fit"},
		{"an event was changed, and the chain and the seal made to fit", func(t *testing.T, dir string, ids []string) {
			rewrite(t, dir, func(b []byte) []byte {
				lines := removeLine(ownedLines(b, ids[0]), 5)
				lines = rechain(t, sharedChain(ids[0]), bytes.Replace(lines, []byte("SELECT 1"), []byte("SELECT 9"), 1))
				c := sharedChain(ids[0])
				for line := range bytes.Lines(lines) {
					c.advance(line)
				}
				return replace(b, ids[0], appendSeal(lines, &c, testTime, nil))
			})
		}, "it does not say of the session what its seal does"},
		{"the seal was removed", func(t *testing.T, dir string, ids []string) {
			rewrite(t, dir, func(b []byte) []byte { return replace(b, ids[0], removeLine(ownedLines(b, ids[0]), 5)) })
		}, "its seal is missing"},
		{"a session was removed", func(t *testing.T, dir string, ids []string) {
			rewrite(t, dir, func(b []byte) []byte { return replace(b, ids[0], nil) })
		}, "it has no event"},
		{"the file was removed", func(t *testing.T, dir string, _ []string) { must(t, os.Remove(only(t, dir))) }, "it is missing; line 4"},
		{"a session's events were given to another", func(t *testing.T, dir string, ids []string) {
			rewrite(t, dir, func(b []byte) []byte {
				return replace(b, ids[0], bytes.ReplaceAll(ownedLines(b, ids[1]), []byte(ids[1]), []byte(ids[0])))
			})
		}, "prev is not the hash"},
		{"a session was added", func(t *testing.T, dir string, ids []string) {
			rewrite(t, dir, func(b []byte) []byte {
				c := sharedChain(ids[1][:idLength-1] + "Z")
				b = appendEvent(b, &c, testTime, &event{typ: typeOpen, head: NewFragment(openEvent{Version: 1, Meta: testMeta})})
				return appendEvent(b, &c, testTime, &event{typ: typeOperation, head: allowed})
			})
		}, "the ledger does not have this session"},
		{"a session was added, and to the ledger", func(t *testing.T, dir string, ids []string) {
			c := sharedChain(ids[1][:idLength-1] + "Z")
			name := filepath.Join(sharedName, filepath.Base(only(t, dir)))
			rewrite(t, dir, func(b []byte) []byte {
				return appendEvent(b, &c, testTime, &event{typ: typeOpen, head: NewFragment(openEvent{Version: 1, Meta: testMeta})})
			})
			line := openLine{Session: c.session, First: c.hash.String(), File: name, Meta: testMeta}
			must(t, os.WriteFile(filepath.Join(dir, ledgerName), forge(t, content(t, dir, ledgerName), typeOpen, line), 0o600))
		}, "it stands behind the end of the last writer"},
		{"a start was added to the ledger", func(t *testing.T, dir string, _ []string) {
			line := startLine{Signature: make([]byte, 64)}
			must(t, os.WriteFile(filepath.Join(dir, ledgerName), forge(t, content(t, dir, ledgerName), typeStart, line), 0o600))
		}, "its signature is not by the record's key"},
		{"a start without a signature was added to the ledger", func(t *testing.T, dir string, _ []string) {
			must(t, os.WriteFile(filepath.Join(dir, ledgerName), forge(t, content(t, dir, ledgerName), typeStart, startLine{}), 0o600))
		}, "its signature is not by the record's key"},
		{"an event was added behind a seal", func(t *testing.T, dir string, ids []string) {
			rewrite(t, dir, func(b []byte) []byte {
				c := sharedChain(ids[0])
				for line := range bytes.Lines(ownedLines(b, ids[0])) {
					c.advance(line)
				}
				return appendEvent(b, &c, testTime, &event{typ: "added"})
			})
		}, "something follows the seal"},
		{"a line that is no session's was added", func(t *testing.T, dir string, _ []string) {
			rewrite(t, dir, func(b []byte) []byte { return append(b, "{}\n"...) })
		}, "it names no session"},
		{"a line that is too long was added", func(t *testing.T, dir string, _ []string) {
			rewrite(t, dir, func(b []byte) []byte { return append(append(b, make([]byte, 3*maxLine)...), '\n') })
		}, "it is longer than"},
		{"a file was added", func(t *testing.T, dir string, _ []string) {
			must(t, os.WriteFile(filepath.Join(dir, sharedName, "notes.txt"), nil, 0o600))
		}, "it is no file of sessions"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, ids := makeSmallStore(t, true)
			test.tamper(t, dir, ids)
			report := verify(t, dir)
			if !slices.ContainsFunc(report.Faults, func(f Fault) bool { return strings.Contains(f.What, test.what) }) {
				t.Errorf("the faults are %+v, want one with %q", report.Faults, test.what)
			}
		})
	}
}

func TestTamperingWithASessionThatMovedOutIsFound(t *testing.T) {
	source := t.TempDir()
	store := openSharingStore(t, source)
	session := begin(t, store)
	operate(t, session, query(strings.Repeat("SELECT ", moveAbove/7)))
	for i := range 3 {
		operate(t, session, query(fmt.Sprintf("SELECT %d", i)))
	}
	must(t, session.Close("terminated"))
	must(t, store.Close())
	wantSound(t, source)
	own := func(dir string) string { return sessionPath(dir, session.ID()) }
	for _, test := range []struct {
		name   string
		tamper func(dir string) error
		what   string
	}{
		{"its directory was removed", func(dir string) error { return os.RemoveAll(filepath.Dir(own(dir))) }, "it is missing"},
		{"its file was emptied", func(dir string) error { return os.Truncate(own(dir), 0) }, "its seal is missing"},
		{"its first events were removed", func(dir string) error { return os.Truncate(only(t, dir), 0) }, "it has no event"},
		{"its first event there was removed", func(dir string) error {
			return os.WriteFile(own(dir), removeLine(content(t, own(dir)), 0), 0o600)
		}, "expected"},
		{"it goes on in the shared file too", func(dir string) error {
			b := content(t, only(t, dir))
			c := sharedChain(session.ID())
			for line := range bytes.Lines(b) {
				c.advance(line)
			}
			return os.WriteFile(only(t, dir), appendEvent(b, &c, testTime, &event{typ: "added"}), 0o600)
		}, "gone on in a file of its own"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := crashed(t, source)
			must(t, test.tamper(dir))
			report := verify(t, dir)
			if len(report.Faults) != 1 || !strings.Contains(report.Faults[0].What, test.what) {
				t.Errorf("the faults are %+v, want one with %q", report.Faults, test.what)
			}
		})
	}
}

func TestSharedFileThatAKilledWriterLeftIsSealed(t *testing.T) {
	live := t.TempDir()
	store := openSharingStore(t, live)
	var open []*Session
	for range 3 {
		open = append(open, begin(t, store))
		operate(t, open[len(open)-1], query("SELECT 1"))
	}
	done := begin(t, store)
	store.ledger.mu.Lock() // so that its seal is not in the ledger yet
	must(t, done.Close("terminated"))
	source := crashed(t, live)
	store.ledger.mu.Unlock()
	whole := len(content(t, only(t, source)))
	for cut := 0; cut < 400; cut += 23 {
		dir := crashed(t, source)
		must(t, os.Truncate(only(t, dir), int64(whole-cut)))
		if report := verify(t, dir); cut == 0 && (len(report.Faults) > 0 || report.Open != 3) {
			t.Errorf("before recovery the report is %+v", report)
		}
		must(t, openTestStore(t, dir).Close())
		report := wantSound(t, dir)
		if report.Open != 0 || report.Sessions != 4 {
			t.Errorf("cut by %d bytes, the report is %+v", cut, report)
		}
		list, err := List(dir)
		must(t, err)
		for i, s := range list {
			if want := reasonInterrupted; s.Reason != want && (i < 3 || cut > 0 || s.Reason != "terminated") {
				t.Errorf("cut by %d bytes, session %d ended with %q", cut, i, s.Reason)
			}
		}
		dropped := int64(0)
		for _, s := range list {
			for _, e := range entries(t, dir, s.ID) {
				var event recoveredEvent
				if e.Type == typeRecovered {
					must(t, json.Unmarshal(e.JSON, &event))
				}
				dropped += event.DroppedBytes
			}
		}
		if left := content(t, only(t, source))[:whole-cut]; dropped != int64(len(left)-bytes.LastIndexByte(left, '\n')-1) {
			t.Errorf("cut by %d bytes, %d were told to be dropped", cut, dropped)
		}
	}
}

func TestSessionWhoseBeginAKillCutShortIsNone(t *testing.T) {
	for name, shared := range placements {
		t.Run(name, func(t *testing.T) {
			live := t.TempDir()
			store := openTestStore(t, live)
			if shared {
				store.shareAll()
				must(t, begin(t, store).Close("terminated"))
				must(t, store.enterSeals(time.Now()))
			}
			must(t, store.ledger.writeHead(time.Now()))
			before := content(t, live, ledgerName)
			head := content(t, live, headName)
			session, err := store.Begin(testMeta, Note{"startup", Fragment(`"user":"app"`)})
			must(t, err)
			dir := crashed(t, live)
			must(t, os.WriteFile(filepath.Join(dir, ledgerName), before, 0o600))
			must(t, os.WriteFile(filepath.Join(dir, headName), head, 0o600))
			if shared { // one of its own is removed by the next start
				wantSound(t, dir)
			}
			must(t, openTestStore(t, dir).Close())
			wantSound(t, dir)
			list, err := List(dir)
			must(t, err)
			for _, s := range list {
				if s.ID == session.ID() {
					t.Errorf("it is listed as %+v", s)
				}
			}
			// With an operation it is one that somebody took out of the ledger.
			operate(t, session, query("SELECT 1"))
			dir = crashed(t, live)
			must(t, os.WriteFile(filepath.Join(dir, ledgerName), before, 0o600))
			must(t, os.WriteFile(filepath.Join(dir, headName), head, 0o600))
			must(t, openTestStore(t, dir).Close())
			if report := verify(t, dir); len(report.Faults) != 1 || report.Faults[0].Session != session.ID() {
				t.Errorf("the report is %+v", report)
			}
		})
	}
}

func TestSharedFileOfALivingProcessIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	before := openSharingStore(t, dir)
	idle, large := begin(t, before), begin(t, before)
	operate(t, large, query(strings.Repeat("SELECT ", moveAbove/7))) // it moves out
	after := joinTestStore(t, dir)
	sweep := func(want int) {
		t.Helper()
		if n, err := after.sweep(time.Now(), newScanner(dir, newLineReader(nil))); n != want || err != nil {
			t.Errorf("%d sessions were sealed, %v", n, err)
		}
	}
	sweep(0)
	must(t, idle.Close("terminated"))
	must(t, before.enterSeals(time.Now()))
	must(t, before.places.closeShared()) // nobody locks the shared file any more
	sweep(0)
	operate(t, large, query("SELECT 1"))
	before.die()
	waitFor(t, "the seal", func() bool {
		report := verify(t, dir)
		return report.Sessions == 2 && report.Open == 0
	})
	must(t, after.Close())
	wantSound(t, dir)
}

func TestVerifyingWhileManySessionsAreWrittenFindsNothing(t *testing.T) {
	dir := t.TempDir()
	store := openSharingStore(t, dir)
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			for range 200 {
				session, err := store.Begin(testMeta)
				if err == nil {
					_, err = session.Operation(query("SELECT 1"))
				}
				if err == nil {
					err = session.Close("terminated")
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { writers.Wait(); close(written) }()
	for done := false; !done; {
		select {
		case <-written:
			done = true
		default:
		}
		wantSound(t, dir)
		if _, err := List(dir); err != nil {
			t.Error(err)
		}
	}
	must(t, store.Close())
	if report := wantSound(t, dir); report.Open != 0 {
		t.Errorf("the report is %+v", report)
	}
}

func TestFullDiskWithASharedFileRefusesAndHeals(t *testing.T) {
	dir, ballast := smallDisk(t, 0)
	store := openSharingStore(t, dir)
	one, two := begin(t, store), begin(t, store)
	var err error
	for err == nil {
		_, err = one.Operation(query("SELECT 'until the disk is full'"))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for err = nil; err == nil; { // what is shorter may fit still
		_, err = two.Operation(query("SELECT 1"))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	wantSound(t, dir)
	var begun []*Session
	for err = nil; err == nil; {
		var session *Session
		if session, err = store.Begin(testMeta); err == nil {
			begun = append(begun, session)
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	wantSound(t, dir)
	must(t, os.Remove(ballast))
	for _, s := range append(begun, one, two) {
		operate(t, s, query("SELECT 'there is space again'"))
		must(t, s.Close("terminated"))
	}
	must(t, store.Close())
	if report := wantSound(t, dir); report.Sessions != len(begun)+2 || report.Open != 0 {
		t.Errorf("the report is %+v", report)
	}
}

func TestRecordWithoutSharedFilesIsReadAndWrittenOn(t *testing.T) {
	dir := crashed(t, filepath.Join("testdata", "unshared")) // a writer was killed
	if report := wantSound(t, dir); report.Sessions != 3 || report.Open != 1 {
		t.Errorf("the report is %+v", report)
	}
	list, err := List(dir)
	must(t, err)
	if len(list) != 3 || !list[2].Open || len(entries(t, dir, list[2].ID)) != 2 {
		t.Errorf("the list is %+v", list)
	}
	store, err := OpenStore(dir, zap.NewNop())
	must(t, err)
	store.shareAll()
	must(t, begin(t, store).Close("terminated"))
	must(t, store.Close())
	if report := wantSound(t, dir); report.Sessions != 4 || report.Open != 0 || report.Covered != report.LedgerLines {
		t.Errorf("the report is %+v", report)
	}
}
