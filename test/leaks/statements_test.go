package leaks

// Outcomes of a statement.
const (
	whatever = iota // only that nothing leaks is asked
	allowed         // no error
	denied          // an error
)

// A script is statements of one session.
type script struct {
	class   string
	sql     []string
	outcome int
	// infers is true where the rows that come, or their number, may depend on masked values: that is inference, and not what masks hide.
	infers bool
	// volatile is true where answers differ from one session to the next.
	volatile bool
	// simple is true for what the simple protocol alone takes.
	simple bool
}

// all are scripts of one class, of one statement each.
func all(class string, outcome int, statements ...string) []script {
	var scripts []script
	for _, sql := range statements {
		scripts = append(scripts, script{class: class, sql: []string{sql}, outcome: outcome})
	}
	return scripts
}

func volatile(scripts []script) []script {
	for i := range scripts {
		scripts[i].volatile = true
	}
	return scripts
}

func inferring(scripts []script) []script {
	for i := range scripts {
		scripts[i].infers = true
	}
	return scripts
}

// results are statements that show values in rows.
func results() (scripts []script) {
	add := func(class string, outcome int, statements ...string) {
		scripts = append(scripts, all(class, outcome, statements...)...)
	}
	add("columns", allowed,
		`SELECT * FROM customers`, `SELECT c.* FROM customers c`, `TABLE customers`, `SELECT email FROM customers`, `SELECT email AS name FROM customers`,
		`SELECT "email" FROM "public"."customers"`, `SELECT ALL email AS "Größe" FROM ONLY customers`, `SELECT a, d FROM customers AS c (a, b, x, d, e)`,
		`SELECT ssn, phone, card, born, seen, balance, doc, docb, tags, home, period, token, secret, ip, mood, page, attrs, code, note, domain_part FROM customers`,
		`SELECT id, name, note_public FROM customers ORDER BY id`, `SELECT c FROM customers c`, `SELECT (c).email FROM customers c`, `SELECT (c.*).ssn FROM customers c`,
		`SELECT email(c), ssn(c) FROM customers c`, `SELECT customers FROM customers`, `SELECT domain_part FROM customers LIMIT 2`)
	add("expressions", allowed,
		`SELECT upper(email), email || '', substr(email, 1, 3), reverse(email), md5(email), length(email), ascii(email), initcap(note) FROM customers`,
		`SELECT encode(secret, 'hex'), encode(secret, 'base64'), encode(secret, 'escape'), email::bytea, convert_to(email, 'UTF8'), sha256(secret) FROM customers`,
		`SELECT CASE WHEN id > 1 THEN email ELSE ssn END, COALESCE(email, name), NULLIF(email, ''), GREATEST(email, name), LEAST(ssn, 'z') FROM customers`,
		`SELECT card::text, card + 0, card % 10, to_hex(card), -card, card::numeric, card::float8, balance * 2, round(balance), balance::int, to_char(balance, '9999999.99') FROM customers`,
		`SELECT born + 1, to_char(born, 'YYYY MM DD'), extract(year FROM born), born::timestamptz, date_trunc('day', seen), seen::date, seen AT TIME ZONE 'UTC' FROM customers`,
		`SELECT home::text, (home).street, (home).number, row(home), home IS NULL FROM customers`,
		`SELECT tags[1], tags[1:2], array_to_string(tags, ','), tags || 'x'::text, array_length(tags, 1), tags::text, array_to_json(tags) FROM customers`,
		`SELECT unnest(tags), id FROM customers`, `SELECT docb->>'who', docb->'deep'->0->>'x', docb #>> '{deep,0,x}', doc->>'n', docb::text, docb - 'n', doc::jsonb FROM customers`,
		`SELECT jsonb_path_query(docb, '$.who'), jsonb_pretty(docb), jsonb_strip_nulls(docb), jsonb_set(docb, '{x}', '1') FROM customers`,
		`SELECT lower(period), upper(period), period::text, isempty(period), period * daterange('1900-01-01', '2100-01-01') FROM customers`,
		`SELECT attrs->'who', attrs::text, hstore_to_json(attrs), avals(attrs), akeys(attrs) FROM customers`,
		`SELECT page::text, xmlserialize(CONTENT page AS text), xpath('/p/text()', page), xmlconcat(page, page) FROM customers`,
		`SELECT host(ip), text(ip), ip + 1, broadcast(ip), ip::cidr, token::text, mood::text, uuid_send(token), code::text FROM customers`,
		`SELECT c::text, concat(c), concat_ws('-', email, ssn), format('%s %L', c, email), quote_literal(email), quote_ident(note) FROM customers c`,
		`SELECT regexp_matches(email, '.*'), regexp_replace(email, 'x', 'y'), split_part(email, '@', 1), translate(email, 'a', 'b'), overlay(email placing 'x' from 1), lpad(email, 50) FROM customers`,
		`SELECT (SELECT email FROM customers WHERE id = 1), ARRAY(SELECT ssn FROM customers), EXISTS (SELECT email FROM customers)`,
		`SELECT row(email, ssn, 1), ROW(c.*), array[email, ssn::text], (email, id) FROM customers c`, `SELECT to_tsvector('simple', email), to_tsquery('simple', 'a') FROM customers`,
		`SELECT email COLLATE "C", email::citext, email::varchar(10), cast(ssn AS text), ssn::name, secret::text, born::text, seen::text FROM customers`,
		`SELECT string_to_array(email, '@'), string_to_table(email, '@') FROM customers`, `SELECT set_masklen(ip, 8), inet_send(ip), textsend(email), int8send(card), numeric_send(balance) FROM customers`)
	add("aggregates", allowed,
		`SELECT count(email), count(*), count(DISTINCT 1) FROM customers`, `SELECT min(email), max(ssn), min(born), max(card), sum(balance), avg(card), stddev(balance) FROM customers`,
		`SELECT array_agg(email), string_agg(ssn, ','), json_agg(email), jsonb_agg(c), xmlagg(page), array_agg(c) FROM customers c`,
		`SELECT json_object_agg(email, id), jsonb_object_agg(ssn, email), json_object_agg(id, email) FROM customers`,
		`SELECT row_to_json(c), to_json(c), to_jsonb(c), json_build_object('a', email, 'b', id), jsonb_build_array(email), json_build_object(email, 1) FROM customers c`,
		`SELECT xmlforest(email, ssn AS x), xmlelement(name a, xmlattributes(email AS b), ssn), xmlpi(name php, email) FROM customers`,
		`SELECT bool_or(email > 'a'), every(ssn IS NOT NULL), bit_and(card) FROM customers`, `SELECT gather(email) FROM customers`, `SELECT hstore(c), hstore(email, ssn::text), hstore(array['a'], array[email]) FROM customers c`,
		`SELECT first_value(email) OVER w, lag(ssn) OVER w, nth_value(email, 2) OVER w, array_agg(card) OVER w FROM customers WINDOW w AS (ORDER BY id)`,
		`SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY email), mode() WITHIN GROUP (ORDER BY ssn) FROM customers`, `SELECT id, min(email) FROM customers GROUP BY GROUPING SETS ((id), ())  ORDER BY 1`,
		`SELECT array_agg(email) FILTER (WHERE id > 1), string_agg(name, ',' ORDER BY id) FROM customers`, `SELECT id, max(email) FROM customers GROUP BY id HAVING count(*) > 0 ORDER BY id`,
		`SELECT DISTINCT ON (id) id, email FROM customers ORDER BY id`)
	add("queries in queries", allowed,
		`WITH x AS (SELECT email AS e FROM customers) SELECT e FROM x`, `WITH x (a, b) AS (SELECT id, ssn FROM customers) SELECT b, a FROM x`, `WITH x AS MATERIALIZED (SELECT * FROM customers) SELECT * FROM x`,
		`WITH RECURSIVE r AS (SELECT 1 AS i, email AS e FROM customers WHERE id = 1 UNION ALL SELECT i + 1, e || '.' FROM r WHERE i < 3) SELECT * FROM r`,
		`SELECT x FROM (SELECT email FROM customers) AS s (x)`, `SELECT name FROM customers WHERE id = 1 UNION ALL SELECT email FROM customers`, `SELECT 'a' UNION ALL SELECT ssn FROM customers EXCEPT ALL SELECT 'b'`,
		`VALUES ((SELECT email FROM customers WHERE id = 1)), ('x')`, `SELECT o.id, c.email FROM orders o JOIN customers c ON c.id = o.customer ORDER BY o.id`, `SELECT * FROM customers NATURAL JOIN plain`,
		`SELECT * FROM customers JOIN plain USING (id)`, `SELECT l.e FROM customers c, LATERAL (SELECT c.email AS e) l`, `SELECT l.* FROM customers c CROSS JOIN LATERAL unnest(c.tags) WITH ORDINALITY l`,
		`SELECT t.* FROM customers c, jsonb_each_text(c.docb) t`, `SELECT t.* FROM customers c, jsonb_to_record(to_jsonb(c)) AS t (email text, ssn text)`, `SELECT (jsonb_populate_record(NULL::address, docb)).street FROM customers c`,
		`SELECT t.* FROM customers c, xmltable('/p' PASSING c.page COLUMNS v text PATH '.') t`, `SELECT ((SELECT c FROM customers c WHERE id = 1)).email`, `SELECT ((SELECT c FROM customers c WHERE id = 1)).*`,
		`SELECT (each(attrs)).* FROM customers`, `SELECT x.e FROM orders o LEFT JOIN (SELECT id, email AS e FROM customers) x ON x.id = o.customer ORDER BY o.id`, `SELECT e FROM customers CROSS JOIN (VALUES (1)) v (i), LATERAL (SELECT CASE WHEN i = 1 THEN email END) AS q (e)`,
		`SELECT * FROM customers TABLESAMPLE SYSTEM (100)`, `SELECT id, (SELECT max(x.email) FROM customers x WHERE x.id = o.customer) FROM orders o ORDER BY id`, `SELECT * FROM ROWS FROM (unnest((SELECT tags FROM customers WHERE id = 1)), generate_series(1, 2)) AS t (a, b)`)
	add("views and functions", allowed,
		`SELECT * FROM people`, `SELECT contact, lowered FROM people`, `SELECT c FROM people`, `SELECT (c).email FROM people`, `SELECT b FROM people2`, `SELECT * FROM counts`, `SELECT * FROM frozen`,
		`SELECT email_of(1)`, `SELECT email_atomic(1)`, `SELECT * FROM all_customers()`, `SELECT (all_customers()).email`, `SELECT all_customers()`, `SELECT email_of(id) FROM orders ORDER BY id`, `SELECT name FROM all_customers() ORDER BY id`)
	add("operators of the database", whatever, `SELECT 'x' ### 1`, `SELECT t ### 1 FROM plain`, `SELECT plus_email('x', 1)`, `SELECT name ### id FROM customers`)
	add("children, partitions, generated columns", allowed,
		`SELECT * FROM archive`, `SELECT old_email FROM archive_1`, `SELECT * FROM ONLY archive_1`, `SELECT * FROM books.ledger`, `SELECT iban FROM books.ledger_child`, `SELECT domain_part, upper(domain_part) FROM customers`)
	scripts = append(scripts, script{class: "columns", sql: []string{`SET search_path = books`, `SELECT * FROM ledger`, `SELECT ledger FROM ledger`}, outcome: allowed})
	add("cursors of the protocol", allowed, `SELECT id, email, ssn FROM customers ORDER BY id`)
	scripts = append(scripts, inferring(all("inference", allowed,
		`SELECT id FROM customers WHERE email LIKE 'q%'`, `SELECT id FROM customers ORDER BY email`, `SELECT count(*) FROM customers GROUP BY ssn`, `SELECT DISTINCT email FROM customers`,
		`SELECT a.id FROM customers a JOIN customers b ON a.email = b.email`, `SELECT id FROM customers WHERE card % 2 = 0`, `SELECT count(DISTINCT email) FROM customers`, `SELECT rank() OVER (ORDER BY email) FROM customers`,
		`SELECT email FROM customers UNION SELECT 'x'`, `SELECT id FROM customers WHERE id = (SELECT length(email) FROM customers WHERE id = 1)`, `SELECT generate_series(1, (SELECT card % 7 FROM customers WHERE id = 1))`,
		`SELECT 1 FROM customers GROUP BY id HAVING max(email) > 'p'`, `SELECT email FROM customers LIMIT (SELECT card % 3 FROM customers WHERE id = 1)`))...)
	// Whether a check holds is an answer too.
	return append(scripts, inferring(all("inference", whatever, `ALTER TABLE customers ADD CONSTRAINT k CHECK (email NOT LIKE 'quok%')`, `CREATE UNIQUE INDEX i ON customers ((card % 2))`))...)
}
