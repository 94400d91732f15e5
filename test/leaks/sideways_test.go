package leaks

// sideways are statements that would show values elsewhere than in rows: in errors and notices, plans, settings, the catalog, files.
func sideways() (scripts []script) {
	add := func(class string, outcome int, statements ...string) {
		scripts = append(scripts, all(class, outcome, statements...)...)
	}
	session := func(class string, outcome int, statements ...string) {
		scripts = append(scripts, script{class: class, sql: statements, outcome: outcome})
	}
	add("errors", denied, `SELECT email::int FROM customers`, `SELECT ssn::uuid FROM customers`, `SELECT note::numeric FROM customers`, `SELECT note::date FROM customers`, `SELECT email::inet FROM customers`, `SELECT email::json FROM customers`,
		`SELECT email::mood FROM customers`, `SELECT cast(email AS int[]) FROM customers`, `SELECT to_date(email, 'YYYY') FROM customers`, `SELECT email::regclass FROM customers`, `SELECT decode(email, 'hex') FROM customers`,
		`SELECT ('{' || email)::text[] FROM customers`, `SELECT to_number(ssn, 'x') / 0 FROM customers`, `SELECT card::int FROM customers`, `SELECT xpath(email, page) FROM customers`, `SELECT regexp_match('a', '(' || email) FROM customers`,
		`SELECT current_setting(email) FROM customers`, `SELECT set_config(email, 'x', false) FROM customers`, `SELECT date_trunc(email, born::timestamp) FROM customers`, `SELECT id FROM customers WHERE email::int = 1`, `SELECT nextval(email) FROM customers`,
		`SELECT setseed(card) FROM customers`, `SELECT has_table_privilege(email, 'select') FROM customers`, `SELECT jsonb_path_query('{}', email::jsonpath) FROM customers`, `SELECT to_regclass(email || '..') FROM customers`)
	session("errors", denied, `BEGIN`, `UPDATE customers SET name = NULL WHERE id = 1`, `ROLLBACK`)
	session("errors", denied, `BEGIN`, `UPDATE customers SET code = note`, `ROLLBACK`)
	session("errors", denied, `BEGIN`, `UPDATE customers SET id = 1`, `ROLLBACK`)
	session("errors", denied, `BEGIN`, `INSERT INTO customers (id, name, email) SELECT id + 10, 'x', email FROM customers`, `ROLLBACK`)
	session("errors", denied, `BEGIN`, `UPDATE customers SET email = (SELECT email FROM customers WHERE id = 1)`, `ROLLBACK`)
	session("errors", denied, `BEGIN`, `UPDATE customers SET ssn = email`, `ROLLBACK`)
	session("errors", denied, `BEGIN`, `SELECT email FROM customers`, `INSERT INTO orders VALUES (99, 999, 1, 'x')`, `COMMIT`)
	session("errors", whatever, `BEGIN`, `SAVEPOINT a`, `SELECT email::int FROM customers`, `ROLLBACK TO a`, `SELECT 1/0`, `ROLLBACK`, `SELECT 'x'::int`)
	session("errors", whatever, `SET client_min_messages = debug5`, `SELECT email FROM customers`, `SET debug_print_plan = on`, `SELECT id FROM customers WHERE id = 1`)
	session("notices", denied, `SELECT shout(email) FROM customers`, `SELECT fail(email) FROM customers`, `SELECT fail(ssn) FROM customers WHERE id = 1`)
	scripts = append(scripts, script{class: "notices", volatile: true, sql: []string{`SET log_statement = 'all'`, `SET client_min_messages = log`, `SET log_min_duration_statement = 0`, `SELECT email FROM customers`, `LOAD 'auto_explain'`, `SET auto_explain.log_min_duration = 0`, `SET auto_explain.log_analyze = on`, `SELECT * FROM customers`}})
	add("notices", denied, `DO $$BEGIN RAISE NOTICE '%', (SELECT email FROM customers LIMIT 1); END$$`, `DO $$DECLARE e text; BEGIN SELECT email INTO e FROM public.customers LIMIT 1; RAISE EXCEPTION '%', e; END$$`, `CALL tell('')`, `CALL tell(NULL)`)
	add("functions that can not be read", denied, `SELECT hidden_email(1)`, `SELECT * FROM hidden_rows()`, `SELECT upper(hidden_email(1))`, `SELECT id FROM plain WHERE hidden_email(1) IS NOT NULL`, `INSERT INTO plain (t) SELECT hidden_email(1)`)
	add("statements as text", denied, `SELECT query_to_xml('SELECT email FROM customers', true, false, '')`, `SELECT table_to_xml('customers', true, false, '')`, `SELECT schema_to_xml('public', true, false, '')`, `SELECT database_to_xml(true, false, '')`, `SELECT table_to_xml_and_xmlschema('customers', true, false, '')`,
		`SELECT * FROM ts_stat('SELECT to_tsvector(email) FROM customers')`, `SELECT * FROM dblink('dbname=one', 'SELECT email FROM customers') AS t (e text)`, `SELECT dblink_exec('dbname=one', 'SELECT 1')`, `SELECT dblink_connect('c', 'dbname=one')`, `SELECT ts_rewrite('a'::tsquery, 'SELECT to_tsquery(email), to_tsquery(email) FROM customers')`)
	session("statements as text", denied, `BEGIN`, `DECLARE c CURSOR FOR SELECT email FROM customers`, `SELECT cursor_to_xml('c', 10, true, false, '')`, `ROLLBACK`)
	add("plans", whatever, `EXPLAIN (COSTS off) SELECT * FROM customers WHERE id = 1`, `EXPLAIN (VERBOSE, COSTS off) SELECT email, upper(ssn) FROM customers`, `EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT email FROM customers WHERE id = (SELECT 1)`,
		`EXPLAIN (FORMAT json, COSTS off) SELECT email FROM customers`, `EXPLAIN (ANALYZE, VERBOSE, FORMAT xml, COSTS off, TIMING off, SUMMARY off) SELECT * FROM people`, `EXPLAIN (COSTS off) SELECT email_of(1)`)
	scripts = append(scripts, volatile(inferring(all("plans", whatever, `EXPLAIN ANALYZE SELECT * FROM customers WHERE email > 'o'`, `EXPLAIN SELECT * FROM customers WHERE email > 'o'`, `EXPLAIN SELECT email FROM customers`)))...)
	session("settings", denied, `SELECT set_config('my.x', email, false) FROM customers`, `SHOW my.x`, `SELECT current_setting('my.x', true)`)
	session("settings", denied, `SELECT set_config('application_name', email, false) FROM customers`, `SHOW application_name`, `SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()`)
	add("settings", denied, `SELECT set_config('search_path', (SELECT email FROM customers LIMIT 1), false)`)
	session("notifications", denied, `LISTEN ch`, `SELECT pg_notify('ch', email) FROM customers`, `SELECT 1`)
	session("notifications", denied, `LISTEN ch`, `SELECT pg_notify('ch', (SELECT ssn FROM customers LIMIT 1))`, `SELECT 1`)
	scripts = append(scripts, volatile(all("catalog", whatever, `SELECT * FROM pg_stats WHERE tablename = 'customers'`, `SELECT most_common_vals, histogram_bounds FROM pg_stats`, `SELECT stavalues1, stavalues2 FROM pg_statistic`, `SELECT pg_stats FROM pg_stats`, `SELECT * FROM pg_stats_ext_exprs`,
		`SELECT row_to_json(s) FROM pg_statistic s`, `SELECT query FROM pg_stat_activity`, `SELECT * FROM pg_prepared_statements`, `SELECT * FROM pg_cursors`, `SELECT pg_get_viewdef('people')`, `SELECT prosrc FROM pg_proc WHERE proname = 'email_of'`, `SELECT current_query()`))...)
	add("large objects", denied, `SELECT lo_get(77001)`, `SELECT loread(lo_open(77001, 262144), 100)`, `SELECT lo_export(77001, '/tmp/sallyport-leak')`, `SELECT lo_from_bytea(0, secret) FROM customers`, `SELECT lo_put(77001, 0, secret) FROM customers`, `SELECT lo_import('/etc/hostname')`)
	add("large objects", whatever, `SELECT data FROM pg_largeobject`, `SELECT * FROM pg_largeobject_metadata`)
	add("files of the server", denied, `SELECT pg_read_file('postgresql.conf')`, `SELECT pg_read_binary_file(pg_relation_filepath('customers'))`, `SELECT encode(pg_read_binary_file(pg_relation_filepath('customers')), 'escape')`, `SELECT pg_file_write('x', email, false) FROM customers`)
	add("work of others", denied, `SELECT pg_logical_emit_message(true, 'x', email) FROM customers`)
	add("what owners made", whatever, `INSERT INTO plain (id) VALUES (-1)`)
	session("what owners made", whatever, `BEGIN`, `INSERT INTO plain (id) VALUES (-1)`, `INSERT INTO plain (id) VALUES (-1) RETURNING *`, `ROLLBACK`)
	return scripts
}
