// Package capture tests the program sallyport-capture as it ships: with real documents, cgroups and kernel, and a proxy of
// the test's own. It needs root.
package capture

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Variables that make the test binary another process.
const (
	dialVariable   = "SALLYPORT_TEST_DIAL"   // a workload that dials an address
	mountsVariable = "SALLYPORT_TEST_MOUNTS" // the tests themselves, in namespaces of their own
)

// program is the built sallyport-capture.
var program string

// TestMain runs the tests in a mount namespace of their own: the bpffs that the program mounts goes away with it. They have a
// network namespace too: rules of nftables turn connection tracking on for all that is in one.
func TestMain(m *testing.M) {
	if address := os.Getenv(dialVariable); address != "" {
		dial(address)
		return
	}
	if how := os.Getenv(probeVariable); how != "" {
		probe(how)
		return
	}
	if os.Getenv(mountsVariable) == "" {
		os.Exit(again())
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("set lo up: %v: %s", err, out))
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // For the processes that tests start: they end many.
	dir, err := os.MkdirTemp("", "sallyport-test")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "sallyport-capture")
	build := exec.Command("go", "build", "-race", "-o", program, "github.com/sallyport-dev/sallyport/cmd/sallyport-capture")
	build.Stderr = os.Stderr
	code := 1
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build sallyport-capture:", err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// again runs this very test binary in new namespaces, and yields its exit status.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), mountsVariable+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	}
	fmt.Fprintln(os.Stderr, "make namespaces (these tests need root):", err)
	return 1
}

// dial connects, and prints what it reads to the end, or the error's name.
func dial(address string) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		fmt.Print(errno.Error())
		return
	}
	defer conn.Close()
	buffer := make([]byte, 64)
	n, _ := conn.Read(buffer)
	fmt.Print(string(buffer[:n]))
}
