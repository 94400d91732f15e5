package people

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// dialVariable makes the test binary a person who connects to a socket, says "hello" and prints what comes back.
const dialVariable = "SALLYPORT_TEST_DIAL"

func TestMain(m *testing.M) {
	path := os.Getenv(dialVariable)
	if path == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0") // for the processes that tests start
		os.Exit(m.Run())
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		os.Stdout.WriteString(err.Error())
		return
	}
	if os.Getenv(dialVariable+"_AND_GO") != "" {
		return
	}
	_, _ = io.WriteString(conn, "hello\n")
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.Copy(os.Stdout, conn)
}

// backend says hello back, with who it was.
type backend struct {
	enrolled string
	err      error
	came     chan handoff.Person
}

func (b *backend) Enrolled(name string) bool {
	return b.enrolled != "" && cgroup.Contains(b.enrolled, name)
}

func (b *backend) Person(who handoff.Person, conn *net.UnixConn) error {
	if b.err != nil {
		return b.err
	}
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	_, _ = io.WriteString(conn, "got "+line)
	b.came <- who
	return nil
}

func serve(t *testing.T, b *backend) (path string) {
	t.Helper()
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	server, err := Listen(dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	b.came = make(chan handoff.Person, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, b) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, SocketName)
}

// person is this program as user and group nobody, whose names every Linux has.
func person(path string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), dialVariable+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}

func ownCgroup(t *testing.T) string {
	t.Helper()
	name, err := (&cgroup.Hierarchy{}).OfProcess("self")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAnybodyIsHandedOverWithWhoTheyAre(t *testing.T) {
	b := &backend{}
	cmd := person(serve(t, b))
	said, err := cmd.CombinedOutput()
	if err != nil || string(said) != "got hello\n" {
		t.Fatalf("the person reads %q, %v (this test needs root)", said, err)
	}
	want := handoff.Person{UID: 65534, PID: uint32(cmd.Process.Pid), User: "nobody", Groups: []string{"nogroup"}, Cgroup: ownCgroup(t)}
	if diff := cmp.Diff(want, <-b.came); diff != "" {
		t.Error(diff)
	}
}

func TestProcessOfAWorkloadIsTurnedAway(t *testing.T) {
	said, err := person(serve(t, &backend{enrolled: ownCgroup(t)})).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	checkTurnedAway(t, said, http.StatusForbidden, "processes of workloads")
}

func TestWithoutAProxyThatIsSaid(t *testing.T) {
	said, err := person(serve(t, &backend{err: handoff.ErrNoProxy})).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	checkTurnedAway(t, said, http.StatusServiceUnavailable, "no proxy runs")
}

func checkTurnedAway(t *testing.T, said []byte, code int, why string) {
	t.Helper()
	answer, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(said))), nil)
	if err != nil {
		t.Fatalf("%q: %v", said, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != code || !strings.Contains(string(body), why) {
		t.Errorf("the answer is %s %q, %v", answer.Status, body, err)
	}
}

func TestWhoHasGoneIsNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), dialVariable+"="+path, dialVariable+"_AND_GO=1")
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%s %v", out, err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Its number may be somebody else's by now, who is in no workload.
	if who, err := identify(conn); err == nil {
		t.Errorf("taken for %+v", who)
	}
}
