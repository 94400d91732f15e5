package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// VerifyOptions narrow or sharpen Verify; the zero value checks the whole store against itself.
type VerifyOptions struct {
	// Sessions are the ids to check; the ledger is checked in any case. Empty: all.
	Sessions []string
	// Key is the public key that the record must be by, from a copy kept elsewhere. Without it the key that the ledger itself
	// names is believed.
	Key ed25519.PublicKey
	// Head is a head of the ledger that was kept elsewhere: the ledger must still have what it covers.
	Head *Head
}

// A Report is what Verify checked and found.
type Report struct {
	// Sessions were checked; Open of them are not sealed, and their chain was checked so far as it goes.
	Sessions int `json:"sessions"`
	Open     int `json:"open"`
	// Pruned are those of which only the ledger tells, because somebody had them removed: who and when stands in the notes.
	Pruned int `json:"pruned"`
	// Events are those of the sessions, seals not counted.
	Events uint64 `json:"events"`
	// LedgerLines were checked; the signed head of HeadTime covers the first Covered of them.
	LedgerLines uint64    `json:"ledgerLines"`
	Covered     uint64    `json:"covered"`
	HeadTime    time.Time `json:"headTime,omitzero"`
	// Key is the public key that the record is sealed with: 32 bytes in base64.
	Key string `json:"key"`
	// Faults are empty when everything is sound.
	Faults []Fault `json:"faults"`
	// Notes are no faults, but whoever judges the record should know them.
	Notes []string `json:"notes"`
}

// Verify checks a store against its hash chains and signatures: that no event, session or line of the ledger was changed,
// removed, added or put elsewhere. It only reads, and a Store may be writing meanwhile. What is wrong with the record is in
// the report; an error says that it could not be checked.
func Verify(dir string, o VerifyOptions) (Report, error) {
	v := &verifier{
		dir: dir, options: o, known: map[string]*opened{},
		ledgerLines: newLineReader(nil), scans: newScanner(dir, newLineReader(nil)),
	}
	v.report.Faults, v.report.Notes = []Fault{}, []string{}
	if err := v.verify(); err != nil {
		return v.report, fmt.Errorf("verify the record in %s: %w", dir, err)
	}
	return v.report, nil
}

type verifier struct {
	dir     string
	options VerifyOptions
	report  Report
	key     ed25519.PublicKey // that the ledger begins with
	// known are the sessions that the ledger has; nil when they are sealed, and checked.
	known       map[string]*opened
	pruned      map[string]bool
	stopped     bool // the last line says that nobody writes any more
	ledgerLines *lineReader
	scans       *scanner
}

// opened is an open line of the ledger.
type opened struct {
	line  int
	first hash
	openLine
}

func (v *verifier) fault(f Fault) { v.report.Faults = append(v.report.Faults, f) }

func (v *verifier) note(format string, args ...any) {
	if note := fmt.Sprintf(format, args...); !slices.Contains(v.report.Notes, note) { // sessions that share a file share its notes
		v.report.Notes = append(v.report.Notes, note)
	}
}

// verify reads the head first, then the directories, then the ledger: whatever is written meanwhile, each holds what those before it had.
func (v *verifier) verify() error {
	head, hasHead, err := readHead(v.dir)
	var fault *Fault
	if errors.As(err, &fault) {
		v.fault(*fault)
	} else if err != nil {
		return err
	}
	directories, err := os.ReadDir(filepath.Join(v.dir, sessionsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	shared, other, err := sharedFiles(v.dir)
	if err != nil {
		return err
	}
	for _, name := range other {
		v.fault(Fault{File: name, What: "it is no file of sessions"})
	}
	file, err := os.Open(filepath.Join(v.dir, ledgerName))
	if err != nil {
		return err
	}
	defer file.Close()
	marks := []uint64{head.Count}
	if v.options.Head != nil {
		marks = append(marks, v.options.Head.Count)
	}
	if err := v.findPruned(file); err != nil {
		return err
	}
	var ioErr error // of a session's file, which is no fault of the ledger's line
	scanned, err := scanLedger(file, v.ledgerLines, func(h lineHead, line []byte) error {
		if ioErr != nil {
			return nil
		}
		fault, err := v.line(h, line)
		ioErr = err
		return fault
	}, marks...)
	if err = errors.Join(err, ioErr); err != nil {
		return err
	}
	if scanned.fault != nil {
		v.fault(*scanned.fault)
	}
	v.report.LedgerLines, v.report.Key = scanned.chain.seq, base64.StdEncoding.EncodeToString(scanned.key)
	covered := v.checkHead(scanned, head, hasHead, fault != nil)
	v.checkKey(scanned)
	if err := v.openSessions(); err != nil {
		return err
	}
	// Behind a fault of the ledger, what it does not have says nothing more.
	if scanned.fault == nil {
		missing, err := v.unknown(directories, shared)
		if err != nil {
			return err
		}
		return v.strangers(missing, file, scanned.size, covered && !v.stopped)
	}
	return nil
}

// checkHead is true when the ledger has all that its own head covers; told says that the head's fault is in the report already.
func (v *verifier) checkHead(scanned *ledgerScan, head Head, hasHead, told bool) (covered bool) {
	if scanned.torn > 0 {
		v.note("%s ends with %d bytes of an incomplete line: it is being written, or the writer was stopped", ledgerName, scanned.torn)
	}
	if o := v.options.Head; o != nil {
		if err := o.check(scanned.key); err != nil {
			v.fault(Fault{File: "the given head", What: err.Error()})
		} else if err := scanned.covers(*o); err != nil {
			v.fault(Fault{File: ledgerName, What: err.Error()})
		}
	}
	var err error
	switch {
	case told:
		return false
	case !hasHead:
		err = errors.New("it is missing")
	default:
		if err = head.check(scanned.key); err == nil {
			err = scanned.covers(head)
		}
	}
	if err != nil {
		v.fault(Fault{File: headName, What: err.Error()})
		return false
	}
	v.report.Covered, v.report.HeadTime = head.Count, head.Time
	if more := scanned.chain.seq - head.Count; more > 0 {
		v.note("%d lines of %s are newer than its signed head: it is being written, or the writer was stopped", more, ledgerName)
	}
	return true
}

func (v *verifier) checkKey(scanned *ledgerScan) {
	if v.options.Key != nil && scanned.key != nil && !v.options.Key.Equal(ed25519.PublicKey(scanned.key)) {
		v.fault(Fault{File: ledgerName, Line: 1, What: fmt.Sprintf("the record is by the key %s, expected %s",
			base64.StdEncoding.EncodeToString(scanned.key), base64.StdEncoding.EncodeToString(v.options.Key))})
	}
	have, err := os.ReadFile(filepath.Join(v.dir, publicName))
	if err != nil {
		v.fault(Fault{File: publicName, What: "it can not be read: " + err.Error()})
		return
	}
	want, err := encodePublicKey(scanned.key)
	if err != nil || !bytes.Equal(have, want) {
		v.fault(Fault{File: publicName, What: "it is not the key that the ledger begins with"})
	}
}

// line takes a line of the ledger; fault is what is wrong with the line itself.
func (v *verifier) line(h lineHead, line []byte) (fault, err error) {
	id := sessionOf(h)
	number := int(h.seq)
	if v.stopped && h.typ != typeStart {
		return errors.New("it stands behind the end of the last writer"), nil
	}
	switch h.typ {
	case typeStart, typeSigned:
		return v.signedLine(h, line), nil
	case typeStop:
		var l stopLine
		if err := decodeLine(line, &l); err != nil {
			return err, nil
		}
		v.stopped = l.Last
	case typeKey:
		var l keyLine
		if err := decodeLine(line, &l); err != nil {
			return err, nil
		}
		if len(l.Key) != ed25519.PublicKeySize {
			return errors.New("its key is not one of Ed25519"), nil
		}
		v.key = l.Key
	case typeOpen:
		o := &opened{line: number}
		if err := decodeLine(line, &o.openLine); err != nil {
			return err, nil
		}
		if _, ok := v.known[id]; ok || id == "" {
			return fmt.Errorf("it opens session %q a second time", id), nil
		}
		if o.File != "" && !validShared(o.File) {
			return fmt.Errorf("it names the file %q, which is none of sessions", o.File), nil
		}
		if o.first, fault = firstOf(h); fault != nil {
			return fault, nil
		}
		v.known[id] = o
	case typeSeal:
		var l sealLine
		if err := decodeLine(line, &l); err != nil {
			return err, nil
		}
		o := v.known[id]
		if o == nil {
			return fmt.Errorf("it seals session %q, which is not open", id), nil
		}
		v.known[id] = nil
		if v.pruned[id] {
			if v.wanted(id) {
				v.report.Pruned++
			}
			return nil, nil
		}
		return nil, v.session(id, o, &l, number)
	case typePruned:
		return v.prunedLine(h, line), nil
	case typeDamaged:
		var l damagedLine
		if err := decodeLine(line, &l); err != nil {
			return err, nil
		}
		v.known[id] = nil
		if v.wanted(id) {
			v.report.Sessions++
			v.fault(Fault{File: ledgerName, Line: number, Session: id, What: "the session could not be sealed: " + l.Reason})
		}
	}
	return nil, nil
}

// signedLine takes a line that signs those before it. Old versions wrote start lines without, but never behind a last stop.
func (v *verifier) signedLine(h lineHead, line []byte) error {
	var l signedLine
	if err := decodeLine(line, &l); err != nil {
		return err
	}
	needed := h.typ == typeSigned || v.stopped
	v.stopped = false
	if (needed || len(l.Signature) > 0) && !signed(v.key, ledgerText(chain{seq: h.seq - 1, hash: h.prev}), l.Signature) {
		return errors.New("its signature is not by the record's key")
	}
	return nil
}

func (v *verifier) wanted(id string) bool {
	return len(v.options.Sessions) == 0 || slices.Contains(v.options.Sessions, id)
}

// session checks a session's file; seal is nil while the ledger has it as open.
func (v *verifier) session(id string, o *opened, seal *sealLine, sealNumber int) error {
	if !v.wanted(id) {
		return nil
	}
	v.report.Sessions++
	if (o.File == "" || len(o.Signature) > 0) && !signed(v.key, openText(id, o.first), o.Signature) {
		v.fault(Fault{File: ledgerName, Line: o.line, Session: id, What: "its signature is not by the record's key"})
	}
	scanned, err := v.scans.session(id, o.File, seal != nil)
	if err != nil {
		return err
	}
	v.scans.done(id, o.File)
	if scanned.missing {
		v.fault(Fault{File: scanned.file, Session: id, What: fmt.Sprintf("it is missing; line %d of %s opened it", o.line, ledgerName)})
		return nil
	}
	v.report.Events += scanned.chain.seq
	if fault := scanned.check(v.key, o.first); fault != nil {
		v.fault(*fault)
		return nil
	}
	if scanned.open.Meta != o.Meta {
		v.fault(Fault{File: ledgerName, Line: o.line, Session: id, What: "it does not say of the session what its first event does"})
	}
	switch {
	case seal == nil && scanned.seal != nil: // its line in the ledger comes in a moment
	case seal == nil:
		v.report.Open++
		if scanned.torn > 0 {
			v.note("%s ends with %d bytes of an incomplete event: it is being written, or the writer was stopped", scanned.file, scanned.torn)
		}
	case scanned.seal == nil:
		v.fault(Fault{File: scanned.file, Line: scanned.line + 1, Session: id,
			What: fmt.Sprintf("its seal is missing; line %d of %s sealed it after %d events", sealNumber, ledgerName, seal.Events)})
	case !seal.equal(scanned.sealLine()):
		v.fault(Fault{File: ledgerName, Line: sealNumber, Session: id, What: "it does not say of the session what its seal does"})
	}
	return nil
}

func (l *sealLine) equal(o *sealLine) bool {
	return l.Session == o.Session && l.Ending == o.Ending && l.Events == o.Events && l.Last == o.Last && l.Sealed == o.Sealed &&
		bytes.Equal(l.Signature, o.Signature)
}
