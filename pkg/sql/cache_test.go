package sql

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var pointSelect = []byte("SELECT id, name, email FROM customers WHERE id = 123456789 ")

func TestTextsThatDifferInPlainLiteralsShareAScript(t *testing.T) {
	tests := []struct {
		name, first, second string
		shared              bool
	}{
		{"integers", "SELECT a FROM t WHERE id = 1", "SELECT a FROM t WHERE id = 22", true},
		{"strings", "SELECT a FROM t WHERE id = 'a''b'", "SELECT a FROM t WHERE id = 'é'", true},
		{"numerics", "UPDATE t SET a = 1.5 WHERE id = 2", "UPDATE t SET a = 2.25 WHERE id = 3", true},
		{"rows", "INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, 'b')", true},
		{"a type before the string", "SELECT date '2020-01-01'", "SELECT date '2021-01-01'", true},
		{"statements", "DELETE FROM t WHERE id = 1; SELECT 1", "DELETE FROM t WHERE id = 2; SELECT 3", true},
		{"one kind for another", "SELECT a FROM t WHERE id = 1", "SELECT a FROM t WHERE id = '1'", false},
		{"an integer for a numeric", "SELECT 1", "SELECT 1.5", false},
		{"other white space", "SELECT 1", "SELECT  1", false},
		{"a comment", "SELECT 1 -- a", "SELECT 2 -- a", false},
		{"a dollar quote", "SELECT 1, $$a$$", "SELECT 2, $$a$$", false},
		{"a backslash", `SELECT 1, 'a\b'`, `SELECT 2, 'a\b'`, false},
		{"an escape string", "SELECT 1, E'a'", "SELECT 2, E'a'", false},
		{"a Unicode string", "SELECT 1, U&'a'", "SELECT 2, U&'a'", false},
		{"a bit string", "SELECT 1, B'1'", "SELECT 2, B'1'", false},
		{"a string in parts", "SELECT 1, 'a'\n'b'", "SELECT 2, 'a'\n'b'", false},
		{"a number beyond 32 bits", "SELECT 2147483648", "SELECT 2147483649", false},
		{"an exponent", "SELECT 1e5", "SELECT 2e5", false},
		{"a name beyond ASCII", "SELECT é, 1", "SELECT é, 2", false},
		{"float(n)", "SELECT a::float(1)", "SELECT a::float(2)", false},
		{"SET", "SET work_mem = 1", "SET work_mem = 2", false},
		{"EXPLAIN", "EXPLAIN SELECT 1", "EXPLAIN SELECT 2", false},
		{"COPY", "COPY (SELECT 1) TO STDOUT", "COPY (SELECT 2) TO STDOUT", false},
		{"SELECT INTO", "SELECT 1 INTO t", "SELECT 2 INTO t", false},
		{"set_config", "SELECT set_config('role', 'a', true)", "SELECT set_config('role', 'b', true)", false},
		{"set_config in a WITH query", "WITH a AS (SELECT set_config('a.b', '1', true)) SELECT 1", "WITH a AS (SELECT set_config('a.b', '2', true)) SELECT 1", false},
		{"dblink", "SELECT dblink('a')", "SELECT dblink('b')", false},
		{"a plain and another statement", "SELECT 1; SHOW a", "SELECT 2; SHOW a", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCache()
			first, err := c.Get([]byte(tt.first))
			if err != nil {
				t.Fatal(err)
			}
			second, err := c.Get([]byte(tt.second))
			if err != nil {
				t.Fatal(err)
			}
			if (first == second) != tt.shared {
				t.Errorf("shared: %v", first == second)
			}
			checkSame(t, tt.second, second)
			if again, _ := c.Get([]byte(tt.first)); again != first {
				t.Error("the first text's script was not kept")
			}
		})
	}
}

// checkSame compares a script from a cache with the text parsed anew.
func checkSame(t *testing.T, text string, got *Script) {
	t.Helper()
	want, err := Parse(text)
	if err != nil {
		t.Errorf("%q: the cache has a script, Parse an error: %v", text, err)
		return
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Script{})); diff != "" {
		t.Errorf("%q (-parsed +cached):\n%s", text, diff)
	}
	if want, got := want.RedactedText(text), got.RedactedText(text); want != got {
		t.Errorf("%q: redacted %q, from the cache %q", text, want, got)
	}
}

func TestMarkInATextIsNotTakenForALiteral(t *testing.T) {
	c := NewCache()
	if _, err := c.Get([]byte("SELECT 1")); err != nil {
		t.Fatal(err)
	}
	if script, err := c.Get([]byte("SELECT \x01")); err == nil {
		t.Errorf("got the script of %s", script.Normalised)
	}
}

func TestErrorsAreNotKept(t *testing.T) {
	c := NewCache()
	for range 2 {
		if _, err := c.Get([]byte("SELEC 1")); err == nil {
			t.Fatal("no error")
		}
	}
	if n, _ := c.content(); n != 0 {
		t.Errorf("%d entries", n)
	}
}

func TestHitsAllocateNothing(t *testing.T) {
	c := NewCache()
	texts := map[string][]byte{
		"exact": []byte("SELECT id, name, email FROM customers WHERE id = $1"),
		"blind": pointSelect,
	}
	for name, text := range texts {
		if _, err := c.Get(text); err != nil {
			t.Fatal(err)
		}
		n := testing.AllocsPerRun(100, func() {
			if _, err := c.Get(text); err != nil {
				t.Fatal(err)
			}
		})
		if n >= 1 { // the race detector makes pools forget
			t.Errorf("%s hit: %v allocations", name, n)
		}
	}
}

// content counts entries and bytes, and compares them with the books.
func (c *Cache) content() (entries, bytes int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		sum := 0
		for _, e := range s.ring {
			if s.entries[e.key] != e {
				panic("ring and map differ")
			}
			sum += e.bytes
		}
		if sum != s.bytes || len(s.ring) != len(s.entries) {
			panic(fmt.Sprintf("%d bytes for %d, %d entries for %d", s.bytes, sum, len(s.entries), len(s.ring)))
		}
		entries += len(s.entries)
		bytes += s.bytes
		s.mu.RUnlock()
	}
	return entries, bytes
}

func TestCacheStaysWithinItsBounds(t *testing.T) {
	t.Run("of entries, and keeps what is used", func(t *testing.T) {
		c := NewCache()
		hot, err := c.Get(pointSelect)
		if err != nil {
			t.Fatal(err)
		}
		script := &Script{}
		for i := range 2 * cacheShards * shardEntries {
			c.add(fmt.Sprintf("text %d", i), false, script)
			if i%100 == 0 {
				if got, err := c.Get(pointSelect); err != nil || got != hot {
					t.Fatalf("the script in use was dropped after %d others: %v", i, err)
				}
			}
		}
		if n, _ := c.content(); n > cacheShards*shardEntries {
			t.Errorf("%d entries", n)
		}
	})
	t.Run("of bytes", func(t *testing.T) {
		c := NewCache()
		script := &Script{Normalised: strings.Repeat("x", 100_000)}
		for i := range 1000 {
			c.add(fmt.Sprintf("text %d", i), false, script)
		}
		if n, bytes := c.content(); bytes > cacheShards*shardBytes || n < 100 {
			t.Errorf("%d entries, %d bytes", n, bytes)
		}
	})
	t.Run("of one entry", func(t *testing.T) {
		c := NewCache()
		c.add("text", false, &Script{Normalised: strings.Repeat("x", shardBytes)})
		if _, err := c.Get([]byte("SELECT '" + strings.Repeat("x", maxCached) + "'")); err != nil {
			t.Fatal(err)
		}
		if n, _ := c.content(); n != 0 {
			t.Errorf("%d entries", n)
		}
	})
}

func TestSessionsShareACache(t *testing.T) {
	c := NewCache()
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			for i := range 300 {
				text := fmt.Sprintf("SELECT a%d FROM t WHERE id = %d", i%50, worker)
				script, err := c.Get([]byte(text))
				if err != nil {
					t.Error(err)
					return
				}
				if want := fmt.Sprintf("SELECT a%d FROM t WHERE id = $1", i%50); script.Normalised != want {
					t.Errorf("%s: got %s", text, script.Normalised)
				}
			}
		})
	}
	wait.Wait()
	if n, _ := c.content(); n != 50 {
		t.Errorf("%d entries", n)
	}
}

// blindSeeds are texts with literals, plain ones and others.
var blindSeeds = []string{
	"SELECT a FROM t WHERE id = 1 AND name = 'x' OR b > 1.5",
	"INSERT INTO t (a, b) VALUES (1, 'a'), (2, 'b''c') ON CONFLICT (a) DO UPDATE SET b = 'x'",
	"UPDATE t SET a = a + 1, b = -2 WHERE c IN (1, 2, 3) AND d LIKE '%x' ESCAPE '!'",
	"DELETE FROM t WHERE 1 = 1 OR a = date '2020-01-01' + interval '1 day'",
	"WITH x AS (DELETE FROM t WHERE id = 5 RETURNING *) SELECT * FROM x LIMIT 10 OFFSET 20",
	"SELECT x::numeric(10,2), f(1, 'a'), a[1:2], (SELECT 1), 'a' || 'b', 1-1, 1 -1, $1, \"q\"\"1\" FROM t1 ORDER BY 1",
	"SELECT set_config('search_path', 'a', true), 1",
	"SELECT EXTRACT(year FROM a), CAST('1' AS int), CASE WHEN a = 1 THEN 'x' ELSE 'y' END FROM s.t2 FETCH FIRST 3 ROWS ONLY",
	"MERGE INTO t USING s ON t.a = 1 WHEN MATCHED THEN UPDATE SET b = 'x' WHEN NOT MATCHED THEN INSERT VALUES (1, '2')",
	"SELECT 1.5.2, 1..2, .5, 5., 1e5, 0x1F, 1_000, 007, 1a, a1, a.1, 2147483647, 2147483648",
	"SELECT 'a' 'b', 'a'\n'b', E'a', e 'a', N'a', _'a', U&'a', u & 'a', B'1', x 'y'",
	"SELECT float(1), a::float(25), \"float\"(3), float '1'",
	"SELECT JSON_TABLE('a', '$' COLUMNS (a int PATH '$.a')), JSON_VALUE('x', '$.b'), xmlparse(document 'x')",
	"TABLE t LIMIT 5", "VALUES (1, 'x')", "SELECT 1; SELECT 'a'; ;", "SHOW a", "SELECT 1 INTO t", "SELECT 'é', 'a\\b'", "SELECT dblink('a', 'b')",
	"SELECT interval '1' year, interval(3) '5', time(3) '10:00', bit(3) '101', SUBSTRING('abc' FROM 1 FOR 2), OVERLAY('a' PLACING 'b' FROM 1)",
	"SELECT * FROM t TABLESAMPLE bernoulli(10) REPEATABLE (5), GENERATE_SERIES(1, 10) WITH ORDINALITY WINDOW w AS (ROWS 1 PRECEDING)",
}

// otherLiterals replaces plain literals by others of their kind, drawn from salt.
func otherLiterals(text string, salt uint) string {
	var b strings.Builder
	pick := func(values ...string) { b.WriteString(values[salt%uint(len(values))]); salt = salt*7 + 3 }
	key, _, _ := blind(nil, []byte(text))
	for _, c := range key {
		switch c {
		case markInteger:
			pick("0", "7", "12345", "2147483647", "007")
		case markNumeric:
			pick("0.0", "1.25", "2147483647.999999999999")
		case markString:
			pick("''", "'x'", "'off'", "'it''s; DROP TABLE t --'", "'/*'", "'$$'", "'é\xff'", "'\"'")
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func compareBlind(t *testing.T, text string, salt uint) {
	t.Helper()
	if len(text) > 4096 {
		return
	}
	if _, _, ok := blind(nil, []byte(text)); !ok {
		return
	}
	other := otherLiterals(text, salt)
	first, _, _ := blind(nil, []byte(text))
	second, _, ok := blind(nil, []byte(other))
	if !ok || string(first) != string(second) {
		t.Fatalf("%q and %q have the keys %q and %q", text, other, first, second)
	}
	c := NewCache()
	if _, err := c.Get([]byte(text)); err != nil {
		return
	}
	script, err := c.Get([]byte(other))
	if err != nil {
		t.Fatalf("%q parses, %q does not: %v", text, other, err)
	}
	checkSame(t, other, script)
}

func TestScriptOfABlindKeyIsThatOfEachText(t *testing.T) {
	for _, text := range blindSeeds {
		for salt := range uint(8) {
			compareBlind(t, text, salt)
		}
	}
}

func FuzzScriptOfABlindKeyIsThatOfEachText(f *testing.F) {
	for i, text := range blindSeeds {
		f.Add(text, uint(i))
	}
	f.Fuzz(compareBlind)
}

func FuzzParseNeverBreaks(f *testing.F) {
	for _, seeds := range [][]string{blindSeeds, lexerSeeds} {
		for _, text := range seeds {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		script, err := Parse(text)
		if err != nil {
			return
		}
		for _, st := range script.Statements {
			if len(st.Units) == 0 {
				t.Errorf("%q has a statement without units", text)
			}
			for _, u := range st.Units {
				if u.Kind == "" || u.Verb == "" {
					t.Errorf("%q: %+v", text, u)
				}
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := string(pointSelect)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkGet(b *testing.B, text []byte) {
	c := NewCache()
	if _, err := c.Get(text); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCacheExact(b *testing.B) {
	benchmarkGet(b, []byte("SELECT id, name, email FROM customers WHERE id = $1 LIMIT $2"))
}

func BenchmarkCacheBlind(b *testing.B) { benchmarkGet(b, pointSelect) }
