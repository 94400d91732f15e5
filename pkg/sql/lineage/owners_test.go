package lineage

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/test/env"
)

// owned is a schema with what its owner made beside tables. Mask 0 is that of customers.email.
var owned = []string{
	`CREATE TABLE customers (id int PRIMARY KEY, email text, ssn text)`,
	`CREATE VIEW people AS SELECT id, email AS contact FROM customers`,
	`CREATE FUNCTION address_of(int) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT contact FROM people WHERE id = $1); END$$`,
	`CREATE FUNCTION trusted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE '%', (SELECT email FROM customers LIMIT 1); RETURN NEW; END$$`,
	trigger("stamped", `NEW.t := now()::text;`), trigger("telling", `RAISE NOTICE '%', (SELECT email FROM public.customers LIMIT 1);`),
	trigger("quoted", `PERFORM * FROM "customers";`), trigger("upper", `PERFORM * FROM CUSTOMERS;`), trigger("viewing", `PERFORM contact FROM people;`),
	trigger("calling", `NEW.t := address_of(1);`), trigger("typed", `DECLARE r customers%ROWTYPE; BEGIN NULL; END;`), trigger("dynamic", `EXECUTE 'SELECT 1';`),
	trigger("xml", `NEW.t := query_to_xml('SELECT 1', true, false, '');`),
	`CREATE TABLE quiet (id int, t text)`,
	`CREATE TABLE trusting (id int, t text)`, `CREATE TRIGGER t BEFORE INSERT ON trusting FOR EACH ROW EXECUTE FUNCTION trusted()`,
	`CREATE TABLE built (id int, t text, v tsvector)`, `CREATE TRIGGER t BEFORE INSERT ON built FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger(v, 'pg_catalog.english', t)`,
	`CREATE TABLE ruled (id int, t text)`, `CREATE RULE r AS ON INSERT TO ruled DO INSTEAD SELECT email FROM customers`,
	`CREATE VIEW over_telling AS SELECT * FROM telling`,
	`CREATE TABLE parent (id int, t text) PARTITION BY RANGE (id)`, `CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (9)`,
	`CREATE TRIGGER t AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION on_telling()`,
	`CREATE TABLE referred (id int PRIMARY KEY, t text)`, `CREATE TABLE referring (id int REFERENCES referred ON DELETE CASCADE)`,
	`CREATE TRIGGER t AFTER DELETE ON referring FOR EACH ROW EXECUTE FUNCTION on_telling()`,
}

// trigger makes a table of a name with a trigger of a body.
func trigger(name, body string) string {
	return strings.NewReplacer("NAME", name, "BODY", body).Replace(`CREATE TABLE "NAME" (id int, t text);
		CREATE FUNCTION on_NAME() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN BODY RETURN NEW; END$f$;
		CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON "NAME" FOR EACH ROW EXECUTE FUNCTION on_NAME()`)
}

func TestRuleMayShowAnything(t *testing.T) {
	s := load(t, ownedServer(t))
	for _, sql := range []string{`INSERT INTO ruled VALUES (1, 'x')`, `INSERT INTO ruled VALUES (1, 'x') RETURNING t`} {
		statements, err := s.Analyze(sql, session)
		if err != nil || !statements[0].Opaque || !statements[0].Reach.equal(s.Masks()) {
			t.Errorf("%s: %+v, %v", sql, statements, err)
		}
	}
}

func ownedServer(t *testing.T) *pgconn.PgConn {
	t.Helper()
	server := env.Postgres(t, env.PostgresOptions{SQL: owned})
	conn, err := pgconn.Connect(context.Background(), server.URL(env.Superuser, server.Password, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func TestWhatOwnersMadeIsHeard(t *testing.T) {
	s := load(t, ownedServer(t))
	const every = "email, ssn" // an error may tell of what a view reads, too
	for _, test := range []struct{ name, sql, want string }{
		{"a table without triggers tells nothing", `INSERT INTO quiet VALUES (1, 'x') RETURNING t`, ""},
		{"a trigger that names no masked table tells nothing", `INSERT INTO stamped VALUES (1, 'x') RETURNING t`, ""},
		{"a trigger of the server tells nothing", `INSERT INTO built VALUES (1, 'x') RETURNING t`, ""},
		{"a trusted trigger tells nothing", `INSERT INTO trusting VALUES (1, 'x') RETURNING t`, ""},
		{"reading a table sets off no trigger", `SELECT t FROM telling`, ""},
		{"a trigger that names a masked table tells of it", `INSERT INTO telling VALUES (1, 'x') RETURNING t`, every},
		{"UPDATE sets it off too", `UPDATE telling SET t = 'x' RETURNING t`, every},
		{"DELETE sets it off too", `DELETE FROM telling RETURNING t`, every},
		{"MERGE sets it off too", `MERGE INTO telling USING quiet q ON false WHEN NOT MATCHED THEN INSERT VALUES (1, 'x')`, every},
		{"COPY sets it off too", `COPY telling FROM STDIN`, every},
		{"a CTE sets it off too", `WITH x AS (INSERT INTO telling VALUES (1, 'x')) SELECT 1`, every},
		{"a name may be in quotes", `INSERT INTO quoted VALUES (1, 'x')`, every},
		{"a name may be in capitals", `INSERT INTO upper VALUES (1, 'x')`, every},
		{"a view tells what it reads", `INSERT INTO viewing VALUES (1, 'x')`, every},
		{"a function tells what it reads", `INSERT INTO calling VALUES (1, 'x')`, every},
		{"a type of rows counts as their table", `INSERT INTO typed VALUES (1, 'x')`, every},
		{"a trigger that makes statements of text may tell everything", `INSERT INTO dynamic VALUES (1, 'x')`, every},
		{"so may one that has the server run text", `INSERT INTO xml VALUES (1, 'x')`, every},
		{"a view sets off the triggers below it", `INSERT INTO over_telling VALUES (1, 'x')`, every},
		{"a partition's triggers are set off", `INSERT INTO parent VALUES (1, 'x')`, every},
		{"a cascade sets off triggers", `DELETE FROM referred`, every},
	} {
		t.Run(test.name, func(t *testing.T) {
			statements, err := s.Analyze(test.sql, session)
			if err != nil {
				t.Fatal(err)
			}
			var told []string
			for _, mask := range statements[0].Reach {
				told = append(told, strings.TrimPrefix(masks[mask], "public.customers."))
			}
			if got := strings.Join(told, ", "); got != test.want {
				t.Errorf("told %q of reach %v, want %q", got, statements[0].Reach, test.want)
			}
			if statements[0].Denied != "" {
				t.Errorf("denied: %s", statements[0].Denied)
			}
		})
	}
}

func TestOnlyTriggersBeforeAChangeMayMakeItsRowsAnother(t *testing.T) {
	s := load(t, ownedServer(t))
	for text, want := range map[string]bool{
		`INSERT INTO telling VALUES (1, 'x') RETURNING t`: true,
		`INSERT INTO parent VALUES (1, 'x') RETURNING t`:  false, // AFTER
		`INSERT INTO stamped VALUES (1, 'x') RETURNING t`: false,
	} {
		if st := analysed(t, s, text, session); st.Added.Empty() == want || st.Denied != "" {
			t.Errorf("%s: added %v, denied %q", text, st.Added, st.Denied)
		}
	}
}
