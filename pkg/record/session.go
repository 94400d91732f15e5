package record

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// flushAbove is how many bytes of results a session holds back before it writes them by themselves.
	flushAbove = 32 << 10
	// maxPending is how many bytes of results it holds while they can not be written; what comes then is lost and counted.
	maxPending = 1 << 20
	// maxKept is the largest buffer that a session keeps for its next event.
	maxKept = 256 << 10
	// maxReason is how many bytes of a close's reason are kept.
	maxReason = 1 << 10
)

// A Session writes the record of one session. Its methods may be called from several goroutines.
type Session struct {
	store *Store
	id    string
	began time.Time

	mu     sync.Mutex
	file   appendFile  // unless the session shares one
	shared *sharedFile // else nil
	grown  int         // bytes that it was given
	chain  chain       // behind the last line of buf
	buf    []byte      // whole lines that are not yet in the file
	totals Totals

	closing bool
	ending  Ending
	sealed  *sealLine // is in the file, not yet in the ledger
	done    bool
}

// ID names the session; it sorts by time, and is safe as the name of a file and as an argument.
func (s *Session) ID() string { return s.id }

// Operation records an operation and returns its number. The event is in the session's file when it returns without an error:
// write(2) has completed, with no fsync(2). On an error nothing of it is there, and the operation must not be forwarded; the
// session may be used on. It allocates nothing.
func (s *Session) Operation(op *Operation) (seq uint64, err error) {
	if len(op.Decision) == 0 {
		return 0, errors.New("record an operation: it has no decision")
	}
	e := event{typ: typeOperation, kind: op.Kind, head: op.Decision, body: op.Statement, more: op.Parameters}
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq, err = s.write(&e); err != nil {
		return 0, fmt.Errorf("record an operation: %w", err)
	}
	s.totals.Operations++
	if !allows(op.Decision) {
		s.totals.Denied++
	}
	return seq, nil
}

func allows(decision []byte) bool { return bytes.HasPrefix(decision, []byte(`"decision":"allow"`)) }

// Note records something that is no operation. kind is the event's type: lower-case letters, digits and dashes, none of the
// types that the package itself writes. detail may be nil. It is written like an operation.
func (s *Session) Note(kind string, detail Fragment) error {
	e, err := Note{kind, detail}.event()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.write(&e); err != nil {
		return fmt.Errorf("record a note: %w", err)
	}
	return nil
}

func (n Note) event() (event, error) {
	switch n.Kind {
	case typeOpen, typeOperation, typeResult, typeText, typeRecovered, typeContinued, typeClose, typeSeal:
		return event{}, fmt.Errorf("record a note: its kind %s is taken", n.Kind)
	}
	if !validType(n.Kind) {
		return event{}, fmt.Errorf("record a note: its kind is %q, expected lower-case letters, digits and dashes", n.Kind)
	}
	e := event{typ: n.Kind, body: n.Detail}
	return e, e.check()
}

// write puts the event into the file, behind the results that wait. The caller holds mu.
func (s *Session) write(e *event) (seq uint64, err error) {
	if s.closing {
		return 0, ErrClosed
	}
	if err := e.check(); err != nil {
		return 0, err
	}
	before, length := s.chain, len(s.buf)
	seq = s.chain.seq + 1
	s.buf = appendEvent(s.buf, &s.chain, time.Now(), e)
	if err := s.flush(); err != nil {
		s.chain, s.buf = before, s.buf[:length]
		return 0, err
	}
	return seq, nil
}

// flush writes what is in buf. The caller holds mu.
func (s *Session) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	if err := s.append(s.buf); err != nil {
		return err
	}
	s.grown += len(s.buf)
	s.buf = s.buf[:0]
	if cap(s.buf) > maxKept {
		s.buf = nil
	}
	if s.shared != nil && s.grown > moveAbove && !s.closing {
		s.moveOut()
	}
	return nil
}

func (s *Session) append(lines []byte) error {
	if s.shared != nil {
		return s.shared.append(lines)
	}
	return s.file.append(lines)
}

// Result records how an operation ended, in any order. It is written with the session's next event, within a second, or at
// the close. After Close it is ignored. It allocates nothing.
func (s *Session) Result(r *Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	s.totals.Rows += r.Rows
	s.totals.Bytes += r.Bytes
	if len(s.buf) > maxPending {
		s.totals.ResultsLost++
		return
	}
	s.buf = appendResult(s.buf, &s.chain, time.Now(), r)
	if len(s.buf) > flushAbove {
		_ = s.flush() // what fails now the flusher tries again, and logs
	}
}

// Close writes the totals and the seal, and the ledger's line about them. After an error the store goes on trying, each
// second and when it is closed; so may the caller. Closing again does nothing; only the first reason counts, of which 1 KiB
// is kept.
func (s *Session) Close(reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.closing = true
		if len(reason) > maxReason {
			reason = reason[:maxReason] + "…"
		}
		s.ending = Ending{Reason: reason, Totals: s.totals, Duration: time.Since(s.began)}
	}
	if err := s.seal(); err != nil {
		return fmt.Errorf("seal the record of session %s: %w", s.id, err)
	}
	return nil
}

// seal does what is left of a close. The caller holds mu.
func (s *Session) seal() error {
	if s.done {
		return nil
	}
	if s.sealed == nil {
		before, length := s.chain, len(s.buf)
		line, err := s.writeSeal()
		if err != nil {
			s.chain, s.buf = before, s.buf[:length]
			return err
		}
		s.sealed = line
	}
	if s.shared != nil {
		s.done, s.buf = true, nil
		s.store.enterLater(s)
		return nil
	}
	if err := s.store.ledger.append(time.Now(), entry{typ: typeSeal, members: s.sealed.fragment()}); err != nil {
		return err
	}
	s.done = true
	s.store.forget(s)
	s.buf = nil
	return s.file.file.Close()
}

func (s *Session) writeSeal() (*sealLine, error) {
	now := time.Now()
	e := event{typ: typeClose, body: s.ending.fragment()}
	if err := e.check(); err != nil {
		return nil, err
	}
	s.buf = appendEvent(s.buf, &s.chain, now, &e)
	key := s.store.key
	if s.shared != nil {
		key = nil // the ledger is signed for all that end in a moment
	}
	line := newSealLine(key, s.id, s.ending, s.chain, now)
	s.buf = appendSeal(s.buf, &s.chain, now, line.Signature)
	return line, s.flush()
}

// newSealLine seals a session whose last event is the chain's end. It has no signature without a key.
func newSealLine(key ed25519.PrivateKey, id string, ending Ending, end chain, now time.Time) *sealLine {
	line := &sealLine{Session: id, Ending: ending, Events: end.seq, Last: end.hash.String(), Sealed: timeText(now)}
	if key != nil {
		line.Signature = ed25519.Sign(key, sealText(id, end.seq, end.hash, now))
	}
	return line
}

// maintain writes what waits: results, and what is left of a close that failed.
func (s *Session) maintain() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return s.seal()
	}
	return s.flush()
}
