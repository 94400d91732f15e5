package record

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// pruneBatch is how many sessions one line of the ledger says were pruned.
const pruneBatch = 1000

// PruneOptions say what is removed, and for whom.
type PruneOptions struct {
	// Before: sessions that were sealed earlier are removed.
	Before time.Time
	// Keep is how many of the newest sessions stay however old they are.
	Keep int
	// By is who wants it, as the ledger will say.
	By string
}

// A Prunable is a session that Prune removes.
type Prunable struct {
	ID     string    `json:"id"`
	Sealed time.Time `json:"sealed"`
	shared string    // the file that it shares, or ""
}

// prunedLine says which sessions were removed. Its signature is over prunedText, so that nobody without the key can make it.
type prunedLine struct {
	By        string    `json:"by"`
	Before    time.Time `json:"before"`
	Sessions  []string  `json:"sessions"`
	Signature []byte    `json:"signature"`
}

// FindPrunable gives the sessions that Prune would remove, the oldest first: sealed ones that are old enough. One that shares a file
// goes with the others in it, when all of them may and no process writes it. Sessions that are damaged stay. It only reads.
func FindPrunable(dir string, o PruneOptions) ([]Prunable, error) {
	file, err := os.Open(filepath.Join(dir, ledgerName))
	if err != nil {
		return nil, fmt.Errorf("find sessions to prune: %w", err)
	}
	defer file.Close()
	known := map[string]*Prunable{} // Sealed is zero while it may not go
	pruned := map[string]bool{}
	scanned, err := scanLedger(file, newLineReader(nil), func(h lineHead, line []byte) error {
		id := sessionOf(h)
		switch h.typ {
		case typeOpen:
			other, err := otherOf(h)
			if err != nil {
				return err
			}
			known[id] = &Prunable{ID: id, shared: other.file}
		case typeSeal:
			if s := known[id]; s != nil {
				s.Sealed = h.time
			}
		case typePruned:
			var l prunedLine
			if err := decodeLine(line, &l); err != nil {
				return err
			}
			for _, id := range l.Sessions {
				pruned[id] = true
			}
		}
		return nil
	})
	if err == nil && scanned.fault != nil {
		err = scanned.fault
	}
	if err != nil {
		return nil, fmt.Errorf("find sessions to prune: %w", err)
	}
	var list []*Prunable
	for id, s := range known {
		if !pruned[id] {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *Prunable) int { return cmp.Compare(a.ID, b.ID) })
	stay := map[string]bool{} // shared files with a session that may not go
	for i, s := range list {
		if s.Sealed.IsZero() || !s.Sealed.Before(o.Before) || i >= len(list)-o.Keep {
			stay[s.shared], s.Sealed = true, time.Time{}
		}
	}
	var out []Prunable
	for _, s := range list {
		if !s.Sealed.IsZero() && (s.shared == "" || !stay[s.shared]) {
			out = append(out, *s)
		}
	}
	if out, err = withoutWritten(dir, out); err != nil {
		return nil, fmt.Errorf("find sessions to prune: %w", err)
	}
	return out, nil
}

// Prune removes the sessions that FindPrunable finds, and returns them. The ledger keeps its lines about them, and says first, signed,
// that they were removed, when and by whom.
func (s *Store) Prune(o PruneOptions) ([]Prunable, error) {
	found, err := FindPrunable(s.dir, o)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	err = s.broken
	s.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("prune sessions: %w", err)
	}
	now := time.Now()
	for batch := range slices.Chunk(found, pruneBatch) {
		line := prunedLine{By: o.By, Before: o.Before.UTC()}
		for _, p := range batch {
			line.Sessions = append(line.Sessions, p.ID)
		}
		if err := s.ledger.appendPruned(now, line); err != nil {
			return nil, err
		}
	}
	// The ledger is on disk before anything is removed.
	if err := s.ledger.writeHead(now); err != nil {
		return nil, err
	}
	gone := map[string]bool{}
	for _, p := range found {
		if err := os.RemoveAll(filepath.Join(s.dir, sessionsName, p.ID)); err != nil {
			return found, fmt.Errorf("prune session %s: %w", p.ID, err)
		}
		if p.shared != "" && !gone[p.shared] {
			gone[p.shared] = true
			if err := os.Remove(filepath.Join(s.dir, p.shared)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return found, fmt.Errorf("prune %s: %w", p.shared, err)
			}
		}
	}
	return found, nil
}

// withoutWritten leaves out sessions in shared files to which a process may yet write others.
func withoutWritten(dir string, found []Prunable) ([]Prunable, error) {
	written := map[string]bool{"": false}
	for _, p := range found {
		if _, asked := written[p.shared]; asked {
			continue
		}
		file, err := os.Open(filepath.Join(dir, p.shared))
		if errors.Is(err, fs.ErrNotExist) {
			written[p.shared] = false
			continue
		}
		if err != nil {
			return nil, err
		}
		err = flock(file, unix.LOCK_SH|unix.LOCK_NB)
		written[p.shared] = errors.Is(err, ErrLocked)
		file.Close()
		if err != nil && !written[p.shared] {
			return nil, err
		}
	}
	return slices.DeleteFunc(found, func(p Prunable) bool { return written[p.shared] }), nil
}

// appendPruned signs and appends the line.
func (l *ledger) appendPruned(now time.Time, line prunedLine) error {
	err := l.exclusively(func() error {
		line.Signature = ed25519.Sign(l.key, prunedText(l.chain, &line))
		return l.appendLocked(now, []entry{{typ: typePruned, members: NewFragment(line)}})
	})
	if err != nil {
		return fmt.Errorf("write a line to the ledger: %w", err)
	}
	return nil
}
