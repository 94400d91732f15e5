package main

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// upgrade runs the command.
func (a *testAgent) upgrade() (string, error) {
	out, err := exec.Command("sallyport", "upgrade", "--run-dir", a.run).CombinedOutput()
	return string(out), err
}

func TestUpgradeStartsBothAnewAndTheNewProxyBeforeTheOldOneStops(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	capture, proxy := lastPID(a.run, "capture"), lastPID(a.run, "proxy")
	out, err := a.upgrade()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, a.stderr)
	}
	nextCapture, nextProxy := lastPID(a.run, "capture"), lastPID(a.run, "proxy")
	if nextCapture == capture || nextProxy == proxy || !alive(nextProxy) || !alive(nextCapture) {
		t.Errorf("capture was %d and is %d, the proxy was %d and is %d", capture, nextCapture, proxy, nextProxy)
	}
	if want := "process " + strconv.Itoa(proxy) + " drains"; !strings.Contains(out, want) {
		t.Errorf("it says %q, want %q", out, want)
	}
	a.await("the end of the proxy before", func() bool { return !alive(proxy) })
	lines := strings.Split(notes(a.run), "\n")
	started, stopped := slices.Index(lines, "proxy started "+strconv.Itoa(nextProxy)), slices.Index(lines, "proxy stopped")
	if started < 0 || stopped < started || lines[started+1] != "proxy replaces" {
		t.Errorf("order:\n%s", notes(a.run))
	}
	// It is supervised like the first, and alone by now.
	if err := syscall.Kill(nextProxy, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.await("a third proxy", func() bool { pid := lastPID(a.run, "proxy"); return pid != nextProxy && alive(pid) })
	if got := strings.Count(notes(a.run), "proxy replaces"); got != 1 {
		t.Errorf("%d proxies were started beside another", got)
	}
	if status := a.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestUserSignalUpgrades(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	proxy := lastPID(a.run, "proxy")
	if err := a.process.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	a.await("the upgrade", func() bool { return strings.Contains(a.stderr.String(), "upgraded") })
	if lastPID(a.run, "proxy") == proxy {
		t.Error("the proxy is the same")
	}
}

func TestProxyThatDoesNotTakeTheDocumentsReplacesNobody(t *testing.T) {
	a := startAgent(t, "picky")
	a.awaitReady()
	proxy := lastPID(a.run, "proxy")
	out, err := a.upgrade()
	if err == nil || !strings.Contains(out, "does not apply the documents: unknown field") {
		t.Errorf("ended with %v and says %q", err, out)
	}
	next := lastPID(a.run, "proxy")
	a.await("the end of the new one", func() bool { return !alive(next) })
	if next == proxy || !alive(proxy) {
		t.Errorf("the proxy before, %d, does not serve", proxy)
	}
}

func TestUpgradeWithoutAnAgentSaysSo(t *testing.T) {
	out, err := exec.Command("sallyport", "upgrade", "--run-dir", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no agent runs on") {
		t.Errorf("ended with %v and says %q", err, out)
	}
}
