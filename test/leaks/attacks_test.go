package leaks

// attacks are what somebody would try who knows how masks work.
func attacks() (scripts []script) {
	add := func(class string, outcome int, statements ...string) {
		scripts = append(scripts, all(class, outcome, statements...)...)
	}
	session := func(class string, outcome int, statements ...string) {
		scripts = append(scripts, script{class: class, sql: statements, outcome: outcome})
	}
	undone := func(class string, outcome int, statements ...string) {
		session(class, outcome, append(append([]string{"BEGIN"}, statements...), "ROLLBACK")...)
	}
	add("functions of all forms", allowed, `SELECT a, b FROM outs()`, `SELECT (outs()).a`, `SELECT outs()`, `SELECT * FROM tabled()`, `SELECT x FROM tabled() AS t`, `SELECT * FROM records() AS r (e text, i int)`, `SELECT records()`, `SELECT nested(), nested(2), nested(i => 3)`,
		`SELECT over(1), over('x')`, `SELECT many(1, 2), many(VARIADIC array[3])`, `SELECT email_imm()`, `SELECT wrap(email), wrap(name) FROM customers`, `SELECT home_of(1), (home_of(2)).street`, `SELECT 1::address`, `SELECT CAST(2 AS address)::text`,
		`SELECT t.* FROM orders o, LATERAL email_of(o.customer) t ORDER BY o.id`, `SELECT * FROM ROWS FROM (tabled(), all_customers()) WITH ORDINALITY`, `SELECT nested FROM nested()`)
	add("functions of all forms", denied, `SELECT deep(1)`, `SELECT wrap(deep(1))`, `SELECT hidden_email(id) FROM plain`)
	add("constants that plans show", whatever, `EXPLAIN (VERBOSE, COSTS off) SELECT email_imm()`, `EXPLAIN (VERBOSE, COSTS off) SELECT * FROM plain WHERE t = email_imm()`, `EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) INSERT INTO plain (t) SELECT email FROM customers`,
		`EXPLAIN (VERBOSE, COSTS off) SELECT upper(email_imm())`)
	session("constants that plans show", whatever, `SET client_min_messages = log`, `SET debug_print_plan = on`, `SELECT email_imm()`, `SELECT 1`)
	session("state of the session", whatever, `SELECT setval('counter', card) FROM customers WHERE id = 1`, `SELECT currval('counter'), lastval()`, `SELECT last_value FROM counter`, `SELECT setval('counter', 1)`)
	session("state of the session", denied, `SELECT setseed(0.5 + (card % 100) / 1000.0) FROM customers WHERE id = 1`)
	session("state of the session", whatever, `SELECT pg_advisory_lock(card) FROM customers`, `SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory' ORDER BY 1, 2`)
	session("state of the session", whatever, `SELECT pg_try_advisory_xact_lock(card) FROM customers`, `SELECT pg_advisory_unlock(card) FROM customers`)
	session("state of the session", denied, `SELECT lo_create((card % 1000000)::int::oid) FROM customers`, `SELECT oid FROM pg_largeobject_metadata ORDER BY 1`)
	session("state of the session", denied, `SELECT pg_create_restore_point(email) FROM customers`)
	session("settings of what is shown", whatever, `SET DateStyle = 'German'`, `SET IntervalStyle = 'iso_8601'`, `SET bytea_output = 'escape'`, `SET extra_float_digits = 3`, `SET xmlbinary = hex`, `SELECT born, seen, secret, balance, card::float8, page FROM customers`, `SELECT row(born, secret) FROM customers`)
	session("settings of what is shown", whatever, `SET client_encoding = 'LATIN1'`, `SELECT email, note FROM customers`, `COPY customers TO STDOUT`, `SET client_encoding = 'SQL_ASCII'`, `SELECT email, note FROM customers`)
	session("settings of what is shown", allowed, `SET TIME ZONE 'Asia/Tokyo'`, `SELECT seen FROM customers`, `RESET ALL`, `SELECT seen FROM customers`, `DISCARD ALL`, `SELECT email FROM customers`)
	session("search paths", whatever, `SET search_path = pg_temp, public`, `CREATE TEMP TABLE customers (id int, email text)`, `SELECT * FROM customers`, `SELECT * FROM public.customers`, `DROP TABLE customers`, `SELECT email FROM customers`)
	session("search paths", whatever, `SET search_path = books, public`, `SELECT iban, (SELECT email FROM customers LIMIT 1) FROM ledger`, `SET search_path = ''`, `SELECT email FROM public.customers`)
	session("names that are taken again", whatever, `PREPARE p AS SELECT 'x'`, `EXECUTE p`, `DEALLOCATE p`, `PREPARE p AS SELECT email FROM customers`, `EXECUTE p`)
	session("names that are taken again", denied, `PREPARE p AS SELECT email FROM customers`, `PREPARE p AS SELECT name FROM customers`, `EXECUTE p`)
	session("names that are taken again", whatever, `PREPARE p AS SELECT email FROM customers`, `BEGIN`, `DEALLOCATE p`, `PREPARE p AS SELECT name FROM customers`, `ROLLBACK`, `EXECUTE p`)
	session("names that are taken again", whatever, `PREPARE p AS SELECT name FROM customers`, `BEGIN`, `DEALLOCATE p`, `PREPARE p AS SELECT email FROM customers`, `SELECT 1/0`, `ROLLBACK`, `EXECUTE p`)
	session("names that are taken again", denied, `BEGIN`, `DECLARE c CURSOR FOR SELECT email FROM customers`, `SAVEPOINT a`, `DECLARE c CURSOR FOR SELECT name FROM customers`, `ROLLBACK TO a`, `FETCH ALL FROM c`, `COMMIT`)
	session("names that are taken again", whatever, `BEGIN`, `DECLARE c CURSOR FOR SELECT email FROM customers`, `SAVEPOINT a`, `CLOSE c`, `DECLARE c CURSOR FOR SELECT name FROM customers`, `ROLLBACK TO a`, `FETCH ALL FROM c`, `COMMIT`)
	session("names that are taken again", whatever, `BEGIN`, `DECLARE "C" CURSOR FOR SELECT email FROM customers`, `DECLARE c CURSOR FOR SELECT name FROM customers`, `FETCH ALL FROM "C"`, `FETCH ALL FROM C`, `CLOSE ALL`, `COMMIT`)
	scripts = append(scripts,
		script{class: "names that are taken again", sql: []string{`PREPARE p AS SELECT email FROM customers; PREPARE p AS SELECT name FROM customers`, `EXECUTE p`, `DEALLOCATE ALL`, `PREPARE q AS SELECT name FROM customers; SELECT 1/0; DEALLOCATE q; PREPARE q AS SELECT email FROM customers`, `EXECUTE q`}, simple: true},
		script{class: "names that are taken again", sql: []string{`BEGIN; DECLARE c CURSOR FOR SELECT email FROM customers; FETCH c; CLOSE c; DECLARE c CURSOR FOR SELECT name FROM customers; FETCH c; COMMIT`}, simple: true})
	add("programs and files of the server", denied, `COPY plain (t) FROM PROGRAM 'echo x'`, `COPY plain (t) FROM '/etc/hostname'`)
	undone("rules and triggers of the owner", whatever, `INSERT INTO swapped VALUES (1, 'x') RETURNING *`, `INSERT INTO swapped VALUES (1, 'x')`)
	undone("rules and triggers of the owner", whatever, `INSERT INTO noisy VALUES (1, 'x')`, `INSERT INTO noisy VALUES (1, 'x') RETURNING t`)
	session("rules and triggers of the owner", whatever, `BEGIN`, `INSERT INTO strict VALUES (1, 'x')`, `COMMIT`)
	session("rules and triggers of the owner", whatever, `BEGIN`, `INSERT INTO strict VALUES (1, 'x')`, `SET CONSTRAINTS ALL IMMEDIATE`, `ROLLBACK`)
	undone("rules and triggers of the owner", whatever, `INSERT INTO filled VALUES (1, 'x') RETURNING t`, `INSERT INTO filled VALUES (1, 'x') RETURNING filled`)
	undone("rules and triggers of the owner", whatever, `INSERT INTO door VALUES (1, 'x') RETURNING name`)
	undone("rules and triggers of the owner", whatever, `INSERT INTO checked VALUES (50)`)
	undone("rules and triggers of the owner", whatever, `COPY noisy FROM STDIN`)
	scripts = append(scripts, inferring(all("side effects", whatever, `SELECT CASE WHEN email LIKE 'q%' THEN nextval('counter') END FROM customers`, `UPDATE plain SET t = 'x' WHERE id = (SELECT card % 2 FROM customers WHERE id = 1)`, `INSERT INTO plain (id) SELECT 5 FROM customers WHERE ssn LIKE '0%'`))...)
	return scripts
}
