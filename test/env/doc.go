// Package env gives end-to-end tests what they run against: a real PostgreSQL and a real agent, each in directories of its own, on
// free ports, taken away at the end of the test also when it fails. Its functions need root and fail without it; they never skip.
package env

import (
	"crypto/rand"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long to wait for anything that should take a second.
const patience = 30 * time.Second

// Name makes a name for a workload that no other test has.
func Name(prefix string) string {
	return prefix + "-" + strings.ToLower(rand.Text()[:8])
}

// needRoot fails the test for another user.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("end-to-end tests need root")
	}
}

// directory is a temporary directory that every user can reach; those of testing can be reached by their owner alone.
func directory(t testing.TB, prefix string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// freePort is a TCP port that nobody listens on, on any of the loopback addresses given. Another process may take it before
// its user does, so what starts on it must be prepared to try again.
func freePort(t testing.TB, hosts ...string) int {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", net.JoinHostPort(hosts[0], "0"))
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		free := true
		for _, host := range hosts[1:] {
			other, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				free = false
				continue
			}
			other.Close()
		}
		first.Close()
		if free {
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// onThread calls f on a goroutine that keeps its thread until the function that f returns has returned: what f starts with a death
// signal for its parent lives as long as that thread. It returns what f returned first.
func onThread(f func() (wait func(), err error)) (done <-chan struct{}, err error) {
	ended := make(chan struct{})
	started := make(chan error)
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		wait, err := f()
		started <- err
		if err == nil {
			wait()
		}
	}()
	return ended, <-started
}

// await polls until the condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}
