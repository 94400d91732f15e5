//go:build conformance

package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-dev/sallyport/test/env"
)

const (
	role     = "suite"
	password = "direct"
	database = "suite"
)

// A world is a server, and an agent that lets a workload do everything on it.
type world struct {
	server *env.Server
	agent  *env.Agent
	name   string // of the workload
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{name: env.Name("conformance")}
	w.server = env.Postgres(t, env.PostgresOptions{
		Settings: []string{"max_connections = 200"},
		SQL: []string{
			"CREATE ROLE " + role + " LOGIN SUPERUSER PASSWORD '" + password + "'",
			`CREATE ROLE " tricky, ' } "" \ test user " SUPERUSER PASSWORD 'secret'`, // a test of pgx's wants it
			"CREATE DATABASE " + database + " OWNER " + role,
		},
	})
	w.server.ExecIn(database, "CREATE EXTENSION hstore", "CREATE EXTENSION ltree", "CREATE DOMAIN uint64 AS numeric(20,0)")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	w.agent = env.StartAgent(t, map[string]string{"documents.yaml": fmt.Sprintf(documents, w.server.Port, role, file, w.name)})
	return w
}

// url is a connection URI, the same for both ways but for the password.
func (w *world) url(password string) string {
	return fmt.Sprintf("postgresql://127.0.0.1:%d/%s?user=%s&password=%s&sslmode=disable", w.server.Port, database, role, password)
}

const documents = `apiVersion: sallyport.dev/v1alpha1
kind: Target
metadata: {name: database}
spec:
  protocol: postgres
  endpoints: [{host: 127.0.0.1, port: %[1]d}]
  upstream: {tls: {mode: disable}}
  credential: suite
---
apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata: {name: suite}
spec:
  static: {username: %[2]s, password: {file: %[3]s}}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec:
  workloads: [{cgroup: /sallyport/%[4]s}]
  targets: [database]
  rules: [{name: all, action: allow}]
`
