package record

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

func pruneAll(t *testing.T, store *Store, keep int) []Prunable {
	t.Helper()
	pruned, err := store.Prune(PruneOptions{Before: time.Now().Add(time.Second), Keep: keep, By: "root (uid 0)"})
	must(t, err)
	return pruned
}

func TestPrunedSessionsAreGoneAndTheLedgerSaysByWhom(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	own := begin(t, store)
	must(t, own.Close("terminated"))
	store.shareAll()
	shared := begin(t, store)
	large := begin(t, store)
	operate(t, large, query(strings.Repeat("SELECT ", moveAbove/7)))
	for _, s := range []*Session{shared, large} {
		must(t, s.Close("terminated"))
	}
	must(t, store.enterSeals(time.Now()))
	must(t, store.places.closeShared())
	open := begin(t, store) // in another shared file
	operate(t, open, query("SELECT 1"))

	after := joinTestStore(t, dir) // as the command does beside a proxy
	if pruned := pruneAll(t, after, 0); len(pruned) != 3 || pruned[0].ID != own.ID() || pruned[2].ID != large.ID() {
		t.Errorf("pruned were %+v", pruned)
	}
	if pruned := pruneAll(t, after, 0); len(pruned) != 0 {
		t.Errorf("pruned again were %+v", pruned)
	}
	must(t, after.Close())
	report := wantSound(t, dir)
	if report.Pruned != 3 || report.Sessions != 1 || report.Open != 1 || !strings.Contains(strings.Join(report.Notes, "\n"), "by root (uid 0)") {
		t.Errorf("the report is %+v", report)
	}
	list, err := List(dir)
	must(t, err)
	if len(list) != 1 || list[0].ID != open.ID() {
		t.Errorf("the list is %+v", list)
	}
	for _, err := range Read(dir, shared.ID()) {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("it is read: %v", err)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(dir, sessionsName)); err != nil || len(entries) != 0 {
		t.Errorf("the directories are %v, %v", entries, err)
	}
	only(t, dir)
	operate(t, open, query("SELECT 2"))
	must(t, open.Close("terminated"))
	must(t, store.Close())
	wantSound(t, dir)
	must(t, openTestStore(t, dir).Close())
	wantSound(t, dir)
}

func TestPruneLeavesWhatIsYoungOrToBeKeptOrSharesAFileWithIt(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	for range 5 {
		must(t, begin(t, store).Close("terminated"))
	}
	if found, err := FindPrunable(dir, PruneOptions{Before: time.Now().Add(-time.Hour)}); err != nil || len(found) != 0 {
		t.Errorf("of young ones %+v would go, %v", found, err)
	}
	if pruned := pruneAll(t, store, 3); len(pruned) != 2 {
		t.Errorf("pruned were %+v", pruned)
	}
	store.shareAll()
	must(t, begin(t, store).Close("terminated"))
	open := begin(t, store)
	must(t, store.enterSeals(time.Now()))
	must(t, store.places.closeShared())
	if pruned := pruneAll(t, store, 0); len(pruned) != 3 {
		t.Errorf("pruned were %+v", pruned)
	}
	must(t, open.Close("terminated"))
	must(t, store.enterSeals(time.Now()))
	if pruned := pruneAll(t, store, 0); len(pruned) != 2 {
		t.Errorf("pruned were %+v", pruned)
	}
	must(t, store.Close())
	if report := wantSound(t, dir); report.Pruned != 7 || report.Sessions != 0 {
		t.Errorf("the report is %+v", report)
	}
}

func TestFileToWhichAProcessMayWriteIsNotPruned(t *testing.T) {
	dir := t.TempDir()
	store := openSharingStore(t, dir)
	must(t, begin(t, store).Close("terminated"))
	must(t, store.enterSeals(time.Now()))
	after := joinTestStore(t, dir)
	if pruned := pruneAll(t, after, 0); len(pruned) != 0 {
		t.Errorf("pruned were %+v", pruned)
	}
	only(t, dir)
}

func TestRemovalThatCallsItselfPruningIsFound(t *testing.T) {
	for _, test := range []struct {
		name  string
		forge func(t *testing.T, dir string, ids []string, ledger []byte) []byte
		what  string
	}{
		{"at the end", func(t *testing.T, dir string, ids []string, ledger []byte) []byte {
			return forge(t, ledger, typePruned, prunedLine{By: "root", Sessions: ids[:1], Signature: make([]byte, 64)})
		}, "behind the end of the last writer"},
		{"in the place of the end", func(t *testing.T, dir string, ids []string, ledger []byte) []byte {
			must(t, os.Remove(filepath.Join(dir, headName)))
			lines := bytes.SplitAfter(ledger, []byte("\n"))
			return forge(t, bytes.Join(lines[:len(lines)-2], nil), typePruned, prunedLine{By: "root", Sessions: ids[:1], Signature: make([]byte, 64)})
		}, "its signature is not by the record's key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, ids := smallStore(t)
			must(t, os.RemoveAll(filepath.Join(dir, sessionsName, ids[0])))
			ledger := test.forge(t, dir, ids, content(t, dir, ledgerName))
			must(t, os.WriteFile(filepath.Join(dir, ledgerName), ledger, 0o600))
			found := false
			for _, f := range verify(t, dir).Faults {
				found = found || strings.Contains(f.What, test.what)
			}
			if !found {
				t.Errorf("the report is %+v", verify(t, dir))
			}
		})
	}
}

func TestPrunedLineThatIsChangedIsFound(t *testing.T) {
	dir, ids := smallStore(t)
	store, err := OpenStore(dir, zap.NewNop())
	must(t, err)
	pruneAll(t, store, 1)
	must(t, store.Close())
	wantSound(t, dir)
	ledger := content(t, dir, ledgerName)
	for name, changed := range map[string][]byte{
		"another session": bytes.ReplaceAll(ledger, []byte(`"sessions":["`+ids[0]), []byte(`"sessions":["`+ids[1])),
		"another person":  bytes.ReplaceAll(ledger, []byte("uid 0"), []byte("uid 1")),
	} {
		must(t, os.WriteFile(filepath.Join(dir, ledgerName), rechain(t, ledgerChain(), changed), 0o600))
		if report := verify(t, dir); len(report.Faults) == 0 {
			t.Errorf("%s: it is not found", name)
		}
	}
}
