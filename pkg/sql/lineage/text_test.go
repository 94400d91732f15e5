package lineage

import (
	"strings"
	"testing"
)

// later is syntax of servers after the oldest that are supported; what they show can be told on any.
var later = []result{
	{"JSON_QUERY and JSON_VALUE", "SELECT JSON_QUERY(to_jsonb(c), '$.email'), JSON_VALUE(doc, '$.k'), JSON_EXISTS(doc, '$') FROM customers c", "0 1 - -"},
	{"JSON_OBJECT and JSON_ARRAY", "SELECT JSON_OBJECT('a': ssn), JSON_ARRAY(name, email), JSON_ARRAY(SELECT card FROM orders) FROM customers", "1 0 2"},
	{"JSON_OBJECTAGG and JSON_ARRAYAGG", "SELECT JSON_OBJECTAGG(name: email), JSON_ARRAYAGG(id ORDER BY ssn) FROM customers", "0 -"},
	{"JSON, JSON_SCALAR and JSON_SERIALIZE", "SELECT JSON(ssn), JSON_SCALAR(email), JSON_SERIALIZE(doc), ssn IS JSON FROM customers", "1 0 - 1"},
	{"JSON with PASSING and ON EMPTY", "SELECT JSON_VALUE(doc, '$.k' PASSING ssn AS x), JSON_VALUE(doc, '$.k' DEFAULT email ON EMPTY) FROM customers", "1 0"},
	{"JSON_TABLE", "SELECT t.* FROM customers c, JSON_TABLE(to_jsonb(c), '$' COLUMNS (n FOR ORDINALITY, e text PATH '$.email', NESTED PATH '$.x' COLUMNS (y int))) t", "- 0 1 0 1"},
	{"JSON_TABLE of what is clean", "SELECT t.* FROM customers c, JSON_TABLE(c.doc, '$' COLUMNS (e text PATH '$.email')) AS t", "-"},
	{"MERGE with RETURNING", "MERGE INTO notes n USING customers c ON n.id = c.id WHEN MATCHED THEN DELETE RETURNING merge_action(), c.email, n.body", "- 0! -"},
	{"MERGE BY SOURCE", "MERGE INTO notes n USING orders o ON n.id = o.id WHEN NOT MATCHED BY SOURCE THEN DELETE", ""},
	{"any_value", "SELECT coalesce(max(ssn), 'x') FROM customers", "1!"},
}

func TestColumnsOfLaterSyntax(t *testing.T) {
	s := newOracle(t).schema
	for _, tt := range later {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(analysed(t, s, tt.text, session)); got != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.text, got, tt.want)
			}
		})
	}
}

// ordinary are statements that libraries and applications send.
var ordinary = []result{
	{"a select by key", `SELECT "customers"."id", "customers"."name" FROM "customers" WHERE "customers"."id" = $1 LIMIT $2`, "- -"},
	{"a select of all columns with aliases", `SELECT t0.id AS c0, t0.name AS c1, t0.email AS c2 FROM public.customers AS t0 WHERE t0.id IN ($1, $2) ORDER BY t0.id ASC OFFSET $3`, "- - 0!"},
	{"a join with counts", `SELECT c.id, count(o.id) AS n, sum(o.total)::float8, max(o.note) FROM customers c LEFT OUTER JOIN orders o ON o.customer_id = c.id GROUP BY c.id, c.name HAVING count(*) > 0 ORDER BY n DESC`, "- - - -"},
	{"an insert", `INSERT INTO "orders" ("id", "customer_id", "total", "card") VALUES ($1, $2, $3, $4) RETURNING "id"`, "-"},
	{"an insert of several rows", `INSERT INTO notes (id, body) VALUES ($1, $2), ($3, DEFAULT), ($4, now()::text) ON CONFLICT DO NOTHING`, ""},
	{"an update with RETURNING", `UPDATE "customers" SET "name" = $1, "age" = "age" + 1, email = $3 WHERE ("customers"."id" = $2) RETURNING "id", "age"`, "- -"},
	{"a lock", `SELECT id, note FROM orders WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED`, "- -"},
	{"a queue", `WITH next AS (SELECT id FROM notes ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) DELETE FROM notes USING next WHERE notes.id = next.id RETURNING notes.*`, "- -"},
	{"an existence", `SELECT 1 AS one FROM customers WHERE email = $1 LIMIT 1`, "-"},
	{"a page with its total", `SELECT *, count(*) OVER () AS total FROM (SELECT id, note FROM orders) o ORDER BY id LIMIT 10`, "- - -"},
	{"a report in JSON", `SELECT json_agg(row_to_json(t)) FROM (SELECT o.id, o.note, c.name FROM orders o JOIN customers c ON c.id = o.customer_id) t`, "-"},
	{"a flag on a masked column", `SELECT id, email IS NOT NULL AS reachable FROM customers`, "- -"},
	{"a date", `SELECT date_trunc('day', day), count(*) FROM events GROUP BY 1 ORDER BY 1`, "- -"},
	{"an advisory lock", `SELECT pg_try_advisory_xact_lock($1), pg_advisory_unlock(7)`, "- -"},
	{"a notification", `SELECT pg_notify('jobs', 'x')`, "-"},
	{"settings", `SELECT set_config('app.user', $1, true), current_setting('server_version_num')::int, version(), current_schema(), pg_backend_pid()`, "- - - - -"},
	{"types for a driver", `SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM pg_type as t LEFT JOIN pg_range as r ON oid = rngtypid WHERE t.typname IN ('int2', 'int4')`, "- - - - - - - -"},
	{"columns for a framework", `SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid, a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum LEFT JOIN pg_type t ON a.atttypid = t.oid LEFT JOIN pg_collation c ON a.attcollation = c.oid AND a.attcollation <> t.typcollation WHERE a.attrelid = '"customers"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, "- - - - - - - -"},
	{"tables for a framework", `SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END, obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND pg_catalog.pg_table_is_visible(c.oid)`, "- - -"},
	{"keys for a framework", `SELECT kc.relname, array_agg(a.attname ORDER BY x.n), pg_get_constraintdef(con.oid) FROM pg_constraint con JOIN pg_class kc ON kc.oid = con.conrelid CROSS JOIN LATERAL unnest(con.conkey) WITH ORDINALITY AS x (k, n) JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = x.k GROUP BY kc.relname, con.oid`, "- - -"},
	{"primary keys for a driver", `SELECT result.TABLE_CAT, result.KEY_SEQ FROM (SELECT NULL AS TABLE_CAT, (information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ, (information_schema._pg_expandarray(i.indkey)).x AS k, a.attnum AS A_ATTNUM FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_index i ON (a.attrelid = i.indrelid)) result WHERE result.A_ATTNUM = result.k`, "- -"},
	{"a migration's table", `CREATE TABLE IF NOT EXISTS "schema_migrations" ("version" character varying NOT NULL PRIMARY KEY, at timestamptz DEFAULT now())`, ""},
	{"a migration's foreign key", `ALTER TABLE "notes" ADD CONSTRAINT "fk" FOREIGN KEY ("id") REFERENCES "customers" ("id") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED`, ""},
	{"a migration's index", `CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "i" ON "orders" USING btree ("note", lower("note")) WHERE note IS NOT NULL`, ""},
	{"a migration's column and its values", `ALTER TABLE orders ADD COLUMN state text NOT NULL DEFAULT 'new'; UPDATE orders SET state = note WHERE total > 0`, ""},
	{"a migration's enumeration", `CREATE TYPE fresh AS ENUM ('a', 'b'); CREATE TABLE fresh_t (f fresh DEFAULT 'a'); INSERT INTO fresh_t VALUES ('b')`, ""},
	{"a transaction", `BEGIN; SET LOCAL lock_timeout = '1s'; SAVEPOINT a; ROLLBACK TO a; COMMIT`, ""},
	{"grants, comments and maintenance", `GRANT SELECT ON customers TO public; COMMENT ON TABLE customers IS 'c'; VACUUM customers; ANALYZE; TRUNCATE notes`, ""},
	{"a benchmark's statement", `UPDATE notes SET id = id + 1 WHERE id = 5; SELECT body FROM notes WHERE id = 1; INSERT INTO notes (id, body) VALUES (1, CURRENT_TIMESTAMP::text)`, ""},
	{"CASE with a subquery", `SELECT id, CASE WHEN EXISTS (SELECT 1 FROM customers c WHERE c.id = o.customer_id AND c.email LIKE '%x') THEN 'x' ELSE note END FROM orders o`, "- -"},
	{"the same mask's column keeps its value", `INSERT INTO customers (id, email) SELECT id + 100, email FROM customers`, ""},
}

func TestOrdinaryStatementsAreNeitherDeniedNorMasked(t *testing.T) {
	s := newOracle(t).schema
	for _, tt := range ordinary {
		t.Run(tt.name, func(t *testing.T) {
			statements, err := s.Analyze(tt.text, session)
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range statements {
				if st.Denied != "" || st.Missing {
					t.Errorf("%s: denied %q, missing %v", tt.text, st.Denied, st.Missing)
				}
			}
			if got := show(statements[len(statements)-1]); got != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.text, got, tt.want)
			}
		})
	}
}

// FuzzText looks for texts that Analyze does not survive, or of which a column has masks that the statement does not reach.
func FuzzText(f *testing.F) {
	s := newOracle(f).schema
	for _, list := range [][]result{simple, queries, rows, functionCalls, changes, catalogs, later, ordinary} {
		for _, tt := range list {
			f.Add(tt.text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		statements, err := s.Analyze(text, session)
		if err != nil {
			return
		}
		for _, st := range statements {
			if st.Opaque && len(st.Columns) > 0 {
				t.Errorf("%s: opaque with columns", text)
			}
			for _, v := range st.Columns {
				if !st.Reach.contains(v.Masks) {
					t.Errorf("%s: %v is not within %v", strings.TrimSpace(text), v.Masks, st.Reach)
				}
			}
		}
	})
}
