package lineage

import "testing"

// result is a test of what the columns of a statement's result contain.
type result struct{ name, text, want string }

func TestColumnsContainWhatTheServerWouldShow(t *testing.T) {
	o := newOracle(t)
	for _, list := range [][]result{simple, queries, rows, functionCalls, changes, catalogs} {
		for _, tt := range list {
			t.Run(tt.name, func(t *testing.T) {
				out := o.check(t, tt.text)
				if out.err != nil {
					t.Fatalf("%s: %v", tt.text, out.err)
				}
				if got := show(out.statement); got != tt.want {
					t.Errorf("%s:\n got %s\nwant %s", tt.text, got, tt.want)
				}
				for _, problem := range out.problems {
					t.Errorf("%s: %s", tt.text, problem)
				}
			})
		}
	}
}

var simple = []result{
	{"a column", "SELECT email FROM customers", "0!"},
	{"a column that is not masked", "SELECT name FROM customers", "-"},
	{"an alias", "SELECT c.email AS name, c.name AS email FROM customers c", "0! -"},
	{"a column named by its schema", "SELECT public.customers.ssn FROM public.customers", "1!"},
	{"a star", "SELECT * FROM customers", "- - 0! 1! - 0 - - -"},
	{"a star of one table", "SELECT o.*, c.id FROM customers c, orders o", "- - - 2! - -"},
	{"columns renamed by the alias of the table", "SELECT b, c FROM customers AS x (a, b, c)", "- 0!"},
	{"an expression", "SELECT lower(email), email || ssn, id + 1 FROM customers", "0 0 1 -"},
	{"a cast that changes nothing", "SELECT email::text, email::varchar FROM customers", "0! 0!"},
	{"a cast that cuts", "SELECT email::varchar(3), email::char(2) FROM customers", "0 0"},
	{"a cast to another type", "SELECT ssn::bytea FROM customers", "1"},
	{"a comparison", "SELECT email = 'x', email IS NULL, email LIKE 'C%' FROM customers", "0 - 0"},
	{"CASE with a masked condition", "SELECT CASE WHEN email LIKE 'C%' THEN 1 ELSE 2 END FROM customers", "0"},
	{"CASE with masked results", "SELECT CASE id WHEN 1 THEN email ELSE 'none' END FROM customers", "0!"},
	{"COALESCE, NULLIF, GREATEST", "SELECT coalesce(email, 'x'), nullif(email, ''), greatest(name, ssn) FROM customers", "0! 0! 1!"},
	{"COALESCE of two masks", "SELECT coalesce(email, ssn) FROM customers", "0 1"},
	{"an aggregate that counts", "SELECT count(email), count(DISTINCT ssn), count(*) FROM customers", "- - -"},
	{"an aggregate that chooses", "SELECT min(ssn), max(id) FROM customers", "1! -"},
	{"aggregates that collect", "SELECT array_agg(ssn), string_agg(email, ','), json_agg(name) FROM customers", "1 0 -"},
	{"a sum of masked numbers", "SELECT sum(salary), avg(salary)::int FROM hr.staff", "3 3"},
	{"an aggregate with FILTER and ORDER BY", "SELECT string_agg(name, ',' ORDER BY ssn) FILTER (WHERE email <> '') FROM customers", "-"},
	{"an ordered-set aggregate", "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY email), mode() WITHIN GROUP (ORDER BY ssn) FROM customers", "0! 1!"},
	{"window functions", "SELECT row_number() OVER (ORDER BY ssn), lag(ssn) OVER (ORDER BY id), first_value(name) OVER w FROM customers WINDOW w AS (PARTITION BY ssn)", "- 1! -"},
	{"GROUPING SETS", "SELECT ssn, name, grouping(ssn), count(*) FROM customers GROUP BY GROUPING SETS ((ssn), (name), ())", "1! - - -"},
	{"VALUES", "VALUES (1, 'a'), (2, 'b')", "- -"},
	{"VALUES with a subquery", "VALUES (1, 'a'), (2, (SELECT email FROM customers LIMIT 1))", "- 0!"},
	{"TABLE", "TABLE notes", "- -"},
	{"system columns", "SELECT tableoid = 0, email FROM customers", "- 0!"},
	{"a parameter of SHOW", "SHOW work_mem", "-"},
	{"a subscript", "SELECT tags[1], (ARRAY[name, ssn])[2] FROM customers", "- 1"},
	{"a masked subscript", "SELECT (ARRAY[1,2,3])[length(ssn) - 7] FROM customers", "1"},
	{"a generated column", "SELECT domain FROM customers", "0"},
	{"COLLATE and a row comparison", `SELECT email COLLATE "C", (id, ssn) < (1, 'x') FROM customers`, "0! 1"},
	{"ANY, ALL, IN and BETWEEN", "SELECT ssn IN ('a'), ssn = ANY (ARRAY['x']), 5 BETWEEN 1 AND length(email), name BETWEEN 'a' AND 'b' FROM customers", "1 1 0 -"},
}

var queries = []result{
	{"a subquery in FROM", "SELECT x FROM (SELECT id, email AS x FROM customers) s", "0!"},
	{"a subquery with column aliases", "SELECT b FROM (SELECT id, email FROM customers) s (a, b)", "0!"},
	{"a scalar subquery", "SELECT (SELECT email FROM customers c WHERE c.id = o.id), o.note FROM orders o", "0! -"},
	{"a correlated reference", "SELECT (SELECT c.ssn || n.body FROM notes n LIMIT 1) FROM customers c", "1"},
	{"EXISTS", "SELECT EXISTS (SELECT 1 FROM customers WHERE id = 1)", "-"},
	{"ARRAY of a subquery", "SELECT ARRAY(SELECT ssn FROM customers)", "1"},
	{"IN a subquery", "SELECT 'x' IN (SELECT ssn FROM customers)", "1"},
	{"a union by position", "SELECT id, name FROM customers UNION ALL SELECT id, email FROM customers", "- 0!"},
	{"a union with names swapped", "SELECT name AS email, email AS name FROM customers UNION SELECT 'a', 'b'", "- 0!"},
	{"INTERSECT", "SELECT 'CANARY0x1@CANARY0x.org' INTERSECT SELECT email FROM customers", "0!"},
	{"a WITH query", "WITH q AS (SELECT email AS e FROM customers) SELECT e FROM q", "0!"},
	{"a WITH query that hides a table", "WITH customers AS (SELECT body AS email FROM notes) SELECT email FROM customers", "-"},
	{"a WITH query that names the table it hides", "WITH customers AS (SELECT email AS e FROM customers) SELECT e FROM customers", "0!"},
	{"a WITH query with column names", "WITH q (a, b) AS (SELECT id, ssn FROM customers) SELECT b, a FROM q", "1! -"},
	{"a recursive query", "WITH RECURSIVE r (n, v) AS (SELECT 1, 'x' UNION ALL SELECT n + 1, (SELECT email::text FROM customers WHERE id = n) FROM r WHERE n < 4) SELECT n, v FROM r", "- 0!"},
	{"a recursive query in which columns move", "WITH RECURSIVE r (n, a, b, c) AS (SELECT 1, 'x', 'y', ssn FROM customers UNION ALL SELECT n + 1, b, c, a FROM r WHERE n < 4) SELECT n, a, b, c FROM r", "- 1! 1! 1!"},
	{"SEARCH and CYCLE", "WITH RECURSIVE r AS (SELECT id, ssn FROM customers UNION ALL SELECT id + 10, ssn FROM r WHERE id < 4) SEARCH DEPTH FIRST BY ssn SET o CYCLE ssn SET c USING p SELECT id, o, p FROM r", "- 1 1"},
	{"a WITH query that changes data", "WITH d AS (DELETE FROM notes RETURNING body) SELECT body FROM d", "-"},
	{"a WITH query that deletes masked rows", "WITH d AS (DELETE FROM customers RETURNING email, name) SELECT * FROM d", "0! -"},
	{"a join", "SELECT c.name, o.card FROM customers c JOIN orders o ON o.customer_id = c.id", "- 2!"},
	{"a join with USING", "SELECT * FROM customers JOIN archive USING (id)", "- - 0! 1! - 0 - - - - -"},
	{"a merged column is both sides'", "SELECT note, email FROM archive JOIN customers USING (note, email)", "- 0!"},
	{"a natural join", "SELECT email FROM (SELECT email FROM archive) a NATURAL FULL JOIN (SELECT email FROM customers) c", "0!"},
	{"a join with an alias", "SELECT j.b, x FROM (customers c JOIN notes n ON n.id = c.id) AS j (a, n, b, x)", "0! 1!"},
	{"an alias of USING", "SELECT u.id, c.ssn FROM customers c JOIN orders o USING (id) AS u", "- 1!"},
	{"LATERAL", "SELECT l.x FROM customers c, LATERAL (SELECT c.email AS x) l", "0!"},
	{"a function that is lateral of itself", "SELECT u FROM customers c, unnest(ARRAY[c.ssn, c.name]) u", "1"},
	{"a function with ordinality", "SELECT * FROM unnest(ARRAY['a', 'b']) WITH ORDINALITY AS t (v, n)", "- -"},
	{"ROWS FROM", "SELECT a, b FROM customers c, ROWS FROM (unnest(ARRAY[c.ssn]), generate_series(1, 2)) AS t (a, b)", "1 -"},
	{"unnest of several", "SELECT a, b FROM customers c, unnest(ARRAY[c.ssn], c.tags) AS t (a, b)", "1 -"},
	{"TABLESAMPLE", "SELECT email FROM customers TABLESAMPLE SYSTEM (100)", "0!"},
	{"a view", "SELECT mail, s, note FROM v_customers", "0! 1 -"},
	{"a view of a view", "SELECT * FROM v_deep", "- 0! -"},
	{"a view with column names", "SELECT b, a FROM v_named", "0! -"},
	{"a view with a star", "SELECT email, name FROM v_star", "0! -"},
	{"a materialised view", "SELECT e, name FROM m_customers", "0! -"},
	{"a child table", "SELECT name, salary, level FROM hr.managers", "- 3! -"},
	{"a parent of a table with a masked column", "SELECT * FROM reports", "- 4!"},
	{"a view with a function that can not be read", "SELECT id, o FROM v_opaque", "- 0 1 2 3 4+"},
	{"INTO that is clean", "SELECT id INTO fresh FROM notes UNION SELECT id FROM customers", "-"},
	{"a partition", "SELECT card, day FROM events_2024", "2! -"},
	{"a column chosen by ORDER BY and LIMIT", "SELECT name FROM customers ORDER BY 1 LIMIT 1", "-"},
	{"a subquery's column without name", "SELECT lower, \"?column?\" FROM (SELECT lower(email), 1 + 1 FROM customers) s", "0 -"},
	{"EXPLAIN", "EXPLAIN SELECT email FROM customers", "-"},
	{"EXPLAIN that folds a function", "EXPLAIN VERBOSE SELECT mail_of(1)", "0 1"},
	{"a cursor", "DECLARE cur CURSOR FOR SELECT email, name FROM customers", "0! -"},
	{"COPY of a table", "COPY customers TO STDOUT", "- - 0! 1! - - - -"},
	{"COPY of columns", "COPY customers (ssn, id) TO STDOUT", "1! -"},
	{"COPY of a query", "COPY (SELECT name, email FROM customers) TO STDOUT", "- 0!"},
}

var rows = []result{
	{"a whole row", "SELECT c FROM customers c", "0 1"},
	{"a whole row as text", "SELECT c::text, row_to_json(n) FROM customers c, notes n", "0 1 -"},
	{"a whole row of a subquery", "SELECT s FROM (SELECT id, ssn FROM customers) s", "1"},
	{"a field of a row", "SELECT (c).email, (c).name FROM customers c", "0! -"},
	{"all fields of a row", "SELECT (c).* FROM customers c", "- - 0! 1! - 0 - - -"},
	{"a column in functional notation", "SELECT email(customers), name(customers.*) FROM customers", "0! 0 1"},
	{"a function in attribute notation", "SELECT c.contact_mail FROM customers c", "0 1"},
	{"ROW", "SELECT ROW(id, ssn), (ROW(id, ssn)).f2 FROM customers", "1 1!"},
	{"ROW of a star", "SELECT ROW(c.*) FROM customers c", "0 1"},
	{"a field of a row in a subquery", "SELECT (s.r).f1, (s.r).f2 FROM (SELECT ROW(name, email) AS r FROM customers) s", "- 0!"},
	{"row_to_json and to_jsonb", "SELECT row_to_json(c), to_jsonb(c) -> 'name', to_jsonb(n) FROM customers c, notes n", "0 1 0 1 -"},
	{"json_build_object", "SELECT json_build_object('a', ssn), jsonb_build_array(id), json_object_agg(name, email) FROM customers GROUP BY ssn, id", "1 - 0"},
	{"jsonb_each of a row", "SELECT key, value FROM customers c, jsonb_each(to_jsonb(c))", "0 1 0 1"},
	{"json_to_recordset", "SELECT a FROM json_to_recordset((SELECT json_agg(c) FROM customers c)) AS t (a int, ssn text)", "0 1"},
	{"json_populate_record", "SELECT (json_populate_record(NULL::customers, '{\"email\": \"x\"}')).email", "-"},
	{"xmlforest, xmlelement and xmlserialize", "SELECT xmlforest(name, ssn), xmlelement(name a, xmlattributes(email AS b), id), xmlserialize(content xmlelement(name a, name) AS text) FROM customers", "1 0 -"},
	{"xmltable", "SELECT x.* FROM customers c, xmltable('/a' PASSING xmlelement(name a, c.ssn) COLUMNS n FOR ORDINALITY, v text PATH '.') x", "- 1"},
	{"a composite type with a masked field", "SELECT c, (c).phone, (c).card, (whole).email FROM people", "2 - 2! 0!"},
	{"an array of rows", "SELECT (array_agg(c))[1].email FROM customers c", "0 1"},
	{"a whole row of a view", "SELECT v FROM v_customers v", "0 1"},
	{"count of rows", "SELECT count(c), count(c.*) FROM customers c", "- -"},
}

var functionCalls = []result{
	{"a function in SQL", "SELECT mail_of(1), name_of(1), identity_of(name), identity_of(ssn) FROM customers", "0! - - 1"},
	{"a function with a named argument", "SELECT name_of(who => id) FROM customers", "-"},
	{"a function that returns rows", "SELECT * FROM all_customers()", "- - 0! 1! - 0 - - -"},
	{"a field of a function that returns rows", "SELECT (all_customers()).ssn", "1!"},
	{"all fields of a function", "SELECT (pairs()).*", "- 0!"},
	{"a function that returns a table", "SELECT e, n FROM pairs()", "0! -"},
	{"a function with an alias and column names", "SELECT b FROM pairs() AS p (a, b)", "0!"},
	{"a trusted function", "SELECT trusted(name), trusted(ssn) FROM customers", "- 1"},
	{"a function with a masked condition in it", "SELECT fact(1), fact(length(ssn)) FROM customers", "- 1"},
	{"an operator that is a function", "SELECT name @#@ id, name @+@ 2 FROM customers", "0 -"},
	{"an aggregate of users", "SELECT firsts(name), firsts(ssn) FROM customers", "- 1"},
	{"a domain", "SELECT name::short, ssn::short FROM customers", "- 1"},
	{"pg_typeof and num_nulls", "SELECT pg_typeof(email), num_nulls(ssn, email) FROM customers", "- -"},
	{"format and concat", "SELECT format('%s', ssn), concat(id, name), concat_ws(',', VARIADIC ARRAY[email]) FROM customers", "1 - 0"},
	{"regexp functions", "SELECT m[1] FROM customers, regexp_matches(ssn, '(.)') m", "1"},
	{"a default of an argument", "SELECT with_default(), with_default('x')", "0! -"},
	{"a polymorphic function", "SELECT poly(ssn), poly(id) FROM customers", "1 -"},
	{"OUT parameters", "SELECT * FROM two()", "- 1!"},
	{"a field of OUT parameters", "SELECT (two()).b, (two()).a", "1! -"},
	{"generate_series", "SELECT g, h.x FROM generate_series(1, 2) g, generate_series(1, length('ab')) AS h (x)", "- -"},
	{"extract and position", "SELECT extract(year FROM day), position('A' IN card) FROM events", "- 2"},
}

var changes = []result{
	{"INSERT with RETURNING", "INSERT INTO customers (id, email, name) VALUES (9, 'new', 'n') RETURNING id, email, name", "- 0! -"},
	{"an upsert", "INSERT INTO customers (id, email) VALUES (1, 'new') ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email, name = customers.name RETURNING name, email", "- 0!"},
	{"UPDATE with RETURNING", "UPDATE customers c SET name = n.body FROM notes n WHERE n.id = c.id RETURNING c.name, c.ssn, n.body", "- 1! -"},
	{"UPDATE of a masked column with a constant", "UPDATE customers SET email = 'x' RETURNING *", "- - 0! 1! - 0 - - -"},
	{"a masked column that keeps its value", "UPDATE customers SET email = email", ""},
	{"a copy between columns with the same mask", "INSERT INTO events (id, day, card) SELECT id, '2024-01-01', card FROM orders", ""},
	{"DELETE with USING", "DELETE FROM notes n USING customers c WHERE n.id = c.id RETURNING n.body, c.email", "- 0!"},
	{"MERGE", "MERGE INTO notes n USING orders o ON n.id = o.id WHEN MATCHED THEN UPDATE SET body = o.note WHEN NOT MATCHED THEN INSERT (id, body) VALUES (o.id, o.note)", ""},
	{"INSERT of clean columns of a masked table", "INSERT INTO notes SELECT id, name FROM customers RETURNING *", "- -"},
	{"CREATE TABLE AS of clean columns", "CREATE TABLE fresh AS SELECT id, name FROM customers", ""},
	{"a new table is read in the same text", "CREATE TABLE fresh (a int, card text); INSERT INTO fresh VALUES (1, 'x'); SELECT * FROM fresh", "- 2!"},
	{"a temporary table", "CREATE TEMP TABLE tmp AS SELECT id FROM notes; SELECT * FROM tmp", "-"},
	{"a column that is added in the same text", "ALTER TABLE notes ADD COLUMN extra text; UPDATE notes SET extra = body", ""},
	{"a table with a trigger and a default of its owner's", "INSERT INTO fired (v) VALUES ('x') RETURNING id, v, n", "- - -"},
	{"a view with an INSTEAD OF trigger", "INSERT INTO v_fired VALUES (1, 'x') RETURNING id, v", "opaque"},
	{"a table with a rule that returns something else", "INSERT INTO ruled VALUES (-1, 'x')", "opaque"},
	{"a procedure", "CALL proc('x')", "0!"},
	{"a sequence", "SELECT nextval('seq'), last_value FROM seq", "- -"},
	{"a view of clean columns is made", "CREATE VIEW fresh AS SELECT id, name FROM customers", ""},
	{"a function is made that reads clean columns", "CREATE FUNCTION fresh() RETURNS text LANGUAGE sql AS 'SELECT name FROM customers'", ""},
	{"a column is added to a masked table", "ALTER TABLE orders ADD COLUMN extra int DEFAULT 0", ""},
	{"an index on a masked column", "CREATE INDEX ON customers (lower(email))", ""},
	{"a masked table is dropped", "DROP TABLE customers CASCADE", ""},
}

var catalogs = []result{
	{"columns of the catalog", "SELECT relname, reltuples FROM pg_class WHERE relname = 'notes'", "- -"},
	{"statistics with samples", "SELECT tablename, most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = 'notes'", "- 0 1 2 3 4 0 1 2 3 4"},
	{"text of statements", "SELECT count(pid), max(query) FROM pg_stat_activity WHERE pid = 0", "- 0 1 2 3 4"},
	{"attmissingval", "SELECT attname, attmissingval FROM pg_attribute WHERE attnum = 1 AND attrelid = 'notes'::regclass", "- 0 1 2 3 4"},
	{"information_schema", "SELECT table_name, column_name FROM information_schema.columns WHERE table_name = 'notes'", "- -"},
}
