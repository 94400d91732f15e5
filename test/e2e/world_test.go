package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/test/env"
)

// patience is how long to wait for anything that should take a second.
const patience = 30 * time.Second

// options say what a world is like. The zero value has a server without TLS that others use too, and a policy that allows everything.
type options struct {
	postgres *env.PostgresOptions
	// server is one that the test has made. With neither, it is the shared one.
	server *env.Server
	// upstream is the target's, in YAML; TLS off unless given.
	upstream string
	// clientTLS is the target's.
	clientTLS string
	// rules are the policy's, in YAML.
	rules string
	// record is the policy's, in YAML.
	record string
	// masks are the policy's, in YAML.
	masks string
	// storedPassword is what the credential's file holds; the right one unless given.
	storedPassword string
	// also are further workloads that the policy is for.
	also []string
	// stateDir is where the agent's state is; a directory of its own unless given.
	stateDir string
	// flags are further ones of "sallyport up".
	flags []string
}

// A world is a server, an agent and a workload that may use the server as role app.
type world struct {
	*env.Agent
	server *env.Server
	// name is the workload's.
	name string
	// password is role app's; nobody but server and agent is to see it.
	password string

	t            testing.TB
	o            options
	passwordFile string
	inside       *workload
}

// start makes a world and waits until it is ready.
func start(t testing.TB, o options) *world {
	t.Helper()
	w := prepare(t, o)
	w.Start(o.flags...)
	return w
}

// prepare makes a world whose agent is not started yet.
func prepare(t testing.TB, o options) *world {
	t.Helper()
	w := &world{t: t, o: o, server: o.server, name: env.Name("e2e"), password: rand.Text()}
	switch {
	case w.server != nil:
	case o.postgres != nil:
		w.server = env.Postgres(t, *o.postgres)
	default:
		w.server = sharedServer()
	}
	// A role and a database of its own, so that several worlds can share a server.
	w.server.Exec(fmt.Sprintf("CREATE ROLE %q LOGIN SUPERUSER PASSWORD '%s'", w.role(), w.password),
		fmt.Sprintf("CREATE DATABASE %q OWNER %q", w.database(), w.role()))
	dir := t.TempDir()
	w.passwordFile = filepath.Join(dir, "password")
	stored := o.storedPassword
	if stored == "" {
		stored = w.password
	}
	w.storePassword(stored)
	w.Agent = env.NewAgent(t, w.documents())
	if o.stateDir != "" {
		w.StateDir = o.stateDir
	}
	return w
}

// role is the credential's; the server has it as a superuser, so that policy alone stands between the workload and harm.
func (w *world) role() string { return "app_" + strings.ReplaceAll(w.name, "-", "_") }

// other is a further role, for tests that make one.
func (w *world) other() string { return "other_" + strings.ReplaceAll(w.name, "-", "_") }

func (w *world) database() string { return "db_" + strings.ReplaceAll(w.name, "-", "_") }

func (w *world) storePassword(password string) {
	w.t.Helper()
	if err := os.WriteFile(w.passwordFile, []byte(password+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

const targetDocument = `apiVersion: sallyport.dev/v1alpha1
kind: Target
metadata: {name: orders-db}
spec:
  protocol: postgres
  endpoints: [{host: localhost, port: %[1]d}, {cidr: "::1/128", port: %[1]d}]
  upstream: %[2]s
  clientTLS: %[3]s
  credential: orders-app
---
apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata: {name: orders-app}
spec:
  static: {username: %[4]s, password: {file: %[5]s}}
`

const policyDocument = `apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: orders}
spec:
  workloads: [%s]
  targets: [orders-db]
  record: %s
  masks: %s
  rules: %s
`

func (w *world) documents() map[string]string {
	upstream, clientTLS, rules := w.o.upstream, w.o.clientTLS, w.o.rules
	if upstream == "" {
		upstream = "{tls: {mode: disable}}"
	}
	if clientTLS == "" {
		clientTLS = "auto"
	}
	if rules == "" {
		rules = allowAll
	}
	return map[string]string{
		"target.yaml": fmt.Sprintf(targetDocument, w.server.Port, strings.ReplaceAll(upstream, "CA", w.server.CAFile), clientTLS, w.role(), w.passwordFile),
		"policy.yaml": w.policy(rules),
	}
}

const allowAll = "[{name: all, action: allow}]"

func (w *world) policy(rules string) string {
	options := w.o.record
	if options == "" {
		options = "{}"
	}
	masks := w.o.masks
	if masks == "" {
		masks = "[]"
	}
	var workloads []string
	for _, name := range append([]string{w.name}, w.o.also...) {
		workloads = append(workloads, "{cgroup: /sallyport/"+name+"}")
	}
	return fmt.Sprintf(policyDocument, strings.Join(workloads, ", "), options, masks, rules)
}

// workload is the process inside the world's workload.
func (w *world) workload() *workload {
	w.t.Helper()
	if w.inside == nil {
		w.inside = enter(w.t, w.Agent, w.name)
	}
	return w.inside
}

// address is where the workload finds the server.
func (w *world) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(w.server.Port)) }

// libpq is the environment that leads psql and its like to the server; no password is in it.
func (w *world) libpq(more ...string) []string {
	return append([]string{"PGHOST=127.0.0.1", "PGPORT=" + strconv.Itoa(w.server.Port), "PGUSER=anybody", "PGDATABASE=" + w.database(),
		"PGPASSFILE=/nonexistent", "PGCONNECT_TIMEOUT=20"}, more...)
}

// run runs a command inside the workload that libpq leads to the server.
func (w *world) run(environment []string, argv ...string) env.Result {
	w.t.Helper()
	return w.workload().run(invocation{argv: argv, env: append(w.libpq(), environment...)})
}

// psql runs statements, one after the other, in one session inside the workload; an error does not end it.
func (w *world) psql(statements ...string) env.Result {
	w.t.Helper()
	return w.workload().run(w.psqlInvocation(statements...))
}

func (w *world) psqlInvocation(statements ...string) invocation {
	argv := []string{"psql", "-X", "-w", "-At", "-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=never"}
	for _, s := range statements {
		argv = append(argv, "-c", s)
	}
	return invocation{argv: argv, env: w.libpq("PGSSLMODE=disable")}
}

// config is pgx's for connections from inside the workload.
func (w *world) config() *pgx.ConnConfig {
	w.t.Helper()
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://anybody@%s/%s?sslmode=disable", w.address(), w.database()))
	if err != nil {
		w.t.Fatal(err)
	}
	config.DialFunc = w.workload().dial
	return config
}

// connect opens a session from inside the workload. It ends with the test, if not earlier.
func (w *world) connect() *pgx.Conn {
	w.t.Helper()
	return w.connectConfig(w.config())
}

func (w *world) connectConfig(config *pgx.ConnConfig) *pgx.Conn {
	w.t.Helper()
	c, err := pgx.ConnectConfig(timeout(w.t), config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx) // the session may be over in its own way
	})
	return c
}

// admin is a direct session of the server's superuser in the world's database.
func (w *world) admin() *pgx.Conn {
	w.t.Helper()
	c, err := pgx.Connect(timeout(w.t), w.server.URL(env.Superuser, w.server.Password, w.database()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// value is what a query as superuser gives in the world's database.
func (w *world) value(sql string, arguments ...any) string {
	w.t.Helper()
	return scan(w.t, w.admin(), sql, arguments...)
}

// backends is how many of the server's sessions are role app's and fulfil a condition on pg_stat_activity.
func (w *world) backends(condition string) int {
	w.t.Helper()
	return atoi(w.t, w.value("SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND "+condition, w.role()))
}

// sleeping is a condition for backends.
const sleeping = "wait_event = 'PgSleep'"

// scan is the one value, as text, that a query gives.
func scan(t testing.TB, c *pgx.Conn, sql string, arguments ...any) string {
	t.Helper()
	var value any
	if err := c.QueryRow(timeout(t), sql, arguments...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return fmt.Sprint(value)
}

func itoa(n int) string { return strconv.Itoa(n) }

// asCommand is an invocation outside every workload.
func asCommand(i invocation) *exec.Cmd {
	command := exec.Command(i.argv[0], i.argv[1:]...)
	command.Env = append(os.Environ(), i.env...)
	return command
}

// guarded are rules for tests of denials.
const guarded = `
  - {name: no-ddl, when: 'statement.kind == "ddl"', action: deny, message: schema changes go through migrations}
  - {name: whole-table, when: 'statement.verb in ["DELETE", "UPDATE"] && !statement.filtered', action: deny}
  - {name: no-program, when: 'statement.program || statement.file', action: deny}
  - {name: no-role, when: 'statement.role != ""', action: deny}
  - {name: no-do, when: 'statement.kind == "do"', action: deny}
  - {name: no-unlink, when: '"lo_unlink" in statement.functions', action: deny}
  - {name: no-secrets, when: '"public.secrets" in statement.tables', action: deny}
  - {name: rest, action: allow}`

func (w *world) removePassword() {
	w.t.Helper()
	if err := os.Remove(w.passwordFile); err != nil {
		w.t.Fatal(err)
	}
}

// initialisePgbench makes pgbench's tables, past policy.
func (w *world) initialisePgbench() {
	w.t.Helper()
	got := env.Execute(w.t, asCommand(invocation{argv: []string{filepath.Join(w.server.Bin, "pgbench"), "-i", "-q"},
		env: w.libpq("PGUSER="+env.Superuser, "PGPASSWORD="+w.server.Password)}))
	if got.Status != 0 {
		w.t.Fatal(got.Stderr)
	}
}
