package e2e

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/sallyport-dev/sallyport/test/env"
)

func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		serveInside()
		return
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
