//go:build conformance

package conformance

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

const (
	pgx = "github.com/jackc/pgx/v5@v5.12.0"
	pq  = "github.com/lib/pq@v1.12.3"
)

// suites are the drivers' own tests.
var suites = []suite{
	{module: pgx, pkg: ".", differ: map[string]string{
		"TestConnSimpleProtocolRefusesNonStandardConformingStrings": "standard_conforming_strings = off is denied",
	}},
	{module: pgx, pkg: "pgconn"},
	{module: pgx, pkg: "pgtype"},
	{module: pgx, pkg: "pgxpool"},
	{module: pgx, pkg: "stdlib"},
	{module: pq, pkg: ".", differ: map[string]string{
		"TestAuth":                         noPassword,
		"TestErrorDuringStartup":           noPassword,
		"TestErrorDuringStartupClosesConn": noPassword,
	}},
	{module: pq, pkg: "hstore"},
}

// noPassword is why tests differ that expect a login to fail.
const noPassword = "who the client is was settled by capture: any user and password will do"

// TestDriversGiveTheSameThroughTheProxyAsDirectly runs the drivers' tests, as the module proxy gives them, as a workload and not.
func TestDriversGiveTheSameThroughTheProxyAsDirectly(t *testing.T) {
	t.Parallel()
	w := start(t)
	sources := map[string]string{}
	for _, s := range suites {
		if sources[s.module] == "" {
			sources[s.module] = source(t, s.module)
		}
		t.Run(s.name(), func(t *testing.T) {
			dir := sources[s.module]
			binary := build(t, dir, s.pkg)
			prepare := func(command *exec.Cmd, password string) *exec.Cmd {
				command.Dir = filepath.Join(dir, s.pkg)
				command.Env = append(os.Environ(),
					"PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", w.server.Port), "PGUSER="+role, "PGPASSWORD="+password,
					"PGDATABASE="+database, "PGSSLMODE=disable", "PGX_TEST_DATABASE="+w.url(password))
				return command
			}
			directly, said := run(t, prepare(exec.Command(binary, "-test.v", "-test.timeout=5m"), password))
			if len(directly) < 2 {
				t.Fatalf("the suite has no tests: %s", said)
			}
			// Tests of the drivers' own TLS expect that the environment names no certificates to trust.
			through, said := run(t, prepare(w.agent.Workload(w.name, "env", "-u", "SSL_CERT_FILE", "-u", "PGSSLROOTCERT",
				binary, "-test.v", "-test.timeout=5m"), "none"))
			for _, test := range slices.Sorted(maps.Keys(directly)) {
				if directly[test] != through[test] && !s.differs(test) {
					t.Errorf("%s: directly %s, through the proxy %q\n%s", test, directly[test], through[test], excerpt(said, test))
				}
			}
		})
	}
}
