package record

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// flushInterval is how long a result waits at most for its session's next event.
	flushInterval = 500 * time.Millisecond
	// headInterval is the least time between two heads of the ledger.
	headInterval = time.Second
)

// A Store is the record of a node, open for writing. Its methods may be called from several goroutines.
type Store struct {
	dir    string
	lock   *os.File // record.lock
	log    *zap.Logger
	key    ed25519.PrivateKey
	ledger *ledger
	ids    ids
	places places

	refusals refusals

	mu     sync.Mutex
	live   map[*Session]struct{}
	sealed []*Session // in their shared files, and not in the ledger yet
	broken error      // why what waits could not be written when that was last tried
	ready  bool       // it is open; false while there was no space for that
	closed bool

	beside bool // as openStore was told

	stop, stopped chan struct{}
}

// OpenStore opens the record in dir for writing, and makes it when there is none: dir, its key and its ledger. What a process
// before left unsealed is sealed. It is an error when another process writes the store (ErrLocked), when its key was exposed
// or replaced (ErrKeyExposed, ErrKeyMismatch), or when what the ledger's signed head covers is not there as it was written
// (a Fault). A full disk is none: no session begins until there is space, which is tried every few seconds.
func OpenStore(dir string, log *zap.Logger) (*Store, error) {
	return openStore(dir, false, log)
}

// JoinStore is OpenStore for a process that replaces another one, which may write the store until it has ended: each has the
// sessions that it begins, and both write the ledger. Sessions that the other leaves unsealed are sealed when it is gone.
func JoinStore(dir string, log *zap.Logger) (*Store, error) {
	return openStore(dir, true, log)
}

func openStore(dir string, beside bool, log *zap.Logger) (*Store, error) {
	s := &Store{
		dir: dir, log: log, live: map[*Session]struct{}{}, beside: beside,
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := s.tryOpen(time.Now()); err != nil && !noSpace(err) {
		return nil, err
	}
	go s.flush()
	return s, nil
}

func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// tryOpen opens the store, or leaves it as it was. Only one goroutine calls it, and nobody uses the store before it has succeeded.
func (s *Store) tryOpen(now time.Time) error {
	err := s.open(now, s.beside)
	if err != nil {
		if s.ledger != nil {
			s.ledger.file.file.Close()
		}
		if s.lock != nil {
			s.lock.Close()
		}
		s.ledger, s.lock = nil, nil
		err = fmt.Errorf("open the record in %s: %w", s.dir, err)
		s.report(err)
		return err
	}
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	s.report(nil)
	return nil
}

// Begin starts the record of a session, with notes behind its first event. They and its line in the ledger are written when it
// returns; after an error there is no session, and the connection must be refused.
func (s *Store) Begin(meta Meta, notes ...Note) (*Session, error) {
	session, err := s.begin(meta, notes)
	if err != nil {
		return nil, fmt.Errorf("begin the record of a session: %w", err)
	}
	return session, nil
}

func (s *Store) begin(meta Meta, notes []Note) (_ *Session, err error) {
	now := time.Now()
	session := &Session{store: s, began: now, buf: make([]byte, 0, 2<<10)}
	session.mu.Lock() // the flusher and Close wait until there is a session, or none
	defer session.mu.Unlock()
	if err := s.admit(session); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			session.closing, session.done = true, true
			s.forget(session)
		}
	}()
	opened, own := openEvent{Version: formatVersion, Meta: meta}, s.places.own(now)
	// The file is locked before the ledger has the session: without the lock, it is taken for one that has lost its writer.
	if own {
		session.id = s.ids.next(now)
		session.chain, opened.Session = sessionChain(session.id), session.id
		session.file.file, err = s.createOwn(session.id)
	} else if session.shared, err = s.share(now); err == nil {
		session.id = s.ids.next(now) // and not before: a shared file has the lowest id
		session.chain = sharedChain(session.id)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		switch {
		case err == nil:
		case own:
			err = errors.Join(err, s.discardOwn(session.id, session.file.file))
		default:
			err = errors.Join(err, session.shared.release())
		}
	}()
	e := event{typ: typeOpen, head: opened.fragment()}
	if err := e.check(); err != nil {
		return nil, err
	}
	session.buf = appendEvent(session.buf, &session.chain, now, &e)
	first := session.chain.hash
	for _, note := range notes {
		e, err := note.event()
		if err != nil {
			return nil, err
		}
		session.buf = appendEvent(session.buf, &session.chain, now, &e)
	}
	if err := session.flush(); err != nil {
		return nil, err
	}
	line := openLine{Session: session.id, First: first.String(), Meta: meta}
	if own {
		line.Signature = ed25519.Sign(s.key, openText(session.id, first))
	} else {
		line.File = session.shared.name
	}
	if err := s.ledger.append(now, entry{typ: typeOpen, members: line.fragment(), unsigned: !own}); err != nil {
		return nil, err
	}
	return session, nil
}

// admit adds a session to those that the flusher looks after.
func (s *Store) admit(session *Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.broken != nil:
		return s.broken
	}
	s.live[session] = struct{}{}
	return nil
}

func (s *Store) forget(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, session)
}

// flush writes what waits, until Close.
func (s *Store) flush() {
	defer close(s.stopped)
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	var head, swept time.Time // when the last one was tried
	lines := newLineReader(nil)
	for {
		select {
		case <-s.stop:
			return
		case now := <-ticker.C:
			if !s.isReady() {
				if now.Sub(swept) >= sweepInterval {
					swept = now
					_ = s.tryOpen(now) // it has been told
				}
				continue
			}
			err := errors.Join(s.maintain(now), s.ledger.sign(now))
			if now.Sub(head) >= headInterval {
				head = now
				err = errors.Join(err, s.ledger.writeHead(now))
			}
			if now.Sub(swept) >= sweepInterval {
				swept = now
				interrupted, sweepErr := s.sweep(now, newScanner(s.dir, lines))
				err = errors.Join(err, sweepErr)
				if interrupted > 0 {
					s.log.Warn("sealed sessions of a process that is gone", zap.Int("interrupted_sessions", interrupted))
				}
			}
			s.report(err)
		}
	}
}

func (s *Store) isReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// maintain writes results that wait, closes that failed, and refusals that were only counted.
func (s *Store) maintain(now time.Time) error {
	s.mu.Lock()
	sessions := make([]*Session, 0, len(s.live))
	for session := range s.live {
		sessions = append(sessions, session)
	}
	s.mu.Unlock()
	var first error
	for _, session := range sessions {
		if err := session.maintain(); err != nil && first == nil {
			first = fmt.Errorf("session %s: %w", session.id, err)
		}
	}
	return errors.Join(first, s.enterSeals(now), s.writeSuppressed(now, false))
}

// enterLater has the ledger's line about a session that is sealed in a shared file written with those of others.
func (s *Store) enterLater(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, session)
	s.sealed = append(s.sealed, session)
}

// enterSeals writes the lines that wait, all or none.
func (s *Store) enterSeals(now time.Time) error {
	s.mu.Lock()
	sessions := s.sealed
	s.sealed = nil
	s.mu.Unlock()
	if len(sessions) == 0 {
		return nil
	}
	entries := make([]entry, len(sessions))
	for i, session := range sessions {
		entries[i] = entry{typ: typeSeal, members: session.sealed.fragment(), unsigned: true}
	}
	err := s.ledger.append(now, entries...)
	if err != nil {
		s.mu.Lock()
		s.sealed = append(sessions, s.sealed...)
		s.mu.Unlock()
		return err
	}
	for _, session := range sessions {
		err = errors.Join(err, session.shared.release())
	}
	return err
}

// report remembers whether what waits could be written; while it can not, no session begins. Each change is logged once.
func (s *Store) report(err error) {
	s.mu.Lock()
	before := s.broken
	s.broken = err
	s.mu.Unlock()
	switch {
	case err != nil && before == nil:
		s.log.Error("the record can not be written; no session begins until it can", zap.Error(err))
	case err == nil && before != nil:
		s.log.Info("the record can be written again")
	}
}

// Close seals the sessions that are still open, writes the ledger's last line and head, and unlocks the store. Closing again
// does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	sessions := make([]*Session, 0, len(s.live))
	for session := range s.live {
		sessions = append(sessions, session)
	}
	s.mu.Unlock()
	close(s.stop)
	<-s.stopped
	if !s.isReady() {
		return nil
	}
	slices.SortFunc(sessions, func(a, b *Session) int { return a.began.Compare(b.began) })
	var errs []error
	for _, session := range sessions {
		errs = append(errs, session.Close(reasonStopped))
	}
	now := time.Now()
	// Whether another process writes on: this one gives its own lock up for the answer.
	last := flock(s.lock, unix.LOCK_EX|unix.LOCK_NB) == nil
	errs = append(errs,
		s.enterSeals(now),
		s.places.closeShared(),
		s.writeSuppressed(now, true),
		s.ledger.sign(now),
		s.ledger.write(now, typeStop, stopLine{Last: last}),
		s.ledger.writeHead(now),
		s.ledger.file.file.Close(), s.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the record in %s: %w", s.dir, err)
	}
	return nil
}
