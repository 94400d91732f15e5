package record

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// open makes or loads all that a Store needs, and puts in order what processes before left behind; beside says that there may be
// another process that writes.
func (s *Store) open(now time.Time, beside bool) error {
	for _, name := range []string{sessionsName, sharedName} {
		if err := os.MkdirAll(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	var (
		alone bool
		err   error
	)
	if s.lock, alone, err = lockStore(s.dir, beside); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(s.dir, ledgerName), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	s.ledger = &ledger{dir: s.dir, file: appendFile{file: file}, chain: ledgerChain(), others: map[string]other{}}
	head, hasHead, err := readHead(s.dir)
	if err != nil {
		return err
	}
	known := map[string]bool{} // all sessions that the ledger has
	lines := newLineReader(nil)
	scanned, err := scanLedger(file, lines, func(h lineHead, _ []byte) error {
		if h.typ == typeOpen {
			known[sessionOf(h)] = true
		}
		return s.ledger.note(h)
	}, head.Count)
	if err != nil {
		return err
	}
	if err := s.openKey(scanned, hasHead); err != nil {
		return err
	}
	if hasHead {
		if err := errors.Join(head.check(s.key.Public().(ed25519.PublicKey)), scanned.covers(head)); err != nil {
			return &Fault{File: headName, What: err.Error()}
		}
	}
	if scanned.fault != nil {
		// Behind the head, a loss of power can leave anything; nobody knows what. What stands there is kept for whoever asks.
		return scanned.fault
	}
	s.ledger.chain, s.ledger.file.size = scanned.chain, scanned.size
	start := startLine{Uncovered: scanned.chain.seq - head.Count}
	if start.DroppedBytes, err = s.ledger.cutTorn(); err != nil {
		return err
	}
	if scanned.chain.seq == 0 {
		if entries, err := os.ReadDir(filepath.Join(s.dir, sessionsName)); err != nil || len(entries) > 0 {
			return errors.Join(err, &Fault{File: ledgerName, What: "it is empty, and there are sessions"})
		}
		if err := s.ledger.write(now, typeKey, keyLine{Version: formatVersion, Key: s.key.Public().(ed25519.PublicKey)}); err != nil {
			return err
		}
	}
	if alone {
		if err := s.clearAbandoned(now, known, lines); err != nil {
			return err
		}
	} else {
		// Sessions that the other process is beginning look like abandoned ones, and lines without a head are its newest.
		start.Uncovered = 0
	}
	if start.Interrupted, err = s.sweep(now, newScanner(s.dir, lines)); err != nil {
		return err
	}
	err = s.ledger.appendSigned(now, typeStart, func(signature []byte) any {
		start.Signature = signature
		return start
	})
	if err != nil {
		return err
	}
	if start.Interrupted > 0 || start.DroppedBytes > 0 || start.Uncovered > 0 {
		s.log.Warn("the record was not closed by the process before", zap.Int("interrupted_sessions", start.Interrupted),
			zap.Int64("dropped_ledger_bytes", start.DroppedBytes), zap.Uint64("uncovered_ledger_lines", start.Uncovered))
	}
	if err := s.ledger.writeHead(now); err != nil {
		return err
	}
	// From here on another process may write beside this one.
	return flock(s.lock, unix.LOCK_SH|unix.LOCK_NB)
}

// openKey loads the key, or makes it for a record that is new.
func (s *Store) openKey(scanned *ledgerScan, hasHead bool) error {
	key, err := loadKey(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		if scanned.chain.seq > 0 || scanned.fault != nil || hasHead {
			return fmt.Errorf("%s is missing: %w", keyName, ErrKeyMismatch)
		}
		key, err = createKey(s.dir)
	}
	if err != nil {
		return err
	}
	public := key.Public().(ed25519.PublicKey)
	if scanned.key != nil && !public.Equal(ed25519.PublicKey(scanned.key)) {
		return fmt.Errorf("%w: it is %s, expected %s", ErrKeyMismatch,
			base64.StdEncoding.EncodeToString(public), base64.StdEncoding.EncodeToString(scanned.key))
	}
	s.key, s.ledger.key = key, key
	return publishKey(s.dir, public)
}

// recoverSession seals a session that has lost its writer.
func (s *Store) recoverSession(now time.Time, id string, known other, scans *scanner) (sealed bool, err error) {
	scanned, err := scans.session(id, known.file, true)
	if err != nil {
		return false, err
	}
	if fault := scanned.check(s.key.Public().(ed25519.PublicKey), known.first); fault != nil {
		return false, s.damaged(now, id, fault)
	}
	line := scanned.sealLine()
	if line == nil { // else only the ledger's is missing
		if line, err = s.sealInterrupted(now, scanned); err != nil {
			return false, err
		}
	}
	return true, s.ledger.append(now, entry{typ: typeSeal, members: line.fragment(), unsigned: len(line.Signature) == 0})
}

// sealInterrupted cuts an incomplete last event off, says so, and closes and seals the session.
func (s *Store) sealInterrupted(now time.Time, scanned *scan) (*sealLine, error) {
	file, err := os.OpenFile(filepath.Join(s.dir, scanned.file), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	out := appendFile{file: file, size: scanned.size, torn: scanned.torn > 0}
	end := scanned.chain
	ending := Ending{Reason: reasonInterrupted, Totals: scanned.totals, Duration: scanned.ended.Sub(scanned.began)}
	buf := appendEvent(nil, &end, now, &event{typ: typeRecovered, head: NewFragment(recoveredEvent{DroppedBytes: scanned.torn})})
	buf = appendEvent(buf, &end, now, &event{typ: typeClose, head: ending.fragment()})
	line := newSealLine(s.key, scanned.id, ending, end, now)
	buf = appendSeal(buf, &end, now, line.Signature)
	if err := out.append(buf); err != nil {
		return nil, err
	}
	return line, nil
}

// damaged gives a session up that can not be sealed; its files stay as they are.
func (s *Store) damaged(now time.Time, id string, fault *Fault) error {
	s.log.Error("a session's record is damaged", zap.String("session", id), zap.Error(fault))
	return s.ledger.write(now, typeDamaged, damagedLine{Session: id, Reason: fault.Error()})
}

// clearAbandoned removes directories that the ledger does not know and that hold no event but those of Begin: it had not
// returned, so nothing had been forwarded. Others are left for Verify to find.
func (s *Store) clearAbandoned(now time.Time, known map[string]bool, lines *lineReader) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, sessionsName))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id := entry.Name()
		if known[id] || !ValidID(id) {
			continue
		}
		scanned, err := newScanner(s.dir, lines).session(id, "", false)
		if err != nil {
			return err
		}
		if !scanned.missing && !scanned.onlyBegun() {
			s.log.Error("the ledger does not have a session that is stored", zap.String("session", id))
			continue
		}
		if err := s.ledger.write(now, typeAbandoned, abandonedLine{Session: id}); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(s.dir, sessionsName, id)); err != nil {
			return err
		}
	}
	return nil
}
