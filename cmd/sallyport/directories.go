package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/sallyport-dev/sallyport/pkg/account"
)

// trustName is the directory below the run directory where the proxy puts the certificates that workloads are to trust.
const trustName = "trust"

// prepareRunDir makes the run directory, which belongs to root and which nobody else may write: its sockets say who is asked.
func prepareRunDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if owner := ownerOf(info); owner != 0 || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("run directory %s belongs to user %d with mode %04o: want root, and nobody else may write", dir, owner, info.Mode().Perm())
	}
	return nil
}

// prepareTrustDir makes the directory for trust files, which the proxy writes and everybody reads.
func prepareTrustDir(runDir string, proxy account.Account) error {
	dir := filepath.Join(runDir, trustName)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Lchown(dir, proxy.UID, proxy.GID); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// prepareStateDir makes the proxy's state directory, which belongs to the proxy alone. What another user left there is not given away.
func prepareStateDir(dir string, proxy account.Account) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("state directory %s is not a directory", dir)
	}
	if owner := ownerOf(info); owner != proxy.UID {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		if owner != 0 || len(entries) > 0 {
			return fmt.Errorf("state directory %s belongs to user %d and the proxy runs as user %d: change its owner, or choose another with --state-dir", dir, owner, proxy.UID)
		}
		if err := os.Chown(dir, proxy.UID, proxy.GID); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o700)
}

func ownerOf(info fs.FileInfo) int {
	return int(info.Sys().(*syscall.Stat_t).Uid)
}
