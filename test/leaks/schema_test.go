package leaks

import (
	"fmt"
	"strings"
)

// maskedColumns are those of customers, which are named one by one so that id, name and note_public stay.
const maskedColumns = "public.customers.email, public.customers.ssn, public.customers.phone, public.customers.card, public.customers.born, " +
	"public.customers.seen, public.customers.balance, public.customers.doc, public.customers.docb, public.customers.tags, public.customers.home, " +
	"public.customers.period, public.customers.token, public.customers.secret, public.customers.ip, public.customers.mood, public.customers.page, " +
	"public.customers.attrs, public.customers.code, public.customers.note"

// schemaSQL makes what both databases have; the secrets come later.
var schemaSQL = []string{
	`CREATE EXTENSION hstore`, `CREATE EXTENSION citext`, `CREATE EXTENSION dblink`,
	`CREATE TYPE mood AS ENUM ('sad', 'content', 'happy', 'elated')`,
	`CREATE TYPE address AS (street text, number int)`,
	`CREATE DOMAIN mail AS varchar(60) CHECK (VALUE ~ '@')`,
	`CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, note_public text, email text, ssn char(11), phone varchar(24), card int8, born date,
		seen timestamptz, balance numeric(14,2), doc json, docb jsonb, tags text[], home address, period daterange, token uuid, secret bytea, ip inet,
		mood mood, page xml, attrs hstore, code mail, note text, domain_part text GENERATED ALWAYS AS (split_part(email, '@', 2)) STORED)`,
	`CREATE UNIQUE INDEX customers_email ON customers (email)`,
	`CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers DEFERRABLE INITIALLY DEFERRED, total numeric(10,2), memo text)`,
	`CREATE TABLE archive (id int, old_email text) PARTITION BY RANGE (id)`,
	`CREATE TABLE archive_1 PARTITION OF archive FOR VALUES FROM (0) TO (100)`,
	`CREATE SCHEMA books`, `CREATE TABLE books.ledger (id int, iban text)`, `CREATE TABLE books.ledger_child () INHERITS (books.ledger)`,
	`CREATE TABLE plain (id int, t text, c citext)`,
	`CREATE VIEW people AS SELECT id, name, email AS contact, lower(email) AS lowered, c FROM customers c`,
	`CREATE VIEW people2 (a, b) AS SELECT id, contact FROM people`,
	`CREATE VIEW counts AS SELECT count(email) AS n FROM customers`,
	`CREATE MATERIALIZED VIEW frozen AS SELECT id, email FROM customers WITH NO DATA`,
	`CREATE FUNCTION email_of(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT email FROM public.customers WHERE id = $1'`,
	`CREATE FUNCTION email_atomic(i int) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT email FROM customers WHERE id = i; END`,
	`CREATE FUNCTION all_customers() RETURNS SETOF customers LANGUAGE sql STABLE AS 'SELECT * FROM public.customers'`,
	`CREATE FUNCTION hidden_email(int) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT email FROM public.customers WHERE id = $1); END$$`,
	`CREATE FUNCTION hidden_rows() RETURNS TABLE (x text) LANGUAGE plpgsql AS $$BEGIN RETURN QUERY SELECT email FROM public.customers; END$$`,
	`CREATE FUNCTION shout(t text) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'it is %', t; END$$`,
	`CREATE FUNCTION fail(t text) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'it is %', t USING DETAIL = t, HINT = t, CONSTRAINT = t, TABLE = t; END$$`,
	`CREATE PROCEDURE tell(INOUT t text) LANGUAGE plpgsql AS $$BEGIN SELECT email INTO t FROM public.customers WHERE id = 1; END$$`,
	`CREATE FUNCTION plus_email(text, int) RETURNS text LANGUAGE sql AS 'SELECT $1 || (SELECT email FROM public.customers WHERE id = $2)'`,
	`CREATE OPERATOR ### (LEFTARG = text, RIGHTARG = int, FUNCTION = plus_email)`,
	`CREATE AGGREGATE gather(text) (SFUNC = textcat, STYPE = text, INITCOND = '')`,
	`CREATE TABLE watched (id int, t text)`,
	`CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.t := (SELECT email FROM public.customers WHERE id = 1); RETURN NEW; END$$`,
	`CREATE RULE spill AS ON INSERT TO plain WHERE NEW.id = -1 DO INSTEAD SELECT email FROM customers`,
	`CREATE FUNCTION outs(OUT a text, OUT b int) LANGUAGE sql STABLE AS 'SELECT email, id FROM public.customers WHERE id = 1'`,
	`CREATE FUNCTION tabled() RETURNS TABLE (x text, y int) LANGUAGE sql STABLE AS 'SELECT ssn, id FROM public.customers'`,
	`CREATE FUNCTION records() RETURNS SETOF record LANGUAGE sql STABLE AS 'SELECT email, id FROM public.customers'`,
	`CREATE FUNCTION nested(i int DEFAULT 1) RETURNS text LANGUAGE sql STABLE AS 'SELECT upper(public.email_of(i))'`,
	`CREATE FUNCTION over(text) RETURNS text LANGUAGE sql AS 'SELECT $1'`,
	`CREATE FUNCTION over(int) RETURNS text LANGUAGE sql AS 'SELECT email FROM public.customers WHERE id = $1'`,
	`CREATE FUNCTION many(VARIADIC ids int[]) RETURNS text LANGUAGE sql AS 'SELECT string_agg(email, '','' ORDER BY id) FROM public.customers WHERE id = ANY (ids)'`,
	`CREATE FUNCTION email_imm() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT email FROM public.customers WHERE id = 1'`,
	`CREATE FUNCTION wrap(anyelement) RETURNS anyarray LANGUAGE sql AS 'SELECT array[$1]'`,
	`CREATE FUNCTION deep(int) RETURNS text LANGUAGE sql AS 'SELECT public.hidden_email($1)'`,
	`CREATE FUNCTION home_of(int) RETURNS address LANGUAGE sql AS 'SELECT home FROM public.customers WHERE id = $1'`,
	`CREATE CAST (int AS address) WITH FUNCTION home_of(int)`,
	`CREATE SEQUENCE counter`,
	`CREATE TABLE noisy (id int, t text)`,
	`CREATE FUNCTION make_noise() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'first is %', (SELECT email FROM public.customers WHERE id = 1); RETURN NEW; END$$`,
	`CREATE TRIGGER noise AFTER INSERT ON noisy FOR EACH ROW EXECUTE FUNCTION make_noise()`,
	`CREATE TABLE strict (id int, t text)`,
	`CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'first is %', (SELECT email FROM public.customers WHERE id = 1); END$$`,
	`CREATE CONSTRAINT TRIGGER complaint AFTER INSERT ON strict DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION complain()`,
	`CREATE TABLE filled (id int, t text)`,
	`CREATE TRIGGER fill BEFORE INSERT ON filled FOR EACH ROW EXECUTE FUNCTION watch()`,
	`CREATE TABLE checked (id int CHECK (id < 10 OR public.fail(public.email_of(1)) IS NULL))`,
	`CREATE TABLE swapped (id int, t text)`,
	`CREATE RULE swap AS ON INSERT TO swapped DO INSTEAD UPDATE plain SET t = t RETURNING id, public.email_of(1)`,
	`CREATE VIEW door AS SELECT id, name FROM customers`,
	`CREATE FUNCTION open_door() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.name := (SELECT email FROM public.customers WHERE id = 1); RETURN NEW; END$$`,
	`CREATE TRIGGER doorman INSTEAD OF INSERT ON door FOR EACH ROW EXECUTE FUNCTION open_door()`,
	`INSERT INTO customers (id, name, note_public) SELECT i, 'name ' || i, 'public ' || i FROM generate_series(1, 3) i`,
	`INSERT INTO orders SELECT i, (i - 1) % 3 + 1, i * 10, 'memo ' || i FROM generate_series(1, 6) i`,
	`INSERT INTO plain VALUES (1, 'plain text', 'Case')`,
	`INSERT INTO archive SELECT i, '' FROM generate_series(1, 3) i`, `INSERT INTO books.ledger_child SELECT i, '' FROM generate_series(1, 3) i`,
}

// A secret is the value of a column for customer %d in the first database and in the second, as SQL; neither changes how the server
// sorts the customers or how long an answer is.
type secret struct{ column, first, second string }

var secrets = []secret{
	{"email", "format('quokka%s@zebrafish.example', id)", "format('numbat%s@jellyfish.example', id)"},
	{"ssn", "format('078-05-112%s', id)", "format('219-09-994%s', id)"},
	{"phone", "format('+49 30 987650%s', id)", "format('+49 40 123450%s', id)"},
	{"card", "4111111111111110 + id", "5500000000000000 + id"},
	{"born", "date '1984-06-22' + id", "date '1971-11-03' + id"},
	{"seen", "timestamptz '2011-03-09 11:12:13+00' + id * interval '1 day'", "timestamptz '2013-08-19 21:22:23+00' + id * interval '1 day'"},
	{"balance", "313370.42 + id", "424240.17 + id"},
	{"doc", `format('{"who": "quokka%s", "n": 8675309}', id)::json`, `format('{"who": "numbat%s", "n": 1234567}', id)::json`},
	{"docb", `format('{"who": "quokka%s", "deep": [{"x": "zebrafish"}], "n": 8675309}', id)::jsonb`, `format('{"who": "numbat%s", "deep": [{"x": "jellyfish"}], "n": 1234567}', id)::jsonb`},
	{"tags", "array['quokka', 'zebra fish']", "array['numbat', 'jelly fish']"},
	{"home", "row('Quokka Street', 31337)::address", "row('Numbat Street', 42424)::address"},
	{"period", "daterange('1984-06-22', '1985-06-22')", "daterange('1971-11-03', '1972-11-03')"},
	{"token", "('c0ffee00-0000-4000-8000-00000000000' || id)::uuid", "('deadbeef-0000-4000-8000-00000000000' || id)::uuid"},
	{"secret", "convert_to('quokka' || id, 'UTF8')", "convert_to('numbat' || id, 'UTF8')"},
	{"ip", "inet '198.51.100.70' + id", "inet '203.0.113.20' + id"},
	{"mood", "'elated'", "'happy'"},
	{"page", "'<p>quokka</p>'::xml", "'<p>numbat</p>'::xml"},
	{"attrs", "hstore('who', 'quokka' || id)", "hstore('who', 'numbat' || id)"},
	{"code", "'quokka@zebrafish.example'", "'numbat@jellyfish.example'"},
	{"note", "'Quokka said: '' \\ \" {zebrafish}, (ok)' || chr(10) || 'bye'", "'Numbat said: '' \\ \" {jellyfish}, (ok)' || chr(10) || 'bye'"},
}

// values fill in the secrets of one database.
func values(database int) []string {
	pick := func(s secret) string { return []string{s.first, s.second}[database] }
	var set []string
	for _, s := range secrets {
		set = append(set, s.column+" = "+pick(s))
	}
	email := pick(secrets[0])
	return []string{
		"UPDATE customers SET " + strings.Join(set, ", "),
		"UPDATE archive SET old_email = " + email,
		"UPDATE books.ledger SET iban = " + []string{"'DE89370400440532013000'", "'GB82WEST12345698765432'"}[database],
		"REFRESH MATERIALIZED VIEW frozen",
		// Samples of data are in the catalog from here on.
		"ANALYZE",
		fmt.Sprintf("SELECT lo_from_bytea(77001, convert_to(%s, 'UTF8')) FROM customers WHERE id = 1", email),
	}
}

// canaries are what is looked for: text that is in values of the first database and nowhere else, numbers in their binary layouts.
var canaries = []string{"quokka", "zebrafish", "zebra fish", "078-05-112", "07805112", "987650", "411111111111111", "1984-06-2", "2011-03-1", "31337", "8675309", "c0ffee00",
	"198.51.100.7", "elated", "DE89370400440532013000", "370400440532"}

// binaryCanaries are layouts of values of customer 1 to 3 in the first database: card, the digits of balance, IP, token.
var binaryCanaries = []string{"\x0e\x9b\x08\xa5\x68\xf1", "\x00\x1f\x0d\x2b\x10\x68", "\xc6\x33\x64\x47", "\xc0\xff\xee\x00"}
