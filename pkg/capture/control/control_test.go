package control

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/config"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// askVariable makes the test binary a client that says how its question went.
const askVariable = "SALLYPORT_TEST_ASK"

func TestMain(m *testing.M) {
	dir := os.Getenv(askVariable)
	if dir == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0") // For the processes that tests start.
		os.Exit(m.Run())
	}
	_, err := GetStatus(context.Background(), dir)
	if err != nil {
		os.Stdout.WriteString(err.Error())
		return
	}
	os.Stdout.WriteString("answered")
}

// backend answers as told.
type backend struct {
	status Status
	enroll func(ctx context.Context, cgroup string) error
	reload func() error

	supervised func(handoff.Supervision)
}

func (b backend) Status() Status                                  { return b.status }
func (b backend) Enroll(ctx context.Context, cgroup string) error { return b.enroll(ctx, cgroup) }
func (b backend) Supervised(counts handoff.Supervision)           { b.supervised(counts) }
func (b backend) Reload(context.Context) error                    { return b.reload() }

func serve(t *testing.T, b backend) string {
	t.Helper()
	dir := t.TempDir()
	server, err := Listen(dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, b) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAnswersReachTheClientWhole(t *testing.T) {
	want := Status{
		Version: "v1", Effective: true, Revision: 3, Pins: "/sys/fs/bpf/x", Counters: map[string]uint64{"captured": 1},
		Workloads: []Workload{{Workload: handoff.Workload{ID: 7, Cgroup: "/a"}, Reason: "why"}},
		Problems:  []config.Problem{{File: "a.yaml", Line: 3, Field: "spec.x", Message: "unknown field"}},
		Proxy:     handoff.ProxyState{Connected: true, PID: 9, Revision: 2, Error: "no"},
	}
	dir := serve(t, backend{
		status: want,
		enroll: func(_ context.Context, cgroup string) error {
			if cgroup != "/sallyport/demo" {
				return errors.New("no such cgroup: " + cgroup)
			}
			return nil
		},
		reload: func() error { return errors.New("a.yaml:3: unknown field") },
	})
	got, err := GetStatus(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := Enroll(t.Context(), dir, "/sallyport/demo"); err != nil {
		t.Error(err)
	}
	if err := Enroll(t.Context(), dir, "/x"); err == nil || err.Error() != "no such cgroup: /x" {
		t.Errorf("got %v", err)
	}
	if err := Reload(t.Context(), dir); err == nil || err.Error() != "a.yaml:3: unknown field" {
		t.Errorf("got %v", err)
	}
}

func TestNobodyRunningIsSaidSo(t *testing.T) {
	dir := t.TempDir()
	if _, err := GetStatus(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	server, err := Listen(dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	server.listener.SetUnlinkOnClose(false)
	server.listener.Close()
	if _, err := GetStatus(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a socket of a dead process: %v", err)
	}
}

func TestClientThatGivesUpEndsItsRequest(t *testing.T) {
	started, ended := make(chan struct{}), make(chan struct{})
	dir := serve(t, backend{enroll: func(ctx context.Context, _ string) error {
		close(started)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	if err := Enroll(ctx, dir, "/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestOnlyRootIsAnswered(t *testing.T) {
	dir := serve(t, backend{})
	for at := dir; at != os.TempDir() && at != "/"; at = at[:strings.LastIndexByte(at, '/')] {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for mode, unwanted := range map[os.FileMode]string{0o600: "EOF", 0o666: "permission denied"} {
		if err := os.Chmod(socket(dir), mode); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), askVariable+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("become another user (this test needs root): %v", err)
		}
		if strings.Contains(string(said), "answered") || strings.Contains(string(said), unwanted) {
			t.Errorf("mode %o: %s", mode, said)
		}
	}
}

func TestSupervisorsCountsReachCapture(t *testing.T) {
	told := make(chan handoff.Supervision, 1)
	dir := serve(t, backend{supervised: func(counts handoff.Supervision) { told <- counts }})
	want := handoff.Supervision{Starts: map[string]map[string]uint64{"sallyport-proxy": {"crash": 2}}, Upgrades: 1}
	if err := ReportSupervision(t.Context(), dir, want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, <-told); diff != "" {
		t.Error(diff)
	}
}
