package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// workloadsCgroup is the cgroup below which run makes those of workloads.
const workloadsCgroup = "/sallyport"

// lingering is how long run waits for processes that end with the command.
const lingering = 500 * time.Millisecond

// validName is what a workload may be called: a file name that needs no quoting anywhere.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// workloadName is the name asked for, or one made of the command's.
func workloadName(asked, command string) (string, error) {
	if asked != "" {
		if !validName.MatchString(asked) {
			return "", fmt.Errorf("--name %q: want 1 to 63 letters, digits, dots, dashes and underscores, the first a letter or digit", asked)
		}
		return asked, nil
	}
	base := strings.Map(func(r rune) rune {
		if validName.MatchString(string(r)) || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, filepath.Base(command))
	base = strings.TrimLeft(base, "-_.")
	if base == "" {
		base = "run"
	}
	return fmt.Sprintf("%.50s-%s", base, strings.ToLower(rand.Text()[:6])), nil
}

// A workloadCgroup is the cgroup that run made.
type workloadCgroup struct {
	name string // below the hierarchy's root
	path string
	dir  *os.File
}

// makeCgroup makes the cgroup of a workload and holds a lock on it. One that is there already is taken only when no other run holds
// it and no process is in it or below it.
func makeCgroup(workload string) (*workloadCgroup, error) {
	hierarchy, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	name := workloadsCgroup + "/" + workload
	group := &workloadCgroup{name: name, path: hierarchy.Dir(name)}
	for {
		err := os.MkdirAll(group.path, 0o755)
		if err == nil {
			group.dir, err = os.Open(group.path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // The last user of it or of its parent has just removed that.
		}
		if err != nil {
			return nil, err
		}
		current, err := group.claim()
		if err == nil && current {
			return group, nil
		}
		group.dir.Close()
		if err != nil {
			return nil, fmt.Errorf("workload %s: %w", workload, err)
		}
	}
}

// claim locks the opened cgroup. It is false when the cgroup was removed before it could be locked.
func (g *workloadCgroup) claim() (current bool, err error) {
	busy := errors.New("already runs; choose another --name")
	err = unix.Flock(int(g.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, busy
	}
	if err != nil {
		return false, err
	}
	if current, err = isCurrent(g.dir, g.path); err != nil || !current {
		return false, err
	}
	populated, err := isPopulated(g.path)
	if err == nil && populated {
		err = busy
	}
	return true, err
}

// remove takes the cgroup away, unless a process is left in it: then it stays, and the process stays captured. What is about to
// end with the command, such as the rest of a pipeline, gets a moment.
func (g *workloadCgroup) remove() {
	defer g.dir.Close() // After the removal, so that nobody takes what is about to go.
	for deadline := time.Now().Add(lingering); ; time.Sleep(lingering / 50) {
		if err := removeEmptyCgroups(g.path); err == nil {
			// The parent goes with its last workload.
			_ = os.Remove(filepath.Dir(g.path))
			return
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "sallyport: workload %s still has processes, which stay captured\n", g.name)
			return
		}
	}
}

// removeEmptyCgroups removes a cgroup and those that the workload may have made below it; each must be without processes.
func removeEmptyCgroups(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeEmptyCgroups(filepath.Join(path, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isPopulated is whether a process is in a cgroup or below it; cgroups(7), cgroup.events.
func isPopulated(path string) (bool, error) {
	events, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
	if err != nil {
		return false, err
	}
	return !strings.Contains("\n"+string(events), "\npopulated 0\n"), nil
}
