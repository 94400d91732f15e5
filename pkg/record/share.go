package record

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Several processes can write one store for a while: a proxy and the one that replaces it. Three locks (flock(2), so that each
// ends with its process) keep them apart:
//
//   - record.lock is held shared by every writer for its life. A process that opens the store alone takes it exclusively
//     first, and so finds out that there is no other.
//   - The ledger is locked for each line that is appended. Who has the lock first follows the lines that others wrote.
//   - A session's file, or the one that it shares, is locked by who writes it. An unsealed session without a lock has lost its
//     writer, and whoever finds it seals it as interrupted.

// sweepInterval is how often a store looks for sessions of processes that are gone.
const sweepInterval = 2 * time.Second

// lockStore takes the lifetime's lock. alone is true when nobody else had it; then nobody can take it until it is made a shared one.
func lockStore(dir string, beside bool) (file *os.File, alone bool, err error) {
	if file, err = os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, false, err
	}
	err = flock(file, unix.LOCK_EX|unix.LOCK_NB)
	alone = err == nil
	if errors.Is(err, ErrLocked) && beside {
		err = flock(file, unix.LOCK_SH|unix.LOCK_NB)
	}
	if err != nil {
		file.Close()
		return nil, false, err
	}
	return file, alone, nil
}

// flock is flock(2); the error is ErrLocked when another process has the lock and how says not to wait.
func flock(file *os.File, how int) error {
	for {
		err := unix.Flock(int(file.Fd()), how)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrLocked
		case err != nil:
			return fmt.Errorf("lock %s: %w", filepath.Base(file.Name()), err)
		default:
			return nil
		}
	}
}

// exclusively calls f while no other process writes the ledger, with the chain at the ledger's end.
func (l *ledger) exclusively(f func() error) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := flock(l.file.file, unix.LOCK_EX); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flock(l.file.file, unix.LOCK_UN)) }()
	if _, err := l.follow(); err != nil {
		return err
	}
	return f()
}

// follow takes the lines that other processes wrote, and cuts off what one that died left of a line; it returns how many bytes
// those were. The caller has the lock.
func (l *ledger) follow() (torn int64, err error) {
	info, err := l.file.file.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	switch {
	case size == l.file.size:
		l.file.torn = false
		return 0, nil
	case size < l.file.size:
		return 0, &Fault{File: ledgerName, What: fmt.Sprintf("it was cut to %d bytes while it was written", size)}
	}
	if l.lines == nil {
		l.lines = newLineReader(nil)
	}
	l.lines.reset(io.NewSectionReader(l.file.file, l.file.size, size-l.file.size))
	for {
		line, err := l.lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return 0, nil
		case errors.Is(err, errTorn):
			return size - l.file.size, l.file.cut()
		}
		end := l.chain
		var h lineHead
		if err == nil {
			h, err = end.follow(line)
		}
		if err == nil {
			err = l.note(h)
		}
		if err != nil {
			return 0, &Fault{File: ledgerName, Line: int(l.chain.seq) + 1, What: err.Error()}
		}
		l.chain = end
		l.file.size += int64(len(line))
	}
}

// cutTorn cuts off what a process that died left of a line, and returns how many bytes those were.
func (l *ledger) cutTorn() (torn int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := flock(l.file.file, unix.LOCK_EX); err != nil {
		return 0, err
	}
	torn, err = l.follow()
	return torn, errors.Join(err, flock(l.file.file, unix.LOCK_UN))
}

// note takes a line of another process.
func (l *ledger) note(h lineHead) error {
	switch h.typ {
	case typeOpen:
		o, err := otherOf(h)
		if err != nil {
			return err
		}
		l.others[sessionOf(h)] = o
	case typeSeal, typeDamaged:
		delete(l.others, sessionOf(h))
	}
	return nil
}

// sweep seals the sessions of other processes that have lost their writer, and returns how many.
func (s *Store) sweep(now time.Time, scans *scanner) (interrupted int, err error) {
	s.ledger.mu.Lock()
	others := maps.Clone(s.ledger.others)
	s.ledger.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(others)) {
		sealed, err := s.sweepSession(now, id, others[id], scans)
		if err != nil {
			return interrupted, fmt.Errorf("recover session %s: %w", id, err)
		}
		if sealed {
			interrupted++
		}
	}
	return interrupted, nil
}

func (s *Store) sweepSession(now time.Time, id string, known other, scans *scanner) (sealed bool, err error) {
	// In this order: a session that moves out of a shared file has its own locked before it gives the other up.
	paths := []string{sessionPath(s.dir, id)}
	if known.file != "" {
		paths = []string{filepath.Join(s.dir, known.file), paths[0]}
	}
	for _, path := range paths {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		defer file.Close()
		if err := flock(file, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, ErrLocked) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	// Its writer gives the lock up after the ledger has the seal.
	open := false
	err = s.ledger.exclusively(func() error {
		_, open = s.ledger.others[id]
		return nil
	})
	if err != nil || !open {
		return false, err
	}
	if sealed, err = s.recoverSession(now, id, known, scans); err != nil {
		return false, err
	}
	s.ledger.mu.Lock()
	delete(s.ledger.others, id)
	s.ledger.mu.Unlock()
	return sealed, nil
}
