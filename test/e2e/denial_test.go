package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A denial of a simple Query and of a Parse, in words.
var (
	deniedQuery = []string{"Error 42501", "Ready I"}
	selected    = []string{"RowDescription", "Row 1", "SELECT 1", "Ready I"}
)

func TestDeniedStatementLeavesSessionUsable(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	admin := w.admin()
	for _, sql := range []string{"CREATE TABLE orders (id int)", "INSERT INTO orders SELECT generate_series(1, 10)", "CREATE TABLE secrets (s text)",
		"CREATE ROLE " + w.other()} {
		if _, err := admin.Exec(timeout(t), sql); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name, text string
		rule       string
		simpleOnly bool // a Parse takes one statement
	}{
		{"DROP DATABASE", "DROP DATABASE postgres", "no-ddl", false},
		{"CREATE TABLE", "CREATE TABLE t (n int)", "no-ddl", false},
		{"a comment before it", "/* SELECT 1 */ -- x\n DROP TABLE orders", "no-ddl", false},
		{"SELECT INTO", "SELECT * INTO t FROM orders", "no-ddl", false},
		{"a DELETE without a condition", "DELETE FROM orders", "whole-table", false},
		{"a DELETE whose condition is about no row", "DELETE FROM orders WHERE 1 = 1", "whole-table", false},
		{"a DELETE in WITH", "WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone", "whole-table", false},
		{"a DELETE in a WITH in a sub-select", "WITH a AS (WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone) SELECT 1", "", false},
		{"EXPLAIN ANALYZE of a DELETE", "EXPLAIN (ANALYZE, COSTS off) DELETE FROM orders", "whole-table", false},
		{"COPY of a DELETE", "COPY (DELETE FROM orders RETURNING id) TO STDOUT", "whole-table", false},
		{"PREPARE of a DELETE", "PREPARE p AS DELETE FROM orders", "whole-table", false},
		{"a DO block", "DO $$BEGIN DELETE FROM orders; END$$", "no-do", false},
		{"COPY FROM PROGRAM", "COPY orders FROM PROGRAM 'echo 1'", "no-program", false},
		{"COPY TO PROGRAM", "COPY orders TO PROGRAM 'cat >/tmp/stolen'", "no-program", false},
		{"COPY FROM a file", "COPY secrets FROM '/etc/passwd'", "no-program", false},
		{"SET ROLE", "SET ROLE " + w.other(), "no-role", false},
		{"SET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION " + w.other(), "no-role", false},
		{"a function that is denied", "SELECT lo_unlink(1)", "no-unlink", false},
		{"a table that is denied", "SELECT * FROM secrets", "no-secrets", false},
		{"a table that is denied, by its schema", "TABLE public.secrets", "no-secrets", false},
		{"a table that is denied, in a sub-select", "SELECT (SELECT count(*) FROM secrets)", "no-secrets", false},
		{"a table that is denied, by ONLY and an alias", "SELECT a.* FROM ONLY secrets AS a", "no-secrets", false},
		{"INSERT from a table that is denied", "INSERT INTO orders SELECT 1 FROM secrets", "no-secrets", false},
		{"the last of several", "INSERT INTO orders VALUES (11); DROP TABLE orders", "no-ddl", true},
		{"the first of several", "DROP TABLE orders; INSERT INTO orders VALUES (11)", "no-ddl", true},
		{"what would change how strings are read", "SET standard_conforming_strings = off", "", false},
		{"what would change how bytes are read", "SET client_encoding = 'SJIS'", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := w.wire()
			defer c.close()
			c.send(&pgproto3.Query{String: tt.text})
			checkDenial(t, c, tt.rule)
			if diff := cmp.Diff([]string{"Ready I"}, c.batch()); diff != "" {
				t.Errorf("after the denial (-want +got):\n%s", diff)
			}
			if !tt.simpleOnly {
				c.send(parse("", tt.text), bind("", ""), &pgproto3.Describe{ObjectType: 'P'}, execute(""), syncMessage())
				checkDenial(t, c, tt.rule)
				if diff := cmp.Diff([]string{"Ready I"}, c.batch()); diff != "" {
					t.Errorf("after the denial of Parse (-want +got):\n%s", diff)
				}
			}
			if diff := cmp.Diff(selected, c.query("SELECT 1")); diff != "" {
				t.Errorf("the next query (-want +got):\n%s", diff)
			}
		})
	}
	if got := scan(t, admin, "SELECT count(*) FROM orders"); got != "10" {
		t.Errorf("orders has %s rows, want 10", got)
	}
}

// checkDenial takes the ErrorResponse and looks at all that it is to say.
func checkDenial(t *testing.T, c *wire, rule string) {
	t.Helper()
	e, ok := c.receive().(*pgproto3.ErrorResponse)
	if !ok {
		t.Fatal("no error comes first")
	}
	if e.Code != "42501" || e.Severity != "ERROR" || !strings.HasPrefix(e.Message, "sallyport: denied by rule ") || !strings.Contains(e.Hint, "session") {
		t.Errorf("the denial is %s %s %q with the hint %q", e.Severity, e.Code, e.Message, e.Hint)
	}
	if rule != "" && !strings.Contains(e.Message, fmt.Sprintf("rule %q of policy \"orders\"", rule)) {
		t.Errorf("the denial %q does not name rule %s", e.Message, rule)
	}
	if rule == "no-ddl" && !strings.HasSuffix(e.Message, ": schema changes go through migrations") {
		t.Errorf("the denial %q lacks the rule's message", e.Message)
	}
}

func TestWhatCanNotBeParsedIsDeniedAndTheSessionGoesOn(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	tests := []struct {
		name, text string
		want       string // SQLSTATE
	}{
		{"not SQL", "hello", "42601"},
		{"half a string", "SELECT 'x", "42601"},
		{"half a comment", "SELECT 1 /*", "42601"},
		{"a statement that only another parser knows", "SELECT 1 LIMIT 1,2", "42601"},
		{"a text that is not UTF-8", "SELECT '\xff\xfe", "42601"},
		{"16 MiB of comment before a DROP", "/*" + strings.Repeat("x", 16<<20) + "*/ DROP DATABASE postgres", "54000"},
		{"16 MiB of comment before a SELECT", "/*" + strings.Repeat("x", 16<<20) + "*/ SELECT 1", "54000"},
		{"3 MiB of comment before a DROP", "/*" + strings.Repeat("x", 3<<20) + "*/ DROP DATABASE postgres", "42501"},
		{"100,000 brackets", strings.Repeat("(", 100_000) + "SELECT 1" + strings.Repeat(")", 100_000), "42601"},
	}
	c := w.wire()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff([]string{"Error " + tt.want, "Ready I"}, c.query(tt.text)); diff != "" {
				t.Errorf("simple (-want +got):\n%s", diff)
			}
			c.send(parse("named", tt.text), bind("", "named"), execute(""), syncMessage())
			if diff := cmp.Diff([]string{"Error " + tt.want, "Ready I"}, c.batch()); diff != "" {
				t.Errorf("extended (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(selected, c.query("SELECT 1")); diff != "" {
				t.Errorf("the next query (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("300 levels are no reason to deny", func(t *testing.T) {
		if diff := cmp.Diff(selected, c.query("SELECT "+strings.Repeat("(", 300)+"1"+strings.Repeat(")", 300))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("nor is an empty query", func(t *testing.T) {
		for _, text := range []string{"", ";", "  -- nothing"} {
			if diff := cmp.Diff([]string{"EmptyQueryResponse", "Ready I"}, c.query(text)); diff != "" {
				t.Errorf("%q (-want +got):\n%s", text, diff)
			}
		}
	})
}

func TestDenialInsideATransactionAbortsIt(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE orders (id int)"); err != nil {
		t.Fatal(err)
	}
	c := w.wire()
	steps := []struct {
		text string
		want []string
	}{
		{"BEGIN", []string{"BEGIN", "Ready T"}},
		{"INSERT INTO orders VALUES (1)", []string{"INSERT 0 1", "Ready T"}},
		{"SAVEPOINT a", []string{"SAVEPOINT", "Ready T"}},
		{"DROP TABLE orders", []string{"Error 42501", "Ready E"}},
		{"SELECT 1", []string{"Error 25P02", "Ready E"}},
		{"ROLLBACK TO a", []string{"ROLLBACK", "Ready T"}},
		{"SELECT 1", []string{"RowDescription", "Row 1", "SELECT 1", "Ready T"}},
		{"DROP TABLE orders", []string{"Error 42501", "Ready E"}},
		{"COMMIT", []string{"ROLLBACK", "Ready I"}},
		{"SELECT count(*) FROM orders", []string{"RowDescription", "Row 0", "SELECT 1", "Ready I"}},
		{"BEGIN; INSERT INTO orders VALUES (1); COMMIT; DROP TABLE orders", deniedQuery},
		{"SELECT count(*) FROM orders", []string{"RowDescription", "Row 0", "SELECT 1", "Ready I"}},
		{"INSERT INTO orders VALUES (2); SELECT 1/0", []string{"INSERT 0 1", "Error 22012", "Ready I"}},
		{"SELECT count(*) FROM orders", []string{"RowDescription", "Row 0", "SELECT 1", "Ready I"}},
	}
	for i, step := range steps {
		if diff := cmp.Diff(step.want, c.query(step.text)); diff != "" {
			t.Errorf("step %d, %s (-want +got):\n%s", i, step.text, diff)
		}
	}
}

func TestPipelineIsDeniedWhereItsStatementStands(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE orders (id int)"); err != nil {
		t.Fatal(err)
	}
	one := func(n int) []pgproto3.FrontendMessage { return unnamed(fmt.Sprintf("SELECT %d", n)) }
	row := func(n int) []string {
		return []string{"ParseComplete", "BindComplete", fmt.Sprintf("Row %d", n), "SELECT 1"}
	}
	denied, insert := unnamed("DROP TABLE orders"), unnamed("INSERT INTO orders VALUES (1)")
	sync := []pgproto3.FrontendMessage{syncMessage()}
	tests := []struct {
		name     string
		pipeline []pgproto3.FrontendMessage
		want     []string
		rows     string // of orders, in the end
	}{
		{
			"groups of their own", slices.Concat(one(1), sync, denied, sync, one(2), sync),
			slices.Concat(row(1), []string{"Ready I", "Error 42501", "Ready I"}, row(2), []string{"Ready I"}), "0",
		},
		{
			"one group: what follows is skipped", slices.Concat(one(1), denied, one(2), insert, sync, one(3), sync),
			slices.Concat(row(1), []string{"Error 42501", "Ready I"}, row(3), []string{"Ready I"}), "0",
		},
		{
			"one group: what stands before is undone", slices.Concat(insert, denied, sync),
			[]string{"ParseComplete", "BindComplete", "INSERT 0 1", "Error 42501", "Ready I"}, "0",
		},
		{
			"an error of the server's before it", slices.Concat(unnamed("SELECT * FROM nowhere"), denied, sync, one(1), sync),
			slices.Concat([]string{"Error 42P01", "Ready I"}, row(1), []string{"Ready I"}), "0",
		},
		{
			"two denials in one group", slices.Concat(denied, denied, sync, denied, sync),
			[]string{"Error 42501", "Ready I", "Error 42501", "Ready I"}, "0",
		},
		{
			"with Flush instead of Sync", slices.Concat(one(1), []pgproto3.FrontendMessage{&pgproto3.Flush{}}, denied, []pgproto3.FrontendMessage{&pgproto3.Flush{}}, one(2), sync),
			slices.Concat(row(1), []string{"Error 42501", "Ready I"}), "0",
		},
		{
			"simple queries in a row", []pgproto3.FrontendMessage{&pgproto3.Query{String: "INSERT INTO orders VALUES (1)"},
				&pgproto3.Query{String: "DROP TABLE orders"}, &pgproto3.Query{String: "SELECT 5"}, syncMessage()},
			[]string{"INSERT 0 1", "Ready I", "Error 42501", "Ready I", "RowDescription", "Row 5", "SELECT 1", "Ready I", "Ready I"}, "1",
		},
		{
			"inside a transaction", slices.Concat(unnamed("BEGIN"), insert, denied, sync, unnamed("COMMIT"), sync),
			[]string{"ParseComplete", "BindComplete", "BEGIN", "ParseComplete", "BindComplete", "INSERT 0 1", "Error 42501", "Ready E",
				"ParseComplete", "BindComplete", "ROLLBACK", "Ready I"}, "1",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := w.wire()
			defer c.close()
			c.send(tt.pipeline...)
			var got []string
			for len(got) < len(tt.want) {
				got = append(got, c.batch()...)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"RowDescription", "Row " + tt.rows, "SELECT 1", "Ready I"}, c.query("SELECT count(*) FROM orders")); diff != "" {
				t.Errorf("afterwards (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExecuteIsDecidedOnWhatWasPrepared(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE orders (id int)"); err != nil {
		t.Fatal(err)
	}
	c := w.wire()
	c.send(parse("one", "SELECT 1"), syncMessage())
	c.batch()
	steps := []struct {
		text string
		want string
	}{
		{"PREPARE two AS SELECT 2", "PREPARE"},
		{"EXECUTE one", "RowDescription, Row 1, SELECT 1"},
		{"EXECUTE two", "RowDescription, Row 2, SELECT 1"},
		{"EXPLAIN (COSTS off) EXECUTE two", "RowDescription, Row Result, EXPLAIN"},
		{"EXECUTE three", "Error 26000"},
		{"PREPARE three AS DELETE FROM orders", "Error 42501"},
		{"EXECUTE three", "Error 26000"},
		{"DEALLOCATE two", "DEALLOCATE"},
		{"EXECUTE two", "Error 26000"},
		{"PREPARE two AS SELECT 22", "PREPARE"},
		{"EXECUTE two", "RowDescription, Row 22, SELECT 1"},
		{"PREPARE two AS SELECT 222", "Error 42P05"},
		{"EXECUTE two", "RowDescription, Row 22, SELECT 1"},
		{"DEALLOCATE ALL", "DEALLOCATE ALL"},
		{"EXECUTE one", "Error 26000"},
	}
	for i, step := range steps {
		if got, want := strings.Join(c.query(step.text), ", "), step.want+", Ready I"; got != want {
			t.Errorf("step %d, %s: %s, want %s", i, step.text, got, want)
		}
	}
}

func TestFunctionCallIsDecidedByItsFunction(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	c := w.wire()
	call := func(oid uint32, arguments ...[]byte) string {
		c.send(&pgproto3.FunctionCall{Function: oid, ArgFormatCodes: []uint16{1}, Arguments: arguments, ResultFormatCode: 1})
		return strings.Join(c.batch(), ", ")
	}
	number := func(n byte) []byte { return []byte{0, 0, 0, n} }
	for _, tt := range []struct {
		name string
		oid  uint32
		want string
	}{
		{"lo_creat, which is allowed", 957, "FunctionCallResponse, Ready I"},
		{"lo_unlink, which is denied", 964, "Error 42501, Ready I"},
		{"pg_sleep, whose OID is not known to be anything", 2626, "Error 42501, Ready I"},
		{"no function at all", 4_000_000_000, "Error 42501, Ready I"},
	} {
		if got := call(tt.oid, number(0)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := strings.Join(c.query("SELECT count(*) FROM pg_largeobject_metadata"), ", "); got != "RowDescription, Row 1, SELECT 1, Ready I" {
		t.Errorf("large objects: %s", got)
	}
}

func TestStartupParametersAreDecidedLikeSET(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	if _, err := w.admin().Exec(timeout(t), "CREATE ROLE "+w.other()); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name       string
		parameters map[string]string
		want       string
	}{
		{"an application's name", map[string]string{"application_name": "shop"}, "Ready I"},
		{"a search path", map[string]string{"search_path": "pg_catalog"}, "Ready I"},
		{"options", map[string]string{"options": "-c work_mem=4096 --enable_seqscan=off"}, "Ready I"},
		{"a role", map[string]string{"role": w.other()}, "FATAL 42501"},
		{"a role in options", map[string]string{"options": "-c role=" + w.other()}, "FATAL 42501"},
		{"a role in options, with a backslash", map[string]string{"options": `-c\ role=` + w.other()}, "FATAL 42704"},
		{"standard_conforming_strings", map[string]string{"options": "-c standard_conforming_strings=off"}, "FATAL 0A000"},
		{"an encoding with quotes inside characters", map[string]string{"client_encoding": "SJIS"}, "FATAL 0A000"},
		{"the same in options", map[string]string{"options": "--client-encoding=SJIS"}, "FATAL 0A000"},
		{"an option that is none of a session", map[string]string{"options": "-P"}, "FATAL 0A000"},
		{"replication", map[string]string{"replication": "database"}, "FATAL 0A000"},
		{"physical replication", map[string]string{"replication": "true"}, "FATAL 0A000"},
		{"a protocol extension", map[string]string{"_pq_.something": "1"}, "Ready I"},
		{"an unknown parameter", map[string]string{"nonsense": "1"}, "FATAL 42704"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newWire(t, w.workload().mustDial(w.address()))
			tt.parameters["user"], tt.parameters["database"] = "anybody", w.database()
			if err := c.write(startupBytes(t, tt.parameters)); err != nil {
				t.Fatal(err)
			}
			for {
				m, err := c.tryReceive()
				if err != nil {
					t.Fatal(err)
				}
				got := inWords(m)
				if strings.HasPrefix(got, "Ready") || strings.HasPrefix(got, "FATAL") {
					if got != tt.want {
						t.Errorf("it ends with %s, want %s: %+v", got, tt.want, m)
					}
					return
				}
			}
		})
	}
}
