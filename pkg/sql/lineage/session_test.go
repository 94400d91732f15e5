package lineage

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/test/env"
)

// database is a schema of a server of the test's own with other tables.
func database(t *testing.T, o Options, script ...string) *Schema {
	t.Helper()
	server := env.Postgres(t, env.PostgresOptions{SQL: script})
	conn, err := pgconn.Connect(t.Context(), server.URL(env.Superuser, server.Password, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	s := load(t, conn)
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return New(s.catalog, sensitive, o)
}

func TestNameMayMeanAnyRelationOfTheSearchPath(t *testing.T) {
	s := database(t, Options{Strict: true}, `CREATE TABLE customers (id int, email text, name text); CREATE SCHEMA other;
		CREATE TABLE other.customers (id int, email text, name text); CREATE SCHEMA third; CREATE TABLE third.customers (x int, email text);
		CREATE TABLE outside (name text, ssn text)`)
	tests := []struct {
		name, text string
		path       []string
		want       string
	}{
		{"one schema", "SELECT email FROM customers", []string{"other"}, "-"},
		{"two schemas", "SELECT email FROM customers", []string{"other", "public"}, "0!"},
		{"two schemas with the same columns, and a star", "SELECT * FROM customers", []string{"other", "public"}, "- 0! -"},
		{"columns that differ, and a star", "SELECT * FROM customers", []string{"third", "public"}, "opaque"},
		{"a column that only some have", "SELECT (SELECT name FROM customers c LIMIT 1) FROM (SELECT email AS name FROM public.customers) s", []string{"third", "public"}, "0"},
		{"a schema that is named", "SELECT email FROM other.customers", []string{"public"}, "-"},
		{"none", "SELECT email FROM customers", nil, "0+"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(analysed(t, s, tt.text, Session{SearchPath: tt.path})); got != tt.want {
				t.Errorf("%s: got %s, want %s", tt.text, got, tt.want)
			}
		})
	}
}

func TestTransactionsOwnChangesAreRespected(t *testing.T) {
	s := newOracle(t).schema
	tests := []struct{ name, before, text, want string }{
		{"a view that is made", "CREATE VIEW fresh AS SELECT 1 AS a", "SELECT a FROM fresh", "0 1 2 3 4+"},
		{"a function that is made", "CREATE FUNCTION fresh() RETURNS int LANGUAGE sql AS 'SELECT 1'", "SELECT fresh()", "denied: the function fresh can not be read, and what it shows of masked columns is not known"},
		{"a table that is made", "CREATE TABLE fresh (a int, b text)", "INSERT INTO fresh VALUES (1, 'x') RETURNING *", "- -"},
		{"a table that is made with a masked name", "CREATE TABLE fresh (a int, card text)", "SELECT a, card FROM fresh", "- 2!"},
		{"a temporary table", "CREATE TEMP TABLE fresh AS SELECT id FROM customers", "SELECT id FROM fresh", "-"},
		{"a child of a masked table", "CREATE TABLE fresh () INHERITS (hr.staff)", "SELECT * FROM fresh", "- - 3!"},
		{"a table that is like a masked one", "CREATE TABLE fresh (LIKE customers)", "SELECT email FROM fresh", "-"},
		{"a column that is added", "ALTER TABLE notes ADD COLUMN extra text", "SELECT extra, body FROM notes", "- -"},
		{"a column that is added to a masked table", "ALTER TABLE customers ADD COLUMN extra text", "SELECT name, extra FROM customers", "- 0 1 2 3 4+"},
		{"a type that is made", "CREATE DOMAIN fresh AS text", "SELECT ssn::fresh FROM customers", "denied: a masked value would be given to a type that is not known"},
		{"another name", "ALTER TABLE notes RENAME TO fresh", "SELECT body FROM fresh", "0 1 2 3 4+"},
		{"an operator", "CREATE OPERATOR ## (LEFTARG = text, RIGHTARG = int, FUNCTION = repeat)", "SELECT 'a' ## 2", "denied: the function ## can not be read, and what it shows of masked columns is not known"},
		{"nothing", "SELECT 1", "SELECT body FROM notes", "-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := analysed(t, s, tt.before, session)
			if before.Denied != "" {
				t.Fatal(before.Denied)
			}
			if before.Changed.Empty() != (tt.name == "nothing") || before.Changes != (tt.name != "nothing") {
				t.Errorf("changes %v, %+v", before.Changes, before.Changed)
			}
			at := session
			at.Changed = at.Changed.Union(before.Changed)
			if got := show(analysed(t, s, tt.text, at)); got != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.text, got, tt.want)
			}
			// And so in one text.
			if got := show(analysed(t, s, tt.before+"; "+tt.text, session)); got != tt.want {
				t.Errorf("%s; %s:\n got %s\nwant %s", tt.before, tt.text, got, tt.want)
			}
		})
	}
}

func TestLenientModeAllowsWhatCanNotBeRead(t *testing.T) {
	o := newOracle(t)
	s := New(o.schema.catalog, sensitive, Options{})
	tests := []struct{ name, text, want string }{
		{"a function that can not be read", "SELECT opaque(ssn), opaque(name) FROM customers", "1 -"},
		{"DO", "DO 'BEGIN END'", ""},
		{"a function in another language", "CREATE FUNCTION x() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'", ""},
		{"what is stored is denied all the same", "INSERT INTO notes SELECT id, email FROM customers", "denied: a masked value would be stored in the column body"},
		{"files are denied all the same", "SELECT pg_read_file('x')", "denied: the function pg_read_file reads more than its arguments, and can not be masked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(analysed(t, s, tt.text, session)); got != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.text, got, tt.want)
			}
		})
	}
}

func TestDatabaseWithoutMasksDeniesNothing(t *testing.T) {
	s := database(t, Options{Strict: true}, "CREATE TABLE plain (a int)")
	for _, text := range []string{"DO 'BEGIN END'", "SELECT nobody(1)", "SELECT pg_read_file('x')", "CREATE RULE r AS ON INSERT TO plain DO NOTHING", "COPY plain TO '/tmp/x'"} {
		if st := analysed(t, s, text, session); st.Denied != "" || !st.Reach.Empty() {
			t.Errorf("%s: %+v", text, st)
		}
	}
	if !s.Masks().Empty() {
		t.Errorf("masks %v", s.Masks())
	}
}

func TestViewsThatMultiplyAreReadOnce(t *testing.T) {
	script := []string{"CREATE TABLE customers (id int, email text)", "CREATE VIEW d0 AS SELECT id, email FROM customers"}
	for i := 1; i <= 40; i++ {
		script = append(script, fmt.Sprintf("CREATE VIEW d%d AS SELECT a.id, b.email FROM d%d a JOIN d%d b ON a.id = b.id", i, i-1, i-1))
	}
	s := database(t, Options{Strict: true}, script...)
	done := make(chan string)
	go func() { done <- show(analysed(t, s, "SELECT id, email FROM d40", session)) }()
	select {
	case got := <-done:
		if got != "- 0!" {
			t.Errorf("got %s", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it takes too long")
	}
}

func TestTextThatIsTooComplexIsDenied(t *testing.T) {
	script := []string{"CREATE TABLE customers (id int, email text)", "CREATE FUNCTION e0() RETURNS text LANGUAGE sql AS 'SELECT email FROM customers'"}
	for i := 1; i <= 30; i++ {
		script = append(script, fmt.Sprintf("CREATE FUNCTION e%d() RETURNS text LANGUAGE sql AS 'SELECT e%d() || e%d()'", i, i-1, i-1))
	}
	s := database(t, Options{Strict: true}, script...)
	start := time.Now()
	st := analysed(t, s, "SELECT e30()", session)
	if !strings.Contains(st.Denied, "too complex") || !st.Reach.Has(0) {
		t.Errorf("denied %q, reach %v", st.Denied, st.Reach)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
	if st := analysed(t, s, "SELECT "+strings.Repeat("(", 900)+"email"+strings.Repeat(")", 900)+" FROM customers", session); show(st) != "0!" {
		t.Errorf("nested: %s", show(st))
	}
}

func TestRowDescriptionsColumnIsKnownByNumber(t *testing.T) {
	s := newOracle(t).schema
	oid := func(schema, name string) uint32 { return s.catalog.RelationNamed(schema, name).OID }
	tests := []struct {
		name      string
		relation  uint32
		attribute int16
		want      string
	}{
		{"a masked column", oid("public", "customers"), 3, "0!"},
		{"another", oid("public", "customers"), 2, "-"},
		{"a view's column", oid("public", "v_deep"), 2, "0!"},
		{"a view's expression", oid("public", "v_customers"), 4, "1"},
		{"a whole row", oid("public", "customers"), 0, "0 1"},
		{"a system column", oid("public", "customers"), -1, "-"},
		{"a column that is not known", oid("public", "customers"), 99, "0 1 2 3 4+"},
		{"a relation that is not known", 4_000_000_000, 1, "0 1 2 3 4+"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := s.ValueOf(tt.relation, tt.attribute, session)
			if got := show(Statement{Columns: []Value{v}}); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if tt.attribute == 0 && (len(v.Fields) != 9 || !v.Fields[2].Masks.Has(0) || !v.Fields[0].Masks.Empty()) {
				t.Errorf("fields %+v", v.Fields)
			}
			if tt.attribute == 3 && (v.Relation != tt.relation || v.Attribute != 3) {
				t.Errorf("names %d, %d", v.Relation, v.Attribute)
			}
		})
	}
}
