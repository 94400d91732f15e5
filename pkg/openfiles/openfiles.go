// Package openfiles raises the limit of open files of a process: what it bounds, workloads and sessions, must not depend on the
// shell or the service manager that started the agent. The commands use it at their start, before they give privileges up.
package openfiles

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Raise makes the soft limit as high as wanted, beyond the hard limit if the process may, and else as high as it may. It returns
// the limit that holds then; setrlimit(2).
func Raise(want uint64) (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	ceiling, err := nrOpen()
	if err != nil {
		return 0, err
	}
	if want = min(want, ceiling); limit.Cur >= want {
		return limit.Cur, nil
	}
	// Beyond the hard limit it takes CAP_SYS_RESOURCE.
	for _, next := range []unix.Rlimit{{Cur: want, Max: max(want, limit.Max)}, {Cur: min(want, limit.Max), Max: limit.Max}} {
		if err = unix.Setrlimit(unix.RLIMIT_NOFILE, &next); err == nil {
			return next.Cur, nil
		}
	}
	return 0, fmt.Errorf("limit of open files: %w", err)
}

// nrOpen is what no process may have more of; proc_sys_fs(5).
func nrOpen() (uint64, error) {
	text, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return n, nil
}
