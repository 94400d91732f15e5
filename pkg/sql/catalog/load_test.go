package catalog

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/test/env"
)

const schema = `
CREATE ROLE ordinary LOGIN PASSWORD 'o';
CREATE TABLE customers (id int PRIMARY KEY, dropped int, email varchar(80) DEFAULT 'x', up text GENERATED ALWAYS AS (upper(email)) STORED, CHECK (id > 0));
ALTER TABLE customers DROP COLUMN dropped;
CREATE TABLE orders (id int, customer int REFERENCES customers);
CREATE TABLE parts (id int) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE VIEW v AS SELECT email AS e FROM customers;
CREATE MATERIALIZED VIEW m AS SELECT e FROM v;
CREATE TYPE mood AS ENUM ('sad', 'happy', 'so-so, "ok"');
CREATE TYPE pair AS (a text, b mood);
CREATE DOMAIN small AS varchar(7) DEFAULT 'd' CHECK (VALUE <> 'no');
CREATE TYPE span AS RANGE (SUBTYPE = int4);
CREATE FUNCTION f(a int, "b,c" text DEFAULT 'q', OUT r text) LANGUAGE sql SET search_path = public AS 'SELECT $2';
CREATE FUNCTION g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
CREATE FUNCTION plus(text, text) RETURNS text LANGUAGE sql AS 'SELECT $1';
CREATE AGGREGATE firsts(text) (SFUNC = plus, STYPE = text);
CREATE OPERATOR @@@@ (LEFTARG = text, RIGHTARG = text, FUNCTION = plus);
CREATE FUNCTION to_pair(int) RETURNS pair LANGUAGE sql AS 'SELECT ROW(''x'', ''sad'')::pair';
CREATE CAST (int AS pair) WITH FUNCTION to_pair(int) AS IMPLICIT;
CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION t();
CREATE RULE r AS ON DELETE TO orders DO INSTEAD NOTHING;`

func connect(t testing.TB, server *env.Server, user, password string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), server.URL(user, password, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func TestOrdinaryRoleLoadsTheWholeCatalog(t *testing.T) {
	server := env.Postgres(t, env.PostgresOptions{SQL: []string{schema}})
	conn := connect(t, server, "ordinary", "o")
	c, err := Load(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if status := conn.TxStatus(); status != 'I' {
		t.Errorf("transaction status %c", status)
	}
	named := func(name string) *Relation {
		r := c.RelationNamed("public", name)
		if r == nil {
			t.Fatalf("no relation %s", name)
		}
		return r
	}
	typ := func(name string) *Type {
		found := c.TypesNamed(name)
		if len(found) != 1 {
			t.Fatalf("%d types %s", len(found), name)
		}
		return found[0]
	}
	customers := named("customers")
	want := []Column{
		{Name: "id", Attribute: 1, Type: 23, Typmod: -1},
		{Name: "email", Attribute: 3, Type: 1043, Typmod: 84, Expression: "'x'::character varying"},
		{Name: "up", Attribute: 4, Type: 25, Typmod: -1, Generated: true, Expression: "upper((email)::text)"},
	}
	if diff := cmp.Diff(want, customers.Columns); diff != "" {
		t.Error(diff)
	}
	if c.Relation(customers.OID) != customers || customers.Attribute(3) != customers.Column("email") || customers.Attribute(2) != nil {
		t.Error("look-ups differ")
	}
	if !slices.Equal(customers.Checks, []string{"(id > 0)"}) || !slices.Equal(customers.ReferencedBy, []uint32{named("orders").OID}) {
		t.Errorf("checks %v, referenced by %v", customers.Checks, customers.ReferencedBy)
	}
	if parts, part := named("parts"), named("parts_1"); !slices.Equal(parts.Children, []uint32{part.OID}) || !slices.Equal(part.Parents, []uint32{parts.OID}) {
		t.Errorf("partitions %v of %v", parts.Children, part.Parents)
	}
	if got := strings.Join(strings.Fields(named("v").Definition), " "); got != "SELECT customers.email AS e FROM public.customers;" {
		t.Errorf("view %q", got)
	}
	if got := named("m"); got.Kind != MaterialisedView || !strings.Contains(got.Definition, "public.v") {
		t.Errorf("materialised view %+v", got)
	}
	if orders := named("orders"); !orders.Rules || len(orders.Triggers) != 1 || c.Function(orders.Triggers[0].Function).Name != "t" || !orders.Triggers[0].Before || orders.Triggers[0].Instead || named("v").Rules {
		t.Errorf("rules and triggers of %+v", orders)
	}
	var toast bool
	c.Relations(func(r *Relation) bool {
		toast = toast || r.Kind == TOAST && r.TOASTOf == customers.OID && r.Column("chunk_data") != nil
		return true
	})
	if !toast {
		t.Error("no TOAST table")
	}

	if mood := typ("mood"); mood.Kind != Enum || !slices.Equal(mood.Labels, []string{"sad", "happy", `so-so, "ok"`}) || c.Type(mood.Array).Kind != Array ||
		c.Type(mood.Array).Element != mood.OID || mood.Delimiter != ',' {
		t.Errorf("enum %+v", mood)
	}
	if pair := typ("pair"); pair.Kind != Composite || len(c.Relation(pair.Relation).Columns) != 2 {
		t.Errorf("composite %+v", pair)
	}
	if small := typ("small"); small.Kind != Domain || small.Element != 1043 || small.Mod != 11 || len(small.Checks) != 1 || small.Default == "" {
		t.Errorf("domain %+v", small)
	}
	if span := typ("span"); span.Kind != Range || span.Element != 23 {
		t.Errorf("range %+v", span)
	}
	if multi := typ("span_multirange"); multi.Kind != Multirange || c.Type(multi.Element).Name != "span" {
		t.Errorf("multirange %+v", multi)
	}

	f := c.Functions("public", "f")[0]
	if diff := cmp.Diff([]Argument{{"a", 23, 'i'}, {"b,c", 25, 'i'}, {"r", 25, 'o'}}, f.Arguments); diff != "" {
		t.Error(diff)
	}
	if f.Language != "sql" || f.Body != "SELECT $2" || f.Defaults != "'q'::text" || !slices.Equal(f.Config, []string{"search_path=public"}) || f.Volatility != 'v' {
		t.Errorf("function %+v", f)
	}
	if g := c.Functions("public", "g")[0]; !strings.Contains(g.SQLBody, "BEGIN ATOMIC") {
		t.Errorf("body %q", g.SQLBody)
	}
	plus := c.Functions("public", "plus")[0].OID
	if a := c.Functions("public", "firsts")[0]; a.Kind != Aggregate || !slices.Equal(a.Supports, []uint32{plus}) {
		t.Errorf("aggregate %+v", a)
	}
	if lower := c.Functions("pg_catalog", "lower"); len(lower) == 0 || !lower[0].Builtin() || lower[0].Body != "" {
		t.Errorf("lower %+v", lower)
	}
	if o := c.Operators("@@@@"); len(o) != 1 || o[0].Function != plus || !c.KnowsOperator("||") || c.KnowsOperator("@@@@@") {
		t.Errorf("operators %+v", o)
	}
	if casts := c.Casts(); !slices.ContainsFunc(casts, func(c Cast) bool { return c.Implicit && c.Source == 23 && c.Target == typ("pair").OID }) {
		t.Errorf("casts %+v", casts)
	}
}

func TestCatalogIsCurrentUntilSomethingChanges(t *testing.T) {
	server := env.Postgres(t, env.PostgresOptions{SQL: []string{schema}})
	conn := connect(t, server, "ordinary", "o")
	for _, change := range []string{
		"CREATE TABLE x (a int)", "ALTER TABLE customers RENAME COLUMN email TO mail", "ALTER TABLE customers RENAME COLUMN mail TO email",
		"DROP TABLE x", "CREATE OR REPLACE FUNCTION plus(text, text) RETURNS text LANGUAGE sql AS 'SELECT $2'", "ALTER VIEW v RENAME TO w",
		"CREATE OR REPLACE VIEW w AS SELECT 'x'::varchar(80) AS e", "ALTER TYPE mood ADD VALUE 'new'", "DROP RULE r ON orders", "DROP TRIGGER t ON orders",
		"CREATE SCHEMA s", "ALTER SCHEMA s RENAME TO s2", "DROP CAST (int AS pair)", "ALTER TABLE parts DETACH PARTITION parts_1",
	} {
		c, err := Load(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		if current, err := c.Current(t.Context(), conn); err != nil || !current {
			t.Errorf("before %s: current %v, %v", change, current, err)
		}
		server.Exec(change)
		if current, err := c.Current(t.Context(), conn); err != nil || current {
			t.Errorf("after %s: current %v, %v", change, current, err)
		}
	}
}

func TestViewThatSomebodyHasLockedComesWithoutDefinition(t *testing.T) {
	server := env.Postgres(t, env.PostgresOptions{SQL: []string{schema, "CREATE TABLE free (a int); CREATE VIEW v_free AS SELECT a FROM free"}})
	holder := connect(t, server, env.Superuser, server.Password)
	if err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE").Close(); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, server, "ordinary", "o")
	start := time.Now()
	c, err := Load(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("took %s", took)
	}
	if got := c.RelationNamed("public", "v").Definition; got != "" {
		t.Errorf("v is %q", got)
	}
	if up := c.RelationNamed("public", "customers").Column("up"); !up.Generated {
		t.Errorf("column %+v", up)
	}
	if got := c.RelationNamed("public", "v_free").Definition; got == "" {
		t.Error("v_free has no definition")
	}
}

func TestLoadThatFailsLeavesNoTransaction(t *testing.T) {
	server := env.Postgres(t, env.PostgresOptions{SQL: []string{schema, "REVOKE SELECT ON pg_catalog.pg_policy FROM public"}})
	conn := connect(t, server, "ordinary", "o")
	if _, err := Load(t.Context(), conn); err == nil || !strings.Contains(err.Error(), "pg_policy") {
		t.Errorf("error %v", err)
	}
	if status := conn.TxStatus(); status != 'I' {
		t.Errorf("transaction status %c", status)
	}
}

// BenchmarkLoad is of a database with 3000 tables of 20 columns and 500 views. It says what a Catalog of it takes.
func BenchmarkLoad(b *testing.B) {
	server := env.Postgres(b, env.PostgresOptions{Settings: []string{"max_locks_per_transaction = 5000"}, SQL: []string{schema, `DO $$ BEGIN
		FOR i IN 1..3000 LOOP
			EXECUTE format('CREATE TABLE t%s (id int, ', i) || (SELECT string_agg('c' || j || ' text', ', ') FROM generate_series(2, 20) j) || ')';
			IF i % 6 = 0 THEN EXECUTE format('CREATE VIEW v%s AS SELECT a.id, b.c2 FROM t%s a JOIN t%s b USING (id)', i, i, i - 1); END IF;
		END LOOP; END $$`}})
	conn := connect(b, server, "ordinary", "o")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var c *Catalog
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			var err error
			if c, err = Load(b.Context(), conn); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
	})
	b.Run("current", func(b *testing.B) {
		for b.Loop() {
			if current, err := c.Current(b.Context(), conn); err != nil || !current {
				b.Fatal(fmt.Errorf("current %v: %w", current, err))
			}
		}
	})
	runtime.KeepAlive(c)
}
