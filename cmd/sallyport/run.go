package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/account"
	"github.com/sallyport-dev/sallyport/pkg/capture/control"
	"github.com/sallyport-dev/sallyport/pkg/pki"
)

// Exit statuses of run that are its own and not the command's; the same as env(1) and timeout(1) have.
const (
	statusNotStarted    = 125
	statusNotExecutable = 126
	statusNotFound      = 127
)

// enrolTimeout is how long a workload may wait to be captured before it is given up.
const enrolTimeout = 30 * time.Second

type runOptions struct {
	runDir, name, user string
}

func newRunCommand() *cobra.Command {
	var o runOptions
	command := &cobra.Command{
		Use:   "run [--name NAME] -- COMMAND [ARGUMENT…]",
		Short: "Run a command as a workload",
		Long: `Run a command as a workload: in a cgroup of its own, /sallyport/NAME, whose connections are captured. The command starts
only once they are; when they can not be, it is not started.

The command has the caller's environment, terminal and descriptors, except sockets other than standard input, output and
error: those were made outside the workload, and would not be captured. Variables by which programs trust the agent's
certificates (such as SSL_CERT_FILE and PGSSLROOTCERT) are set where they are unset.

Signals go to the command. The exit status is the command's, 128+N when signal N ended it, 125 when it was not started, 126 when
it can not be executed, 127 when there is no such command. The cgroup is removed at the end. Processes that the
command leaves behind in the background go on, as with systemd-run --scope, and stay captured.

run needs root. A command that runs as root can undo what the agent does on its machine: give it another user with --user,
which also sets HOME, USER and LOGNAME.`,
		Example: `  sallyport run --name shop -- psql -h orders.internal orders
  sallyport run --name ci-42 --user ci -- make integration-test`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, arguments []string) error {
			status, err := run(o, arguments)
			if err != nil || status != 0 {
				return &exitError{status: status, err: err}
			}
			return nil
		},
	}
	flags := command.Flags()
	// What follows the command's name is the command's.
	flags.SetInterspersed(false)
	flags.StringVar(&o.runDir, "run-dir", defaultRunDir, "run directory of the agent")
	flags.StringVar(&o.name, "name", "", "name of the workload (default: the command's name and a random suffix)")
	flags.StringVar(&o.user, "user", "", "user that the command runs as, a name or a uid (default: the caller's)")
	return command
}

// run returns the exit status; the error says why the command did not start.
func run(o runOptions, arguments []string) (int, error) {
	if os.Geteuid() != 0 {
		return statusNotStarted, errors.New("run needs root: it makes a cgroup and has it captured")
	}
	name, err := workloadName(o.name, arguments[0])
	if err != nil {
		return statusNotStarted, err
	}
	runDir, err := filepath.Abs(o.runDir)
	if err != nil {
		return statusNotStarted, err
	}
	process, err := prepareCommand(o.user, runDir, arguments)
	if err != nil {
		return startStatus(err), err
	}
	group, err := makeCgroup(name)
	if err != nil {
		return statusNotStarted, err
	}
	defer group.remove()

	// From here on signals are the command's; until it starts they end the wait.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwardedSignals...)
	defer signal.Stop(signals)
	if err := enrol(runDir, group.name, signals); err != nil {
		return statusNotStarted, fmt.Errorf("workload %s is not captured, so %s was not started: %w", group.name, arguments[0], err)
	}
	if err := hideSockets(); err != nil {
		return statusNotStarted, err
	}
	process.SysProcAttr.UseCgroupFD, process.SysProcAttr.CgroupFD = true, int(group.dir.Fd())
	if err := process.Start(); err != nil {
		return startStatus(err), err
	}
	return wait(process, signals), nil
}

// prepareCommand makes everything of the command that does not depend on its cgroup.
func prepareCommand(user, runDir string, arguments []string) (*exec.Cmd, error) {
	process := exec.Command(arguments[0], arguments[1:]...)
	if process.Err != nil {
		return nil, process.Err
	}
	process.Stdin, process.Stdout, process.Stderr = os.Stdin, os.Stdout, os.Stderr
	process.SysProcAttr = &syscall.SysProcAttr{}
	process.Env = os.Environ()
	if user != "" {
		who, err := account.Lookup(user)
		if err != nil {
			return nil, fmt.Errorf("--user: %w", err)
		}
		process.SysProcAttr.Credential = credentialOf(who)
		if who.Name != "" {
			process.Env = append(process.Env, "HOME="+who.Home, "USER="+who.Name, "LOGNAME="+who.Name)
		}
	}
	for _, variable := range pki.TrustEnvironment(filepath.Join(runDir, trustName)) {
		name, _, _ := strings.Cut(variable, "=")
		if _, set := os.LookupEnv(name); !set {
			process.Env = append(process.Env, variable)
		}
	}
	return process, nil
}

func credentialOf(who account.Account) *syscall.Credential {
	credential := &syscall.Credential{Uid: uint32(who.UID), Gid: uint32(who.GID)}
	for _, group := range who.Groups {
		credential.Groups = append(credential.Groups, uint32(group))
	}
	return credential
}

// enrol returns nil once the cgroup is captured.
func enrol(runDir, cgroup string, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), enrolTimeout, fmt.Errorf("no answer within %s", enrolTimeout))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan error, 1)
	go func() { done <- control.Enroll(ctx, runDir, cgroup) }()
	for {
		select {
		case err := <-done:
			if err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		case s := <-signals:
			stop(fmt.Errorf("signal: %s", s))
		}
	}
}

// hideSockets marks every inherited socket above standard error to be closed when the command is executed: a socket that was made
// in another cgroup is not captured. Descriptors of files and pipes stay, because shells pass them on purpose.
func hideSockets() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("find inherited sockets: %w", err)
	}
	for _, entry := range entries {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err != nil || fd <= 2 {
			continue
		}
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			continue // The descriptor of the directory itself, closed by now.
		}
		if stat.Mode&unix.S_IFMT == unix.S_IFSOCK {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// startStatus is the exit status for a command that could not start.
func startStatus(err error) int {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return statusNotFound
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EISDIR):
		return statusNotExecutable
	default:
		return statusNotStarted
	}
}

// forwardedSignals are those that somebody may send to run and mean for the command. Those of job control (SIGTSTP, SIGCONT, SIGTTIN, SIGTTOU)
// and SIGWINCH are not among them: the terminal sends them to the whole process group, which run shares with the command.
var forwardedSignals = []os.Signal{
	syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
}

// wait passes signals on until the command ends, and returns its exit status.
func wait(process *exec.Cmd, signals <-chan os.Signal) int {
	done := make(chan error, 1)
	go func() { done <- process.Wait() }()
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s) {
				// The command may have ended meanwhile.
				_ = process.Process.Signal(s)
			}
		case <-done:
			return exitStatus(process.ProcessState)
		}
	}
}

// fromTerminal is whether a signal has reached the command already: the terminal sends its interrupts and its hang-up to every
// process of the foreground group, and so it does when that group is this process's.
func fromTerminal(s os.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT && s != syscall.SIGHUP {
		return false
	}
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer terminal.Close()
	foreground, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

// exitStatus is a process's exit status as a shell tells it.
func exitStatus(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}
