package lineage

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/test/env"
)

// logged are the statements in a server's log, in order.
func logged(log string) (statements []string) {
	start := regexp.MustCompile(`LOG:  (?:statement|execute [^:]*): (.*)`)
	open := false
	for line := range strings.Lines(log) {
		switch m := start.FindStringSubmatch(strings.TrimSuffix(line, "\n")); {
		case m != nil:
			statements, open = append(statements, m[1]), true
		case open && strings.HasPrefix(line, "\t"):
			statements[len(statements)-1] += "\n" + strings.TrimSpace(line)
		default:
			open = false
		}
	}
	return statements
}

func TestWhatToolsAskIsNeitherDeniedNorMasked(t *testing.T) {
	schema, err := os.ReadFile("testdata/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	server := env.Postgres(t, env.PostgresOptions{SQL: []string{string(schema)}, Settings: []string{"log_statement = all", "log_line_prefix = ''"}})
	conn, err := pgconn.Connect(t.Context(), server.URL(env.Superuser, server.Password, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	s := load(t, conn)
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	url := server.URL(env.Superuser, server.Password, "postgres")
	before := len(logged(server.Log()))
	psql := []string{"--no-psqlrc", "--dbname", url, "--output", os.DevNull}
	for _, command := range []string{`\d`, `\d+`, `\d customers`, `\d+ v_customers`, `\d+ hr.staff`, `\d+ events`, `\dt+`, `\df`, `\df+ mail_of`, `\dT+`, `\dn+`,
		`\di+`, `\dv`, `\dm`, `\ds`, `\du`, `\dp`, `\l`, `\dx`, `\do`, `\dC`, `\dD`, `\da`, `\db`, `\ddp`, `\dO`, `\dF`, `\det`, `\dy`, `\dRp`, `\dX`, `\sf mail_of`,
		`\sv v_customers`, `\dconfig`, `\drds`} {
		psql = append(psql, "--command", command)
	}
	runTool(t, filepath.Join(server.Bin, "psql"), psql...)
	runTool(t, filepath.Join(server.Bin, "pg_dump"), "--dbname", url, "--file", os.DevNull)
	runTool(t, filepath.Join(server.Bin, "pg_dump"), "--dbname", url, "--file", os.DevNull, "--inserts", "--schema=hr")

	statements := logged(server.Log())[before:]
	if len(statements) < 150 {
		t.Fatalf("only %d statements were logged", len(statements))
	}
	for _, text := range statements {
		got, err := s.Analyze(text, session)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, st := range got {
			data := strings.HasPrefix(text, "COPY") || strings.HasPrefix(text, "DECLARE") || strings.HasPrefix(text, "FETCH")
			if st.Denied != "" || st.Missing {
				t.Errorf("%s:\ndenied %q, missing %v", text, st.Denied, st.Missing)
			}
			if st.Opaque && !data && !strings.HasPrefix(text, "EXECUTE") {
				t.Errorf("%s:\nopaque", text)
			}
			for i, v := range st.Columns {
				if !data && !v.Masks.Empty() && !strings.Contains(text, "attmissingval") {
					t.Errorf("%s:\ncolumn %d has %v", text, i, v)
				}
			}
		}
	}
	t.Log(strconv.Itoa(len(statements)) + " statements")
}

func runTool(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}
