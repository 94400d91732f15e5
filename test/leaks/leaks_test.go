package leaks

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// scripts are all statements.
func scripts() []script { return slices.Concat(results(), changes(), sideways(), attacks()) }

func TestMasks(t *testing.T) {
	w := start(t)
	t.Run("the server allows what is to be allowed", w.allowsAllowed)
	t.Run("no masked value reaches the client", w.leaksNothing)
	t.Run("no masked value leaves by the protocol's own ways", w.protocol)
	t.Run("inference is denied where policy says so", w.deniesInference)
	t.Run("what detectors look for does not reach the client", w.detects)
	t.Run("what has nothing to do with masks is as it was", w.leavesTheRest)
}

func (w *world) leaksNothing(t *testing.T) {
	for _, s := range scripts() {
		for _, way := range ways {
			if s.simple && way.name != "simple" {
				continue
			}
			t.Run(fmt.Sprintf("%s/%.80s/%s", s.class, strings.ReplaceAll(strings.Join(s.sql, "; "), "/", "÷"), way.name), func(t *testing.T) {
				var other outcome
				done := make(chan struct{})
				go func() {
					defer close(done)
					if !s.infers && !s.volatile {
						other = w.run(t, "neutral", two, way, s.sql)
					}
				}()
				neutral := w.run(t, "neutral", one, way, s.sql)
				<-done
				search(t, neutral.received)
				s.judge(t, neutral.problem)
				if !s.infers && !s.volatile {
					same(t, neutral.said, other.said)
				}
				if way.name != "simple" && way.name != "extended in binary" {
					return // what masks make of values differs by format alone
				}
				telling := w.run(t, "telling", one, way, s.sql)
				search(t, telling.received)
				s.judge(t, telling.problem)
			})
		}
	}
	w.searchStored(t)
}

// judge compares how a script ended with how it should.
func (s *script) judge(t *testing.T, problem string) {
	t.Helper()
	switch {
	case s.outcome == allowed && problem != "":
		t.Errorf("it is not allowed: %s", problem)
	case s.outcome == denied && problem == "":
		t.Error("it is not denied")
	}
}

// searchStored looks for canaries where no mask is: whatever a statement wrote there, somebody can read.
func (w *world) searchStored(t *testing.T) {
	t.Helper()
	rows, err := w.direct(one).Query(t.Context(), `SELECT x::text FROM plain x UNION ALL SELECT row(id, name, note_public)::text FROM customers
		UNION ALL SELECT x::text FROM orders x UNION ALL SELECT x::text FROM watched x
		UNION ALL SELECT relname::text FROM pg_class WHERE relname LIKE '%stolen%'`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			t.Fatal(err)
		}
		search(t, []byte(row))
		if strings.Contains(row, "stolen") {
			t.Errorf("there is a table %s", row)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) deniesInference(t *testing.T) {
	for _, s := range scripts() {
		if s.class != "inference" {
			continue
		}
		for _, way := range ways {
			t.Run(s.sql[0]+"/"+way.name, func(t *testing.T) {
				guarded := w.run(t, "guarded", one, way, s.sql)
				search(t, guarded.received)
				if guarded.problem == "" {
					t.Error("it is not denied")
				}
			})
		}
	}
}

func (w *world) leavesTheRest(t *testing.T) {
	for _, sql := range []string{`SELECT id, name, note_public FROM customers ORDER BY id`, `SELECT * FROM orders ORDER BY id`, `SELECT * FROM plain`, `SELECT count(*), count(email) FROM customers`, `SELECT n FROM counts`,
		`SELECT upper(name) FROM customers ORDER BY id`, `SELECT 1, 'x', now() IS NOT NULL`, `SELECT memo || '!' FROM orders ORDER BY id`, `COPY orders TO STDOUT`, `SELECT json_agg(o ORDER BY id) FROM orders o`, `SELECT relname FROM pg_class WHERE relname = 'orders'`} {
		t.Run(sql, func(t *testing.T) {
			for _, way := range ways {
				masked := w.run(t, "neutral", one, way, []string{sql})
				plain := w.run(t, "detecting", one, way, []string{sql})
				if masked.problem != "" || string(masked.received) != string(plain.received) {
					t.Errorf("%s: %s\n%q\n%q", way.name, masked.problem, masked.received, plain.received)
				}
			}
		})
	}
}

// allowsAllowed: what the server itself does not allow would be no proof of anything.
func (w *world) allowsAllowed(t *testing.T) {
	for _, s := range scripts() {
		if s.outcome != allowed {
			continue
		}
		t.Run(s.class+"/"+strings.Join(s.sql, "; "), func(t *testing.T) {
			c := w.direct(one)
			for _, sql := range s.sql {
				if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			}
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// detects looks for addresses and numbers where no mask names a column.
func (w *world) detects(t *testing.T) {
	for _, sql := range []string{`SELECT email, ssn, note FROM customers`, `SELECT upper(email), 'mail ' || email || ' now', repeat(email || ' ', 500) FROM customers`, `SELECT array[email, ssn], row(email, ssn), home FROM customers`,
		`SELECT to_jsonb(c), row_to_json(c) FROM customers c`, `SELECT c FROM customers c`, `SELECT xmlforest(email, ssn) FROM customers`, `SELECT hstore('a', email), to_tsvector('simple', email) FROM customers`,
		`COPY customers (email, ssn, docb) TO STDOUT`, `COPY customers (email, ssn) TO STDOUT (FORMAT csv)`, `COPY customers (email, ssn) TO STDOUT (FORMAT binary)`, `SELECT email::int FROM customers`, `SELECT shout(email) FROM customers`,
		`SELECT * FROM people`, `SELECT hidden_email(1)`, `UPDATE customers SET name = name RETURNING email`} {
		t.Run(strings.ReplaceAll(sql, "/", "÷"), func(t *testing.T) {
			for _, way := range ways {
				got := w.run(t, "detecting", one, way, []string{sql})
				for _, hidden := range []string{"quokka1@zebrafish.example", "078-05-1121"} {
					if bytes.Contains(bytes.ToLower(got.received), []byte(hidden)) {
						t.Errorf("%s: %s is in %q", way.name, hidden, got.received)
					}
				}
			}
		})
	}
}
