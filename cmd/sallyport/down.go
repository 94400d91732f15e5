package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// stopTimeout is how long down --force waits for the agent to stop.
const stopTimeout = time.Minute

// leftovers are what the agent and its children leave in the run directory.
var leftovers = []string{"handoff.sock", "control.sock", upSocket, "capture.lock", trustName, lockName}

type downOptions struct {
	runDir, libexecDir string
	force              bool
}

func newDownCommand() *cobra.Command {
	var o downOptions
	command := &cobra.Command{
		Use:   "down",
		Short: "Take the kernel's part away",
		Long: `Take away what a stopped agent leaves in the kernel, so that former workloads connect directly again, and its run
directory. Records and keys in the state directory stay. While the agent runs, down refuses; --force stops it first.`,
		Example: `  sallyport down
  sallyport down --run-dir /run/sallyport-2 --force`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return down(command.Context(), o, command.ErrOrStderr())
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.runDir, "run-dir", defaultRunDir, "run directory of the agent")
	flags.StringVar(&o.libexecDir, "libexec-dir", "", "directory of sallyport-capture (default: that of this program)")
	flags.BoolVar(&o.force, "force", false, "stop the agent first if it runs")
	return command
}

func down(ctx context.Context, o downOptions, stderr io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("down needs root: it removes programs from the kernel")
	}
	runDir, err := filepath.Abs(o.runDir)
	if err != nil {
		return err
	}
	libexec, err := findPrograms(o.libexecDir)
	if err != nil {
		return err
	}
	lock, err := lockForDown(runDir, o.force)
	if err != nil {
		return err
	}
	if lock != nil {
		defer lock.Close()
	}
	// The programs may be pinned even where the run directory is gone.
	release := exec.CommandContext(ctx, filepath.Join(libexec, captureProgram), "release", "--run-dir="+runDir)
	release.Stdout, release.Stderr = stderr, stderr
	if err := release.Run(); err != nil {
		return fmt.Errorf("release the kernel's part: %w", err)
	}
	return removeLeftovers(runDir)
}

// lockForDown makes sure that no agent runs and that none starts meanwhile. It is nil when there is no run directory.
func lockForDown(runDir string, force bool) (*os.File, error) {
	deadline := time.Now().Add(stopTimeout)
	stopped := false
	for {
		lock, err := lockRunDir(runDir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		var running *runningError
		if !errors.As(err, &running) {
			return lock, err
		}
		if !force {
			return nil, fmt.Errorf("%w; stop it first, or use --force", err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("process %d has not stopped within %s", running.pid, stopTimeout)
		}
		if !stopped && running.pid > 0 {
			if err := syscall.Kill(running.pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
				return nil, fmt.Errorf("stop process %d: %w", running.pid, err)
			}
			stopped = true
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// removeLeftovers removes what is known to be the agent's; a directory that holds anything else stays.
func removeLeftovers(runDir string) error {
	for _, name := range leftovers {
		if err := os.RemoveAll(filepath.Join(runDir, name)); err != nil {
			return err
		}
	}
	if err := os.Remove(runDir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EBUSY) {
		return err
	}
	return nil
}
