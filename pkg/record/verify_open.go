package record

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// strangerPatience is how long a directory may be without its line in the ledger: Begin makes the one before the other.
const strangerPatience = time.Second

// openSessions checks the sessions that the ledger has not sealed, and that the wanted ones are there.
func (v *verifier) openSessions() error {
	for _, id := range slices.Sorted(maps.Keys(v.known)) {
		if o := v.known[id]; o != nil {
			if err := v.session(id, o, nil, 0); err != nil {
				return err
			}
		}
	}
	for _, id := range v.options.Sessions {
		if _, ok := v.known[id]; ok {
			continue
		}
		if _, err := os.Stat(filepath.Join(v.dir, sessionsName, id)); !ValidID(id) || errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("session %s: %w", id, ErrNotFound)
		}
	}
	return nil
}

// unknown finds what stands in the state directory and not in the ledger: files by the sessions that they are said to be of.
func (v *verifier) unknown(directories []fs.DirEntry, shared []string) (map[string]string, error) {
	missing := map[string]string{}
	for _, d := range directories {
		id := d.Name()
		if _, ok := v.known[id]; !ok && v.wanted(id) {
			missing[id] = filepath.Join(sessionsName, id)
		}
	}
	for _, name := range shared {
		if len(v.options.Sessions) > 0 && v.scans.shared[name] == nil {
			continue
		}
		f, err := v.scans.file(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its sessions were told
		}
		if err != nil {
			return nil, err
		}
		v.report.Faults = append(v.report.Faults, f.faults...)
		for id, s := range f.sessions {
			// One that has only begun has no line in the ledger if its Begin failed, or was cut short; nothing was forwarded.
			if _, ok := v.known[id]; !ok && v.wanted(id) && !s.onlyBegun() {
				missing[id] = name
			}
		}
	}
	return missing, nil
}

// strangers tells what is missing in the ledger. A session that has just begun may have its line now, behind offset; patient says
// to wait for it.
func (v *verifier) strangers(missing map[string]string, ledger *os.File, offset int64, patient bool) error {
	deadline := time.Now().Add(strangerPatience)
	for len(missing) > 0 {
		if err := v.follow(ledger, offset, missing); err != nil {
			return err
		}
		for id, file := range missing {
			if _, err := os.Stat(filepath.Join(v.dir, file)); errors.Is(err, fs.ErrNotExist) {
				delete(missing, id) // its Begin failed
			}
		}
		if !patient || time.Now().After(deadline) {
			break
		}
		if len(missing) > 0 {
			time.Sleep(strangerPatience / 20)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(missing)) {
		file := missing[id]
		if !ValidID(id) {
			v.fault(Fault{File: file, What: "it is no session"})
			continue
		}
		if file == filepath.Join(sessionsName, id) {
			file = sessionFile(id)
		}
		v.fault(Fault{File: file, Session: id, What: "the ledger does not have this session"})
	}
	return nil
}

// follow reads the ledger's lines behind offset, and takes the sessions that they open from missing.
func (v *verifier) follow(ledger *os.File, offset int64, missing map[string]string) error {
	if _, err := ledger.Seek(offset, 0); err != nil {
		return err
	}
	v.ledgerLines.reset(ledger)
	for {
		line, err := v.ledgerLines.next()
		if err != nil {
			return nil // its end, for now; what is not sound there the next Verify finds
		}
		if h, err := parseHead(line); err == nil && h.typ == typeOpen {
			delete(missing, sessionOf(h))
		}
	}
}

// findPruned reads ahead which sessions were pruned; whether the lines are sound is found where they stand.
func (v *verifier) findPruned(ledger *os.File) error {
	v.pruned = map[string]bool{}
	_, err := scanLedger(ledger, v.ledgerLines, func(h lineHead, line []byte) error {
		if h.typ != typePruned {
			return nil
		}
		var l prunedLine
		if err := decodeLine(line, &l); err != nil {
			return err
		}
		for _, id := range l.Sessions {
			v.pruned[id] = true
		}
		return nil
	})
	return err
}

// prunedLine takes a line about sessions that were removed.
func (v *verifier) prunedLine(h lineHead, line []byte) error {
	var l prunedLine
	if err := decodeLine(line, &l); err != nil {
		return err
	}
	if !signed(v.key, prunedText(chain{seq: h.seq - 1, hash: h.prev}, &l), l.Signature) {
		return errors.New("its signature is not by the record's key")
	}
	for _, id := range l.Sessions {
		if o, ok := v.known[id]; !ok || o != nil {
			return fmt.Errorf("it prunes session %q, which is not sealed", id)
		}
	}
	v.note("%d sessions were pruned at %s by %s", len(l.Sessions), h.time.Format(time.RFC3339), Unescape(l.By))
	return nil
}
