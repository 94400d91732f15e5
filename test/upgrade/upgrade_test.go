package upgrade

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// upgrade runs "sallyport upgrade".
func (n *node) upgrade() {
	n.t.Helper()
	if out, err := n.Command("upgrade", "--run-dir", n.RunDir).CombinedOutput(); err != nil {
		n.t.Fatalf("upgrade: %v: %s", err, out)
	}
}

func TestFiveUpgradesUnderLoadLoseNoConnection(t *testing.T) {
	n := newNode(t)
	scraper := n.scrape()
	client := n.hammer()
	began := time.Now()
	proxies := map[int]bool{}
	captures := map[int]bool{}
	for range 5 {
		capture, proxy := n.children()
		captures[capture], proxies[proxy] = true, true
		n.served(int64(*rate))
		n.upgrade()
		if status := n.status(); !status.Proxy.Ready || proxies[int(status.Proxy.PID)] {
			t.Errorf("after the upgrade: %+v", status.Proxy)
		}
	}
	n.served(int64(*rate))
	r := client.stop()
	elapsed := time.Since(began)
	total := 0
	for _, count := range r.Outcomes {
		total += count
	}
	t.Logf("%d connections in %s: %.0f per second", total, elapsed.Round(time.Millisecond), float64(total)/elapsed.Seconds())
	r.only(t, fine)
	n.noneDirect()
	if len(captures) != 5 || len(proxies) != 5 {
		t.Errorf("%d processes were capture, %d the proxy", len(captures), len(proxies))
	}
	if gap := scraper.gap(); gap > time.Second {
		t.Errorf("no metrics for %s", gap)
	} else {
		t.Logf("no metrics for %s at most", gap)
	}
	n.wait("the metrics to tell of it", func() bool {
		metrics := n.Metrics()
		return strings.Contains(metrics, `sallyport_upgrades_total{result="done"} 5`) &&
			strings.Contains(metrics, `sallyport_process_starts_total{process="sallyport-proxy",why="upgrade"} 5`) &&
			strings.Contains(metrics, `sallyport_process_starts_total{process="sallyport-capture",why="upgrade"} 5`)
	})
	if report := n.sound(); report.Sessions != total || report.Open != 0 {
		t.Errorf("the record has %d sessions, %d of them open; there were %d connections", report.Sessions, report.Open, total)
	}
}

func TestReplacedProxySendsItsSessionsAwayOneAfterTheOther(t *testing.T) {
	n := newNode(t)
	const idle = 40
	client := n.client(idleVariable + "=40")
	n.upgrade()
	n.wait("the proxy before to drain beside the new one", func() bool {
		s := n.status()
		return len(s.Proxies) == 2 && s.Proxies[0].Leaving && s.Proxy.Ready
	})
	r := client.result()
	if r.Outcomes[sentAway] != idle || r.Outcomes["after the transaction "+sentAway] != 1 || len(r.Outcomes) != 2 {
		t.Errorf("outcomes %v", r.Outcomes)
	}
	slices.Sort(r.Farewells)
	spread := r.Farewells[len(r.Farewells)-1]
	median := r.Farewells[len(r.Farewells)/2]
	t.Logf("%d idle sessions were told to go within %.2f s, half of them within %.2f s", idle, spread, median)
	if spread < 1 || median < spread/4 || median > spread*3/4 {
		t.Error("they were not told one after the other")
	}
	n.wait("the end of the proxy before", func() bool { return len(n.status().Proxies) == 1 })
	n.noneDirect()
	n.sound()
}

func TestSessionInATransactionIsCutOffWhenTheTimeIsUp(t *testing.T) {
	n := newNode(t)
	n.Stop()
	const drain = 2 * time.Second
	n.start("--drain", drain.String())
	client := n.client(stuckVariable + "=1")
	n.upgrade()
	began := time.Now()
	r := client.result()
	if took := time.Since(began); r.Outcomes[sentAway] != 1 || took < drain-drain/4 || took > drain+5*time.Second {
		t.Errorf("after %s: %v", took, r.Outcomes)
	}
	n.wait("the end of the proxy before", func() bool { return len(n.status().Proxies) == 1 })
	if report := n.sound(); report.Sessions != 1 || report.Open != 0 {
		t.Errorf("the record has %d sessions, %d of them open", report.Sessions, report.Open)
	}
}

func TestProgramThatDoesNotWorkReplacesNothing(t *testing.T) {
	n := newNode(t)
	programs := t.TempDir()
	for _, name := range []string{"sallyport-capture", "sallyport-proxy"} {
		if err := os.Symlink(filepath.Join(n.Bin, name), filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	n.Stop()
	n.start("--libexec-dir", programs)
	_, proxy := n.children()
	client := n.hammer()
	broken := filepath.Join(programs, "sallyport-proxy")
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	// It says its version, and ends at once when it is to serve.
	if err := os.WriteFile(broken, []byte("#!/bin/sh\ncase $1 in --version) exit 0;; esac\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := n.Command("upgrade", "--run-dir", n.RunDir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "exit status 3") {
		t.Errorf("upgrade ended with %v and says %s", err, out)
	}
	n.served(int64(*rate) / 2)
	client.stop().only(t, fine)
	n.waitReady()
	if _, now := n.children(); now != proxy {
		t.Errorf("the proxy is process %d, not %d", now, proxy)
	}
	n.noneDirect()
	n.sound()
}
