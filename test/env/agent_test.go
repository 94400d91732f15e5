package env

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// documents give the workload the whole server, as role app.
func documents(server *Server, workload, passwordFile string) map[string]string {
	return map[string]string{"all.yaml": fmt.Sprintf(`apiVersion: sallyport.dev/v1alpha1
kind: Target
metadata: {name: orders-db}
spec:
  protocol: postgres
  endpoints: [{host: 127.0.0.1, port: %d}]
  upstream: {tls: {mode: disable}}
  credential: orders-app
---
apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata: {name: orders-app}
spec:
  static: {username: app, password: {file: %s}}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: orders}
spec:
  workloads: [{cgroup: /sallyport/%s}]
  targets: [orders-db]
  rules: [{name: all, action: allow}]
`, server.Port, passwordFile, workload)}
}

func TestAgentRunsAWorkloadAndIsTakenDown(t *testing.T) {
	server := Postgres(t, PostgresOptions{SQL: []string{"CREATE ROLE app LOGIN PASSWORD 'secret'"}})
	workload := Name("env")
	passwordFile := filepath.Join(directory(t, "sallyport-password-"), "password")
	if err := os.WriteFile(passwordFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var runDir string
	t.Run("while it runs", func(t *testing.T) {
		agent := StartAgent(t, documents(server, workload, passwordFile))
		runDir = agent.RunDir
		got := agent.Run(workload, "psql", "-X", "-h", "127.0.0.1", "-p", fmt.Sprint(server.Port), "-U", "anybody", "-d", "postgres",
			"-Atc", "SELECT current_user")
		if got.Stdout != "app\n" || got.Status != 0 {
			t.Errorf("psql ended with %d, printed %q and said %q", got.Status, got.Stdout, got.Stderr)
		}
		if !strings.Contains(agent.Metrics(), "sallyport_sessions") {
			t.Error("the metrics have no sessions")
		}
		if status := agent.Stop(); status != 0 {
			t.Errorf("up ended with %d", status)
		}
	})
	if _, err := os.Stat(runDir); !os.IsNotExist(err) {
		t.Errorf("the run directory is left: %v", err)
	}
}
