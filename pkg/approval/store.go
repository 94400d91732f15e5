package approval

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pendingDir = "pending"
	doneDir    = "done"
	grantsDir  = "grants"
	ownersDir  = "owners"
)

// A store is the files; see the package's comment. All but open is called by locked.
type store struct {
	dir  string
	mu   sync.Mutex // flock(2) keeps processes apart, not goroutines
	lock *os.File
}

func openStore(dir string) (*store, error) {
	for _, name := range []string{"", pendingDir, doneDir, grantsDir, ownersDir} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return &store{dir: dir, lock: lock}, nil
}

// locked calls f while nobody else changes the files.
func (s *store) locked(f func() error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := flock(s.lock, unix.LOCK_EX); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flock(s.lock, unix.LOCK_UN)) }()
	return f()
}

// flock is flock(2).
func flock(file *os.File, how int) error {
	for {
		err := unix.Flock(int(file.Fd()), how)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("lock %s: %w", filepath.Base(file.Name()), err)
		default:
			return nil
		}
	}
}

// write puts v into a file, whole or not at all, and on disk: what counts as decided must not be undone by a loss of power.
func (s *store) write(dir, name string, v any) error {
	content, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	path := filepath.Join(s.dir, dir, name)
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// read is fs.ErrNotExist when there is no such file.
func (s *store) read(dir, name string, v any) error {
	content, err := os.ReadFile(filepath.Join(s.dir, dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return nil
}

// remove removes a file for good.
func (s *store) remove(dir, name string) error {
	if err := os.Remove(filepath.Join(s.dir, dir, name)); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Join(s.dir, dir))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// names are those of a directory's files, the youngest last where that matters to nobody.
func (s *store) names(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".new") { // what a crash left of a write
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// idAlphabet has nothing that looks like something else, and idLength of it 40 bits: an id is no secret.
const (
	idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	idLength   = 8
)

func newID() string {
	var b [idLength]byte
	_, _ = rand.Read(b[:]) // never fails
	for i := range b {
		b[i] = idAlphabet[b[i]%byte(len(idAlphabet))]
	}
	return string(b[:])
}

// ValidID is true for what can be a request's id; it is then safe as the name of a file.
func ValidID(id string) bool {
	return len(id) == idLength && strings.Trim(id, idAlphabet) == ""
}

// pending is a request that waits; a file that a crash left behind in both directories is done.
func (s *store) pending(id string) (*Request, error) {
	r := &Request{}
	if err := s.read(doneDir, id, &Request{}); err == nil {
		_ = s.remove(pendingDir, id)
		return nil, fs.ErrNotExist
	}
	if err := s.read(pendingDir, id, r); err != nil {
		return nil, err
	}
	return r, nil
}

// find is a request of any state.
func (s *store) find(id string) (*Request, error) {
	r := &Request{}
	err := s.read(doneDir, id, r)
	if errors.Is(err, fs.ErrNotExist) {
		r = &Request{}
		err = s.read(pendingDir, id, r)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// conclude moves a finished request to those that are done.
func (s *store) conclude(r *Request) error {
	if err := s.write(doneDir, r.ID, r); err != nil {
		return err
	}
	return s.remove(pendingDir, r.ID)
}

// A grant is an approval that is left to be used.
type grant struct {
	// Request is what was approved; its owner has the first right.
	Request string    `json:"request"`
	Owner   string    `json:"owner"`
	Until   time.Time `json:"until"`
	Once    bool      `json:"once"`
}

func grantName(hash, id string) string { return hash + "." + id }

// give stores the approval of a request.
func (s *store) give(r *Request) error {
	g := grant{Request: r.ID, Owner: r.Owner, Until: r.Expires, Once: r.Window == 0}
	if !g.Once {
		g.Until = r.Decision.Time.Add(time.Duration(r.Window) * time.Second)
	}
	return s.write(grantsDir, grantName(r.Hash, r.ID), g)
}

// use takes one use of an approval, and is false when it is not there any more.
func (s *store) use(hash, id string, now time.Time) (bool, error) {
	var g grant
	err := s.read(grantsDir, grantName(hash, id), &g)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case g.Once:
		// An approval is the one of its request as long as somebody waits: it may be used a moment after the time.
		return true, s.remove(grantsDir, grantName(hash, id))
	}
	return !now.After(g.Until), nil
}

// findGrant is the id of an approval of an operation that is left and that kept does not keep for somebody.
func (s *store) findGrant(hash string, now time.Time, kept func(grant) bool) (id string, err error) {
	names, err := s.names(grantsDir)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		of, request, _ := strings.Cut(name, ".")
		if of != hash {
			continue
		}
		var g grant
		if err := s.read(grantsDir, name, &g); err != nil {
			return "", err
		}
		if g.Request == request && !now.After(g.Until) && !kept(g) {
			return request, nil
		}
	}
	return "", nil
}
