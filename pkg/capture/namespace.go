package capture

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// inode identifies a network namespace for as long as something holds it, as a listener in it does.
type inode struct{ device, number uint64 }

// task is a process of a workload: its directory in /proc, which stands for this very process even when another one gets its
// number.
type task struct {
	directory *os.File
	started   uint64 // clock ticks since boot
	namespace inode
}

// tasks are the processes in a cgroup and below it, the oldest first; the caller closes them. One that left the cgroup or
// died meanwhile is left out.
func tasks(h *cgroup.Hierarchy, name string) ([]task, error) {
	var found []task
	err := filepath.WalkDir(h.Dir(name), func(dir string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		// A threaded cgroup has no list, and its processes are on its parent's; cgroups(7). One that goes away has none either.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for pid := range strings.FieldsSeq(string(content)) {
			if one, ok := taskOf(h, name, pid); ok {
				found = append(found, one)
			}
		}
		return nil
	})
	if err != nil {
		closeTasks(found)
		return nil, fmt.Errorf("list the processes of %s: %w", name, err)
	}
	slices.SortStableFunc(found, func(a, b task) int { return cmp.Compare(a.started, b.started) })
	return found, nil
}

func closeTasks(list []task) {
	for _, one := range list {
		one.directory.Close()
	}
}

// taskOf opens a process. It must be in the cgroup after its namespace was looked at: a process that only passes through one
// of the two says nothing about the workload.
func taskOf(h *cgroup.Hierarchy, name, pid string) (task, bool) {
	directory, err := os.Open(filepath.Join("/proc", pid))
	if err != nil {
		return task{}, false
	}
	one := task{directory: directory}
	var stat unix.Stat_t
	one.started, err = one.startTime()
	if err == nil {
		err = unix.Fstatat(int(directory.Fd()), "ns/net", &stat, 0)
	}
	if err != nil || !one.in(name) {
		directory.Close()
		return task{}, false
	}
	one.namespace = inode{device: stat.Dev, number: stat.Ino}
	return one, true
}

func (t task) read(name string) ([]byte, error) {
	fd, err := unix.Openat(int(t.directory.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	buffer := make([]byte, 4096+unix.PathMax)
	n, err := file.Read(buffer)
	return buffer[:n], err
}

// startTime is the 22nd field of stat. The second, in parentheses, may contain anything; proc_pid_stat(5).
func (t task) startTime() (uint64, error) {
	stat, err := t.read("stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, errors.New("malformed stat")
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// in is whether the process is in a cgroup or below it now.
func (t task) in(name string) bool {
	content, err := t.read("cgroup")
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(string(content), "\n") {
		if own, ok := strings.CutPrefix(line, "0::"); ok {
			return cgroup.Contains(name, own)
		}
	}
	return false
}

// openNamespace opens the process's network namespace, if it is still the one that it was, and the process still where it
// was.
func (t task) openNamespace(name string) (*os.File, error) {
	fd, err := unix.Openat(int(t.directory.Fd()), "ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a network namespace: %w", err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || t.namespace != (inode{device: stat.Dev, number: stat.Ino}) || !t.in(name) {
		unix.Close(fd)
		return nil, fmt.Errorf("the process moved meanwhile: %w", errors.Join(err, os.ErrNotExist))
	}
	return os.NewFile(uintptr(fd), "net"), nil
}

// ownNamespace is the calling process's.
func ownNamespace() (inode, error) {
	var stat unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &stat); err != nil {
		return inode{}, fmt.Errorf("own network namespace: %w", err)
	}
	return inode{device: stat.Dev, number: stat.Ino}, nil
}

// inNamespace calls a function on a thread that is in a network namespace; nil is the process's own.
func inNamespace(namespace *os.File, do func() error) error {
	if namespace == nil {
		return do()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter a network namespace: %w", err)
			return
		}
		err = do()
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
			// The thread stays locked and ends with this goroutine: nothing else may ever run on it.
			done <- errors.Join(err, fmt.Errorf("leave a network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// netnsCookie is the cookie of the network namespace that the calling thread makes sockets in; SO_NETNS_COOKIE, socket(7),
// Linux 5.14.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("network namespace's cookie: %w", os.NewSyscallError("getsockopt", err))
	}
	return cookie, nil
}
