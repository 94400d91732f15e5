package nft

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// Variables and arguments that make the test binary another process.
const (
	namespaceVariable = "SALLYPORT_TEST_NAMESPACE" // the tests themselves, in a network namespace of their own
	dialVariable      = "SALLYPORT_TEST_DIAL"      // a workload that dials "network address"
	timeVariable      = "SALLYPORT_TEST_TIME"      // a workload that dials "address" or "udp address" many times
	canaryArgument    = "canary"
)

// TestMain runs the tests in a network namespace of their own: no rule of theirs is ever in force for anybody else.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == canaryArgument {
		if err := capture.RunCanary(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if how := os.Getenv(dialVariable); how != "" {
		fmt.Print(dialAndRead(how))
		return
	}
	if how := os.Getenv(timeVariable); how != "" {
		fmt.Print(dialAndTime(how))
		return
	}
	if os.Getenv(namespaceVariable) == "" {
		os.Exit(again())
	}
	if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
		fmt.Fprintln(os.Stderr, "set lo up:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// again runs this very test binary in a new network namespace, and yields its exit status.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), namespaceVariable+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
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

// dialAndRead is what the other side says, or the name of the error.
func dialAndRead(how string) string {
	network, address, _ := strings.Cut(how, " ")
	dialer := net.Dialer{Timeout: 10 * time.Second}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.Dial(network, address)
	if err == nil && strings.HasPrefix(network, "udp") {
		_, err = conn.Write([]byte("hello"))
		if err == nil {
			return "sent"
		}
	}
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			return unix.ErrnoName(errno)
		}
		return err.Error()
	}
	defer conn.Close()
	buffer := make([]byte, 64)
	n, _ := conn.Read(buffer)
	return string(buffer[:n])
}

// node is a place to capture in.
type node struct {
	t       testing.TB
	options Options
	base    string // the cgroup that holds the test's
}

// newNode needs root.
func newNode(t testing.TB) *node {
	t.Helper()
	hierarchy, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	unique := strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	n := &node{t: t, base: "/sallyport-test-nft-" + unique}
	n.options = Options{
		Instance: "test" + unique, Dir: filepath.Join(t.TempDir(), "nft"), Hierarchy: hierarchy,
		Log: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)), Canary: []string{"/proc/self/exe", canaryArgument},
	}
	t.Cleanup(func() {
		if err := Release(n.options); err != nil {
			t.Error(err)
		}
		if left := n.tables(); left != "" {
			t.Errorf("left after release: %s", left)
		}
	})
	n.mkdir("")
	return n
}

// mkdir makes a cgroup below the node's that goes away with the test, and yields its name.
func (n *node) mkdir(name string) string {
	n.t.Helper()
	full := n.base + name
	dir := n.options.Hierarchy.Dir(full)
	if err := os.Mkdir(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		n.wait("the cgroup to be empty", func() bool {
			err := os.Remove(dir)
			return err == nil || errors.Is(err, os.ErrNotExist)
		})
	})
	return full
}

func (n *node) wait(what string, done func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (n *node) open() *Capture {
	n.t.Helper()
	c, err := Open(n.options)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return c
}

// enrolled captures a cgroup, and says "proxy" to what is redirected, and nothing to others.
func (n *node) enrolled(c *Capture, name string) capture.Enrolled {
	n.t.Helper()
	e, err := c.Enroll(name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.proxy(e)
	return e
}

func (n *node) proxy(e capture.Enrolled) {
	for _, l := range e.Listeners {
		go func() {
			for {
				conn, err := l.AcceptTCP()
				if err != nil {
					return
				}
				if origin, err := e.OriginOf(conn); err == nil {
					fmt.Fprintf(conn, "proxy for %s", origin.Destination)
				}
				conn.Close()
			}
		}()
	}
}

// database listens where a target may be, and says so.
func (n *node) database(address string) string {
	n.t.Helper()
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	l, err := config.Listen(n.t.Context(), "tcp", address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("database"))
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// dial dials from a cgroup.
func (n *node) dial(name, network, address string) string {
	n.t.Helper()
	return n.run(name, nil, dialVariable+"="+network+" "+address)
}

// run runs the test binary in a cgroup and a network namespace.
func (n *node) run(name string, namespace *os.File, environment string) string {
	n.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), environment)
	out, err := n.start(cmd, name, namespace).output()
	if err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	return out
}

// process is one that a test started.
type process struct {
	*exec.Cmd
	out strings.Builder
}

func (p *process) output() (string, error) {
	err := p.Wait()
	return p.out.String(), err
}

// start starts a command in a cgroup, and in a network namespace if it is not nil.
func (n *node) start(cmd *exec.Cmd, name string, namespace *os.File) *process {
	n.t.Helper()
	dir, err := os.Open(n.options.Hierarchy.Dir(name))
	if err != nil {
		n.t.Fatal(err)
	}
	defer dir.Close()
	p := &process{Cmd: cmd}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := within(namespace, cmd.Start); err != nil {
		n.t.Fatal(err)
	}
	return p
}

// within calls a function on a thread that is in a network namespace; nil is the process's own.
func within(namespace *os.File, do func() error) error {
	if namespace == nil {
		return do()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = do()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // Whatever runs on this thread next would be in the wrong place.
	}
	return err
}

// nft runs the tool in the tests' network namespace.
func (n *node) nft(arguments ...string) (string, error) {
	out, err := exec.Command("nft", arguments...).CombinedOutput()
	return string(out), err
}

// tables are the instance's in the tests' network namespace.
func (n *node) tables() string {
	n.t.Helper()
	out, err := n.nft("list", "tables")
	if err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	var ours []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, n.options.Instance) {
			ours = append(ours, strings.TrimSpace(line))
		}
	}
	return strings.Join(ours, "; ")
}

// endpoints are targets at addresses.
func endpoints(addresses ...string) []handoff.Endpoint {
	var list []handoff.Endpoint
	for _, address := range addresses {
		list = append(list, endpoint(address))
	}
	return list
}
