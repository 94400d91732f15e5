package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/sallyport-dev/sallyport/test/env"
)

// namespaceVariable makes this test's program the tests themselves, in a network namespace of their own.
const namespaceVariable = "SALLYPORT_E2E_NAMESPACE"

// TestMain runs the tests in a network namespace of their own: rules of nftables turn connection tracking on for all that is in one,
// and nobody else takes a port that was found free.
func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		serveInside()
		return
	}
	if os.Getenv(namespaceVariable) == "" {
		os.Exit(inNamespace())
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "set lo up: %v: %s", err, out)
		os.Exit(1)
	}
	// Tests mostly wait for processes to start, so more run at once than there are processors, unless somebody says otherwise.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	whole.end()
	os.Exit(status)
}

// inNamespace runs this very program in a new network namespace, and yields its exit status.
func inNamespace() int {
	command := exec.Command(os.Args[0], os.Args[1:]...)
	command.Env = append(os.Environ(), namespaceVariable+"=1")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := command.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	}
	fmt.Fprintln(os.Stderr, "make a network namespace (these tests need root):", err)
	return 1
}

// whole is the package's own run.
var whole wholeRun

// sharedServer is a PostgreSQL without TLS for every test that neither stops it nor looks at all of it. Making one takes longer than most tests.
var sharedServer = sync.OnceValue(func() *env.Server {
	return env.Postgres(&whole, env.PostgresOptions{Settings: []string{"max_connections = 300"}})
})

// A wholeRun stands for the test in what outlives each single one. What fails for it is no test's fault, and ends the run.
type wholeRun struct {
	testing.TB // only what is below is for a whole run

	mu       sync.Mutex
	cleanups []func()
}

// Helper implements testing.TB.
func (w *wholeRun) Helper() {}

// Cleanup implements testing.TB.
func (w *wholeRun) Cleanup(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cleanups = append(w.cleanups, f)
}

// Fatal implements testing.TB.
func (w *wholeRun) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// Fatalf implements testing.TB.
func (w *wholeRun) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// Errorf implements testing.TB.
func (w *wholeRun) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (w *wholeRun) end() {
	for _, f := range slices.Backward(w.cleanups) {
		f()
	}
}
