package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestUpStopsTheProxyBeforeCapture(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	if status := a.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if got := notes(a.run); !strings.HasSuffix(got, "proxy stopped\ncapture stopped\n") {
		t.Errorf("order:\n%s", got)
	}
	for _, want := range []string{"connection refused", "sallyport down"} {
		if !strings.Contains(a.stderr.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, a.stderr)
		}
	}
}

func TestUpEndsWhenCaptureRefusesTheDocumentsAtStart(t *testing.T) {
	a := startAgent(t, "bad")
	if status := a.awaitEnd(); status != 1 {
		t.Errorf("exit status %d", status)
	}
	for _, want := range []string{"policy.yaml:3:1: unknown field", "sallyport-capture ended before it was ready: exit status 1"} {
		if !strings.Contains(a.stderr.String(), want) {
			t.Errorf("stderr does not say %q:\n%s", want, a.stderr)
		}
	}
}

func TestSecondUpOnTheSameRunDirectoryIsRefused(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	out, err := exec.Command("sallyport", "up", "--config", a.config, "--run-dir", a.run, "--state-dir", filepath.Join(a.dir, "other"),
		"--libexec-dir", programs(t)).CombinedOutput()
	if err == nil {
		t.Error("it runs")
	}
	if want := fmt.Sprintf("an agent already runs on %s: process %d", a.run, a.process.Process.Pid); !strings.Contains(string(out), want) {
		t.Errorf("it says %q, want %q", out, want)
	}
}

func TestDeadChildIsStartedAgain(t *testing.T) {
	for _, who := range []string{"proxy", "capture"} {
		t.Run(who, func(t *testing.T) {
			a := startAgent(t)
			a.awaitReady()
			first := lastPID(a.run, who)
			if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			a.await("a new process", func() bool { return lastPID(a.run, who) != first })
			a.await("the reason in the log", func() bool { return strings.Contains(a.stderr.String(), "signal: killed") })
			a.await("ready again", func() bool {
				return exec.Command("sallyport", "status", "--run-dir", a.run).Run() == nil
			})
		})
	}
}

func TestChildrenDieWithAnAgentThatIsKilled(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	children := []int{lastPID(a.run, "capture"), lastPID(a.run, "proxy")}
	a.stop(syscall.SIGKILL)
	for _, pid := range children {
		a.await("the end of a child", func() bool { return !alive(pid) })
	}
	if got := notes(a.run); strings.Contains(got, "stopped") {
		t.Errorf("a child had the time to stop:\n%s", got)
	}
}

func TestHangupReadsTheDocumentsAgain(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	if err := a.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	a.await("a reload", func() bool { return strings.Contains(notes(a.run), "reloaded\n") })
}

func TestDirectoriesBelongToThoseWhoWriteThem(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	tests := []struct {
		path  string
		owner int
		mode  os.FileMode
	}{
		{a.run, 0, 0o755},
		{filepath.Join(a.run, "trust"), 64817, 0o755},
		{filepath.Join(a.dir, "state"), 64817, 0o700},
	}
	for _, tt := range tests {
		info, err := os.Stat(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		if ownerOf(info) != tt.owner || info.Mode().Perm() != tt.mode {
			t.Errorf("%s belongs to %d with mode %o, want %d with %o", tt.path, ownerOf(info), info.Mode().Perm(), tt.owner, tt.mode)
		}
	}
}

func TestUpRefusesDirectoriesThatOthersControl(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, run, state string)
		want    string
	}{
		{"a run directory that everybody can write", func(t *testing.T, run, _ string) {
			makeDir(t, run, 0o777, 0)
		}, "want root, and nobody else may write"},
		{"a run directory of another user", func(t *testing.T, run, _ string) {
			makeDir(t, run, 0o755, 1234)
		}, "belongs to user 1234"},
		{"a state directory of another user", func(t *testing.T, _, state string) {
			makeDir(t, state, 0o700, 1234)
		}, "belongs to user 1234 and the proxy runs as user 64817"},
		{"a state directory of root that is not empty", func(t *testing.T, _, state string) {
			makeDir(t, filepath.Join(state, "sessions"), 0o700, 0)
		}, "belongs to user 0 and the proxy runs as user 64817"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Fatal("this test needs root")
			}
			dir := t.TempDir()
			run, state := filepath.Join(dir, "run"), filepath.Join(dir, "state")
			tt.prepare(t, run, state)
			out, err := exec.Command("sallyport", "up", "--config", dir, "--run-dir", run, "--state-dir", state,
				"--libexec-dir", programs(t), "--proxy-user", "64817").CombinedOutput()
			if err == nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("ended with %v and says %q, want %q", err, out, tt.want)
			}
		})
	}
}

func makeDir(t *testing.T, path string, mode os.FileMode, owner int) {
	t.Helper()
	if err := os.MkdirAll(path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, owner, owner); err != nil {
		t.Fatal(err)
	}
}

func TestDownRefusesWhileTheAgentRuns(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	down := func(arguments ...string) (string, error) {
		out, err := exec.Command("sallyport", append([]string{"down", "--run-dir", a.run, "--libexec-dir", programs(t)}, arguments...)...).CombinedOutput()
		return string(out), err
	}
	out, err := down()
	if want := fmt.Sprintf("process %d; stop it first", a.process.Process.Pid); err == nil || !strings.Contains(out, want) {
		t.Fatalf("down ended with %v and says %q, want %q", err, out, want)
	}
	if out, err := down("--force"); err != nil || !strings.Contains(out, "released "+a.run) {
		t.Fatalf("down --force ended with %v and says %q", err, out)
	}
	a.awaitEnd()
	// The stand-ins' notes are not the agent's, and so stay.
	entries, err := os.ReadDir(a.run)
	if err != nil || len(entries) != 1 || entries[0].Name() != "log" {
		t.Errorf("left in the run directory: %v, %v", entries, err)
	}
	if out, err := down(); err != nil {
		t.Errorf("a second down ended with %v and says %q", err, out)
	}
}
