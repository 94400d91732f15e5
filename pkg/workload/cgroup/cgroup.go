// Package cgroup finds and names cgroups of the version 2 hierarchy, wherever it is mounted. A cgroup is named by its path
// below the hierarchy's root, such as /system.slice/shop.service, and identified by its id, the inode of its directory,
// which is what BPF programs see. An id can be used again after its cgroup is gone.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxDepth is how deep below the root a workload's cgroup may lie; the BPF programs look no further.
const MaxDepth = 32

// ErrNotMounted says that no cgroup v2 hierarchy is mounted.
var ErrNotMounted = errors.New("no cgroup v2 hierarchy is mounted")

// A Hierarchy is the mounted cgroup v2 hierarchy.
type Hierarchy struct {
	// Root is the directory where it is mounted.
	Root string
}

// Find reads /proc/self/mountinfo for the cgroup v2 hierarchy. It is ErrNotMounted when there is none.
func Find() (*Hierarchy, error) {
	mount, err := FindMount("cgroup2")
	if err != nil {
		return nil, err
	}
	if mount == "" {
		return nil, ErrNotMounted
	}
	return &Hierarchy{Root: mount}, nil
}

// FindMount is the first mount point of a file system type in /proc/self/mountinfo, the whole of it and not a subdirectory
// of another mount; "" when there is none. See proc_pid_mountinfo(5).
func FindMount(fstype string) (string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find mounts: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if point, ok := mountPoint(lines.Text(), fstype); ok {
			return point, nil
		}
	}
	return "", lines.Err()
}

// mountPoint takes one line of mountinfo: "36 35 98:0 /root /point opts [optional…] - fstype source opts".
func mountPoint(line, fstype string) (string, bool) {
	before, after, found := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if !found || len(fields) < 6 || !strings.HasPrefix(after, fstype+" ") || fields[3] != "/" {
		return "", false
	}
	return unescape.Replace(fields[4]), true
}

// unescape undoes the octal escapes of mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// Clean checks a cgroup's name and returns it in its one form: absolute, no "..", no trailing slash.
func Clean(name string) (string, error) {
	if !strings.HasPrefix(name, "/") {
		return "", fmt.Errorf("cgroup %q: want a path that begins with a slash", name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == ".." {
			return "", fmt.Errorf("cgroup %q: want a path without \"..\"", name)
		}
	}
	return path.Clean(name), nil
}

// Dir is the directory of a clean name.
func (h *Hierarchy) Dir(name string) string {
	return filepath.Join(h.Root, name)
}

// ID is the id of a cgroup. The error is fs.ErrNotExist when there is none.
func (h *Hierarchy) ID(name string) (uint64, error) {
	dir := h.Dir(name)
	var (
		stat  unix.Stat_t
		statf unix.Statfs_t
	)
	if err := unix.Lstat(dir, &stat); err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", name, err)
	}
	if err := unix.Statfs(dir, &statf); err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", name, err)
	}
	if statf.Type != unix.CGROUP2_SUPER_MAGIC || stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, fmt.Errorf("cgroup %s: %s is no directory of a cgroup v2 hierarchy", name, dir)
	}
	return stat.Ino, nil
}

// Own is the calling process's cgroup.
func (h *Hierarchy) Own() (string, error) {
	return h.OfProcess("self")
}

// OfProcess is the cgroup of a process: its number, or "self". See cgroups(7), /proc/pid/cgroup.
func (h *Hierarchy) OfProcess(pid string) (string, error) {
	content, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	if err != nil {
		return "", fmt.Errorf("find the cgroup of process %s: %w", pid, err)
	}
	for line := range strings.SplitSeq(string(content), "\n") {
		if name, ok := strings.CutPrefix(line, "0::"); ok {
			return Clean(name)
		}
	}
	return "", fmt.Errorf("process %s: %w", pid, ErrNotMounted)
}

// Contains is true when inner is outer or lies below it; both are clean.
func Contains(outer, inner string) bool {
	return outer == inner || outer == "/" || strings.HasPrefix(inner, outer+"/")
}

// Depth is the number of elements of a clean name; the root's is 0.
func Depth(name string) int {
	if name == "/" {
		return 0
	}
	return strings.Count(name, "/")
}

// Names walks the hierarchy for the names of those ids that still live.
func (h *Hierarchy) Names(ids map[uint64]bool) (map[uint64]string, error) {
	names := map[uint64]string{}
	err := filepath.WalkDir(h.Root, func(dir string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			// It went away under the walk.
			return nil
		case err != nil:
			return err
		case !entry.IsDir():
			return nil
		}
		var stat unix.Stat_t
		if unix.Lstat(dir, &stat) == nil && ids[stat.Ino] {
			names[stat.Ino] = "/" + strings.TrimPrefix(strings.TrimPrefix(dir, h.Root), "/")
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("walk %s: %w", h.Root, err)
	}
	return names, nil
}
