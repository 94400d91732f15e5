package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// memoryBound is how much memory the proxy may have resident at any moment of these tests, MiB: some 40 of them are the program's own.
const memoryBound = 200

func data(text string) pgproto3.FrontendMessage { return &pgproto3.CopyData{Data: []byte(text)} }

func TestCopyFollowsTheProtocolInEachOfItsWays(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE orders (id int PRIMARY KEY, who text)"); err != nil {
		t.Fatal(err)
	}
	const in, out = "COPY orders FROM STDIN", "COPY (SELECT * FROM orders ORDER BY id) TO STDOUT"
	query := func(text string) pgproto3.FrontendMessage { return &pgproto3.Query{String: text} }
	done, fail := &pgproto3.CopyDone{}, &pgproto3.CopyFail{Message: "no more"}
	list := func(messages ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage { return messages }
	extended := func(text string, more ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage {
		return append(unnamed(text), more...)
	}
	steps := []struct {
		name string
		send []pgproto3.FrontendMessage
		want string
	}{
		{"in, simple", list(query(in), data("1\tann\n2\tb"), data("ob\n"), done), "CopyInResponse, COPY 2, Ready I"},
		{"out, simple", list(query(out)), "CopyOutResponse, CopyData, CopyData, CopyDone, COPY 2, Ready I"},
		{"in, extended", extended(in, data("3\tcid\n"), done, syncMessage()), "ParseComplete, BindComplete, CopyInResponse, COPY 1, Ready I"},
		{"out, extended", extended(out, syncMessage()), "ParseComplete, BindComplete, CopyOutResponse, CopyData, CopyData, CopyData, CopyDone, COPY 3, Ready I"},
		{"in, given up by the client, simple", list(query(in), data("4\tdan\n"), fail), "CopyInResponse, Error 57014, Ready I"},
		{"in, given up by the client, extended", extended(in, data("4\tdan\n"), fail, syncMessage()),
			"ParseComplete, BindComplete, CopyInResponse, Error 57014, Ready I"},
		{"in, refused by the server at the first row, simple", list(query(in), data("x\ty\n"), data("5\teve\n"), done),
			"CopyInResponse, Error 22P02, Ready I"},
		{"in, refused by the server at the first row, extended", extended(in, data("x\ty\n"), data("5\teve\n"), done, syncMessage()),
			"ParseComplete, BindComplete, CopyInResponse, Error 22P02, Ready I"},
		{"in, refused at its end", list(query(in), data("1\tann\n"), done), "CopyInResponse, Error 23505, Ready I"},
		{"in, refused before it starts, simple", list(query("COPY nowhere FROM STDIN"), data("1\n"), done), "Error 42P01, Ready I"},
		{"in, refused before it starts, extended", extended("COPY nowhere FROM STDIN", data("1\n"), done, syncMessage()),
			"ParseComplete, BindComplete, Error 42P01, Ready I"},
		{"in, denied, simple", list(query("COPY secrets FROM STDIN"), data("1\n"), done), "Error 42501, Ready I"},
		{"in, denied, extended", extended("COPY secrets FROM STDIN", data("1\n"), done, syncMessage()), "Error 42501, Ready I"},
		{"two in a string", list(query(in+";"+in), data("6\tfay\n"), done, data("7\tgil\n"), done),
			"CopyInResponse, COPY 1, CopyInResponse, COPY 1, Ready I"},
		{"a statement behind it in the string", list(query(in+"; SELECT 1"), data("8\thal\n"), done),
			"CopyInResponse, COPY 1, RowDescription, Row 1, SELECT 1, Ready I"},
		{"Flush and Sync in its midst are nothing", list(query(in), data("9\tida\n"), &pgproto3.Flush{}, syncMessage(), data("10\tjoe\n"), done),
			"CopyInResponse, COPY 2, Ready I"},
		{"an empty one", list(query(in), done), "CopyInResponse, COPY 0, Ready I"},
		{"the next query", list(query("SELECT count(*) FROM orders")), "RowDescription, Row 8, SELECT 1, Ready I"},
	}
	c := w.wire()
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			c.t = t
			c.send(step.send...)
			if diff := cmp.Diff(step.want, strings.Join(c.batch(), ", ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	c.t = t
	c.close()
	for _, e := range w.sealed() {
		if o := e.Operation; o != nil && o.Decision == "allow" && o.Result == nil {
			t.Errorf("%s %s has no result", o.Kind, o.Text)
		}
	}
}

func TestCopyOfFiftyMegabytesNeedsNoMemory(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	c := w.connect()
	if _, err := c.Exec(timeout(t), "CREATE UNLOGGED TABLE big (line text)"); err != nil {
		t.Fatal(err)
	}
	const rows = 50 << 10
	line := strings.Repeat("x", 1023) + "\n"
	tag, err := c.PgConn().CopyFrom(timeout(t), strings.NewReader(strings.Repeat(line, rows)), "COPY big FROM STDIN")
	if err != nil || tag.RowsAffected() != rows {
		t.Fatalf("in: %d rows, %v", tag.RowsAffected(), err)
	}
	// One CopyData message of 20 MiB, too.
	one := w.wire()
	one.send(&pgproto3.Query{String: "COPY big FROM STDIN"}, data(strings.Repeat("y", 20<<20)+"\n"), &pgproto3.CopyDone{})
	if got := strings.Join(one.batch(), ", "); got != "CopyInResponse, COPY 1, Ready I" {
		t.Errorf("one large message: %s", got)
	}
	var out counter
	if tag, err = c.PgConn().CopyTo(timeout(t), &out, "COPY big TO STDOUT"); err != nil || tag.RowsAffected() != rows+1 {
		t.Fatalf("out: %d rows, %v", tag.RowsAffected(), err)
	}
	if want := counter(rows*len(line) + 20<<20 + 1); out != want {
		t.Errorf("out: %d bytes, want %d", out, want)
	}
	if mib := w.peakMemory(); mib > memoryBound {
		t.Errorf("the proxy used %d MiB", mib)
	}
}

// A counter counts what is written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func TestPgxCopiesInBinary(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	c := w.connect()
	if _, err := c.Exec(timeout(t), "CREATE TABLE t (n int, b bytea, s text)"); err != nil {
		t.Fatal(err)
	}
	var rows [][]any
	for i := range 5000 {
		rows = append(rows, []any{int32(i), bytes.Repeat([]byte{byte(i)}, i%50), fmt.Sprint(i)})
	}
	n, err := c.CopyFrom(timeout(t), pgx.Identifier{"t"}, []string{"n", "b", "s"}, pgx.CopyFromRows(rows))
	if err != nil || n != 5000 {
		t.Fatalf("%d rows, %v", n, err)
	}
	if got := scan(t, c, "SELECT sum(n) || ' ' || sum(length(b)) FROM t"); got != "12497500 122500" {
		t.Errorf("the sums are %s", got)
	}
	if _, err := c.CopyFrom(timeout(t), pgx.Identifier{"t"}, []string{"n"}, pgx.CopyFromRows([][]any{{int32(1)}, {"not a number"}})); err == nil {
		t.Error("what is no number is copied")
	}
	if got := scan(t, c, "SELECT count(*) FROM t"); got != "5000" {
		t.Errorf("after a failure there are %s rows", got)
	}
}

func TestPsqlCopiesAndKeepsLargeObjects(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	script := strings.Join([]string{
		"CREATE TABLE t (n int);",
		`\copy t FROM STDIN`, "1", "2", "3", `\.`,
		`\copy (SELECT n * 2 FROM t) TO STDOUT`,
		`\lo_import /etc/passwd 'a file'`,
		`SELECT lo_get(:LASTOID) = pg_read_binary_file('/etc/passwd');`,
		`\lo_export :LASTOID /dev/null`,
		`\lo_unlink :LASTOID`,
		"SELECT count(*) FROM pg_largeobject_metadata;",
	}, "\n")
	got := w.workload().run(invocation{argv: []string{"psql", "-X", "-w", "-At", "-v", "ON_ERROR_STOP=1"}, env: w.libpq("PGSSLMODE=disable"), stdin: script})
	lines := strings.Split(got.Stdout, "\n")
	want := []string{"CREATE TABLE", "COPY 3", "2", "4", "6"}
	if got.Status != 0 || len(lines) < 8 || !cmp.Equal(lines[:5], want) || !strings.Contains(got.Stdout, "\nt\n") || !strings.HasSuffix(got.Stdout, "\n0\n") {
		t.Errorf("psql ended with %d, printed %q and said %q", got.Status, got.Stdout, got.Stderr)
	}
}
