package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is the file that a running agent holds locked; it contains its process id.
const lockName = "up.lock"

// A runningError says that an agent runs on the run directory.
type runningError struct {
	dir string
	pid int
}

// Error names the directory and the process.
func (e *runningError) Error() string {
	return fmt.Sprintf("an agent already runs on %s: process %d", e.dir, e.pid)
}

// lockRunDir takes the agent's lock on a run directory, until the file is closed or the process ends; flock(2).
// The error is a *runningError when another process holds it.
func lockRunDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid := readPID(file)
			file.Close()
			return nil, &runningError{dir: dir, pid: pid}
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		current, err := isCurrent(file, path)
		if err == nil && !current {
			// Taken down between open and lock: what is locked is no longer what the next one opens.
			file.Close()
			continue
		}
		if err == nil {
			err = writePID(file)
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return file, nil
	}
}

func isCurrent(file *os.File, path string) (bool, error) {
	held, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(held, named), nil
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// readPID is the number in a lock file, or 0 while its holder has not written it yet.
func readPID(file *os.File) int {
	text, err := io.ReadAll(io.LimitReader(file, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}
