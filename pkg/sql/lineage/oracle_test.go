package lineage

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/test/env"
)

// An oracle has two databases that differ in nothing but the values of masked columns. A statement that is run in both must show no
// difference where its lineage says that there is nothing masked: neither in its result nor, unless it is denied, in what it leaves behind.
type oracle struct {
	schema *Schema
	conns  [2]*pgconn.PgConn
	marks  [2][]string // of the values of each mask
}

func newOracle(t testing.TB) *oracle {
	t.Helper()
	text, err := os.ReadFile("testdata/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	server := env.Postgres(t, env.PostgresOptions{SQL: []string{"CREATE DATABASE a", "CREATE DATABASE b"}})
	o := &oracle{}
	other := strings.NewReplacer("CANARY", "OTHERBIRD", "777333", "888")
	o.marks = [2][]string{{"CANARY0x", "CANARY1x", "CANARY2x", "777333", "CANARY4x"}, {"OTHERBIRD0x", "OTHERBIRD1x", "OTHERBIRD2x", "888111", "OTHERBIRD4x"}}
	for i, database := range []string{"a", "b"} {
		conn, err := pgconn.Connect(t.Context(), server.URL(env.Superuser, server.Password, database))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := conn.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		script := string(text)
		if i == 1 {
			script = other.Replace(script)
		}
		if err := conn.Exec(t.Context(), script+"; ANALYZE").Close(); err != nil {
			t.Fatal(err)
		}
		o.conns[i] = conn
	}
	o.schema = load(t, o.conns[0])
	return o
}

// An outcome is what became of a statement.
type outcome struct {
	statement Statement
	err       error // the server's
	problems  []string
	// depends is true when which rows there are depends on masked columns.
	depends bool
}

// check runs one statement in both databases, and undoes what it did.
func (o *oracle) check(t testing.TB, text string) (out outcome) {
	t.Helper()
	statements, err := o.schema.Analyze(text, session)
	if err != nil {
		return outcome{err: err}
	}
	for _, st := range statements[:len(statements)-1] {
		if st.Denied != "" {
			return outcome{statement: st}
		}
	}
	out.statement = statements[len(statements)-1]
	if out.statement.Denied != "" {
		return out
	}
	var results, dumps [2][][]string
	for i, conn := range o.conns {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		results[i], err = run(ctx, conn, text)
		if err == nil {
			dumps[i], err = o.dump(ctx, conn)
		}
		if rollback := conn.Exec(ctx, "ROLLBACK").Close(); rollback != nil {
			t.Fatalf("%s: %v", text, rollback)
		}
		cancel()
		if err != nil {
			out.err = err
			return out
		}
	}
	for _, use := range out.statement.Uses {
		rows := slices.ContainsFunc(setReturning, func(name string) bool { return strings.Contains(text, name+"(") })
		out.depends = out.depends || rows || use.Place != "FUNCTION" && use.Place != "CASE"
	}
	out.compare(o, results, strings.HasPrefix(text, "EXPLAIN"))
	out.left(o, dumps)
	return out
}

// run is the last result of a text, in a transaction that stays open.
func run(ctx context.Context, conn *pgconn.PgConn, text string) (rows [][]string, err error) {
	if err := conn.Exec(ctx, "BEGIN; SET LOCAL statement_timeout = '5s'; SET LOCAL enable_hashagg = off; SET LOCAL jit = off").Close(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(text, "COPY") && strings.Contains(text, "TO STDOUT") {
		var b bytes.Buffer
		_, err := conn.CopyTo(ctx, &b, text)
		for line := range strings.Lines(b.String()) {
			rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
		}
		return rows, err
	}
	results := conn.Exec(ctx, text)
	for results.NextResult() {
		rows = nil
		reader := results.ResultReader()
		for reader.NextRow() {
			var r []string
			for _, value := range reader.Values() {
				r = append(r, string(value))
			}
			rows = append(rows, r)
		}
	}
	return rows, results.Close()
}

// compare looks at the columns of the result in which nothing should be. A plan may differ: it tells of costs.
func (out *outcome) compare(o *oracle, results [2][][]string, plan bool) {
	st := out.statement
	if st.Opaque { // what is not known contains all that can be reached
		st.Columns = nil
		for _, rows := range results {
			for _, r := range rows {
				for range len(r) - len(st.Columns) {
					st.Columns = append(st.Columns, Value{Masks: st.Reach, Unknown: true})
				}
			}
		}
	}
	clean := [2][]string{}
	for i, rows := range results {
		for _, r := range rows {
			if len(r) != len(st.Columns) {
				out.problems = append(out.problems, fmt.Sprintf("%d columns, but lineage has %d", len(r), len(st.Columns)))
				return
			}
			var nothing []string
			for j, value := range r {
				for mask, mark := range o.marks[i] {
					if shows(value, mark) && !st.Columns[j].Masks.Has(mask) {
						out.problems = append(out.problems, fmt.Sprintf("column %d shows %q, which has the mask %d, but lineage has %v", j, value, mask, st.Columns[j].Masks))
					}
				}
				if st.Columns[j].Masks.Empty() {
					nothing = append(nothing, value)
				}
			}
			clean[i] = append(clean[i], strings.Join(nothing, "|"))
		}
		slices.Sort(clean[i])
	}
	if !out.depends && !plan && !slices.Equal(clean[0], clean[1]) {
		out.problems = append(out.problems, fmt.Sprintf("columns without masks differ:\n%.300q\n%.300q", clean[0], clean[1]))
	}
}

// left looks at what the statement left in the databases.
func (out *outcome) left(o *oracle, dumps [2][][]string) {
	differ := len(dumps[0]) != len(dumps[1])
	for i, dump := range dumps {
		for j, line := range dump {
			for mask, mark := range o.marks[i] {
				if shows(line[1], mark) {
					out.problems = append(out.problems, fmt.Sprintf("%s keeps a value with the mask %d: %.200q", line[0], mask, line[1]))
				}
			}
			differ = differ || !slices.Equal(line, dumps[1-i][j])
			if differ && !out.depends {
				out.problems = append(out.problems, fmt.Sprintf("what is left differs:\n%.300q\n%.300q", line, dumps[1-i][min(j, len(dumps[1-i])-1)]))
				return
			}
		}
	}
}

// shows is whether a value contains a mark, in one of the usual guises.
func shows(value, mark string) bool {
	encoded := base64.StdEncoding.EncodeToString([]byte(mark))
	if strings.Contains(value, encoded[:len(mark)*8/6]) { // what depends on the mark alone
		return true
	}
	value, mark = strings.ToLower(value), strings.ToLower(mark)
	reversed := []byte(mark)
	slices.Reverse(reversed)
	return strings.Contains(value, mark) || strings.Contains(value, string(reversed)) || strings.Contains(value, hex.EncodeToString([]byte(mark)))
}

// dump is all that the database keeps where it is not masked: tables, what views and functions show aside.
func (o *oracle) dump(ctx context.Context, conn *pgconn.PgConn) (lines [][]string, err error) {
	columns, err := last(ctx, conn, `SELECT n.nspname, c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relkind IN ('r', 'm', 'S') AND a.attnum > 0 AND NOT attisdropped
		AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY n.nspname ~ 'pg_temp', 1, 2, a.attnum`)
	if err != nil {
		return nil, err
	}
	var query strings.Builder
	for _, c := range columns {
		if o.masked(c[0], c[1], c[2]) {
			continue
		}
		if query.Len() > 0 {
			query.WriteString(" UNION ALL ")
		}
		schema := c[0]
		if strings.HasPrefix(schema, "pg_temp_") {
			schema = "pg_temp"
		}
		fmt.Fprintf(&query, `SELECT '%s.%s.%s', (SELECT string_agg(%q::text, '|' ORDER BY %q::text) FROM %q.%q)`, schema, c[1], c[2], c[2], c[2], c[0], c[1])
	}
	query.WriteString(` UNION ALL SELECT 'setting', current_setting('x.y', true)
		UNION ALL SELECT 'bound', string_agg(pg_get_expr(relpartbound, oid), '|') FROM pg_class WHERE relpartbound IS NOT NULL
		UNION ALL SELECT 'locks', string_agg(classid::text || objid, '|') FROM pg_locks WHERE locktype = 'advisory'
		UNION ALL SELECT 'large objects', string_agg(convert_from(lo_get(oid), 'LATIN1'), '|') FROM pg_largeobject_metadata`)
	return last(ctx, conn, query.String())
}

func last(ctx context.Context, conn *pgconn.PgConn, text string) (rows [][]string, err error) {
	results, err := conn.Exec(ctx, text).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, r := range results[len(results)-1].Rows {
		var values []string
		for _, value := range r {
			values = append(values, string(value))
		}
		rows = append(rows, values)
	}
	return rows, nil
}

// masked is whether a column may hold masked values: because a mask names it, or it is computed from such.
func (o *oracle) masked(schema, relation, column string) bool {
	if mask := slices.Contains(masks, schema+"."+relation+"."+column) || slices.Contains(masks, "*."+column); mask {
		return true
	}
	r := o.schema.catalog.RelationNamed(schema, relation)
	if r == nil || r.Column(column) == nil {
		return false
	}
	v := o.schema.ValueOf(r.OID, r.Column(column).Attribute, session)
	return !v.Masks.Empty()
}

// serverError is whether the server refused a statement, rather than something going wrong.
func serverError(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e)
}
