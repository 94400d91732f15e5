package approval

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// keepFor is how long finished requests are kept, and keepAtMost how many.
	keepFor    = 30 * 24 * time.Hour
	keepAtMost = 5000
)

// become makes this process an owner for its life. The store is locked.
func (s *store) become() (id string, held *os.File, err error) {
	id = newID()
	held, err = os.OpenFile(filepath.Join(s.dir, ownersDir, id), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", nil, err
	}
	if err := flock(held, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		held.Close()
		return "", nil, err
	}
	return id, held, nil
}

// lives is whether an owner's process does: its lock ends with it. The store is locked.
func (s *store) lives(owner string) bool {
	file, err := os.OpenFile(filepath.Join(s.dir, ownersDir, owner), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) // in doubt it does
	}
	defer file.Close()
	return flock(file, unix.LOCK_EX|unix.LOCK_NB) != nil
}

// bury withdraws the requests of owners that are gone, and returns them. self is not asked for. The store is locked.
func (s *store) bury(self string, now time.Time) (withdrawn []Request, err error) {
	names, err := s.names(pendingDir)
	if err != nil {
		return nil, err
	}
	alive := map[string]bool{self: true}
	for _, name := range names {
		r, err := s.pending(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return withdrawn, err
		}
		if _, known := alive[r.Owner]; !known {
			alive[r.Owner] = s.lives(r.Owner)
		}
		if alive[r.Owner] {
			continue
		}
		r.finish(Withdrawn, Decision{Time: now, Reason: "the proxy that held the statement has ended"})
		if err := s.conclude(r); err != nil {
			return withdrawn, err
		}
		withdrawn = append(withdrawn, *r)
	}
	owners, err := s.names(ownersDir)
	if err != nil {
		return withdrawn, err
	}
	for _, owner := range owners {
		if !alive[owner] && !s.lives(owner) {
			err = errors.Join(err, s.remove(ownersDir, owner))
		}
	}
	return withdrawn, err
}

// clean removes what nobody needs any more. The store is locked.
func (s *store) clean(now time.Time) error {
	type aged struct {
		name string
		time time.Time
	}
	list := func(dir string) (all []aged, err error) {
		names, err := s.names(dir)
		for _, name := range names {
			if info, err := os.Stat(filepath.Join(s.dir, dir, name)); err == nil {
				all = append(all, aged{name, info.ModTime()})
			}
		}
		slices.SortFunc(all, func(a, b aged) int { return cmp.Or(b.time.Compare(a.time), cmp.Compare(a.name, b.name)) })
		return all, err
	}
	done, err := list(doneDir)
	if err != nil {
		return err
	}
	for i, d := range done {
		if i >= keepAtMost || now.Sub(d.time) > keepFor {
			err = errors.Join(err, os.Remove(filepath.Join(s.dir, doneDir, d.name)))
		}
	}
	grants, failure := list(grantsDir)
	for _, d := range grants {
		var g grant
		if s.read(grantsDir, d.name, &g) != nil || now.After(g.Until) {
			err = errors.Join(err, os.Remove(filepath.Join(s.dir, grantsDir, d.name)))
		}
	}
	return errors.Join(err, failure)
}
