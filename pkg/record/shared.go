package record

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Making a directory and a file costs more than all else that is written about a short session. So only so many sessions in a
// time get them at once; where more begin, their events go to a file that they share, each line with its session's id and each
// session with a chain of its own. One that grows goes on in a directory of its own.
const (
	// ownBurst sessions begin with directories of their own, and one more each ownRefill.
	ownBurst  = 20
	ownRefill = 100 * time.Millisecond
	// shareUntil is the size at which a shared file takes no more sessions, bytes; readers of one session read it whole.
	shareUntil = 4 << 20
	// moveAbove is how many bytes a session writes to a shared file before it goes on in its own.
	moveAbove = 64 << 10
)

// A sharedFile holds the events of many sessions of one process, which has it locked while one of them may write.
type sharedFile struct {
	name string // relative to the state directory

	mu       sync.Mutex
	file     appendFile
	sessions int  // that may write
	current  bool // it takes new sessions
}

func (f *sharedFile) append(lines []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.append(lines)
}

// release says that a session writes no more to the file.
func (f *sharedFile) release() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions--
	return f.closeUnused()
}

// retire says that no session more comes.
func (f *sharedFile) retire() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = false
	return f.closeUnused()
}

func (f *sharedFile) closeUnused() error {
	if f.sessions > 0 || f.current {
		return nil
	}
	return f.file.file.Close()
}

// take counts one more session, if there is room.
func (f *sharedFile) take() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.current || f.file.size >= shareUntil {
		return false
	}
	f.sessions++
	return true
}

// places says where the events of sessions that begin are written.
type places struct {
	mu      sync.Mutex
	owing   time.Time // a session gets a directory of its own when this is not too far ahead of now
	current *sharedFile
}

// own is true when a session that begins may have a directory of its own.
func (p *places) own(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if earliest := now.Add(-ownBurst * ownRefill); p.owing.Before(earliest) {
		p.owing = earliest
	}
	if p.owing.Add(ownRefill).After(now) {
		return false
	}
	p.owing = p.owing.Add(ownRefill)
	return true
}

// share gives a session that begins a file that others write too.
func (s *Store) share(now time.Time) (*sharedFile, error) {
	p := &s.places
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		if p.current.take() {
			return p.current, nil
		}
		if err := p.current.retire(); err != nil {
			return nil, err
		}
		p.current = nil
	}
	name := filepath.Join(sharedName, s.ids.next(now)+sharedSuffix)
	file, err := createLocked(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	p.current = &sharedFile{name: name, file: appendFile{file: file}, sessions: 1, current: true}
	return p.current, nil
}

// closeShared gives the shared file up that is open for sessions to come.
func (p *places) closeShared() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return nil
	}
	last := p.current
	p.current = nil
	return last.retire()
}

// createLocked makes a file that this process writes; it is locked before anybody can know of it.
func createLocked(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(file, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(path))
	}
	return file, nil
}

// createOwn makes a session's directory and file. A file that is left over is removed by discardOwn.
func (s *Store) createOwn(id string) (*os.File, error) {
	directory := filepath.Join(s.dir, sessionsName, id)
	if err := os.Mkdir(directory, 0o700); err != nil {
		return nil, err
	}
	file, err := createLocked(filepath.Join(directory, eventsName))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	return file, nil
}

func (s *Store) discardOwn(id string, file *os.File) error {
	return errors.Join(file.Close(), os.RemoveAll(filepath.Join(s.dir, sessionsName, id)))
}

// moveOut has a session that shares a file go on in one of its own. What fails is tried again when as much more was written. The
// caller holds mu, and nothing waits in buf.
func (s *Session) moveOut() {
	s.grown = 0
	file, err := s.store.createOwn(s.id)
	if err != nil {
		return
	}
	end := s.chain
	line := appendEvent(nil, &end, time.Now(), &event{typ: typeContinued, head: NewFragment(continuedEvent{File: sessionFile(s.id)})})
	if err := s.shared.append(line); err != nil {
		_ = s.store.discardOwn(s.id, file)
		return
	}
	s.chain, s.file = end, appendFile{file: file}
	_ = s.shared.release() // a file of whole lines; nothing is lost
	s.shared = nil
}

// continuedEvent is the last that a session writes to a shared file.
type continuedEvent struct {
	File string `json:"file"`
}

// validShared is true for what can be the name of a shared file.
func validShared(name string) bool {
	id, ok := strings.CutPrefix(name, sharedName+"/")
	if !ok {
		return false
	}
	id, ok = strings.CutSuffix(id, sharedSuffix)
	return ok && ValidID(id)
}
