package leaks

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
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

// Databases are alike but for the values of masked columns.
const (
	one = "one"
	two = "two"
)

// A world is a server with both databases, and an agent with a workload for each set of masks.
type world struct {
	*env.Agent
	server *env.Server
	t      testing.TB
	// relations is the last OID of the relations that both databases have.
	relations uint32
	// sockets are where a workload's connections begin, by the name of its policy.
	sockets map[string]string
}

// The masks of the policies. Under "neutral" no answer may depend on a masked value; under "telling" hashes and parts do.
var policies = map[string]string{
	"neutral": `
  masks:
  - {name: nulls, columns: [public.customers.balance, public.customers.mood], with: "null"}
  - {name: fixed, columns: [public.customers.code], with: fixed, value: "x@y.example"}
  - {name: columns, columns: [` + maskedColumns + `, public.archive.old_email, books.ledger.iban], with: redact}`,
	"telling": `
  masks:
  - {name: hashes, columns: [public.customers.ssn, public.customers.token, public.customers.card, public.customers.balance], with: hash}
  - {name: parts, columns: [public.customers.email, public.customers.phone, public.customers.born, public.customers.ip], with: partial}
  - {name: columns, columns: [` + maskedColumns + `, public.archive.old_email, books.ledger.iban], with: redact}
  masking: {hashKey: {file: KEY}}`,
	"guarded": `
  masks:
  - {name: columns, columns: [` + maskedColumns + `, public.archive.old_email, books.ledger.iban], with: redact, inference: deny}`,
	"detecting": `
  masks:
  - {name: text, detect: [email, us-ssn, payment-card, iban, phone], with: redact}`,
}

const documents = `apiVersion: sallyport.dev/v1alpha1
kind: Target
metadata: {name: db}
spec:
  protocol: postgres
  endpoints: [{host: 127.0.0.1, port: %[1]d}]
  upstream: {tls: {mode: disable}}
  credential: app
---
apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata: {name: app}
spec:
  static: {username: postgres, password: {file: %[2]s}}
`

const policyDocument = `apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: %[1]s}
spec:
  workloads: [{cgroup: /sallyport/%[2]s}]
  targets: [db]
  rules: [{name: all, action: allow}]
%[3]s
`

// start makes a world whose role is a superuser, so that masks alone stand between the workload and the values.
func start(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, sockets: map[string]string{}}
	w.server = env.Postgres(t, env.PostgresOptions{Settings: []string{"max_connections = 200", "logging_collector = off"}})
	w.server.Exec("CREATE DATABASE " + one)
	w.fill(one, schemaSQL...)
	if err := w.direct(one).QueryRow(t.Context(), "SELECT max(oid) FROM pg_class").Scan(&w.relations); err != nil {
		t.Fatal(err)
	}
	w.server.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + one + "'")
	w.server.Exec("CREATE DATABASE " + two + " TEMPLATE " + one)
	w.fill(one, values(0)...)
	w.fill(two, values(1)...)
	dir := t.TempDir()
	password, key := filepath.Join(dir, "password"), filepath.Join(dir, "key")
	for path, content := range map[string]string{password: w.server.Password, key: rand.Text()} {
		if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{"target.yaml": fmt.Sprintf(documents, w.server.Port, password)}
	names := map[string]string{}
	for policy, masks := range policies {
		names[policy] = env.Name("leaks-" + policy)
		files[policy+".yaml"] = fmt.Sprintf(policyDocument, policy, names[policy], strings.TrimPrefix(strings.ReplaceAll(masks, "KEY", key), "\n"))
	}
	w.Agent = env.StartAgent(t, files)
	for policy, name := range names {
		w.enter(policy, name)
	}
	return w
}

// enter starts the process inside the workload name.
func (w *world) enter(policy, name string) {
	w.t.Helper()
	socket := filepath.Join(w.t.TempDir(), "s")
	command := w.Workload(name, os.Args[0])
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(w.server.Port))
	command.Env = append(os.Environ(), insideVariable+"="+socket, addressVariable+"="+address, "GORACE=atexit_sleep_ms=0")
	stdin, err := command.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		stdin.Close()
		if err := command.Wait(); err != nil {
			w.t.Errorf("workload %s: %v\n%s", name, err, &output)
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			w.sockets[policy] = socket
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("workload %s does not start", name)
		}
	}
}

// direct is a session of the superuser that nothing is between.
func (w *world) direct(database string) *pgx.Conn {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, w.server.URL(env.Superuser, w.server.Password, database))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (w *world) fill(database string, statements ...string) {
	w.t.Helper()
	c := w.direct(database)
	for _, sql := range statements {
		if _, err := c.Exec(context.Background(), sql); err != nil {
			w.t.Fatalf("%s: %v", sql, err)
		}
	}
	if err := c.Close(context.Background()); err != nil { // a template has no sessions
		w.t.Fatal(err)
	}
}
