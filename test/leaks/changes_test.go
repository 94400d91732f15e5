package leaks

// changes are statements that write, copy, declare, and change what names mean.
func changes() (scripts []script) {
	add := func(class string, outcome int, statements ...string) {
		scripts = append(scripts, all(class, outcome, statements...)...)
	}
	// Several statements of one session; what they do to the database is undone.
	session := func(class string, outcome int, statements ...string) {
		scripts = append(scripts, script{class: class, sql: statements, outcome: outcome})
	}
	undone := func(class string, outcome int, statements ...string) {
		session(class, outcome, append(append([]string{"BEGIN"}, statements...), "ROLLBACK")...)
	}
	undone("RETURNING", allowed, `UPDATE customers SET name = 'x' WHERE id = 1 RETURNING *`, `UPDATE customers SET name = name RETURNING email, upper(ssn), id`)
	undone("RETURNING", allowed, `DELETE FROM orders USING customers c WHERE c.id = customer RETURNING c.email, orders.id`)
	undone("RETURNING", allowed, `INSERT INTO customers (id, name) VALUES (50, 'x') RETURNING *`, `INSERT INTO customers (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING email, customers`)
	undone("RETURNING", allowed, `WITH x AS (UPDATE customers SET name = 'y' WHERE id = 2 RETURNING email) SELECT * FROM x`, `WITH x AS (DELETE FROM orders RETURNING (SELECT ssn FROM customers WHERE id = 1)) TABLE x`)
	undone("RETURNING", allowed, `UPDATE plain SET t = 'z' RETURNING (SELECT email FROM customers WHERE id = 1), t`)
	for _, sql := range []string{
		`INSERT INTO plain (t) SELECT email FROM customers`, `INSERT INTO plain (t) VALUES ((SELECT email FROM customers WHERE id = 1)) RETURNING t`, `UPDATE plain SET t = (SELECT ssn FROM customers WHERE id = 1) RETURNING t`,
		`UPDATE plain SET t = c.email FROM customers c RETURNING t`, `UPDATE customers SET name = email RETURNING name`, `UPDATE customers SET (name, note_public) = (SELECT email, ssn) RETURNING name`,
		`INSERT INTO customers (id, name) SELECT id + 100, email FROM customers RETURNING name`, `INSERT INTO customers (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = customers.email RETURNING name`,
		`MERGE INTO plain p USING customers c ON p.id = c.id WHEN MATCHED THEN UPDATE SET t = c.email`, `WITH x AS (SELECT email AS e FROM customers) INSERT INTO plain (t) SELECT e FROM x RETURNING *`,
		`CREATE TABLE stolen AS SELECT email AS x FROM customers`, `SELECT email AS x INTO stolen FROM customers`, `CREATE TEMP TABLE stolen AS TABLE customers`, `CREATE MATERIALIZED VIEW stolen AS SELECT email FROM customers`,
		`CREATE TABLE stolen AS SELECT email_of(1)`, `CREATE TABLE stolen AS SELECT * FROM people2`,
	} {
		undone("values that would be stored", denied, sql, `SELECT * FROM stolen`, `SELECT * FROM plain`, `SELECT name, note_public FROM customers`)
	}
	for _, sql := range []string{
		`COPY customers TO STDOUT`, `COPY customers TO STDOUT (FORMAT csv, HEADER)`, `COPY customers TO STDOUT (FORMAT binary)`, `COPY customers (id, email, ssn) TO STDOUT`, `COPY (SELECT email, id, upper(ssn) FROM customers) TO STDOUT WITH CSV`,
		`COPY (SELECT * FROM people) TO STDOUT (FORMAT binary)`, `COPY customers (note, name) TO STDOUT (FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\', FORCE_QUOTE *)`, `COPY customers (note, home, tags) TO STDOUT (DELIMITER '|', NULL 'none')`,
		`COPY archive_1 TO STDOUT`, `COPY (SELECT c FROM customers c) TO STDOUT`, `COPY (UPDATE customers SET name = name RETURNING email) TO STDOUT`, `COPY plain TO STDOUT`, `COPY (TABLE customers) TO STDOUT (ENCODING 'UTF8')`,
	} {
		undone("COPY to the client", allowed, sql)
	}
	add("COPY elsewhere", denied, `COPY customers TO '/tmp/sallyport-leak'`, `COPY (SELECT email FROM customers) TO PROGRAM 'cat >/tmp/sallyport-leak'`)
	add("COPY elsewhere", whatever, `COPY customers (email) TO STDOUT (ENCODING 'LATIN1')`, `COPY customers (email) TO STDOUT (ENCODING 'UTF16')`, `COPY plain FROM '/etc/hostname'`)
	undone("cursors", allowed, `DECLARE c CURSOR FOR SELECT id, email FROM customers`, `FETCH 1 FROM c`, `FETCH ALL FROM c`)
	undone("cursors", allowed, `DECLARE c SCROLL CURSOR FOR SELECT email AS x, row_to_json(customers) FROM customers`, `FETCH LAST FROM c`, `FETCH BACKWARD ALL FROM c`, `FETCH ABSOLUTE 1 FROM c`, `MOVE 1 FROM c`)
	undone("cursors", allowed, `DECLARE c BINARY CURSOR FOR SELECT card, ssn, born, balance, token, ip FROM customers`, `FETCH ALL FROM c`)
	undone("cursors", allowed, `DECLARE c NO SCROLL CURSOR FOR SELECT email FROM customers FOR UPDATE`, `FETCH c`, `UPDATE customers SET name = 'x' WHERE CURRENT OF c RETURNING email`)
	session("cursors", allowed, `BEGIN`, `DECLARE held CURSOR WITH HOLD FOR SELECT ssn || '' FROM customers`, `COMMIT`, `FETCH 2 FROM held`, `CLOSE held`)
	session("cursors", whatever, `BEGIN`, `DECLARE c CURSOR FOR SELECT 1`, `CLOSE c`, `DECLARE c CURSOR FOR SELECT email FROM customers`, `FETCH c`, `SAVEPOINT s`, `FETCH c`, `ROLLBACK TO s`, `FETCH c`, `COMMIT`)
	session("prepared in SQL", allowed, `PREPARE p AS SELECT email FROM customers`, `EXECUTE p`, `EXECUTE p`, `DEALLOCATE p`, `PREPARE p (int) AS SELECT ssn, $1 FROM customers WHERE id = $1`, `EXECUTE p (1)`, `EXECUTE p (2)`, `DEALLOCATE ALL`)
	session("prepared in SQL", denied, `PREPARE p AS SELECT email FROM customers`, `CREATE TABLE stolen AS EXECUTE p`, `SELECT * FROM stolen`)
	session("prepared in SQL", whatever, `PREPARE p (text) AS SELECT $1`, `EXECUTE p ((SELECT email FROM customers WHERE id = 1))`, `EXPLAIN (ANALYZE, VERBOSE, COSTS off, TIMING off, SUMMARY off) EXECUTE p ('x')`, `DEALLOCATE p`, `PREPARE p AS SELECT 1`, `EXECUTE p`)
	for _, sql := range [][]string{
		{`CREATE VIEW v AS SELECT email AS x FROM customers`, `SELECT x FROM v`}, {`CREATE TEMP VIEW v AS TABLE customers`, `SELECT * FROM v`}, {`CREATE OR REPLACE VIEW counts AS SELECT count(ssn) AS n FROM customers`, `SELECT * FROM counts`},
		{`CREATE OR REPLACE VIEW people2 (a, b) AS SELECT id, ssn::text FROM customers`, `SELECT * FROM people2`}, {`ALTER TABLE customers RENAME COLUMN email TO e`, `SELECT e FROM customers`}, {`ALTER TABLE customers RENAME TO c2`, `SELECT email FROM c2`},
		{`ALTER TABLE customers SET SCHEMA books`, `SELECT email FROM books.customers`}, {`ALTER TABLE customers ADD COLUMN x text GENERATED ALWAYS AS (email) STORED`, `SELECT x FROM customers`},
		{`ALTER TABLE customers ALTER COLUMN domain_part DROP EXPRESSION`, `SELECT domain_part FROM customers`}, {`ALTER TABLE customers ALTER COLUMN name TYPE text USING email`, `SELECT name FROM customers`},
		{`CREATE TABLE child () INHERITS (customers)`, `SELECT * FROM child`}, {`CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT email FROM customers'`, `SELECT f()`}, {`CREATE FUNCTION f(customers) RETURNS text LANGUAGE sql AS 'SELECT $1.email'`, `SELECT c.f FROM customers c`},
		{`CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT email FROM customers LIMIT 1); END$$`, `SELECT pg_temp.f()`}, {`CREATE OR REPLACE FUNCTION email_of(int) RETURNS text LANGUAGE sql AS 'SELECT ssn::text FROM public.customers'`, `SELECT email_of(1)`},
		{`CREATE RULE r AS ON UPDATE TO plain DO INSTEAD SELECT email FROM customers`, `UPDATE plain SET t = 'x'`}, {`CREATE TRIGGER t BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION watch()`, `INSERT INTO plain VALUES (2, 'x') RETURNING t`},
		{`CREATE TABLE x (LIKE customers INCLUDING ALL)`, `INSERT INTO x SELECT * FROM customers`, `SELECT * FROM x`}, {`CREATE AGGREGATE g(text) (SFUNC = textcat, STYPE = text)`, `SELECT g(email) FROM customers`},
		{`CREATE CAST (customers AS text) WITH FUNCTION fail(text)`, `SELECT c::text FROM customers c`}, {`ALTER VIEW people RENAME COLUMN contact TO name2`, `SELECT name2 FROM people`}, {`CREATE TEMP TABLE customers (email text)`, `INSERT INTO pg_temp.customers SELECT email FROM public.customers`, `SELECT * FROM pg_temp.customers`},
		{`CREATE TABLE archive_2 PARTITION OF archive FOR VALUES FROM (100) TO (200)`, `SELECT * FROM archive_2`}, {`ALTER TABLE archive DETACH PARTITION archive_1`, `SELECT * FROM archive_1`}, {`ALTER TABLE books.ledger_child NO INHERIT books.ledger`, `SELECT * FROM books.ledger_child`},
		{`CREATE INDEX i ON customers (upper(email))`, `SELECT * FROM pg_indexes WHERE tablename = 'customers'`}, {`CREATE STATISTICS s (mcv) ON email, ssn FROM customers`, `ANALYZE customers`, `SELECT * FROM pg_stats_ext`, `SELECT stxdmcv FROM pg_statistic_ext_data`},
		{`ALTER TABLE customers ALTER COLUMN email TYPE int USING email::int`}, {`CREATE UNIQUE INDEX i ON customers ((1))`}, {`ALTER TABLE customers DROP COLUMN domain_part`, `SELECT * FROM customers`},
		{`COMMENT ON COLUMN customers.email IS 'x'`, `SELECT col_description('customers'::regclass, 4)`}, {`CREATE DOMAIN d AS text CHECK (fail(VALUE) IS NULL)`, `SELECT email::d FROM customers`}, {`CREATE OPERATOR @@@ (LEFTARG = text, FUNCTION = upper)`, `SELECT @@@ email FROM customers`},
		{`CREATE FUNCTION upper(mail) RETURNS text LANGUAGE sql AS 'SELECT $1::text'`, `SELECT upper(code) FROM customers`}, {`CREATE POLICY p ON plain USING (shout((SELECT email FROM customers LIMIT 1)) IS NULL)`, `SELECT * FROM plain`}, {`CREATE PUBLICATION pub FOR TABLE customers`},
		{`REFRESH MATERIALIZED VIEW frozen`, `SELECT * FROM frozen`}, {`CLUSTER customers USING customers_pkey`}, {`TRUNCATE customers CASCADE`, `SELECT * FROM customers`}, {`ALTER TABLE plain ADD COLUMN x text DEFAULT (email_of(1))`, `SELECT x FROM plain`},
		{`ALTER TABLE plain ALTER COLUMN t SET DEFAULT email_of(1)`, `INSERT INTO plain (id) VALUES (7) RETURNING *`},
	} {
		undone("schema changes", whatever, sql...)
	}
	scripts = append(scripts,
		script{class: "several statements", sql: []string{`SELECT 1; SELECT email FROM customers; SELECT 2`, `BEGIN; SELECT ssn AS name FROM customers; ROLLBACK`, `SELECT id FROM customers ORDER BY id; SELECT * FROM people; SELECT name FROM customers`}, outcome: allowed, simple: true},
		script{class: "several statements", sql: []string{`BEGIN; CREATE VIEW v AS SELECT email AS x FROM customers; SELECT x FROM v; ROLLBACK`}, simple: true},
		script{class: "several statements", sql: []string{`BEGIN; CREATE TEMP TABLE x (a text); INSERT INTO x SELECT email FROM customers; SELECT * FROM x; ROLLBACK`}, outcome: denied, simple: true},
		script{class: "several statements", sql: []string{`SELECT email FROM customers; SELECT 1/0`, `COPY (SELECT email FROM customers) TO STDOUT; SELECT ssn FROM customers`}, simple: true})
	return scripts
}
