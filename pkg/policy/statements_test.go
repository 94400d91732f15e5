package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// decideText decides on every statement of a text as a session does: the first denial, else the first decision.
func decideText(t *testing.T, g Grant, text string, searchPath ...string) Decision {
	t.Helper()
	script, err := sql.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var first Decision
	for i, st := range script.Statements {
		if st.Denied != "" {
			return Decision{Rule: "undecidable", Message: st.Denied}
		}
		d := g.DecideStatement(st.Units, searchPath, subject)
		if d.Action != Allow {
			return d
		}
		if i == 0 {
			first = d
		}
	}
	return first
}

func TestRuleIsNotEscapedByWrappingWhatItForbids(t *testing.T) {
	tests := []struct {
		rule  string
		texts []string
	}{
		{`statement.verb == "DELETE"`, []string{
			"DELETE FROM t WHERE id = 1",
			"WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
			"INSERT INTO u WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
			"SELECT * FROM (WITH d AS (DELETE FROM t RETURNING *) SELECT 1) x",
			"EXPLAIN DELETE FROM t", "EXPLAIN (ANALYZE) DELETE FROM t",
			"PREPARE x AS DELETE FROM t WHERE id = $1",
			"COPY (DELETE FROM t RETURNING *) TO STDOUT",
			"DECLARE c CURSOR FOR WITH d AS (DELETE FROM t RETURNING *) SELECT 1",
			"CREATE TABLE u AS WITH d AS (DELETE FROM t RETURNING *) SELECT 1",
			"CREATE RULE r AS ON INSERT TO t DO DELETE FROM u",
			"CREATE FUNCTION f() RETURNS void BEGIN ATOMIC DELETE FROM t; END",
			"SELECT 1; DELETE FROM t", "BEGIN; DELETE FROM t; COMMIT",
			"/* SELECT */ DELETE FROM t", "dElEtE\n--\nFROM t",
		}},
		{`statement.verb in ["DELETE", "UPDATE"] && !statement.filtered`, []string{
			"DELETE FROM t", "DELETE FROM t WHERE true", "UPDATE t SET a = 1 WHERE 1 = 1 OR id = 3", "UPDATE t SET a = 1 WHERE $1",
			"WITH d AS (DELETE FROM t) SELECT 1", "EXPLAIN ANALYZE UPDATE t SET a = 1",
		}},
		{`statement.kind == "ddl"`, []string{
			"DROP TABLE t", "DROP DATABASE shop", "TRUNCATE t", "SELECT 1 INTO t", "CREATE TEMP TABLE t AS SELECT 1", "ALTER SYSTEM SET work_mem = 1",
			"EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", "COMMENT ON TABLE t IS 'x'", "SELECT 1; DROP TABLE t",
		}},
		{`statement.kind == "dcl"`, []string{"GRANT ALL ON t TO PUBLIC", "CREATE ROLE x SUPERUSER", "ALTER USER x PASSWORD 'y'", "GRANT admin TO app", "DROP OWNED BY x"}},
		{`statement.kind == "do"`, []string{"DO $$ BEGIN DELETE FROM t; END $$", "SELECT 1; DO 'x'"}},
		{`statement.kind == "call"`, []string{"CALL p()"}},
		{`statement.program || statement.file`, []string{"COPY t FROM PROGRAM 'id'", "COPY (SELECT 1) TO PROGRAM 'id'", "COPY t TO '/tmp/x'"}},
		{`statement.role != ""`, []string{
			"SET ROLE admin", "SET LOCAL ROLE admin", "SET SESSION AUTHORIZATION admin", "SET role = 'admin'", "SET \"ROLE\" TO admin",
			"SELECT set_config('role', 'admin', false)", "SELECT pg_catalog.set_config('Role', 'admin', true)", "SELECT 1; SET ROLE admin",
		}},
		{`statement.setting == "work_mem"`, []string{"SET work_mem = 1", "SET Local WORK_MEM TO 1", "RESET work_mem", "SELECT set_config('Work_Mem', $1, true)", "ALTER ROLE x SET work_mem = 1"}},
		{`"public.secrets" in statement.tables`, []string{
			"SELECT * FROM secrets", "TABLE public.secrets", "SELECT * FROM \"secrets\"", "SELECT * FROM PUBLIC.SECRETS", "SELECT (SELECT x FROM secrets)",
			"SELECT * FROM t WHERE EXISTS (SELECT FROM secrets)", "SELECT * FROM shop.public.secrets", "COPY secrets TO STDOUT", "COPY (TABLE secrets) TO STDOUT",
			"WITH secrets2 AS (TABLE secrets) TABLE secrets2", "WITH secrets AS (TABLE secrets) TABLE secrets", "SELECT * FROM secrets AS harmless",
			"CREATE VIEW v AS TABLE secrets", "LOCK secrets", "INSERT INTO t SELECT * FROM secrets", "UPDATE t SET a = s.a FROM secrets s WHERE t.id = s.id",
			"INSERT INTO secrets VALUES (1)", "DROP TABLE secrets", "TRUNCATE t, secrets", "ALTER TABLE secrets RENAME TO harmless", "GRANT SELECT ON secrets TO x",
			"MERGE INTO t USING secrets s ON true WHEN MATCHED THEN DELETE", "CREATE INDEX ON secrets (a)", "ANALYZE secrets", "PREPARE x AS TABLE secrets",
			"CREATE TABLE t (LIKE secrets)", "CREATE TABLE t () INHERITS (secrets)", "CREATE TRIGGER x AFTER INSERT ON secrets EXECUTE FUNCTION f()",
			"CREATE FUNCTION f() RETURNS int RETURN (SELECT 1 FROM secrets)", "SELECT 1 UNION TABLE secrets", "VALUES ((SELECT a FROM secrets))",
		}},
		{`"pg_catalog.pg_authid" in statement.tables`, []string{"SELECT * FROM pg_authid", "TABLE pg_catalog.pg_authid"}},
		{`statement.tables.exists(t, t.startsWith("audit."))`, []string{"TABLE audit.log", "DROP SCHEMA audit CASCADE", "GRANT ALL ON ALL TABLES IN SCHEMA audit TO x", "CREATE SCHEMA audit", "ALTER TABLE t SET SCHEMA audit", "REINDEX SCHEMA audit"}},
		{`statement.functions.exists(f, f in ["pg_read_file", "lo_import", "pg_sleep"])`, []string{
			"SELECT pg_read_file('x')", "SELECT pg_catalog.pg_read_file('x')", "SELECT * FROM pg_read_file('x')", "SELECT 1 ORDER BY pg_sleep(1)", "SELECT PG_SLEEP(1)",
			"INSERT INTO t VALUES (lo_import('x'))", "UPDATE t SET a = pg_sleep(1) WHERE id = 1", "CALL pg_sleep(1)", "EXECUTE p(pg_sleep(1))",
			"CREATE TABLE t (a text DEFAULT pg_read_file('x'))", "COPY t FROM STDIN WHERE pg_sleep(1) IS NULL", "SELECT sum(a) FILTER (WHERE pg_sleep(1) IS NULL) FROM t",
		}},
		{`"public.own" in statement.functions`, []string{"SELECT own(1)", "SELECT public.own(1)", "CREATE FUNCTION own() RETURNS int LANGUAGE sql AS 'x'", "DROP FUNCTION own"}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			g := mustGrant(t, document("p", deny("forbidden", tt.rule), allow("rest", "")))
			for _, text := range tt.texts {
				if d := decideText(t, g, text, "public"); d.Action != Deny || d.Rule != "forbidden" {
					t.Errorf("%s: %+v", text, d)
				}
			}
			if d := decideText(t, g, "SELECT a FROM orders WHERE id = 1", "public"); d.Action != Allow {
				t.Errorf("a harmless statement: %+v", d)
			}
		})
	}
}

func TestListOfWhatIsAllowedIsNotEscaped(t *testing.T) {
	g := mustGrant(t, document("p",
		allow("read", `statement.kind == "query" && statement.tables.all(t, t in ["public.orders", "public.items"]) && statement.functions.all(f, f in ["count", "public.count"])`),
		allow("transactions", `statement.kind == "transaction"`),
	))
	tests := []struct {
		text   string
		path   []string
		action Action
	}{
		{"SELECT count(*) FROM orders JOIN items USING (id)", []string{"public"}, Allow},
		{"SELECT count(*) FROM orders o, public.items", []string{"public"}, Allow},
		{"WITH x AS (SELECT * FROM orders) SELECT * FROM x", []string{"public"}, Allow},
		{"BEGIN; SELECT 1; COMMIT", []string{"public"}, Allow},
		{"EXPLAIN SELECT * FROM orders", []string{"public"}, Allow},
		{"SELECT * FROM orders", []string{"public", "other"}, Deny},
		{"SELECT count(*) FROM orders", []string{"public", "other"}, Deny},
		{"SELECT * FROM orders", nil, Deny},
		{"SELECT * FROM other.orders", []string{"public"}, Deny},
		{"SELECT * FROM orders, customers", []string{"public"}, Deny},
		{"SELECT * FROM \"Orders\"", []string{"public"}, Deny},
		{"SELECT * FROM pg_class", []string{"public"}, Deny},
		{"SELECT sum(a) FROM orders", []string{"public"}, Deny},
		{"SELECT own.count(*) FROM orders", []string{"public"}, Deny},
		{"SELECT * FROM orders WHERE id IN (SELECT id FROM customers)", []string{"public"}, Deny},
		{"WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d", []string{"public"}, Deny},
		{"SELECT * INTO orders FROM items", []string{"public"}, Deny},
		{"PREPARE p AS SELECT * FROM orders", []string{"public"}, Deny},
		{"COPY orders TO STDOUT", []string{"public"}, Deny},
		{"SELECT set_config('work_mem', '1GB', false)", []string{"public"}, Deny},
	}
	for _, tt := range tests {
		if d := decideText(t, g, tt.text, tt.path...); d.Action != tt.action {
			t.Errorf("%s with path %v: %+v", tt.text, tt.path, d)
		}
	}
}

func TestNamesResolveToEverySchemaTheyMayBeIn(t *testing.T) {
	unit := &sql.Unit{
		Reads:     []sql.Object{{Name: "a"}, {Schema: "s", Name: "b"}, {Name: "pg_class"}},
		Writes:    []sql.Object{{Name: "a"}, {Schema: "s", Name: "*"}},
		Functions: []sql.Object{{Name: "f"}, {Schema: "pg_catalog", Name: "g"}, {Schema: "s", Name: "h"}},
	}
	tests := []struct {
		path                             []string
		reads, writes, tables, functions string
	}{
		{nil, "?.a pg_catalog.pg_class s.b", "?.a s.*", "?.a pg_catalog.pg_class s.* s.b", "f g s.h"},
		{[]string{"x"}, "pg_catalog.pg_class s.b x.a x.pg_class", "s.* x.a", "pg_catalog.pg_class s.* s.b x.a x.pg_class", "f g s.h x.f"},
		{[]string{"pg_catalog", "x", "x"}, "pg_catalog.a pg_catalog.pg_class s.b x.a x.pg_class", "pg_catalog.a s.* x.a",
			"pg_catalog.a pg_catalog.pg_class s.* s.b x.a x.pg_class", "f g s.h x.f"},
	}
	for _, tt := range tests {
		s := Resolve(unit, tt.path)
		for _, list := range []struct {
			name, want string
			got        []string
		}{{"reads", tt.reads, s.Reads}, {"writes", tt.writes, s.Writes}, {"tables", tt.tables, s.Tables}, {"functions", tt.functions, s.Functions}} {
			got := slices.Sorted(slices.Values(list.got))
			if diff := cmp.Diff(strings.Fields(list.want), got); diff != "" {
				t.Errorf("%v: %s (-want +got):\n%s", tt.path, list.name, diff)
			}
		}
	}
}

func TestEmptyListsAreLists(t *testing.T) {
	g := mustGrant(t, document("p", allow("empty", `statement.tables.size() == 0 && statement.functions.all(f, false) && !("x" in statement.reads)`)))
	if d := g.Decide(&Statement{}, subject); d.Action != Allow {
		t.Errorf("got %+v", d)
	}
}

func TestDenialNamesThePoliciesThatWereConsulted(t *testing.T) {
	g := mustGrant(t, document("b", deny("x", "false")), document("a", deny("x", "false")))
	d := g.Decide(&Statement{Kind: "do", Verb: "DO"}, subject)
	want := Decision{Policy: "a,b", Rule: "default", Message: "no rule of policy a, b allows it"}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}

func TestMistakeIsPlacedWithinTheExpression(t *testing.T) {
	_, err := Compile([]v1alpha1.AccessPolicy{document("p", allow("fine", "true"), allow("wrong", "statement.kind == \"ddl\" &&\n  statement.verbs == \"x\""))})
	want := "policy p: rule wrong: spec.rules[1].when: 2:12: undefined field 'verbs'"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
