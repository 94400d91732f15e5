package leaks

import (
	"bytes"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// protocol sends what can not be said in SQL alone: names that SQL and the protocol share, pipelines, calls of functions, cancels.
func (w *world) protocol(t *testing.T) {
	query := func(sql string) pgproto3.FrontendMessage { return &pgproto3.Query{String: sql} }
	sync := &pgproto3.Sync{}
	describe := func(kind byte, name string) pgproto3.FrontendMessage {
		return &pgproto3.Describe{ObjectType: kind, Name: name}
	}
	oid := func(sql string) (oid uint32) {
		if err := w.direct(one).QueryRow(t.Context(), "SELECT "+sql+"::oid").Scan(&oid); err != nil {
			t.Fatal(err)
		}
		return oid
	}
	function := func(sql string, arguments ...string) pgproto3.FrontendMessage {
		call := &pgproto3.FunctionCall{Function: oid(sql)}
		for _, a := range arguments {
			call.Arguments = append(call.Arguments, []byte(a))
		}
		return call
	}
	const email = `SELECT email FROM customers`
	for _, test := range []struct {
		name  string
		turns [][]pgproto3.FrontendMessage // each up to ReadyForQuery
	}{
		{"a cursor of SQL is executed as a portal", [][]pgproto3.FrontendMessage{{query("BEGIN")}, {query("DECLARE c CURSOR FOR " + email)}, {describe('P', "c"), execute("c", 0), sync}, {query("COMMIT")}}},
		{"a binary cursor is executed as a portal", [][]pgproto3.FrontendMessage{{query("BEGIN")}, {query("DECLARE c BINARY CURSOR FOR SELECT card, token FROM customers")}, {execute("c", 1), execute("c", 0), sync}, {query("COMMIT")}}},
		{"a portal is fetched from as a cursor", [][]pgproto3.FrontendMessage{{query("BEGIN")}, {parse("", email), bind("c", "", 0), sync}, {query("FETCH 2 FROM c")}, {execute("c", 0), sync}, {query("COMMIT")}}},
		{"a binary portal is fetched from as a cursor", [][]pgproto3.FrontendMessage{{query("BEGIN")}, {parse("", "SELECT card, balance, token FROM customers"), bind("c", "", 1), sync}, {query("FETCH ALL FROM c")}, {query("COMMIT")}}},
		{"a statement that SQL prepared is bound", [][]pgproto3.FrontendMessage{{query("PREPARE p AS " + email)}, {describe('S', "p"), bind("", "p", 1), execute("", 0), sync}, {bind("", "p", 0), describe('P', ""), execute("", 0), sync}}},
		{"a statement that the protocol prepared is executed in SQL", [][]pgproto3.FrontendMessage{{parse("p", email), sync}, {query("EXECUTE p")}, {query("EXPLAIN (COSTS off) EXECUTE p")}}},
		{"a statement takes another's name in one pipeline", [][]pgproto3.FrontendMessage{{parse("p", "SELECT name FROM customers"), &pgproto3.Close{ObjectType: 'S', Name: "p"}, parse("p", email), bind("", "p", 0), execute("", 0), sync}, {bind("", "p", 1), execute("", 0), sync}}},
		{"a name that is taken stays what it was", [][]pgproto3.FrontendMessage{{parse("p", email), sync}, {parse("p", "SELECT name FROM customers"), sync}, {bind("", "p", 0), execute("", 0), sync}}},
		{"a name that failed is taken later", [][]pgproto3.FrontendMessage{{parse("p", "SELECT nothing FROM customers"), sync}, {parse("p", email), bind("", "p", 0), execute("", 0), sync}}},
		{"the unnamed statement is replaced before it is bound", [][]pgproto3.FrontendMessage{{parse("", "SELECT name FROM customers"), parse("", email), bind("", "", 0), execute("", 0), sync}}},
		{"the unnamed portal is replaced before it is executed", [][]pgproto3.FrontendMessage{{parse("a", "SELECT name FROM customers"), parse("b", "SELECT ssn FROM customers"), bind("", "a", 0), bind("", "b", 0), execute("", 0), sync}}},
		{"a failed batch leaves no names", [][]pgproto3.FrontendMessage{{parse("a", "SELECT name FROM customers"), parse("x", "SELECT 1/0"), bind("", "x", 0), execute("", 0), parse("b", email), bind("", "b", 0), execute("", 0), sync}, {bind("", "b", 0), execute("", 0), sync}, {parse("b", email), bind("", "b", 1), execute("", 0), sync}}},
		{"many statements come in one batch", [][]pgproto3.FrontendMessage{{parse("", "SELECT id FROM customers"), bind("", "", 0), execute("", 0), parse("", email), bind("", "", 1), describe('P', ""), execute("", 1), execute("", 0), parse("", "SELECT upper(ssn), home FROM customers"), bind("", "", 0), execute("", 0), sync}}},
		{"columns have formats of their own", [][]pgproto3.FrontendMessage{{parse("", "SELECT card, email, card FROM customers"), &pgproto3.Bind{ResultFormatCodes: []int16{1, 0, 0}}, execute("", 0), sync}}},
		{"a portal of COPY is executed", [][]pgproto3.FrontendMessage{{parse("", "COPY customers TO STDOUT"), bind("", "", 0), execute("", 1), sync}, {parse("", "COPY (SELECT email FROM customers) TO STDOUT (FORMAT binary)"), bind("", "", 1), execute("", 0), sync}}},
		{"a function is called by its number", [][]pgproto3.FrontendMessage{{function("'email_of(int)'::regprocedure", "1")}, {function("'hidden_email(int)'::regprocedure", "1")}, {function("'query_to_xml(text,bool,bool,text)'::regprocedure", email, "t", "f", "")}}},
		{"large objects are read by calls", [][]pgproto3.FrontendMessage{{query("BEGIN")}, {function("'lo_open(oid,int)'::regprocedure", "77001", "262144")}, {function("'loread(int,int)'::regprocedure", "0", "100")}, {function("'lo_get(oid)'::regprocedure", "77001")}, {query("ROLLBACK")}}},
		{"a parameter is given back", [][]pgproto3.FrontendMessage{{parse("p", "SELECT email, $1::text FROM customers WHERE id = $2::int"), &pgproto3.Bind{PreparedStatement: "p", Parameters: [][]byte{[]byte("x"), []byte("1")}}, execute("", 0), sync}}},
		{"a parameter fails with a value", [][]pgproto3.FrontendMessage{{parse("p", "SELECT (email || $1)::int FROM customers"), &pgproto3.Bind{PreparedStatement: "p", Parameters: [][]byte{[]byte("x")}}, execute("", 0), sync}}},
		{"a batch without Sync is flushed", [][]pgproto3.FrontendMessage{{parse("", email), bind("", "", 0), execute("", 0), &pgproto3.Flush{}, &pgproto3.Flush{}, sync}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, policy := range []string{"neutral", "telling"} {
				var said [][]byte
				for _, database := range []string{one, two} {
					c := w.dial(t, policy, database)
					for _, turn := range test.turns {
						if c.over {
							break
						}
						c.send(turn...)
						c.untilReady()
					}
					c.conn.Close()
					if database == one {
						search(t, c.seen.Bytes())
					}
					said = append(said, c.said)
				}
				if policy == "neutral" {
					same(t, said[0], said[1])
				}
			}
		})
	}
	t.Run("a notification of somebody else tells nothing", w.notified)
	t.Run("a catalog that changes under a session is seen", w.changed)
}

// notified listens to what somebody sends who is not masked.
func (w *world) notified(t *testing.T) {
	c := w.dial(t, "neutral", one)
	c.send(&pgproto3.Query{String: "LISTEN ch"})
	c.untilReady()
	if _, err := w.direct(one).Exec(t.Context(), "SELECT pg_notify('ch', email) FROM customers"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.send(&pgproto3.Query{String: "SELECT 1"})
		if problem := c.untilReady(); problem != "" {
			t.Error(problem)
		}
	}
	search(t, c.seen.Bytes())
}

// changed has the owner change what names mean while statements of a session are prepared.
func (w *world) changed(t *testing.T) {
	owner := w.direct(one)
	c := w.dial(t, "neutral", one)
	do := func(messages ...pgproto3.FrontendMessage) {
		t.Helper()
		c.send(messages...)
		c.untilReady()
	}
	change := func(sql string) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	sync := &pgproto3.Sync{}
	change(`CREATE TABLE moved (id int, x text); INSERT INTO moved VALUES (1, 'harmless')`)
	change(`CREATE VIEW window_on AS SELECT x FROM moved`)
	do(parse("p", "SELECT * FROM window_on"), bind("", "p", 0), execute("", 0), sync)
	do(parse("q", "SELECT * FROM fresh"), sync)
	change(`CREATE VIEW fresh AS SELECT email FROM customers`)
	do(parse("q", "SELECT * FROM fresh"), bind("", "q", 0), execute("", 0), sync)
	do(&pgproto3.Query{String: "SELECT upper(email) FROM fresh"})
	change(`CREATE OR REPLACE VIEW window_on AS SELECT email AS x FROM customers`)
	search(t, c.seen.Bytes())
	// What others change is seen within seconds (masking.md), also by what was prepared before.
	for deadline := time.Now().Add(patience); ; {
		c.seen.Reset()
		do(bind("", "p", 0), execute("", 0), sync)
		if !bytes.Contains(c.seen.Bytes(), []byte("zebrafish")) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a view that shows masked values is not seen within %s", patience)
		}
	}
	do(bind("", "p", 1), execute("", 0), sync)
	change(`ALTER TABLE customers RENAME COLUMN note_public TO note_open; ALTER TABLE customers ADD COLUMN extra text`)
	do(&pgproto3.Query{String: "SELECT * FROM customers"})
	do(&pgproto3.Query{String: "SELECT note_open, upper(email) FROM customers"})
	change(`ALTER TABLE customers RENAME COLUMN note_open TO note_public; ALTER TABLE customers DROP COLUMN extra; DROP VIEW window_on, fresh; DROP TABLE moved`)
	search(t, c.seen.Bytes())
}
