package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/capture/control"
	"github.com/sallyport-dev/sallyport/test/env"
)

// What matters most holds however a workload is captured.
func TestBothWaysOfCapturingServeDenyAndRefuse(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"ebpf", "nft"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{rules: guarded, flags: []string{"--capture", mode}})
			if got := w.psql("SELECT current_user"); got.Stdout != w.role()+"\n" {
				t.Fatalf("psql prints %q and says %q", got.Stdout, got.Stderr)
			}
			if got := w.psql("DROP TABLE t", "SELECT 1"); !strings.Contains(got.Stderr, "42501") || got.Stdout != "1\n" {
				t.Errorf("a denied statement and an allowed one: psql prints %q and says %q", got.Stdout, got.Stderr)
			}
			w.saysHowItCaptures(mode)
			w.knowsTheProcess(mode == "ebpf")

			authorized := strings.Count(w.server.Log(), "connection authorized: user="+w.role())
			died := time.Now()
			w.Kill()
			await(t, "the workload is refused", func() bool {
				c, err := w.workload().dial(context.Background(), "tcp", w.address())
				if err == nil {
					c.Close()
				}
				return err != nil && strings.Contains(err.Error(), syscall.ECONNREFUSED.Error())
			})
			if took := time.Since(died); took > time.Second {
				t.Errorf("it took %s", took)
			}
			if now := strings.Count(w.server.Log(), "connection authorized: user="+w.role()); now != authorized {
				t.Errorf("the server let %d connections in", now-authorized)
			}
			w.Start("--capture", mode)
			await(t, "the same workload is served", func() bool { return w.psql("SELECT 1").Stdout == "1\n" })
			w.Stop()
			if got := env.Execute(t, w.Command("down", "--run-dir", w.RunDir)); got.Status != 0 {
				t.Fatalf("down ended with %d and said %s", got.Status, got.Stderr)
			}
			// The server asks for a password that nobody has: it was reached.
			if got := w.psql("SELECT 1"); strings.Contains(got.Stderr, "Connection refused") || got.Status == 0 {
				t.Errorf("after down psql ends with %d and says %q", got.Status, got.Stderr)
			}
		})
	}
}

// saysHowItCaptures checks status, readiness and metrics.
func (w *world) saysHowItCaptures(mode string) {
	w.t.Helper()
	var report struct {
		Ready bool
		Agent control.Status
	}
	got := env.Execute(w.t, w.Command("status", "--run-dir", w.RunDir, "-o", "json"))
	if err := json.Unmarshal([]byte(got.Stdout), &report); err != nil {
		w.t.Fatal(err)
	}
	if agent := report.Agent; !report.Ready || agent.Mode != mode || agent.ModeReason != "" || (len(agent.Limits) > 0) != (mode == "nft") {
		w.t.Errorf("status is %+v", report)
	}
	if got := env.Execute(w.t, w.Command("status", "--run-dir", w.RunDir)); !strings.Contains(got.Stdout, "capture    "+mode+"\n") {
		w.t.Errorf("status prints %s", got.Stdout)
	}
	for _, other := range []string{"ebpf", "nft"} {
		want := 0.0
		if other == mode {
			want = 1
		}
		await(w.t, "the metric of the mode", func() bool { return w.metric(`sallyport_capture_mode{mode="`+other+`"}`) == want })
	}
}

// knowsTheProcess checks what the record says of who dialled.
func (w *world) knowsTheProcess(known bool) {
	w.t.Helper()
	list := w.sessions()
	if len(list) == 0 {
		w.t.Fatal("no session is recorded")
	}
	for _, s := range list {
		if s.Workload.ProcessUnknown == known || (s.Workload.Comm == "psql") != known || s.Workload.Name != w.name {
			w.t.Errorf("a session is recorded as %+v", s.Workload)
		}
	}
	got := w.sessionsCommand("show", list[0].ID)
	if unknown := strings.Contains(got.Stdout, "unknown: captured by nftables"); unknown == known {
		w.t.Errorf("sessions show prints %s", got.Stdout)
	}
}

func TestRuleThatAsksForTheProcessDeniesWhereItIsNotKnown(t *testing.T) {
	t.Parallel()
	w := start(t, options{
		rules: `[{name: root, when: "workload.uid == 0", action: allow}, {name: rest, action: allow}]`, flags: []string{"--capture", "nft"},
	})
	if got := w.psql("SELECT 1"); got.Stdout != "" || !strings.Contains(got.Stderr, "rule root asks for the process, which is not known") {
		t.Errorf("psql prints %q and says %q", got.Stdout, got.Stderr)
	}
}

func TestWorkloadsAreNotLeftBehindByAnotherWayOfCapturing(t *testing.T) {
	t.Parallel()
	for mode, other := range map[string]string{"ebpf": "nft", "nft": "ebpf"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: []string{"--capture", mode}})
			w.workload()
			w.Stop()
			w.Launch("--capture", other)
			if status := w.Wait(); status == 0 || !strings.Contains(w.Log(), "captured in another way") {
				t.Errorf("up --capture %s ended with %d: %s", other, status, w.Log())
			}
			if got := w.psql("SELECT 1"); !strings.Contains(got.Stderr, "Connection refused") {
				t.Errorf("meanwhile the workload is told %q", got.Stderr)
			}
			w.Start("--capture", "auto")
			if got := w.psql("SELECT 1"); got.Stdout != "1\n" {
				t.Errorf("with auto psql prints %q and says %q", got.Stdout, got.Stderr)
			}
			response, err := http.Get(strings.TrimSuffix(w.MetricsURL, "/metrics") + "/readyz")
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			words, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if told := strings.Contains(string(words), "capture is by nft, because"); told != (mode == "nft") || response.StatusCode != http.StatusOK {
				t.Errorf("readiness is %d %s", response.StatusCode, words)
			}
			if told := strings.Contains(w.Log(), "capture is by nftables, which promises less"); told != (mode == "nft") {
				t.Error("the log does not say how it captures, or says it without need")
			}
		})
	}
}

func TestUnknownWayOfCapturingIsRefused(t *testing.T) {
	t.Parallel()
	w := prepare(t, options{})
	w.Launch("--capture", "iptables")
	if status := w.Wait(); status == 0 || !strings.Contains(w.Log(), `--capture "iptables": want auto, ebpf, nft`) {
		t.Errorf("up ended with %d: %s", status, w.Log())
	}
	if _, err := os.Stat(w.RunDir); err == nil {
		t.Error("something was made before")
	}
}
