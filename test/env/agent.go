package env

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ProxyUID is the user that an Agent's proxy runs as; no entry in /etc/passwd has it.
const ProxyUID = 64817

// CaptureVariable names how agents capture, where a test does not: ebpf, nft or auto.
const CaptureVariable = "SALLYPORT_TEST_CAPTURE"

// ByNFT is whether agents capture by nftables where a test does not say how: then it is not known which process dialled.
func ByNFT() bool { return os.Getenv(CaptureVariable) == "nft" }

// An Agent is "sallyport up" with directories of its own.
type Agent struct {
	// Bin is the directory of the commands.
	Bin string
	// ConfigDir holds the documents, RunDir sockets and trust files, StateDir records and keys.
	ConfigDir, RunDir, StateDir string
	// MetricsURL is where the proxy serves its metrics.
	MetricsURL string

	t       testing.TB
	metrics string
	logFile string
	process *exec.Cmd
	done    <-chan struct{}
}

// NewAgent makes the directories of an agent and writes its documents, file name to content. Start starts it.
func NewAgent(t testing.TB, documents map[string]string) *Agent {
	t.Helper()
	needRoot(t)
	dir := directory(t, "sallyport-agent-")
	a := &Agent{
		t: t, Bin: Build(t),
		ConfigDir: filepath.Join(dir, "config"), RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
		logFile: filepath.Join(dir, "log"),
	}
	if err := os.Mkdir(a.ConfigDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range documents {
		a.WriteDocument(name, content)
	}
	a.metrics = fmt.Sprintf("127.0.0.1:%d", freePort(t, "127.0.0.1"))
	a.MetricsURL = "http://" + a.metrics + "/metrics"
	t.Cleanup(func() {
		a.Kill()
		if out, err := a.Command("down", "--run-dir", a.RunDir).CombinedOutput(); err != nil {
			t.Errorf("sallyport down: %v\n%s", err, out)
		}
		if t.Failed() {
			t.Logf("log of the agent:\n%s", a.Log())
		}
	})
	return a
}

// StartAgent makes an agent and waits until it is ready. At the end of the test it is stopped and taken down.
func StartAgent(t testing.TB, documents map[string]string) *Agent {
	t.Helper()
	a := NewAgent(t, documents)
	a.Start()
	return a
}

// Build builds the commands as they ship, and returns their directory. Processes that call it at once wait for each other.
func Build(t testing.TB) string {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

var buildOnce = sync.OnceValues(func() (string, error) {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := strings.TrimSpace(string(module))
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Open(bin)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", bin, err)
	}
	out, err := exec.Command("make", "-C", root, "--no-print-directory", "build").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return bin, nil
})

// WriteDocument writes or replaces a file in the configuration directory, in one step.
func (a *Agent) WriteDocument(name, content string) {
	a.t.Helper()
	path := filepath.Join(a.ConfigDir, name)
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		a.t.Fatal(err)
	}
}

// Command is one of "sallyport", without standard input.
func (a *Agent) Command(arguments ...string) *exec.Cmd {
	return exec.Command(filepath.Join(a.Bin, "sallyport"), arguments...)
}

// Start starts the agent and waits until "sallyport status" says that it is ready.
func (a *Agent) Start(flags ...string) {
	a.t.Helper()
	a.Launch(flags...)
	await(a.t, "the agent is ready", func() bool {
		if a.Ended() {
			a.t.Fatalf("the agent ended: %s", a.process.ProcessState)
		}
		return a.Command("status", "--run-dir", a.RunDir).Run() == nil
	})
}

// Launch starts the agent and does not wait.
func (a *Agent) Launch(flags ...string) {
	a.t.Helper()
	log, err := os.OpenFile(a.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		a.t.Fatal(err)
	}
	defer log.Close()
	if mode := os.Getenv(CaptureVariable); mode != "" {
		flags = append([]string{"--capture", mode}, flags...)
	}
	a.process = a.Command(append([]string{"up", "--config", a.ConfigDir, "--run-dir", a.RunDir, "--state-dir", a.StateDir,
		"--metrics", a.metrics, "--proxy-user", strconv.Itoa(ProxyUID)}, flags...)...)
	a.process.Stdout, a.process.Stderr = log, log
	a.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	process := a.process
	a.done, err = onThread(func() (func(), error) {
		return func() { _ = process.Wait() }, process.Start()
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// Ended is whether "sallyport up" has ended.
func (a *Agent) Ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// Stop ends the agent as a service manager does, and returns its exit status. The kernel's part stays.
func (a *Agent) Stop() int {
	a.t.Helper()
	if err := a.process.Process.Signal(syscall.SIGTERM); err != nil {
		a.t.Fatal(err)
	}
	return a.Wait()
}

// Wait waits for the agent to end by itself, and returns its exit status.
func (a *Agent) Wait() int {
	a.t.Helper()
	await(a.t, "the agent ends", a.Ended)
	return a.process.ProcessState.ExitCode()
}

// Kill ends the agent and both its children by SIGKILL. It may have ended already, or never have been started.
func (a *Agent) Kill() {
	if a.process == nil || a.process.Process == nil {
		return
	}
	// The process may have ended by itself.
	_ = a.process.Process.Kill()
	<-a.done
}

// Log is what the agent has logged so far.
func (a *Agent) Log() string {
	text, err := os.ReadFile(a.logFile)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Metrics is the proxy's metrics in Prometheus' text format.
func (a *Agent) Metrics() string {
	a.t.Helper()
	response, err := http.Get(a.MetricsURL)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

// A Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Status         int
}

// Workload is a command that runs as the workload name; a test sets its input and environment and starts it.
func (a *Agent) Workload(name string, argv ...string) *exec.Cmd {
	return a.Command(append([]string{"run", "--run-dir", a.RunDir, "--name", name, "--"}, argv...)...)
}

// Run runs a command as the workload name, waits for its end, and returns what it printed.
func (a *Agent) Run(name string, argv ...string) Result {
	a.t.Helper()
	return Execute(a.t, a.Workload(name, argv...))
}

// Execute runs a command and returns what it printed and how it ended. That it can not be started fails the test.
func Execute(t testing.TB, command *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Status: command.ProcessState.ExitCode()}
}
