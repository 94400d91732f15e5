package upgrade

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/capture/control"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/test/env"
)

// node is an agent with a workload and a server.
type node struct {
	*env.Agent
	t        *testing.T
	server   *server
	workload string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, server: newServer(t), workload: env.Name("upgrade")}
	_, port, err := net.SplitHostPort(n.server.address)
	if err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Agent = env.NewAgent(t, map[string]string{"all.yaml": fmt.Sprintf(`apiVersion: sallyport.dev/v1alpha1
kind: Target
metadata: {name: db}
spec:
  protocol: postgres
  endpoints: [{host: 127.9.8.7, port: %s}]
  upstream: {tls: {mode: disable}}
  credential: app
---
apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata: {name: app}
spec:
  static: {username: %s, password: {file: %q}}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec:
  workloads: [{cgroup: /sallyport/%s}]
  targets: [db]
  rules: [{name: all, action: allow}]
`, port, proxyUser, password, n.workload)})
	n.start()
	return n
}

// start starts the agent and waits until "up" knows that it is ready: what dies before that ends it.
func (n *node) start(flags ...string) {
	n.t.Helper()
	before := strings.Count(n.Log(), readyLine)
	n.Start(flags...)
	n.wait("up to say that it is ready", func() bool { return strings.Count(n.Log(), readyLine) > before })
}

// readyLine is in up's log when the agent is ready.
const readyLine = "up\tready\t"

// client is a process of the workload.
type client struct {
	t       *testing.T
	process *exec.Cmd
	input   io.Closer
	output  *bufio.Reader
}

// client starts a client and returns when it has opened its first connection.
func (n *node) client(variables ...string) *client {
	n.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	c := &client{t: n.t, process: n.Workload(n.workload, self)}
	c.process.Env = append(append(os.Environ(), clientVariable+"="+n.server.address), variables...)
	c.process.Stderr = n.t.Output()
	if c.input, err = c.process.StdinPipe(); err != nil {
		n.t.Fatal(err)
	}
	output, err := c.process.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	c.output = bufio.NewReader(output)
	if err := c.process.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		c.input.Close()
		_ = c.process.Process.Kill() // It may have ended.
		_ = c.process.Wait()
	})
	if line, err := c.output.ReadString('\n'); err != nil || line != "started\n" {
		n.t.Fatalf("the client says %q, %v", line, err)
	}
	return c
}

// hammer is a client that opens connections at the rate.
func (n *node) hammer() *client { return n.client(rateVariable + "=" + strconv.Itoa(*rate)) }

// stop ends the client and returns what it saw.
func (c *client) stop() result {
	c.t.Helper()
	c.input.Close()
	return c.result()
}

func (c *client) result() result {
	c.t.Helper()
	var r result
	if err := json.NewDecoder(c.output).Decode(&r); err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("%v; median %.1f ms, p99 %.1f ms, longest %.0f ms", r.Outcomes, r.Median, r.P99, r.Longest)
	return r
}

func (n *node) wait(what string, done func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// status is the zero one while nobody answers.
func (n *node) status() control.Status {
	status, err := control.GetStatus(n.t.Context(), n.RunDir)
	if err != nil {
		return control.Status{}
	}
	return status
}

// waitReady waits until "sallyport status" says that all is well.
func (n *node) waitReady() {
	n.t.Helper()
	n.wait("the agent to be ready", func() bool { return n.Command("status", "--run-dir", n.RunDir).Run() == nil })
}

// served waits for so many more connections to be served.
func (n *node) served(more int64) {
	n.t.Helper()
	want := n.server.logins.Load() + more
	n.wait("connections to be served", func() bool { return n.server.logins.Load() >= want })
}

// up is the process of "sallyport up".
func (n *node) up() int {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.RunDir, "up.lock"))
	if err != nil {
		n.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		n.t.Fatal(err)
	}
	return pid
}

// children are the processes of capture and of the proxy that serves.
func (n *node) children() (capture, proxy int) {
	n.t.Helper()
	proxy = int(n.status().Proxy.PID)
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, dir := range entries {
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil || strings.TrimSpace(string(name)) != "sallyport-captu" {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(n.up()) {
			if capture, err = strconv.Atoi(filepath.Base(dir)); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	if capture == 0 || proxy == 0 {
		n.t.Fatalf("capture is process %d, the proxy %d", capture, proxy)
	}
	return capture, proxy
}

func kill(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}

// only fails the test for an outcome that is none of these.
func (r result) only(t *testing.T, allowed ...string) {
	t.Helper()
	for outcome, n := range r.Outcomes {
		ok := false
		for _, one := range allowed {
			ok = ok || outcome == one
		}
		if !ok {
			t.Errorf("%d connections were %q", n, outcome)
		}
	}
	if r.Outcomes[fine] == 0 {
		t.Error("no connection was served")
	}
}

// noneDirect fails the test when a connection came past the proxy.
func (n *node) noneDirect() {
	n.t.Helper()
	if direct := n.server.direct.Load(); direct != 0 {
		n.t.Errorf("%d connections came past the proxy", direct)
	}
	n.t.Logf("the server: %d connections, %d logins of the proxy, %d of anybody else", n.server.accepted.Load(), n.server.logins.Load(), n.server.direct.Load())
}

// sound stops the agent and verifies the record.
func (n *node) sound() record.Report {
	n.t.Helper()
	if status := n.Stop(); status != 0 {
		n.t.Errorf("up ended with %d", status)
	}
	report, err := record.Verify(n.StateDir, record.VerifyOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	if len(report.Faults) > 0 {
		n.t.Errorf("faults of the record: %+v", report.Faults[:min(5, len(report.Faults))])
	}
	return report
}

// scraper asks for the metrics again and again, and remembers for how long they failed at most.
type scraper struct {
	stop    chan struct{}
	done    sync.WaitGroup
	longest time.Duration
}

func (n *node) scrape() *scraper {
	s := &scraper{stop: make(chan struct{})}
	s.done.Go(func() {
		good := time.Now()
		for {
			response, err := http.Get(n.MetricsURL)
			if err == nil {
				_, err = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			now := time.Now()
			if err == nil {
				good = now
			}
			s.longest = max(s.longest, now.Sub(good))
			select {
			case <-s.stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return s
}

// gap ends the scraping.
func (s *scraper) gap() time.Duration {
	close(s.stop)
	s.done.Wait()
	return s.longest
}
