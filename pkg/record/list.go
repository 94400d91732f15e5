package record

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Summary is one session in a list.
type Summary struct {
	ID    string    `json:"id"`
	Began time.Time `json:"began"`
	Meta
	// Open is true while the session is not sealed; its totals are those so far, and its reason is "".
	Open bool `json:"open"`
	Ending
	// Damaged is why the session could not be read or sealed; else "".
	Damaged string `json:"damaged,omitempty"`
}

// List gives all sessions that were not pruned, in the order in which they began, as the ledger has them. It reads what is there: whether it is what
// was written, Verify says. With a Fault of the ledger come the sessions before it.
func List(dir string) (list []Summary, err error) {
	file, err := os.Open(filepath.Join(dir, ledgerName))
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	defer file.Close()
	places := map[string]int{}    // in list, of sessions that are not sealed
	shared := map[string]string{} // the file that a session shares
	pruned := map[string]bool{}
	lines := newLineReader(nil)
	scanned, err := scanLedger(file, lines, func(h lineHead, line []byte) error {
		id := sessionOf(h)
		place, known := places[id]
		switch h.typ {
		case typeOpen:
			s := Summary{Began: h.time, Open: true}
			var l openLine
			if err := decodeLine(line, &l); err != nil {
				return err
			}
			s.ID, s.Meta = l.Session, l.Meta.unescape()
			places[id], shared[id] = len(list), l.File
			list = append(list, s)
		case typeSeal:
			var l sealLine
			if err := decodeLine(line, &l); err != nil {
				return err
			}
			if !known {
				return fmt.Errorf("it seals session %q, which is not open", l.Session)
			}
			list[place].Open, list[place].Ending = false, l.Ending
			list[place].Reason = Unescape(l.Reason)
			delete(places, id)
			delete(shared, id)
		case typePruned:
			var l prunedLine
			if err := decodeLine(line, &l); err != nil {
				return err
			}
			for _, id := range l.Sessions {
				pruned[id] = true
			}
		case typeDamaged:
			var l damagedLine
			if err := decodeLine(line, &l); err != nil {
				return err
			}
			if known {
				list[place].Open, list[place].Damaged = false, l.Reason
				delete(places, id)
				delete(shared, id)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	scans := newScanner(dir, lines)
	defer func() { list = slices.DeleteFunc(list, func(s Summary) bool { return pruned[s.ID] }) }()
	for id, place := range places {
		if err := list[place].soFar(scans, id, shared[id]); err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
	}
	slices.SortStableFunc(list, func(a, b Summary) int { return strings.Compare(a.ID, b.ID) })
	if scanned.fault != nil {
		return list, scanned.fault
	}
	return list, nil
}

// soFar fills in what an open session's file says.
func (s *Summary) soFar(scans *scanner, id, shared string) error {
	scanned, err := scans.session(id, shared, false)
	switch {
	case err != nil:
		return err
	case scanned.missing:
		s.Open, s.Damaged = false, scanned.fault.Error()
		return nil
	case scanned.fault != nil:
		s.Damaged = scanned.fault.Error()
	}
	s.Totals, s.Duration = scanned.totals, time.Since(s.Began)
	if scanned.seal != nil {
		s.Open, s.Ending = false, *scanned.ending
	}
	return nil
}

func (m Meta) unescape() Meta {
	for _, s := range []*string{
		&m.Workload.Name, &m.Workload.Cgroup, &m.Workload.Comm, &m.Target, &m.Protocol, &m.Destination, &m.Upstream, &m.Node,
	} {
		*s = Unescape(*s)
	}
	return m
}

// Find gives the id of the one session that begins with prefix, in either case of letters; a whole id is given back unasked.
// It is ErrNotFound when there is none, and an error that names some when there are several.
func Find(dir, prefix string) (string, error) {
	want := strings.ToUpper(prefix)
	if want == "" || !validIDPrefix(want) {
		return "", fmt.Errorf("session %q: %w", prefix, ErrNotFound)
	}
	if ValidID(want) {
		return want, nil
	}
	found, err := idsOf(dir, want)
	if err != nil {
		return "", fmt.Errorf("find session %s: %w", prefix, err)
	}
	switch {
	case len(found) == 0:
		return "", fmt.Errorf("session %s: %w", prefix, ErrNotFound)
	case len(found) == 1:
		return found[0], nil
	}
	shown := strings.Join(found[:min(len(found), 5)], ", ")
	if len(found) > 5 {
		shown += " …"
	}
	return "", fmt.Errorf("session %s: %d sessions begin so: %s", prefix, len(found), shown)
}

// idsOf are the sessions that begin with prefix, in order: those that have a directory, and those of which the ledger tells.
func idsOf(dir, prefix string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, sessionsName))
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, e := range entries {
		ids[e.Name()] = ValidID(e.Name()) && strings.HasPrefix(e.Name(), prefix)
	}
	file, err := os.Open(filepath.Join(dir, ledgerName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		defer file.Close()
		_, err = scanLedger(file, newLineReader(nil), func(h lineHead, _ []byte) error {
			if id := sessionOf(h); h.typ == typeOpen && strings.HasPrefix(id, prefix) {
				ids[id] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	maps.DeleteFunc(ids, func(_ string, fits bool) bool { return !fits })
	return slices.Sorted(maps.Keys(ids)), nil
}
