package lineage

import (
	"fmt"
	"strings"
	"testing"
)

// analysed is the last statement of a text.
func analysed(t *testing.T, s *Schema, text string, at Session) Statement {
	t.Helper()
	statements, err := s.Analyze(text, at)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return statements[len(statements)-1]
}

func TestPlacesWhereMaskedColumnsDecide(t *testing.T) {
	s := newOracle(t).schema
	tests := []struct{ name, text, want string }{
		{"none", "SELECT email FROM customers WHERE id = 1 ORDER BY name", ""},
		{"WHERE", "SELECT id FROM customers WHERE email = 'x'", "0 WHERE"},
		{"IS NULL in WHERE", "SELECT id FROM customers WHERE ssn IS NULL", "1 WHERE"},
		{"a row in WHERE", "SELECT id FROM customers c WHERE c::text LIKE 'x'", "0 WHERE, 1 WHERE"},
		{"JOIN", "SELECT o.id FROM orders o JOIN customers c ON c.ssn = o.note", "1 JOIN"},
		{"USING", "SELECT a.id FROM archive a JOIN customers c USING (email)", "0 JOIN"},
		{"ORDER BY of a column that is not shown", "SELECT id FROM customers ORDER BY email", "0 ORDER BY"},
		{"ORDER BY of a position", "SELECT id, email FROM customers ORDER BY 2", "0 ORDER BY"},
		{"ORDER BY of an alias", "SELECT ssn AS x FROM customers ORDER BY x", "1 ORDER BY"},
		{"GROUP BY and HAVING", "SELECT count(*) FROM customers GROUP BY email HAVING max(ssn) > 'x'", "0 GROUP BY, 1 FUNCTION, 1 HAVING"},
		{"GROUPING SETS", "SELECT count(*) FROM customers GROUP BY ROLLUP (email)", "0 GROUP BY"},
		{"DISTINCT", "SELECT DISTINCT email FROM customers", "0 DISTINCT"},
		{"DISTINCT ON", "SELECT DISTINCT ON (ssn) id FROM customers", "1 DISTINCT"},
		{"LIMIT", "SELECT id FROM customers LIMIT (SELECT length(ssn) FROM customers LIMIT 1)", "1 FUNCTION, 1 LIMIT"},
		{"FILTER", "SELECT count(*) FILTER (WHERE email LIKE 'a%') FROM customers", "0 FILTER"},
		{"a window", "SELECT rank() OVER (PARTITION BY ssn ORDER BY email) FROM customers", "0 WINDOW, 1 WINDOW"},
		{"a function's argument", "SELECT lower(email) FROM customers", "0 FUNCTION"},
		{"CASE", "SELECT CASE WHEN email = 'x' THEN 1 END FROM customers", "0 CASE"},
		{"a set operation", "SELECT email FROM customers INTERSECT SELECT 'x'", "0 INTERSECT"},
		{"UNION ALL", "SELECT email FROM customers UNION ALL SELECT 'x'", ""},
		{"a subquery", "SELECT id FROM orders WHERE customer_id IN (SELECT id FROM customers WHERE email = 'x')", "0 WHERE"},
		{"a view's column", "SELECT id FROM v_customers WHERE mail = 'x'", "0 WHERE"},
		{"a view's own clauses", "SELECT a FROM v_named", ""},
		{"UPDATE and DELETE", "WITH d AS (DELETE FROM orders WHERE card = 'x') UPDATE customers SET name = 'n' WHERE ssn = 'x'", "1 WHERE, 2 WHERE"},
		{"ON CONFLICT", "INSERT INTO customers (id) VALUES (1) ON CONFLICT (email) DO NOTHING", "0 ON CONFLICT"},
		{"a value that is not known", "SELECT id FROM v_opaque WHERE o = 'x'", "0 WHERE, 1 WHERE, 2 WHERE, 3 WHERE, 4 WHERE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := analysed(t, s, tt.text, session)
			if st.Denied != "" {
				t.Fatal(st.Denied)
			}
			var uses []string
			for _, use := range st.Uses {
				uses = append(uses, fmt.Sprintf("%d %s", use.Mask, use.Place))
			}
			if got := strings.Join(uses, ", "); got != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.text, got, tt.want)
			}
		})
	}
}

func TestReachIsEveryMaskThatErrorsMayTellOf(t *testing.T) {
	s := newOracle(t).schema
	tests := []struct{ name, text, want string }{
		{"no table", "SELECT 1", "[]"},
		{"a table without masks", "SELECT * FROM notes", "[]"},
		{"a column that is not masked, of a table that has masks", "SELECT id FROM customers", "[0 1]"},
		{"a view of a view", "SELECT id FROM v_deep", "[0 1 2]"},
		{"a function", "SELECT name_of(1)", "[0 1]"},
		{"a foreign key's cascade", "DELETE FROM customers WHERE id = 1", "[0 1 2]"},
		{"a trigger whose words are its owner's", "INSERT INTO fired VALUES (1)", "[0 1 2 3 4]"},
		{"a name that is not known", "SELECT id FROM nowhere", "[0 1 2 3 4]"},
		{"a cursor", "FETCH ALL FROM c", "[0 1 2 3 4]"},
		{"SET and BEGIN", "SET work_mem = '1MB'", "[]"},
		{"CHECK constraints and defaults of their owner", "UPDATE notes SET body = 'x'", "[]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := fmt.Sprint([]int(analysed(t, s, tt.text, session).Reach)); got != tt.want {
				t.Errorf("%s: got %s, want %s", tt.text, got, tt.want)
			}
		})
	}
}
