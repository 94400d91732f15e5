package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	// firstPause and longestPause bound how long a dead child stays dead; each death in a row doubles the pause.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// steadyAfter is how long a child must have lived for its death not to count as one in a row.
	steadyAfter = 10 * time.Second
)

// A child is a process that is started again when it ends.
type child struct {
	name      string
	program   string
	arguments []string
	// grace is how long it may take to end after SIGTERM, before SIGKILL.
	grace time.Duration
	log   *zap.Logger
	// settled is set once the child has shown that it can work. Before that its end is the end of supervise.
	settled atomic.Bool
}

// supervise runs the child until ctx ends, then stops it. It returns an error when the child ends before it has settled.
//
// The goroutine keeps its thread: the kernel kills the child when the thread that started it ends, which is when this
// process ends, by whatever signal (prctl(2), PR_SET_PDEATHSIG), and must not be sooner.
func (c *child) supervise(ctx context.Context) error {
	runtime.LockOSThread()
	pause := firstPause
	for {
		started := time.Now()
		err := c.run(ctx)
		if ctx.Err() != nil {
			c.log.Info("stopped", zap.String("process", c.name))
			return nil
		}
		if err == nil {
			err = errors.New("exit status 0")
		}
		if !c.settled.Load() {
			return fmt.Errorf("%s ended before it was ready: %w", c.name, err)
		}
		if time.Since(started) >= steadyAfter {
			pause = firstPause
		}
		c.log.Error("process ended; starting it again", zap.String("process", c.name), zap.Error(err), zap.Duration("after", pause))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// run starts the child and waits for its end. When ctx ends the child is asked to end, and killed when it does not.
func (c *child) run(ctx context.Context) error {
	process := exec.CommandContext(ctx, c.program, c.arguments...)
	process.Stdout, process.Stderr = os.Stderr, os.Stderr
	// The proxy changes its user, which loses the death signal; by this variable it knows whose death to ask for again.
	process.Env = append(os.Environ(), fmt.Sprintf("SALLYPORT_SUPERVISOR=%d", os.Getpid()))
	process.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		// A group of its own, so that the terminal's interrupt reaches this process alone, which ends the children in order.
		Setpgid: true,
	}
	process.Cancel = func() error { return process.Process.Signal(syscall.SIGTERM) }
	process.WaitDelay = c.grace
	if err := process.Start(); err != nil {
		return err
	}
	c.log.Info("started", zap.String("process", c.name), zap.Int("pid", process.Process.Pid))
	err := process.Wait()
	if state, ok := process.ProcessState.Sys().(syscall.WaitStatus); ok && ctx.Err() != nil && state.Signaled() && state.Signal() == syscall.SIGKILL {
		c.log.Warn("killed: it did not stop in time", zap.String("process", c.name), zap.Duration("grace", c.grace))
	}
	return err
}
