package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/test/env"
)

func TestProxyHoldsNoPower(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	got := map[string]string{}
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", w.proxyPID()))) {
		name, value, _ := strings.Cut(line, ":")
		got[name] = strings.Join(strings.Fields(value), " ")
	}
	uid := itoa(env.ProxyUID)
	const none = "0000000000000000"
	want := map[string]string{
		"Uid": strings.Join([]string{uid, uid, uid, uid}, " "), "Gid": strings.Join([]string{uid, uid, uid, uid}, " "), "Groups": "",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2",
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
}

func TestConnectionsWaitWhileTheProxyIsStartedAgain(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	for range 2 {
		old := w.wire()
		pid := w.proxyPID()
		kill(t, pid)
		if got := old.rest(); len(got) > 0 {
			t.Errorf("a session of the dead proxy gets %v", got)
		}
		var clients sync.WaitGroup
		for range 5 {
			// Connected while nobody accepts.
			c := newWire(t, w.workload().mustDial(w.address()))
			clients.Go(func() {
				c.start(w.database())
				if got := c.query("SELECT 1"); !cmp.Equal(got, selected) {
					t.Errorf("a client that waited gets %v", got)
				}
			})
		}
		clients.Wait()
		if now := w.proxyPID(); now == pid {
			t.Error("the proxy is still the same")
		}
		await(t, "it is ready again", func() bool { return w.status().Ready })
	}
	// What the dead left open is sealed as such.
	reasons := map[string]int{}
	for _, s := range w.sessions() {
		reasons[s.Reason]++
	}
	if reasons["interrupted"] < 2 {
		t.Errorf("the sessions' ends are %v", reasons)
	}
	if got := w.sessionsCommand("verify"); got.Status != 0 {
		t.Errorf("verify ended with %d:\n%s%s", got.Status, got.Stdout, got.Stderr)
	}
}

// kill ends a process by SIGKILL and waits until it is gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the process is gone", func() bool { return !alive(pid) })
}

// alive is false for a process that has ended, also when its parent has not taken note.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	return fields[0] != "Z" && fields[0] != "X"
}

// capturePID is the process id of the agent's sallyport-capture, from the lines that "up" logs when it starts its children.
func capturePID(t *testing.T, w *world) int {
	t.Helper()
	pid := 0
	for line := range strings.Lines(w.Log()) {
		if _, after, ok := strings.Cut(line, `"process": "sallyport-capture", "pid": `); ok && strings.Contains(line, "started") {
			n, err := strconv.Atoi(strings.TrimRight(after, "}\n"))
			if err != nil {
				t.Fatal(err)
			}
			pid = n
		}
	}
	return pid
}

func TestWorkloadIsServedOrRefusedWhileCaptureIsStartedAgainAndNeverConnectedDirectly(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	session := w.wire()
	for range 2 {
		kill(t, capturePID(t, w))
		for again := false; !again; again = w.status().Ready {
			// Directly, the server would ask for a password.
			c, err := pgx.ConnectConfig(timeout(t), w.config())
			if err != nil {
				if got := sqlstate(err); got != "28000" && !strings.Contains(got, "connection refused") {
					t.Fatalf("the workload is neither served nor refused: %v", err)
				}
				continue
			}
			if got := scan(t, c, "SELECT current_user"); got != w.role() {
				t.Errorf("the role is %s", got)
			}
			c.Close(timeout(t))
		}
		if diff := cmp.Diff(selected, session.query("SELECT 1")); diff != "" {
			t.Errorf("a session from before (-want +got):\n%s", diff)
		}
	}
	if got := w.psql("SELECT 1"); got.Stdout != "1\n" {
		t.Errorf("afterwards psql says %q", got.Stderr)
	}
	newcomer := enter(t, w.Agent, env.Name("newcomer"))
	if got := newcomer.run(w.psqlInvocation("SELECT 1")); !strings.Contains(got.Stderr, "no policy lets workload") {
		t.Errorf("a new workload is told %q", got.Stderr)
	}
}

func TestWorkloadIsRefusedWithinASecondOfTheAgentsDeathAndServedByTheNextAgent(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	inside := w.workload()
	idle := w.wire()
	authorized := strings.Count(w.server.Log(), "connection authorized: user="+w.role())
	died := time.Now()
	w.Kill()
	await(t, "the workload is refused", func() bool {
		c, err := inside.dial(context.Background(), "tcp", w.address())
		if err == nil {
			c.Close()
		}
		return err != nil && strings.Contains(err.Error(), syscall.ECONNREFUSED.Error())
	})
	if took := time.Since(died); took > time.Second {
		t.Errorf("it took %s", took)
	}
	if got := idle.rest(); len(got) > 0 {
		t.Errorf("a session of the dead agent gets %v", got)
	}
	if got := w.psql("SELECT 1"); got.Status == 0 || !strings.Contains(got.Stderr, "Connection refused") {
		t.Errorf("psql ended with %d and said %q", got.Status, got.Stderr)
	}
	if now := strings.Count(w.server.Log(), "connection authorized: user="+w.role()); now != authorized {
		t.Errorf("the server let %d connections in", now-authorized)
	}
	w.Start()
	await(t, "the same workload is served", func() bool { return w.psql("SELECT 1").Stdout == "1\n" })
	if got := w.sessionsCommand("verify"); got.Status != 0 {
		t.Errorf("verify ended with %d:\n%s%s", got.Status, got.Stdout, got.Stderr)
	}
}

func TestSessionsEndPolitelyWhenTheAgentIsStopped(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE t (n int)"); err != nil {
		t.Fatal(err)
	}
	idle, busy, working := w.wire(), w.wire(), w.wire()
	busy.query("BEGIN; INSERT INTO t VALUES (1)")
	working.send(parse("", "SELECT 'done' FROM pg_sleep(0.5)"), bind("", ""), execute(""), syncMessage())
	await(t, "it works", func() bool {
		return w.backends(sleeping) == 1
	})
	stopped := make(chan int, 1)
	go func() { stopped <- w.Stop() }()
	const goodbye = "FATAL 57P01"
	if got := strings.Join(idle.rest(), ", "); got != goodbye {
		t.Errorf("an idle session gets %s", got)
	}
	if got := strings.Join(working.rest(), ", "); got != "ParseComplete, BindComplete, Row done, SELECT 1, Ready I, "+goodbye {
		t.Errorf("a session at work gets %s", got)
	}
	if got := strings.Join(busy.query("INSERT INTO t VALUES (2)"), ", "); got != "INSERT 0 1, Ready T" {
		t.Errorf("a transaction gets %s", got)
	}
	if got := strings.Join(busy.query("COMMIT"), ", "); got != "COMMIT, Ready I" {
		t.Errorf("its end gets %s", got)
	}
	if got := strings.Join(busy.rest(), ", "); got != goodbye {
		t.Errorf("after its end it gets %s", got)
	}
	if status := <-stopped; status != 0 {
		t.Errorf("up ended with %d", status)
	}
	if got := w.value("SELECT sum(n) FROM t"); got != "3" {
		t.Errorf("the transaction left %s", got)
	}
	_, err := w.workload().dial(context.Background(), "tcp", w.address())
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("after the stop the workload gets %v", err)
	}
	for _, s := range w.sessions() {
		if s.Open || s.Reason != "drained" {
			t.Errorf("a session is open: %t, and ended by %q", s.Open, s.Reason)
		}
	}
}

func TestTransactionThatDoesNotEndIsCutOffAtTheEndOfTheDrain(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"--drain", "500ms"}})
	c := w.wire()
	c.query("BEGIN")
	if status := w.Stop(); status != 0 {
		t.Errorf("up ended with %d", status)
	}
	if got := strings.Join(c.rest(), ", "); got != "FATAL 57P01" {
		t.Errorf("it gets %s", got)
	}
	await(t, "the server has no session of it", func() bool {
		return w.backends("true") == 0
	})
	for _, s := range w.sessions() {
		if s.Open {
			t.Errorf("session %s is open", s.ID)
		}
	}
}

func TestAgentsWithDirectoriesOfTheirOwnLiveSideBySide(t *testing.T) {
	t.Parallel()
	first := start(t, options{})
	second := start(t, options{server: first.server, rules: guarded})
	for _, w := range []*world{first, second} {
		if got := w.psql("SELECT current_user"); got.Stdout != w.role()+"\n" {
			t.Errorf("psql prints %q and says %q", got.Stdout, got.Stderr)
		}
	}
	if got := second.psql("DROP TABLE t"); !strings.Contains(got.Stderr, "no-ddl") {
		t.Errorf("the second's policy says %q", got.Stderr)
	}
	second.Stop()
	if got := first.psql("SELECT 1"); got.Stdout != "1\n" {
		t.Errorf("after the second's end the first says %q", got.Stderr)
	}
	if got := second.psql("SELECT 1"); !strings.Contains(got.Stderr, "Connection refused") {
		t.Errorf("after its end the second says %q", got.Stderr)
	}
}

func TestDownGivesTheWorkloadBack(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	inside := w.workload()
	w.Stop()
	if got := env.Execute(t, w.Command("down", "--run-dir", w.RunDir)); got.Status != 0 {
		t.Fatalf("down ended with %d and said %s", got.Status, got.Stderr)
	}
	c, err := inside.dial(context.Background(), "tcp", w.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.RemoteAddr().(*net.TCPAddr).Port; got != w.server.Port {
		t.Errorf("the workload is connected to port %d, want %d", got, w.server.Port)
	}
	if _, err := pgx.ConnectConfig(timeout(t), w.config()); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("directly the server says %v", err)
	}
}
