//go:build conformance

package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sallyport-dev/sallyport/test/env"
)

// patience is how long a client may take, as timeout(1) wants it.
var patience = []string{"--kill-after=1", "60"}

// TestClientsPrintTheSameThroughTheProxyAsDirectly runs programs of other projects, as a workload and not.
func TestClientsPrintTheSameThroughTheProxyAsDirectly(t *testing.T) {
	t.Parallel()
	w := start(t)
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for name, client := range map[string]func(t *testing.T, url string) []string{
		"psycopg2": func(_ *testing.T, url string) []string {
			return []string{"/usr/bin/python3", filepath.Join(testdata, "psycopg2_client.py"), url}
		},
		"psycopg": func(_ *testing.T, url string) []string {
			return []string{"/usr/bin/python3", filepath.Join(testdata, "psycopg_client.py"), url}
		},
		"node's pg": func(t *testing.T, url string) []string {
			return []string{"env", "NODE_PATH=" + nodeModules(t), "node", filepath.Join(testdata, "pg_client.js"), url}
		},
		"JDBC": func(_ *testing.T, url string) []string {
			return []string{"java", "-cp", "/usr/share/java/postgresql.jar", filepath.Join(testdata, "JDBCClient.java"), "jdbc:" + url}
		},
		"psql": func(_ *testing.T, url string) []string {
			return []string{"psql", "-X", "-f", filepath.Join(testdata, "psql.sql"), url}
		},
		"pgbench": func(_ *testing.T, url string) []string {
			return []string{"sh", "-c", `"$0" -i -q "$1" >/dev/null 2>&1 && for m in simple extended prepared; do "$0" -n -M $m -c 4 -t 25 "$1" 2>&1 | grep -E 'type|mode|actually|failed'; done`,
				filepath.Join(w.server.Bin, "pgbench"), url}
		},
		"pg_dump and pg_restore": func(t *testing.T, url string) []string {
			return []string{"sh", "-c", dumpAndRestore, url, filepath.Join(t.TempDir(), "dump")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			direct := env.Execute(t, exec.Command("timeout", append(patience, client(t, w.url(password))...)...))
			if direct.Status != 0 {
				t.Fatalf("directly: status %d\n%s%s", direct.Status, direct.Stdout, direct.Stderr)
			}
			through := w.agent.Run(w.name, append([]string{"timeout"}, append(patience, client(t, w.url("none"))...)...)...)
			if through.Status != 0 || through.Stdout != direct.Stdout {
				t.Errorf("through the proxy: status %d\n%s%s\ndirectly:\n%s", through.Status, through.Stdout, through.Stderr, direct.Stdout)
			}
			t.Logf("%s", through.Stdout)
		})
	}
}

// dumpAndRestore dumps a schema, restores it beside, and prints what it is then.
const dumpAndRestore = `set -e
psql -qX "$0" -c 'DROP SCHEMA IF EXISTS shop CASCADE' -c 'CREATE SCHEMA shop' \
	-c "CREATE TABLE shop.orders (id int PRIMARY KEY, note text DEFAULT 'x', at date)" \
	-c "INSERT INTO shop.orders SELECT i, 'note ' || i, date '2024-01-01' + i FROM generate_series(1, 1000) i" \
	-c 'CREATE VIEW shop.recent AS SELECT * FROM shop.orders WHERE id > 900' \
	-c 'CREATE FUNCTION shop.f(int) RETURNS int LANGUAGE sql AS $f$ SELECT $1 + 1 $f$' 2>/dev/null
pg_dump --schema=shop --format=custom --file="$1" "$0"
psql -qX "$0" -c 'DROP SCHEMA shop CASCADE' 2>/dev/null
pg_restore --dbname="$0" "$1"
pg_dump --schema=shop "$0" | sed -e '/restrict/d' | sha256sum
psql -XAt "$0" -c 'SELECT count(*), sum(shop.f(id)) FROM shop.recent'`

// nodeModules installs the driver into a directory of the test's.
func nodeModules(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	install := exec.Command("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", dir, "pg@8")
	install.Env = append(os.Environ(), fmt.Sprintf("HOME=%s", dir))
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm install pg: %v\n%s", err, out)
	}
	return filepath.Join(dir, "node_modules")
}
