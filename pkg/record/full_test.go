package record

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk is a file system of its own, of 256 KiB and more, and a file on it whose removal frees some of them.
func smallDisk(t *testing.T, more int) (dir, ballast string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", 256<<10+more)); err != nil {
		t.Fatalf("a full disk needs a mount, and that root: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	ballast = filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 96<<10+more), 0o600))
	return dir, ballast
}

// fill fills what is left.
func fill(t *testing.T, dir string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

func TestFullDiskRefusesOperationsAndTheRecordStaysSound(t *testing.T) {
	dir, ballast := smallDisk(t, 0)
	store := openTestStore(t, dir)
	session := begin(t, store)
	accepted := map[uint64]string{}
	record := func(text string) error {
		seq, err := session.Operation(query(text))
		if err == nil {
			accepted[seq] = text
			session.Result(&Result{Operation: seq, Rows: 1})
		}
		return err
	}
	var err error
	for err == nil {
		err = record("SELECT 'until the disk is full'")
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for range 10 { // now with a short write each time, for the page that is there takes something
		if err := record("SELECT 'refused'"); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("an operation is taken: %v", err)
		}
	}
	if tail := content(t, sessionPath(dir, session.ID())); tail[len(tail)-1] != '\n' {
		t.Error("something incomplete is left in the file")
	}
	wantSound(t, dir)
	if _, err := store.Begin(testMeta); err == nil {
		t.Error("a session begins on a full disk")
	}
	must(t, os.Remove(ballast))
	must(t, record("SELECT 'there is space again'"))
	must(t, session.Close("done"))
	must(t, store.Close())
	wantSound(t, dir)

	n := 0
	for _, e := range entries(t, dir, session.ID()) {
		if e.Operation == nil {
			continue
		}
		n++
		if e.Operation.Text != accepted[e.Seq] || e.Operation.Result == nil {
			t.Errorf("event %d is %+v, and %q was accepted", e.Seq, e.Operation, accepted[e.Seq])
		}
	}
	if n != len(accepted) {
		t.Errorf("%d operations are recorded, %d were accepted", n, len(accepted))
	}
	if list, err := List(dir); err != nil || len(list) != 1 {
		t.Errorf("the list is %+v, %v", list, err)
	}
}

func TestShortWriteThatCanNotBeCutAtOnceIsCutBeforeTheNext(t *testing.T) {
	dir, ballast := smallDisk(t, 0)
	path := filepath.Join(dir, "file")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	must(t, err)
	defer file.Close()
	a := appendFile{file: file}
	must(t, a.append([]byte("first\n")))
	fill(t, dir)
	if err := a.append(bytes.Repeat([]byte("x"), 8<<10)); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if got := string(content(t, path)); got != "first\n" || a.torn {
		t.Errorf("after a short write the file holds %d bytes", len(got))
	}
	// As if the truncation had failed.
	_, err = file.WriteString("torn")
	must(t, err)
	a.torn = true
	must(t, os.Remove(ballast))
	must(t, a.append([]byte("second\n")))
	if got := string(content(t, path)); got != "first\nsecond\n" {
		t.Errorf("the file holds %q", got)
	}
}

func TestCloseOnAFullDiskIsMadeUpFor(t *testing.T) {
	dir, ballast := smallDisk(t, 0)
	store := openTestStore(t, dir)
	session := begin(t, store)
	var seq uint64
	for err := error(nil); err == nil; {
		if n, e := session.Operation(query("SELECT 'until the disk is full'")); e == nil {
			seq = n
		} else {
			err = e
		}
	}
	session.Result(&Result{Operation: seq, Rows: 77})
	fill(t, dir)
	if err := session.Close("client closed"); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the close says %v", err)
	}
	waitFor(t, "refusing to begin", func() bool {
		_, err := store.Begin(testMeta)
		return errors.Is(err, unix.ENOSPC)
	})
	must(t, os.Remove(ballast))
	waitFor(t, "the seal", func() bool {
		list, err := List(dir)
		return err == nil && !list[0].Open && list[0].Reason == "client closed" && list[0].Rows == 77
	})
	waitFor(t, "another session", func() bool {
		other, err := store.Begin(testMeta)
		return err == nil && other.Close("done") == nil
	})
	must(t, store.Close())
	wantSound(t, dir)
}

func TestResultsThatCanNotBeKeptAreCounted(t *testing.T) {
	dir, ballast := smallDisk(t, 2*maxPending)
	store := openTestStore(t, dir)
	session := begin(t, store)
	operate(t, session, query("SELECT 1"))
	fill(t, dir)
	const results = 10_000
	for i := range results {
		session.Result(&Result{Operation: uint64(i), Rows: 1})
	}
	session.mu.Lock()
	if have := cap(session.buf); have > 4*maxPending {
		t.Errorf("a session holds %d bytes", have)
	}
	session.mu.Unlock()
	must(t, os.Remove(ballast))
	must(t, session.Close("done"))
	must(t, store.Close())
	wantSound(t, dir)
	list, err := List(dir)
	must(t, err)
	kept := uint64(bytes.Count(content(t, sessionPath(dir, session.ID())), []byte(`"type":"result"`)))
	if lost := list[0].ResultsLost; kept == 0 || lost == 0 || kept+lost != results || list[0].Rows != results {
		t.Errorf("of %d results %d are kept, and the session is %+v", results, kept, list[0])
	}
}

func TestFullDiskAtTheStartRefusesSessionsUntilThereIsSpace(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, dir string){
		"of a new record": func(*testing.T, string) {},
		"of a record with an interrupted session": func(t *testing.T, dir string) {
			store := openTestStore(t, dir)
			operate(t, begin(t, store), query("SELECT 1"))
			store.die()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, ballast := smallDisk(t, 0)
			before(t, dir)
			fill(t, dir)
			store := openTestStore(t, dir)
			if _, err := store.Begin(testMeta); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("a session begins: %v", err)
			}
			store.Refuse("record", testMeta)
			must(t, os.Remove(ballast))
			waitFor(t, "a session", func() bool {
				session, err := store.Begin(testMeta)
				return err == nil && session.Close("terminated") == nil
			})
			must(t, store.Close())
			if report := wantSound(t, dir); report.Open != 0 || report.Covered != report.LedgerLines {
				t.Errorf("the report is %+v", report)
			}
		})
	}
}

func TestStoreThatNeverHadSpaceIsClosed(t *testing.T) {
	dir, _ := smallDisk(t, 0)
	fill(t, dir)
	store := openTestStore(t, dir)
	must(t, store.Close())
	if _, err := store.Begin(testMeta); !errors.Is(err, ErrClosed) {
		t.Errorf("a session begins: %v", err)
	}
}
