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

// strangers finds what stands in the directory of sessions and not in the ledger. A session that has just begun may have its
// line now, behind offset; patient says to wait for it.
func (v *verifier) strangers(directories []fs.DirEntry, ledger *os.File, offset int64, patient bool) error {
	missing := map[string]bool{}
	for _, d := range directories {
		id := d.Name()
		if _, ok := v.known[id]; !ok && v.wanted(id) {
			missing[id] = true
		}
	}
	deadline := time.Now().Add(strangerPatience)
	for len(missing) > 0 {
		if err := v.follow(ledger, offset, missing); err != nil {
			return err
		}
		for id := range missing {
			if _, err := os.Stat(filepath.Join(v.dir, sessionsName, id)); errors.Is(err, fs.ErrNotExist) {
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
		if !ValidID(id) {
			v.fault(Fault{File: filepath.Join(sessionsName, id), What: "it is no session"})
			continue
		}
		v.fault(Fault{File: sessionFile(id), Session: id, What: "the ledger does not have this session"})
	}
	return nil
}

// follow reads the ledger's lines behind offset, and takes the sessions that they open from missing.
func (v *verifier) follow(ledger *os.File, offset int64, missing map[string]bool) error {
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
