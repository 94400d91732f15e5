package sql

import (
	"errors"
	"math/rand"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// hostile are shapes of text of any size n that nest or are long.
var hostile = map[string]func(n int) string{
	"open brackets":       func(n int) string { return strings.Repeat("(", n) },
	"brackets":            around("SELECT ", "(", "1", ")", ""),
	"square brackets":     around("SELECT ", "ARRAY[", "1", "]", ""),
	"subscripts":          around("SELECT ", "a[", "1", "]", ""),
	"sums":                chain("SELECT 1", "+1"),
	"unary minus":         around("SELECT ", "- ", "1", "", ""),
	"minus without gaps":  around("SELECT ", "+-", "1", "", ""),
	"AND":                 chain("SELECT a", " AND a"),
	"AND with sums":       chain("SELECT a", " AND a+1"),
	"AND as a name":       chain("SELECT a", " - a.and"),
	"NOT":                 around("SELECT ", "NOT ", "a", "", ""),
	"NOT BETWEEN":         chain("SELECT a", " BETWEEN 1 AND NOT a"),
	"casts":               chain("SELECT a", "::int"),
	"IS NULL":             chain("SELECT a", " IS NULL"),
	"COLLATE":             chain("SELECT a", ` COLLATE "C"`),
	"AT TIME ZONE":        chain("SELECT a", " AT TIME ZONE b"),
	"concatenation":       chain("SELECT 'a'", "||'a'"),
	"fields":              chain("SELECT (a)", ".b"),
	"names":               chain("SET a", ".b"),
	"UNION":               chain("SELECT 1", " UNION ALL SELECT 1"),
	"UNION as a name":     chain("SELECT a", " - a.union"),
	"JOIN as a function":  chain("SELECT 1", " + 1 + join(1)"),
	"UNION with commas":   chain("SELECT 1, 2", " UNION ALL SELECT 1, 2"),
	"UNION in brackets":   around("", "(SELECT 1 UNION ", "SELECT 1", ")", ""),
	"joins":               chain("SELECT * FROM a", " CROSS JOIN a"),
	"joins with AND":      chain("SELECT * FROM a", " JOIN a ON b AND c"),
	"joins in brackets":   around("SELECT * FROM ", "(a CROSS JOIN ", "a", ")", ""),
	"CASE":                around("SELECT ", "CASE WHEN a THEN ", "1", " END", ""),
	"CASE with AND":       around("SELECT ", "CASE WHEN a AND ", "b", " THEN 1 END", ""),
	"CASE in ELSE":        around("SELECT ", "CASE WHEN a THEN 1 ELSE ", "b", " END", ""),
	"sub-selects":         around("SELECT ", "(SELECT ", "1", ")", ""),
	"sub-selects in FROM": around("SELECT * FROM ", "(SELECT * FROM ", "a", ") x", ""),
	"EXISTS":              around("SELECT 1 WHERE ", "EXISTS (SELECT 1 WHERE ", "true", ")", ""),
	"WITH in WITH":        around("", "WITH a AS (", "SELECT 1", ") SELECT 1", ""),
	"calls":               around("SELECT ", "f(", "1", ")", ""),
	"rows":                around("SELECT ", "ROW(", "1", ")", ""),
	"functions":           around("", "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC ", "SELECT 1", "; END", ""),
	"list":                chain("SELECT a IN (1", ",1", ")"),
	"columns":             chain("SELECT a", ",a"),
	"rows of VALUES":      chain("INSERT INTO t VALUES (1,'a')", ",(1,'a')"),
	"WITH queries":        chain("WITH a AS (SELECT 1)", ",a AS (SELECT 1)", " SELECT 1"),
	"statements":          chain("SELECT 1", ";SELECT 1"),
	"empty statements":    chain("", ";"),
	"OR":                  chain("SELECT 1 WHERE a=1", " OR a=1"),
	"set columns":         chain("EXPLAIN SELECT set", ",set"),
	"secrets":             chain("EXPLAIN SELECT set", ",set token=1,dblink(1)"),
	"a long list deep down": func(n int) string {
		return "SELECT " + strings.Repeat("(SELECT ", 90) + "a IN (1" + strings.Repeat(",1", n) + ")" + strings.Repeat(")", 90)
	},
}

// chain repeats link.
func chain(head, link string, tail ...string) func(int) string {
	return func(n int) string { return head + strings.Repeat(link, n) + strings.Join(tail, "") }
}

// around wraps middle n times.
func around(head, open, middle, closing, tail string) func(int) string {
	return func(n int) string { return head + strings.Repeat(open, n) + middle + strings.Repeat(closing, n) + tail }
}

// patience is how long one text may take, on a busy machine and with the race detector.
const patience = 2 * time.Minute

func TestNoShapeOfTextBreaksTheParser(t *testing.T) {
	var names []string
	for name := range hostile {
		names = append(names, name)
	}
	sort.Strings(names)
	var wait sync.WaitGroup
	queue := make(chan string)
	for range 4 {
		wait.Go(func() {
			for name := range queue {
				tryShape(t, name, hostile[name])
			}
		})
	}
	for _, name := range names {
		queue <- name
	}
	close(queue)
	wait.Wait()
}

// tryShape parses a shape at the largest size within bounds, just above it, and far above it.
func tryShape(t *testing.T, name string, shape func(int) string) {
	perUnit := len(shape(2)) - len(shape(1))
	largest := sort.Search(MaxText/perUnit, func(n int) bool {
		_, err := shapeOf(shape(n + 1))
		return err != nil
	})
	for _, n := range []int{largest, largest + 1, min(largest*50+50_000, MaxText/perUnit)} {
		text := shape(n)
		start := time.Now()
		script, err := Parse(text)
		if took := time.Since(start); took > patience {
			t.Errorf("%s: %d bytes took %v", name, len(text), took)
		}
		switch {
		case err != nil && script != nil, err == nil && script == nil:
			t.Errorf("%s: script %v, error %v", name, script != nil, err)
		case err == nil && n > largest:
			t.Errorf("%s of size %d passed a bound", name, n)
		case err != nil && strings.Contains(err.Error(), "nests too deeply"):
			t.Errorf("%s of size %d: the decoder's bound was met before that of the shape", name, n)
		}
	}
}

func TestBoundsLeaveRoomForRealStatements(t *testing.T) {
	for name, n := range map[string]int{
		"rows of VALUES": 50_000, "list": 100_000, "OR": 50_000, "AND with sums": 50_000, "UNION": 1000, "joins": 500, "concatenation": 500,
		"sub-selects": 200, "sub-selects in FROM": 200, "CASE": 200, "brackets": 500, "statements": 10_000, "columns": 10_000, "sums": 500,
	} {
		text := hostile[name](n)
		if len(text) > 200_000 { // the shape is what counts, and it is quick to measure
			if _, err := shapeOf(text); err != nil {
				t.Errorf("%s of size %d: %v", name, n, err)
			}
			continue
		}
		if _, err := Parse(text); err != nil {
			t.Errorf("%s of size %d: %v", name, n, err)
		}
	}
}

func TestLengthIsBounded(t *testing.T) {
	fits := "SELECT '" + strings.Repeat("x", MaxText-9) + "'"
	if _, err := Parse(fits); err != nil || len(fits) != MaxText {
		t.Errorf("%d bytes: %v", len(fits), err)
	}
	if _, err := Parse(fits + " "); !errors.Is(err, errTooLong) {
		t.Errorf("%d bytes: %v", len(fits)+1, err)
	}
}

// messageDepth is how deeply messages nest.
func messageDepth(m protoreflect.Message) int {
	depth := 0
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i := range v.List().Len() {
				depth = max(depth, messageDepth(v.List().Get(i).Message()))
			}
		default:
			depth = max(depth, messageDepth(v.Message()))
		}
		return true
	})
	return depth + 1
}

// TestDepthIsNeverUnderestimated repeats pieces of text, drawn at random from words of the grammar, and compares the bound with how
// deep the tree really is. The bound on which the stack's size rests is two messages a level.
func TestDepthIsNeverUnderestimated(t *testing.T) {
	words := strings.Fields(`( ) [ ] , a 1 'x' SELECT FROM WHERE AND OR NOT BETWEEN CASE WHEN THEN ELSE END UNION JOIN ON + - :: IS NULL IN ARRAY
		COLLATE . = LIKE AS ; VALUES EXISTS ANY ROW INTERVAL f( AT TIME ZONE FILTER OVER USING WITH LIMIT`)
	closing := map[string]string{"(": ")", "f(": ")", "[": "]", "CASE": " END"}
	contexts := [][2]string{{"SELECT ", ""}, {"SELECT ", "a"}, {"SELECT a ", ""}, {"SELECT a FROM a ", ""}, {"SELECT a FROM ", " a"}, {"", " SELECT 1"}}
	var pieces [][]string
	for _, a := range words {
		for _, b := range words {
			pieces = append(pieces, []string{a}, []string{a, b})
		}
	}
	random := rand.New(rand.NewSource(1))
	for range 6000 {
		piece := make([]string, 3+random.Intn(5))
		for i := range piece {
			piece[i] = words[random.Intn(len(words))]
		}
		pieces = append(pieces, piece)
	}
	const times = 40
	parsed := 0
	for _, piece := range pieces {
		tail := ""
		for i := len(piece) - 1; i >= 0; i-- {
			tail += closing[piece[i]]
		}
		for _, c := range contexts {
			text := c[0] + strings.Repeat(strings.Join(piece, " ")+" ", times) + c[1] + strings.Repeat(tail, times)
			s, err := shapeOf(text)
			if err != nil {
				continue
			}
			tree, err := pg.Parse(text)
			if err != nil {
				continue
			}
			parsed++
			if depth := messageDepth(tree.ProtoReflect()); depth > 2*s.depth+16 {
				t.Errorf("depth %d, bound %d: %s", depth, s.depth, text)
			}
		}
	}
	if parsed < 100 {
		t.Errorf("only %d texts are of the grammar", parsed)
	}
}
