package e2e

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/test/env"
)

func TestUnmodifiedPsqlWorksAsTheCredentialsRole(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	got := w.psql("SELECT current_user = session_user, current_user", "CREATE TABLE t (n int)", "INSERT INTO t SELECT generate_series(1, 3)",
		"SELECT sum(n) FROM t", "SHOW server_version_num")
	want := "t|" + w.role() + "\nCREATE TABLE\nINSERT 0 3\n6\n" + w.server.Value("SHOW server_version_num") + "\n"
	if got.Stdout != want || got.Status != 0 {
		t.Errorf("psql ended with %d, printed %q, want %q, and said %q", got.Status, got.Stdout, want, got.Stderr)
	}
}

func TestPgbenchRunsThroughTheProxy(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	pgbench := filepath.Join(w.server.Bin, "pgbench")
	pipeline := filepath.Join(t.TempDir(), "pipeline.sql")
	script := "\\startpipeline\n" + strings.Repeat("SELECT abalance FROM pgbench_accounts WHERE aid = 1;\n", 50) + "\\endpipeline\n"
	if err := os.WriteFile(pipeline, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{pgbench, "-i", "-q", "-s", "1"},
		{pgbench, "-n", "-S", "-c", "4", "-t", "100", "-M", "simple"},
		{pgbench, "-n", "-c", "4", "-t", "25", "-M", "extended"},
		{pgbench, "-n", "-S", "-c", "4", "-t", "100", "-M", "prepared"},
		{pgbench, "-n", "-c", "2", "-t", "20", "-M", "prepared", "-f", pipeline},
		{pgbench, "-n", "-S", "-c", "2", "-t", "20", "-C"},
	} {
		got := w.workload().run(invocation{argv: argv, env: w.libpq("PGSSLMODE=disable")})
		if got.Status != 0 || strings.Contains(got.Stderr, "error") {
			t.Errorf("%v ended with %d and said %s", argv, got.Status, got.Stderr)
		}
	}
}

func TestPasswordIsInNothingThatTheWorkloadOrAnOperatorCanSee(t *testing.T) {
	t.Parallel()
	w := start(t, options{record: "{text: full, parameters: full}"})
	seen := map[string]string{}
	inside := w.workload()
	seen["the workload's environment"] = inside.run(invocation{argv: []string{"env"}}).Stdout
	seen["environ of the workload's processes"] = inside.run(invocation{argv: []string{"sh", "-c", "cat /proc/self/environ /proc/$PPID/environ"}}).Stdout
	seen["the trust files"] = inside.run(invocation{argv: []string{"sh", "-c", "cat " + w.RunDir + "/trust/*"}}).Stdout

	var tap tap
	config := w.config()
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := inside.dial(ctx, network, address)
		return &tapped{Conn: c, tap: &tap}, err
	}
	c := w.connectConfig(config)
	for _, sql := range []string{"SELECT 1", "CREATE TABLE t (a text)", "SELECT * FROM nowhere", "SELECT current_setting('is_superuser')",
		"SELECT pg_sleep(0)", "SELECT * FROM pg_stat_activity", "SELECT * FROM pg_hba_file_rules", "SELECT * FROM pg_settings"} {
		rows, err := c.Query(timeout(t), sql)
		if err != nil {
			continue
		}
		rows.Close()
	}
	if _, err := c.CopyFrom(timeout(t), pgx.Identifier{"t"}, []string{"a"}, pgx.CopyFromRows([][]any{{"x"}})); err != nil {
		t.Error(err)
	}
	// A refused credential is the moment at which one may be shown.
	w.storePassword("wrong-" + w.password)
	if _, err := pgx.ConnectConfig(timeout(t), config); err == nil {
		t.Error("a wrong password logs in")
	} else {
		seen["the error of a refused login"] = err.Error()
	}
	seen["what went over the client's connections"] = tap.String()
	seen["metrics"] = w.Metrics()
	_ = c.Close(context.Background())
	w.sealed()
	seen["the agent's log"] = w.Log()
	err := filepath.WalkDir(w.StateDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			seen[path] = readFile(t, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(filepath.Join("/proc", itoa(w.proxyPID()), process))
		if err != nil {
			t.Fatal(err)
		}
		seen["the proxy's "+process] = string(text)
	}
	for where, text := range seen {
		if len(text) == 0 && !strings.HasSuffix(where, ".lock") && !strings.Contains(where, "/approvals/") {
			t.Errorf("%s is empty", where)
		}
		if strings.Contains(text, w.password) {
			t.Errorf("the password is in %s", where)
		}
	}
}

// A tap is all that went over connections, in both directions.
type tap struct {
	mu sync.Mutex
	bytes.Buffer
}

func (t *tap) add(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Write(p)
}

type tapped struct {
	net.Conn
	tap *tap
}

func (c *tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.tap.add(p[:n])
	return n, err
}

func (c *tapped) Write(p []byte) (int, error) {
	c.tap.add(p)
	return c.Conn.Write(p)
}

func TestOnlyTheWorkloadThatAPolicyNamesGetsASession(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	statement := w.psqlInvocation("SELECT 1")
	// Outside every workload the server itself asks for a password.
	direct := env.Execute(t, asCommand(statement))
	if direct.Status == 0 || !strings.Contains(direct.Stderr, "no password supplied") {
		t.Errorf("outside a workload psql ended with %d and said %q", direct.Status, direct.Stderr)
	}
	stranger := enter(t, w.Agent, env.Name("stranger"))
	got := stranger.run(statement)
	if want := "no policy lets workload " + stranger.Name + " use target orders-db"; got.Status == 0 || !strings.Contains(got.Stderr, want) {
		t.Errorf("without a policy psql ended with %d and said %q, want %q", got.Status, got.Stderr, want)
	}
	c := newWire(t, stranger.mustDial(w.address()))
	if err := c.write(startupBytes(t, map[string]string{"user": "app", "database": w.database()})); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.rest(), ", "); got != "FATAL 28000" {
		t.Errorf("without a policy the client gets %s", got)
	}
	await(t, "both refusals are counted", func() bool {
		return w.metric(`sallyport_connections_refused_total{reason="no_policy"}`) == 2
	})
	if got := w.psql("SELECT 1"); got.Stdout != "1\n" {
		t.Errorf("the workload itself gets %q and is told %q", got.Stdout, got.Stderr)
	}
}

func TestDialToTheListenerItselfIsDeniedAndCounted(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	w.workload()
	listener := listenerOf(t, w)
	for _, who := range []struct {
		name string
		dial func(ctx context.Context, network, address string) (net.Conn, error)
	}{
		{"from outside", (&net.Dialer{}).DialContext},
		{"from the workload itself", w.workload().dial},
	} {
		denied := `sallyport_capture_events_total{reason="denied_listener"}`
		if env.ByNFT() {
			denied = `sallyport_connections_refused_total{reason="no_origin"}`
		}
		before := w.metric(denied)
		if env.ByNFT() {
			conn, err := who.dial(timeout(t), "tcp", listener)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%s the listener answers", who.name)
			}
			conn.Close()
		} else if conn, err := who.dial(timeout(t), "tcp", listener); err == nil {
			conn.Close()
			t.Errorf("%s the listener is reached", who.name)
		} else if !strings.Contains(err.Error(), "operation not permitted") {
			t.Errorf("%s the dial ends with %v", who.name, err)
		}
		await(t, who.name+" one denial is counted", func() bool { return w.metric(denied)-before == 1 })
	}
}

func TestWorkloadReachesTheServerByEachOfItsAddresses(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	hosts := []string{"127.0.0.1", "localhost"}
	if len(w.server.Hosts) > 1 {
		hosts = append(hosts, "::1")
	}
	for _, host := range hosts {
		i := w.psqlInvocation("SELECT current_user")
		i.env = append(i.env, "PGHOST="+host)
		if got := w.workload().run(i); got.Stdout != w.role()+"\n" {
			t.Errorf("by %s psql prints %q and says %q", host, got.Stdout, got.Stderr)
		}
	}
}
