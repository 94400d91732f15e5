package rewrite

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/test/env"
)

// rewritten is what comes of data in pieces of the given sizes.
func rewritten(c Copy, data []byte, size func() int) ([]byte, error) {
	var out []byte
	for len(data) > 0 {
		n := min(size(), len(data))
		var err error
		if out, err = c.Append(out, bytes.Clone(data[:n])); err != nil {
			return out, err
		}
		data = data[n:]
	}
	return c.End(out)
}

func always(n int) func() int { return func() int { return n } }

// formatOf is the form of the data of a COPY statement.
func formatOf(t testing.TB, statement string) *sql.CopyFormat {
	t.Helper()
	script, err := sql.Parse(statement)
	if err != nil {
		t.Fatal(err)
	}
	return script.Statements[0].Copy
}

// nasty are values that a format has to escape, quote or tell from others.
var nasty = []string{
	"plain", "", `\N`, `\\N`, "N", `\.`, "\t", "a\tb", "\n", "a\nb\n", "\r\n", "\b\f\v", `\`, `\\`, `a\`, `\x41`, `\101`, ",", `"`, `""`, `a"b`, `"quoted"`,
	"'", "|", "a|b", ";", "NULL", "none", " leading", "trailing ", "ünïcödé €", "日本", strings.Repeat("long ", 1000), strings.Repeat("x", MaxValue+1),
}

func TestACopyIsWhatTheServerReads(t *testing.T) {
	server := env.Postgres(t, env.PostgresOptions{})
	conn, err := pgx.Connect(t.Context(), server.URL(env.Superuser, server.Password, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	exec := func(text string, arguments ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), text, arguments...); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	exec("CREATE TABLE source (id serial, before text, secret text, after text, last text)")
	exec("CREATE TABLE copied (LIKE source)")
	for i, v := range nasty {
		exec("INSERT INTO source (before, secret, after, last) VALUES ($1, $2, $1, $2)", nasty[(i+7)%len(nasty)], v)
	}
	exec("INSERT INTO source (before, secret, after, last) VALUES (NULL, NULL, NULL, NULL), ('', NULL, '', 'x')")
	read := func(table string) (rows [][]*string) {
		t.Helper()
		found, err := conn.Query(t.Context(), "SELECT before, secret, after, last FROM "+table+" ORDER BY id")
		if err != nil {
			t.Fatal(err)
		}
		for found.Next() {
			row := make([]*string, 4)
			if err := found.Scan(&row[0], &row[1], &row[2], &row[3]); err != nil {
				t.Fatal(err)
			}
			rows = append(rows, row)
		}
		return rows
	}
	for _, options := range []string{
		"", "(FORMAT csv)", "(FORMAT binary)", "(HEADER)", "(FORMAT csv, HEADER)", "(DELIMITER '|')", "(NULL 'none')", "(NULL '')", "(FORMAT csv, NULL 'none')",
		"(FORMAT csv, DELIMITER E'\\t')", "(FORMAT csv, QUOTE '''')", "(FORMAT csv, ESCAPE '\\')", "(FORMAT csv, QUOTE '|', ESCAPE '#', DELIMITER ';')",
		"(FORMAT csv, FORCE_QUOTE *)", "CSV HEADER NULL AS 'NULL'",
	} {
		t.Run(options, func(t *testing.T) {
			var data bytes.Buffer
			if _, err := conn.PgConn().CopyTo(t.Context(), &data, "COPY source TO STDOUT "+options); err != nil {
				t.Fatal(err)
			}
			f := formatOf(t, "COPY source TO STDOUT "+options)
			unchanged := []Value{nil, nil, same{}, nil, nil}
			if out, err := rewritten(NewCopy(f, unchanged), data.Bytes(), always(1<<30)); err != nil || !bytes.Contains(out, []byte("ünïcödé")) {
				t.Fatal(err)
			}
			masked := []Value{nil, nil, stars(3), nil, stars(0)}
			random := rand.New(rand.NewPCG(1, 2))
			whole, err := rewritten(NewCopy(f, masked), data.Bytes(), always(1<<30))
			if err != nil {
				t.Fatal(err)
			}
			for name, size := range map[string]func() int{"random pieces": func() int { return 1 + random.IntN(5000) }, "large pieces": always(64 << 10)} {
				if out, err := rewritten(NewCopy(f, masked), data.Bytes(), size); err != nil || !bytes.Equal(out, whole) {
					t.Fatalf("in %s it is something else: %v", name, err)
				}
			}
			var short bytes.Buffer
			if _, err := conn.PgConn().CopyTo(t.Context(), &short, "COPY (SELECT * FROM source WHERE length(secret) < 100 AND length(before) < 100) TO STDOUT "+options); err != nil {
				t.Fatal(err)
			}
			atOnce, err := rewritten(NewCopy(f, masked), short.Bytes(), always(1<<30))
			if err != nil {
				t.Fatal(err)
			}
			if out, err := rewritten(NewCopy(f, masked), short.Bytes(), always(1)); err != nil || !bytes.Equal(out, atOnce) {
				t.Fatalf("in bytes it is something else: %v", err)
			}
			exec("TRUNCATE copied")
			from := strings.NewReplacer(", FORCE_QUOTE *", "").Replace(options)
			if f.Header && !f.CSV { // a header that is read has to be the columns' names
				from = "(HEADER MATCH)"
			}
			if _, err := conn.PgConn().CopyFrom(t.Context(), bytes.NewReader(whole), "COPY copied FROM STDIN "+from); err != nil {
				t.Fatalf("the server does not read it: %v", err)
			}
			want := read("source")
			three, long := "***", "too long"
			for _, row := range want {
				for i := range row { // what the text format itself does not tell apart
					if row[i] != nil && !f.Binary && !f.CSV && f.Null == *row[i] && *row[i] != `\N` {
						row[i] = nil
					}
				}
				for i, v := range map[int]*string{1: &three, 3: nil} {
					switch {
					case row[i] == nil:
					case len(*row[i]) > MaxValue:
						row[i] = &long
					default:
						row[i] = v
					}
				}
			}
			if diff := cmp.Diff(want, read("copied")); diff != "" {
				t.Errorf("%.2000s", diff)
			}
		})
	}
}

func TestACopyThatIsNotWhatWasAnnouncedIsRefused(t *testing.T) {
	text, csv := formatOf(t, "COPY t TO STDOUT"), formatOf(t, "COPY t TO STDOUT CSV")
	binary := formatOf(t, "COPY t TO STDOUT (FORMAT binary)")
	head := signature + "\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		name   string
		format *sql.CopyFormat
		data   string
	}{
		{"a column too many in text", text, "a\tb\tc\n"},
		{"a column too few in text", text, "a\n"},
		{"text without an end", text, "a\tb"},
		{"a masked value in text without an end", text, "b"},
		{"a column too many in CSV", csv, "a,b,c\n"},
		{"a column too few in CSV", csv, "\"a,b\"\n"},
		{"a quote in CSV without an end", csv, "a,\"b\n"},
		{"binary data with another signature", binary, strings.Replace(head, "PGCOPY", "PGCOPX", 1) + "\xff\xff"},
		{"binary data with flags", binary, signature + "\x00\x01\x00\x00\x00\x00\x00\x00\xff\xff"},
		{"a binary row of one column", binary, head + "\x00\x01\x00\x00\x00\x01a\xff\xff"},
		{"a binary row with a negative length", binary, head + "\x00\x02\xff\xff\xff\xfe\xff\xff"},
		{"binary data without an end", binary, head},
		{"binary data after its end", binary, head + "\xff\xff\xff\xff"},
		{"nothing in binary", binary, ""},
	} {
		for _, size := range []int{1, 1 << 20} {
			if out, err := rewritten(NewCopy(c.format, []Value{stars(1), nil}), []byte(c.data), always(size)); err == nil {
				t.Errorf("%s became %q", c.name, out)
			}
		}
	}
}

func FuzzCopy(f *testing.F) {
	formats := []*sql.CopyFormat{
		formatOf(f, "COPY t TO STDOUT"), formatOf(f, "COPY t TO STDOUT CSV"), formatOf(f, "COPY t TO STDOUT CSV HEADER ESCAPE '#'"), formatOf(f, "COPY t TO STDOUT (FORMAT binary)"),
	}
	f.Add([]byte("a\tb\\\t\tc\n\\N\t\\.\t\n"), uint8(0), uint8(2), uint64(1))
	f.Add([]byte("a,\"b\n\"\"\",c\n,,\n"), uint8(1), uint8(5), uint64(2))
	f.Add([]byte(signature+"\x00\x00\x00\x00\x00\x00\x00\x01x\x00\x03\xff\xff\xff\xff\x00\x00\x00\x01a\x00\x00\x00\x00\xff\xff"), uint8(3), uint8(7), uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, format, masked uint8, seed uint64) {
		columns := make([]Value, 3)
		for i := range columns {
			if masked>>i&1 == 1 {
				columns[i] = stars(i)
			}
		}
		of := formats[int(format)%len(formats)]
		whole, err := rewritten(NewCopy(of, columns), data, always(1<<30))
		random := rand.New(rand.NewPCG(seed, 0))
		pieces, piecewise := rewritten(NewCopy(of, columns), data, func() int { return 1 + random.IntN(5) })
		if (err == nil) != (piecewise == nil) || err == nil && !bytes.Equal(whole, pieces) {
			t.Fatalf("whole %q, %v; in pieces %q, %v", whole, err, pieces, piecewise)
		}
	})
}
