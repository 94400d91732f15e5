package record

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
)

func joinTestStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := JoinStore(dir, zap.NewNop())
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// die ends a store as a kill would: nothing more is written, and the locks are gone.
func (s *Store) die() {
	s.mu.Lock()
	s.closed = true
	live := s.live
	s.mu.Unlock()
	close(s.stop)
	<-s.stopped
	for session := range live {
		session.mu.Lock()
		if session.shared != nil {
			session.shared.file.file.Close()
		} else {
			session.file.file.Close()
		}
		session.mu.Unlock()
	}
	if s.places.current != nil {
		s.places.current.file.file.Close()
	}
	s.ledger.file.file.Close()
	s.lock.Close()
}

func TestTwoStoresWriteOneRecordSideBySide(t *testing.T) {
	dir := t.TempDir()
	before := openTestStore(t, dir)
	long := begin(t, before)
	after := joinTestStore(t, dir)
	var both sync.WaitGroup
	for _, store := range []*Store{before, after} {
		both.Go(func() {
			for range 50 {
				session := begin(t, store)
				operate(t, session, query("SELECT 1"))
				if err := session.Close("terminated"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	both.Wait()
	if _, err := OpenStore(dir, zap.NewNop()); !errors.Is(err, ErrLocked) {
		t.Errorf("a third one, alone: %v", err)
	}
	operate(t, long, query("SELECT 2"))
	must(t, long.Close("drained"))
	must(t, before.Close())
	if report := wantSound(t, dir); report.Sessions != 101 || report.Open != 0 {
		t.Errorf("%d sessions, %d of them open", report.Sessions, report.Open)
	}
	must(t, begin(t, after).Close("terminated"))
	must(t, after.Close())
	report := wantSound(t, dir)
	if report.Sessions != 102 || report.Covered != report.LedgerLines {
		t.Errorf("%d sessions; the head covers %d of %d lines", report.Sessions, report.Covered, report.LedgerLines)
	}
	openTestStore(t, dir)
}

func TestSessionsOfALivingProcessAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	before := openTestStore(t, dir)
	session := begin(t, before)
	after := joinTestStore(t, dir)
	if interrupted, err := after.sweep(time.Now(), newScanner(dir, newLineReader(nil))); interrupted != 0 || err != nil {
		t.Errorf("sealed %d, %v", interrupted, err)
	}
	operate(t, session, query("SELECT 1"))
	must(t, session.Close("terminated"))
	if interrupted, err := after.sweep(time.Now(), newScanner(dir, newLineReader(nil))); interrupted != 0 || err != nil {
		t.Errorf("after its seal: sealed %d, %v", interrupted, err)
	}
	list, err := List(dir)
	must(t, err)
	if len(list) != 1 || list[0].Reason != "terminated" {
		t.Errorf("the list is %+v", list)
	}
	wantSound(t, dir)
}

func TestSessionsOfAProcessThatDiedAreSealedByTheOtherOne(t *testing.T) {
	dir := t.TempDir()
	before := openTestStore(t, dir)
	known := begin(t, before)
	after := joinTestStore(t, dir)
	unknown := begin(t, before)
	operate(t, unknown, query("SELECT 1"))
	before.die()
	waitFor(t, "the seal of both sessions", func() bool {
		report := verify(t, dir)
		return report.Sessions == 2 && report.Open == 0
	})
	list, err := List(dir)
	must(t, err)
	for _, one := range list {
		if (one.ID == known.ID() || one.ID == unknown.ID()) && one.Reason != reasonInterrupted {
			t.Errorf("session %s ended with %q", one.ID, one.Reason)
		}
	}
	must(t, after.Close())
	wantSound(t, dir)
}

func TestLineThatAnotherProcessLeftUnfinishedIsCut(t *testing.T) {
	dir := t.TempDir()
	before := openTestStore(t, dir)
	after := joinTestStore(t, dir)
	before.die()
	ledger, err := os.OpenFile(filepath.Join(dir, ledgerName), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = ledger.WriteString(`{"seq":4,"ti`)
	must(t, errors.Join(err, ledger.Close()))
	must(t, begin(t, after).Close("terminated"))
	must(t, after.Close())
	wantSound(t, dir)
}

func TestStoreWhoseLedgerIsCutMeanwhileWritesNothingMore(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	must(t, os.Truncate(filepath.Join(dir, ledgerName), 10))
	var fault *Fault
	if _, err := store.Begin(testMeta); !errors.As(err, &fault) {
		t.Errorf("a session begins: %v", err)
	}
}
