package lineage

import (
	"strings"
	"testing"
)

func TestStatementsThatWouldLetMaskedValuesGoAreDenied(t *testing.T) {
	s := newOracle(t).schema
	tests := []struct{ name, text, want string }{
		{"INSERT … SELECT", "INSERT INTO notes SELECT id, email FROM customers", "stored in the column body"},
		{"INSERT of a subquery", "INSERT INTO notes VALUES (1, (SELECT ssn FROM customers LIMIT 1))", "stored"},
		{"INSERT of what a function gives", "INSERT INTO notes VALUES (1, mail_of(1))", "stored"},
		{"UPDATE", "UPDATE customers SET note = email", "stored in the column note"},
		{"UPDATE FROM", "UPDATE notes SET body = c.ssn FROM customers c", "stored"},
		{"UPDATE of several columns at once", "UPDATE notes SET (id, body) = (SELECT id, ssn FROM customers LIMIT 1)", "stored in the column body"},
		{"a masked column that is cut", "UPDATE customers SET email = substr(email, 2)", "stored in the column email"},
		{"a masked column in one with another mask", "UPDATE customers SET email = ssn", "stored"},
		{"an upsert of another column", "INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET note = customers.email", "stored"},
		{"MERGE", "MERGE INTO notes n USING customers c ON n.id = c.id WHEN MATCHED THEN UPDATE SET body = c.email", "stored"},
		{"MERGE that inserts", "MERGE INTO notes n USING customers c ON false WHEN NOT MATCHED THEN INSERT VALUES (c.id, c.email)", "stored"},
		{"a WITH query that stores", "WITH x AS (INSERT INTO notes SELECT id, email FROM customers) SELECT 1", "stored"},
		{"CREATE TABLE AS", "CREATE TABLE x AS SELECT email FROM customers", "stored"},
		{"SELECT INTO", "SELECT email INTO x FROM customers", "stored"},
		{"SELECT INTO of a set operation", "SELECT email INTO x FROM customers UNION SELECT 'a'", "stored"},
		{"SELECT INTO of a set operation's right side", "SELECT 'a'::text AS v INTO x FROM notes UNION SELECT email FROM customers", "stored"},
		{"functions that call each other", "SELECT loop_a(1)", "calls itself"},
		{"CREATE TABLE AS EXECUTE", "CREATE TABLE x AS EXECUTE p", "EXECUTE"},
		{"a materialised view", "CREATE MATERIALIZED VIEW x AS SELECT email FROM customers", "stored"},
		{"a view that shows", "CREATE VIEW x AS SELECT email FROM customers", "shown by a view"},
		{"another definition of a view that shows", "CREATE OR REPLACE VIEW v_named AS SELECT name AS a, name::varchar(80) AS b FROM customers", "another definition"},
		{"a function that shows", "CREATE FUNCTION x() RETURNS text LANGUAGE sql AS 'SELECT email FROM customers'", "shown by a function"},
		{"a function that stores its argument", "CREATE FUNCTION x(text) RETURNS void LANGUAGE sql AS 'INSERT INTO notes VALUES (1, $1)'", "stored"},
		{"a function that can not be read", "CREATE FUNCTION x() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'", "plpgsql"},
		{"another body of a trusted function", "CREATE OR REPLACE FUNCTION trusted(text) RETURNS text LANGUAGE sql AS 'SELECT $1'", "trusted"},
		{"a trusted function's name", "ALTER FUNCTION name_of(int) RENAME TO trusted", "trusted"},
		{"a call of a function that can not be read", "SELECT opaque(name) FROM customers", "can not be read"},
		{"a call of a function that is not known", "SELECT nobody(1)", "can not be read"},
		{"a function that stores", "SELECT log_it(ssn) FROM customers", "stored"},
		{"pg_notify", "SELECT pg_notify('c', email) FROM customers", "pg_notify"},
		{"set_config", "SELECT set_config('x.y', ssn, false) FROM customers", "set_config"},
		{"an advisory lock", "SELECT pg_advisory_lock(hashtext(ssn)) FROM customers", "pg_advisory_lock"},
		{"setval", "SELECT setval('seq', length(ssn)) FROM customers", "setval"},
		{"setseed", "SELECT setseed(length(ssn) / 100.0), random() FROM customers", "setseed"},
		{"a large object", "SELECT lo_from_bytea(0, ssn::bytea) FROM customers", "lo_from_bytea"},
		{"query_to_xml", "SELECT query_to_xml('SELECT email FROM customers', true, true, '')", "query_to_xml"},
		{"table_to_xml", "SELECT table_to_xml('customers', true, true, '')", "table_to_xml"},
		{"ts_stat", "SELECT * FROM ts_stat('SELECT to_tsvector(email) FROM customers')", "ts_stat"},
		{"a file", "SELECT pg_read_file('PG_VERSION')", "pg_read_file"},
		{"COPY to a file", "COPY customers TO '/tmp/x'", "file"},
		{"COPY to a program", "COPY (SELECT email FROM customers) TO PROGRAM 'cat'", "program"},
		{"COPY from a program", "COPY notes FROM PROGRAM 'cat /etc/passwd'", "program"},
		{"DO", "DO 'BEGIN END'", "DO"},
		{"a column's name", "ALTER TABLE customers RENAME COLUMN email TO e", "another name"},
		{"a table's name", "ALTER TABLE customers RENAME TO c", "another name"},
		{"a child's name", "ALTER TABLE hr.managers RENAME TO m", "another name"},
		{"a schema's name", "ALTER SCHEMA hr RENAME TO h", "another schema"},
		{"a table's schema", "ALTER TABLE customers SET SCHEMA hr", "another schema"},
		{"a view's name", "ALTER VIEW v_named RENAME TO x", "another name"},
		{"a field's name", "ALTER TYPE contact RENAME ATTRIBUTE card TO c", "another name"},
		{"a generated column", "ALTER TABLE orders ADD COLUMN x text GENERATED ALWAYS AS (lower(card)) STORED", "stored"},
		{"USING", "ALTER TABLE orders ALTER COLUMN note TYPE text USING card", "stored"},
		{"a default that reads", "ALTER TABLE notes ADD COLUMN x text DEFAULT mail_of(1)", "stored"},
		{"a partition's bound", "CREATE TABLE p PARTITION OF events FOR VALUES FROM (mail_of(1)) TO (MAXVALUE)", "bound"},
		{"inheritance", "ALTER TABLE hr.managers NO INHERIT hr.staff", "this change"},
		{"DETACH", "ALTER TABLE events DETACH PARTITION events_2024", "this change"},
		{"a trigger on a masked table", "CREATE TRIGGER x BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()", "trigger"},
		{"a trigger whose function can not be read", "CREATE TRIGGER x BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION opaque()", "can not be read"},
		{"a rule", "CREATE RULE x AS ON INSERT TO notes DO ALSO INSERT INTO archive SELECT id, email FROM customers", "rules"},
		{"a policy", "CREATE POLICY x ON customers USING (true)", "policy"},
		{"an operator", "CREATE OPERATOR @@@@ (LEFTARG = int, FUNCTION = mail_of)", "mail_of"},
		{"a cast", "CREATE CAST (int AS text) WITH FUNCTION mail_of(int)", "mail_of"},
		{"an aggregate", "CREATE AGGREGATE x(text) (SFUNC = opaque, STYPE = text)", "opaque"},
		{"an operator that is not known", "SELECT ssn @@@@ ssn FROM customers", "can not be read"},
		{"the server's catalogs", "UPDATE pg_class SET relname = 'x'", "catalogs"},
		{"a masked argument of EXECUTE", "EXECUTE p(mail_of(1))", "prepared statement"},
		{"a foreign table", "CREATE FOREIGN TABLE x (a text) SERVER s", "foreign"},
		{"a publication", "CREATE PUBLICATION x FOR TABLE customers", "replication"},
		{"EXPLAIN ANALYZE of what stores", "EXPLAIN ANALYZE INSERT INTO notes SELECT id, email FROM customers", "stored"},
		{"a prepared statement that stores", "PREPARE p AS INSERT INTO notes SELECT id, ssn FROM customers", "stored"},
		{"a view's name that means another thing in the same text", "CREATE VIEW fresh AS SELECT 1 AS a; INSERT INTO notes SELECT 1, a FROM fresh", "stored"},
		{"a table in a schema that was just added to the path", "SET search_path = hr; INSERT INTO public.notes SELECT id, salary::text FROM staff", "stored"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			statements, err := s.Analyze(tt.text, session)
			if err != nil {
				t.Fatalf("%s: %v", tt.text, err)
			}
			if got := statements[len(statements)-1].Denied; !strings.Contains(got, tt.want) || got == "" {
				t.Errorf("%s: denied %q, want %q; shows %s", tt.text, got, tt.want, show(statements[len(statements)-1]))
			}
		})
	}
}
