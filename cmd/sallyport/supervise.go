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

// Why a child is started.
const (
	startFirst   = "start"
	startCrash   = "crash"
	startUpgrade = "upgrade"
)

// errRestart ends a process whose successor is to be started at once.
var errRestart = errors.New("it is to be started again")

// A child is a process that is started again when it ends.
type child struct {
	name    string
	program string
	// arguments are asked for at each start.
	arguments func() []string
	// first is why it is started the first time.
	first string
	// started is told why, at each start; nil for nobody.
	started func(name, why string)
	// grace is how long it may take to end after SIGTERM, before SIGKILL.
	grace time.Duration
	log   *zap.Logger
	// settled is set once the child has shown that it can work. Before that its end is the end of supervise.
	settled atomic.Bool
	// pid is the process's; 0 before the first start.
	pid atomic.Int64
	// restarts has a value when the process is to end and to be started again.
	restarts chan struct{}
}

// restart has the process stop and its program started again, which may be another one by now. It does not wait.
func (c *child) restart() {
	select {
	case c.restarts <- struct{}{}:
	default: // One is due already.
	}
}

// supervise runs the child until ctx ends, then stops it. It returns an error when the child ends before it has settled.
//
// The goroutine keeps its thread: the kernel kills the child when the thread that started it ends, which is when this
// process ends, by whatever signal (prctl(2), PR_SET_PDEATHSIG), and must not be sooner.
func (c *child) supervise(ctx context.Context) error {
	runtime.LockOSThread()
	pause, why := firstPause, c.first
	for {
		started := time.Now()
		if c.started != nil {
			c.started(c.name, why)
		}
		err := c.run(ctx)
		if ctx.Err() != nil {
			c.log.Info("stopped", zap.String("process", c.name))
			return nil
		}
		if errors.Is(err, errRestart) {
			why = startUpgrade
			continue
		}
		why = startCrash
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

// run starts the child and waits for its end. When ctx ends, or at a restart, the child is asked to end, and killed when it does not.
// The error is errRestart after a restart.
func (c *child) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	process := exec.CommandContext(ctx, c.program, c.arguments()...)
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
	c.pid.Store(int64(process.Process.Pid))
	c.log.Info("started", zap.String("process", c.name), zap.Int("pid", process.Process.Pid))
	go func() {
		select {
		case <-c.restarts:
			cancel(errRestart)
		case <-ctx.Done():
		}
	}()
	err := process.Wait()
	if state, ok := process.ProcessState.Sys().(syscall.WaitStatus); ok && ctx.Err() != nil && state.Signaled() && state.Signal() == syscall.SIGKILL {
		c.log.Warn("killed: it did not stop in time", zap.String("process", c.name), zap.Duration("grace", c.grace))
	}
	if errors.Is(context.Cause(ctx), errRestart) {
		return errRestart
	}
	return err
}
