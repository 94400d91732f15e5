package postgres

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/test/env"
)

// stars is what redact makes of text.
const stars = "********"

func TestResultsAreMaskedInEachWayThatTheyCome(t *testing.T) {
	w := newMaskedWorld(t)
	limited := func(portal string, rows uint32) string { return mk(msgExecute, portal, "\x00", uint32Bytes(rows)) }
	bind := func(portal, statement string) string { return bnd(portal, statement) }
	for _, c := range []struct {
		name    string
		batches int
		send    []string
		want    []string
	}{
		{"a column", 1, []string{qry("SELECT secret, name FROM people WHERE id = 1")}, []string{stars, "name 1"}},
		{"an alias", 1, []string{qry("SELECT secret AS name, p.id FROM people p WHERE id = 1")}, []string{stars, "1"}},
		{"an expression", 1, []string{qry("SELECT upper(secret), upper(name) FROM people WHERE id = 1")}, []string{stars, "NAME 1"}},
		{"a subquery", 1, []string{qry("SELECT x FROM (SELECT secret || '!' AS x FROM people WHERE id = 1) AS s")}, []string{stars}},
		{"a view", 1, []string{qry("SELECT shown, whole, name FROM seen WHERE id = 1")}, []string{stars, stars, "name 1"}},
		{"a union", 1, []string{qry("SELECT word FROM plain WHERE id = 1 UNION ALL SELECT secret FROM people WHERE id = 1")}, []string{stars, stars}},
		{"a count", 1, []string{qry("SELECT count(secret) FROM people")}, []string{"20"}},
		{"another mask", 1, []string{qry("SELECT secret_number, id FROM people WHERE id = 1")}, []string{"NULL", "1"}},
		{"several statements", 1, []string{qry("SELECT 1; SELECT secret FROM people WHERE id = 1; SELECT word FROM plain WHERE id = 1; SELECT secret, id FROM people WHERE id = 2")},
			[]string{"1", stars, "word 1", stars, "2"}},
		{"extended, without a Describe", 1, []string{prs("", "SELECT secret, name FROM people WHERE id = 1"), bind("", ""), exe(""), syn}, []string{stars, "name 1"}},
		{"extended, with all Describes", 1, []string{prs("s", "SELECT secret, name FROM people WHERE id = 1"), dsc("S", "s"), bind("p", "s"), dsc("P", "p"), exe("p"), syn},
			[]string{stars, "name 1"}},
		{"a portal in parts", 1, []string{prs("", "SELECT secret FROM people ORDER BY id"), bind("p", ""), limited("p", 1), limited("p", 2), syn}, []string{stars, stars, stars}},
		{"a pipeline", 3, []string{prs("s", "SELECT secret FROM people WHERE id = 1"), bind("", "s"), exe(""), bind("", "s"), exe(""), syn, qry("SELECT 1"), bind("", "s"), exe(""), syn},
			[]string{stars, stars, "1", stars}},
		{"prepared in SQL", 2, []string{qry("PREPARE a AS SELECT secret || 'x', name FROM people WHERE id = $1"), qry("EXECUTE a(1)")}, []string{stars, "name 1"}},
		{"prepared in the same text", 1, []string{qry("PREPARE a AS SELECT secret || 'x' FROM people WHERE id = 1; EXECUTE a; DEALLOCATE a")}, []string{stars}},
		{"prepared by a message, executed in SQL", 2, []string{prs("a", "SELECT secret || 'x' FROM people WHERE id = 1"), syn, qry("EXECUTE a")}, []string{stars}},
		{"prepared in SQL, bound by a message", 2, []string{qry("PREPARE a AS SELECT secret || 'x' FROM people WHERE id = 1"), bind("", "a"), exe(""), syn}, []string{stars}},
		{"a cursor", 3, []string{qry("BEGIN; DECLARE c CURSOR FOR SELECT secret || 'x', name FROM people ORDER BY id"), qry("FETCH 1 FROM c"), qry("FETCH 1 FROM c; COMMIT")},
			[]string{stars, "name 1", stars, "name 2"}},
		{"a cursor that is a portal", 2, []string{qry("BEGIN"), prs("", "SELECT secret || 'x' FROM people ORDER BY id"), bind("p", ""), prs("f", "FETCH 1 FROM p"), bind("", "f"), exe(""), syn}, []string{stars}},
		{"a cursor that nothing masked comes from", 1, []string{qry("BEGIN; DECLARE c CURSOR FOR SELECT word || '!' FROM plain ORDER BY id; FETCH 1 FROM c; COMMIT")}, []string{"word 1!"}},
		{"RETURNING", 1, []string{qry("UPDATE people SET note = 'new' WHERE id = 1 RETURNING secret, note, lower(secret)")}, []string{stars, "new", stars}},
		{"COPY of a table", 1, []string{qry("COPY people (id, secret, name) TO STDOUT (FORMAT csv, HEADER)")}, nil},
		{"COPY of a query", 1, []string{qry("COPY (SELECT id, upper(secret), name FROM people ORDER BY id LIMIT 1) TO STDOUT")}, nil},
		{"COPY, extended", 1, []string{prs("", "COPY (SELECT id, secret FROM people WHERE id = 1) TO STDOUT"), bind("", ""), exe(""), syn}, []string{"1\t" + stars + "\n"}},
		{"COPY that a message prepared, executed in SQL", 2, []string{prs("c", "COPY (SELECT id, secret FROM people WHERE id = 1) TO STDOUT"), syn, qry("EXECUTE c")}, []string{"1\t" + stars + "\n"}},
		{"nothing masked", 1, []string{qry("SELECT id, word, word || '!' FROM plain WHERE id = 1")}, []string{"1", "word 1", "word 1!"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := w.connect(t, secretsMasked)
			answer := client.ask(c.batches, c.send...)
			if form := told(answer); form != "" {
				t.Fatalf("the client got %s in %q", form, answer)
			}
			if got := valuesOf(answer); c.want != nil && !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			client.ask(1, qry("ROLLBACK"))
		})
	}
	t.Run("COPY in text", func(t *testing.T) {
		got := valuesOf(w.connect(t, secretsMasked).query("COPY (SELECT id, secret, name FROM people WHERE id < 3 ORDER BY id) TO STDOUT"))
		if want := []string{"1\t" + stars + "\tname 1\n", "2\t" + stars + "\tname 2\n"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestAnswersHaveTheShapeOfTheServersOwnWithMasks(t *testing.T) {
	server := twoSchemas(t)
	pictures := newTestDatabase(t, server)
	sameShapes(t, server, func(w *wire) { w.judge.masks, w.machine.pictures = secretsMasked, pictures })
}

func TestMaskedAnswersAreTheSameInPieces(t *testing.T) {
	w := newMaskedWorld(t)
	pieces := func(c net.Conn) net.Conn { return &bytewise{c} }
	text := "SELECT secret, name, secret_number, id FROM people ORDER BY id"
	for _, messages := range [][]string{
		{qry(text)}, {prs("", text), bnd("", ""), dsc("P", ""), exe(""), syn}, {qry("COPY people TO STDOUT")}, {qry("COPY people TO STDOUT CSV")}, {qry("COPY people TO STDOUT (FORMAT binary)")},
		{prs("", text), mk(msgBind, "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01"), exe(""), syn}, {qry("SELECT secret::integer FROM people")}, {qry("SELECT 1; " + text + "; SELECT 2")},
	} {
		whole := w.connect(t, secretsMasked).ask(1, messages...)
		if told(whole) != "" {
			t.Errorf("%q tells the canary", whole)
		}
		cut := w.connectThrough(t, secretsMasked, pieces).ask(1, messages...)
		if diff := cmp.Diff(string(whole), string(cut)); diff != "" {
			t.Errorf("%q: %s", messages, diff)
		}
	}
}

// bytewise is a connection that gives one byte at a time.
type bytewise struct{ net.Conn }

// Read implements net.Conn.
func (b *bytewise) Read(p []byte) (int, error) { return b.Conn.Read(p[:min(1, len(p))]) }

func TestMaskedResultsInBinaryAreValid(t *testing.T) {
	w := newMaskedWorld(t)
	c := w.connect(t, secretsMasked)
	got := valuesOf(c.extended("SELECT secret, id, secret_number, name FROM people WHERE id = 1", formatBinary))
	if want := []string{stars, "\x00\x00\x00\x01", "NULL", "name 1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, text := range []string{
		"SELECT p FROM people p", "SELECT p::text FROM people p", "SELECT to_jsonb(p) FROM people p", "SELECT row_to_json(p) FROM people p", "SELECT json_agg(p) FROM people p",
		"SELECT array_agg(secret) FROM people", "SELECT ARRAY[secret, name] FROM people", "SELECT ROW(secret, name) FROM people", "SELECT xmlforest(secret) FROM people",
		"SELECT max(secret) OVER () FROM people", "WITH s AS (SELECT secret FROM people) SELECT * FROM s", "TABLE people", "SELECT min(secret_number) FROM people",
		"SELECT string_agg(secret, ',') FROM people", "SELECT reverse(secret) FROM people", "SELECT encode(secret::bytea, 'hex') FROM people", "SELECT convert_to(secret, 'UTF8') FROM people",
	} {
		for _, format := range []int{formatText, formatBinary} {
			answer := c.extended(text, format)
			if form := told(answer); form != "" {
				t.Errorf("%s in format %d gives %s: %q", text, format, form, answer)
			}
		}
	}
}

func TestWhatIsLargeIsMaskedInBoundedMemory(t *testing.T) {
	w := newMaskedWorld(t)
	w.server.Exec("UPDATE people SET note = repeat('n', 3000000), name = repeat('x', 300000) WHERE id = 1",
		"ALTER TABLE people DROP CONSTRAINT people_secret_check", "DROP INDEX secrets", "UPDATE people SET secret = repeat(secret, 200000) WHERE id = 2")
	for name, around := range map[string]func(net.Conn) net.Conn{"whole": func(c net.Conn) net.Conn { return c }, "behind another connection": func(c net.Conn) net.Conn { return struct{ net.Conn }{c} }} {
		for _, text := range []string{"SELECT name, secret, note FROM people WHERE id < 3 ORDER BY id", "COPY (SELECT name, secret, note FROM people WHERE id < 3 ORDER BY id) TO STDOUT CSV"} {
			answer := w.connectThrough(t, secretsMasked, around).query(text)
			if told(answer) != "" {
				t.Fatalf("%s, %s: the client got the canary", name, text)
			}
			values := strings.Join(valuesOf(answer), "|")
			if n := strings.Count(values, "n"); n < 3000000 || strings.Count(values, "x") < 300000 {
				t.Errorf("%s, %s: the client got %d of 3000000 bytes of what is not masked", name, text, n)
			}
		}
	}
}

func TestARowThatIsTooLargeToBeMaskedEndsTheSession(t *testing.T) {
	w := newMaskedWorld(t)
	c := w.connect(t, secretsMasked)
	_ = c.conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		_, _ = io.WriteString(c.conn, qry("SELECT repeat('x', 17000000), secret FROM people WHERE id = 1"))
	}()
	answer, _ := io.ReadAll(c.conn)
	if told(answer) != "" || !strings.Contains(string(answer), "VFATAL\x00") || !strings.Contains(string(answer), "before its last masked value") {
		t.Errorf("got %.300q", answer)
	}
}

func TestDetectorsLookAtWhatNoMaskNames(t *testing.T) {
	w := newMaskedWorld(t)
	w.server.Exec("UPDATE plain SET word = 'write to somebody@example.com today' WHERE id = 1")
	c := w.connect(t, mailMasked)
	for _, answer := range [][]byte{
		c.query("SELECT word, id FROM plain WHERE id = 1"), c.extended("SELECT word FROM plain WHERE id = 1", formatText), c.extended("SELECT word FROM plain WHERE id = 1", formatBinary),
		c.query("COPY plain TO STDOUT"), c.query("COPY plain TO STDOUT CSV"), c.query("COPY plain TO STDOUT (FORMAT binary)"), c.query("SELECT word::integer FROM plain"),
	} {
		if strings.Contains(string(answer), "somebody@") {
			t.Errorf("%q", answer)
		}
	}
	got := valuesOf(c.query("SELECT word, id FROM plain WHERE id = 1"))
	if len(got) != 2 || !strings.HasPrefix(got[0], "write to ") || !strings.HasSuffix(got[0], " today") || got[1] != "1" {
		t.Errorf("got %q", got)
	}
	if note := strings.Join(c.wire.judge.notes, ","); !strings.Contains(note, "1 of p/mail") {
		t.Errorf("counted: %s", note)
	}
}

func TestMaskedValuesAreCountedInTheRecord(t *testing.T) {
	w := newMaskedWorld(t)
	c := w.connect(t, secretsMasked)
	c.query("SELECT secret, id FROM people WHERE id < 4")
	c.query("SELECT id FROM people WHERE id < 4")
	c.extended("SELECT secret_number, secret FROM people WHERE id < 3", formatText)
	c.query("SELECT 1")
	if got, want := fmt.Sprint(c.wire.judge.notes), "[3 of p/secrets 2 of p/secrets 2 of p/numbers]"; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
}

// direct is a session of the superuser past the masks.
func (w *maskedWorld) direct(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.server.URL(env.Superuser, w.server.Password, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}
