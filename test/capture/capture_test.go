package capture

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/capture/control"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

func TestWorkloadsThatPoliciesNameAreCapturedWhenTheyAppear(t *testing.T) {
	n := newNode(t)
	n.mkdir("/named")
	other := n.mkdir("/other")
	n.start()
	p := n.proxy()
	shop := n.mkdir("/named/shop")
	n.wait("the workload", func() bool { return len(n.status().Workloads) == 1 })

	if got := n.dial(shop, n.database); got != "proxy" {
		t.Errorf("the workload: %s", got)
	}
	if got := get(p, func() handoff.Origin { return p.origin }); got.Destination != netip.MustParseAddrPort(n.database) {
		t.Errorf("got %+v", got)
	}
	if got := n.dial(shop, "192.0.2.77:5432"); got != "proxy" {
		t.Errorf("by the range: %s", got)
	}
	if got := n.dial(other, n.database); got != "database" {
		t.Errorf("another cgroup: %s", got)
	}
	documents := get(p, func() handoff.Documents { return p.documents })
	if len(documents.Files) != 1 || len(documents.Endpoints) != 2 || documents.Revision != 1 {
		t.Errorf("got %+v", documents)
	}
	status := n.status()
	if !status.Effective || status.Revision != 1 || status.Proxy.Revision != 1 || len(status.Problems) != 0 ||
		status.Workloads[0].Cgroup != shop || status.Counters["captured"] != 2 || status.Version == "" {
		t.Errorf("got %+v", status)
	}
	n.wait("the proxy to be told", func() bool {
		s := get(p, func() handoff.CaptureStatus { return p.status })
		return s.Effective && s.Counters["captured"] == 2
	})

	if err := os.Remove(n.hierarchy.Dir(shop)); err != nil {
		t.Fatal(err)
	}
	n.wait("the workload's end", func() bool {
		return len(n.status().Workloads) == 0 && get(p, func() int { return len(p.listeners) }) == 0
	})
}

func TestAskedWorkloadIsCapturedWhenTheAnswerComes(t *testing.T) {
	n := newNode(t)
	demo := n.mkdir("/demo")
	n.start()
	p := n.proxy()
	if err := control.Enroll(t.Context(), n.run, demo); err != nil {
		t.Fatal(err)
	}
	if got := n.dial(demo, n.database); got != "proxy" {
		t.Errorf("got %s", got)
	}
	if err := control.Enroll(t.Context(), n.run, demo); err != nil {
		t.Errorf("once more: %v", err)
	}
	for _, bad := range []string{"/", "demo", n.base + "/missing", "/a/../b"} {
		if err := control.Enroll(t.Context(), n.run, bad); err == nil {
			t.Errorf("%s was enrolled", bad)
		}
	}
	if status := n.status(); !status.Effective || len(status.Workloads) != 1 {
		t.Errorf("got %+v", status)
	}
	p.stop()
	late := n.mkdir("/late")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan error, 1)
	go func() { asked <- control.Enroll(ctx, n.run, late) }()
	n.wait("the workload", func() bool { return len(n.status().Workloads) == 2 })
	select {
	case err := <-asked:
		t.Errorf("answered without a proxy: %v", err)
	default:
	}
	n.proxy()
	if err := <-asked; err != nil {
		t.Error(err)
	}
}

func TestBadDocumentsChangeNothingAndAreReported(t *testing.T) {
	n := newNode(t)
	n.mkdir("/named")
	shop := n.mkdir("/named/shop")
	n.start()
	n.proxy()
	n.wait("the workload", func() bool { return len(n.status().Workloads) == 1 })

	n.write("apiVersion: sallyport.dev/v1alpha1\nkind: Target\nmetadata: {name: db}\nspec:\n  protocl: postgres\n")
	n.wait("the problem to be reported", func() bool { return len(n.status().Problems) > 0 })
	found := false
	for _, problem := range n.status().Problems {
		found = found || problem.Line == 5 && strings.Contains(problem.Field+problem.Message, "protocl") && strings.HasSuffix(problem.File, "a.yaml")
	}
	if !found {
		t.Errorf("got %+v", n.status().Problems)
	}
	if err := control.Reload(t.Context(), n.run); err == nil {
		t.Error("reload took them")
	}
	if got := n.dial(shop, n.database); got != "proxy" {
		t.Errorf("the workload: %s", got)
	}
	if status := n.status(); status.Revision != 1 || !status.Effective {
		t.Errorf("got %+v", status)
	}

	n.document(n.base + "/nobody")
	n.wait("good documents to be in force", func() bool {
		status := n.status()
		return status.Revision == 2 && len(status.Problems) == 0 && len(status.Workloads) == 0
	})
	if got := n.dial(shop, n.database); got != "database" {
		t.Errorf("after it was named no more: %s", got)
	}
}

func TestBadDocumentsAtStartAreFatal(t *testing.T) {
	n := newNode(t)
	n.write("kind: nonsense\n")
	out, err := exec.Command(program, "--config="+n.config, "--run-dir="+n.run, "--proxy-uid=0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), filepath.Join(n.config, "a.yaml")) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWorkloadsAreRefusedWhileNobodyRunsAndCapturedAfterwards(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"stopped": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.mkdir("/named")
			shop, demo := n.mkdir("/named/shop"), n.mkdir("/demo")
			cmd := n.start()
			p := n.proxy()
			if err := control.Enroll(t.Context(), n.run, demo); err != nil {
				t.Fatal(err)
			}
			n.wait("both workloads", func() bool { return len(n.status().Workloads) == 2 })
			if err := stop(cmd, signal); signal == syscall.SIGTERM && err != nil {
				t.Errorf("stopped with %v", err)
			}
			// The proxy's own listeners keep serving what they can.
			if got := n.dial(shop, n.database); got != "proxy" {
				t.Errorf("with the proxy alone: %s", got)
			}
			p.stop()
			for _, workload := range []string{shop, demo} {
				if got := n.dial(workload, n.database); got != syscall.ECONNREFUSED.Error() {
					t.Errorf("%s, while nobody runs: %s", workload, got)
				}
			}

			n.start()
			n.proxy()
			n.wait("the workloads", func() bool {
				status := n.status()
				return status.Effective && len(status.Workloads) == 2 && status.Proxy.Revision == status.Revision
			})
			for _, workload := range []string{shop, demo} {
				if got := n.dial(workload, n.database); got != "proxy" {
					t.Errorf("%s, afterwards: %s", workload, got)
				}
			}
		})
	}
}

func TestReleaseEndsCapture(t *testing.T) {
	n := newNode(t)
	demo := n.mkdir("/demo")
	cmd := n.start()
	n.proxy()
	if err := control.Enroll(t.Context(), n.run, demo); err != nil {
		t.Fatal(err)
	}
	release := func() (string, error) {
		out, err := exec.Command(program, "release", "--run-dir="+n.run).CombinedOutput()
		return string(out), err
	}
	if out, err := release(); err == nil || !strings.Contains(out, "another sallyport-capture runs") {
		t.Errorf("while it runs: %v: %s", err, out)
	}
	if out, err := exec.Command(program, "--config="+n.config, "--run-dir="+n.run, "--proxy-uid=0").CombinedOutput(); err == nil {
		t.Errorf("a second one started: %s", out)
	}
	stop(cmd, syscall.SIGKILL)
	if out, err := release(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if got := n.dial(demo, n.database); got != "database" {
		t.Errorf("got %s", got)
	}
}

func TestFilesOfDocumentsAreReadForTheProxy(t *testing.T) {
	n := newNode(t)
	if err := os.WriteFile(n.config+"/password", []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	p := n.proxy()
	if got, err := p.ReadFile(t.Context(), n.config+"/password"); string(got) != "secret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := p.ReadFile(t.Context(), n.config+"/a.yaml"); err == nil {
		t.Error("a file was read that no document names")
	}
}
