package sql

import "testing"

func TestFilteredTellsWhetherWhereRestrictsRows(t *testing.T) {
	tests := []struct {
		name     string
		where    string
		filtered bool
	}{
		{"no WHERE restricts nothing", "", false},
		{"a column restricts", "WHERE id = 1", true},
		{"a column of the table restricts", "WHERE t.id = $1", true},
		{"a column anywhere in an expression restricts", "WHERE lower(name) LIKE 'a%' ESCAPE 'x'", true},
		{"a column in CASE restricts", "WHERE CASE WHEN id = 1 THEN true END", true},
		{"a list restricts", "WHERE id IN (1, 2)", true},
		{"a sub-query restricts", "WHERE EXISTS (SELECT 1)", true},
		{"a cursor restricts", "WHERE CURRENT OF c", true},
		{"true restricts nothing", "WHERE true", false},
		{"a comparison of constants restricts nothing", "WHERE 1 = 1", false},
		{"a parameter restricts nothing", "WHERE $1", false},
		{"a call without a column restricts nothing", "WHERE f(1) AND now() > '2020-01-01'", false},
		{"an OR with true restricts nothing", "WHERE id = 1 OR true", false},
		{"an OR with a comparison of constants restricts nothing", "WHERE id = 1 OR 1 = 1", false},
		{"an OR with a parameter restricts nothing", "WHERE id = 1 OR $1", false},
		{"an OR of columns restricts", "WHERE id = 1 OR name = 'x'", true},
		{"an AND with true restricts", "WHERE true AND id = 1", true},
		{"an OR deep down counts", "WHERE (true AND (id = 1 OR true))", false},
		{"an OR beside a column does not matter", "WHERE name = 'x' AND (id = 1 OR true)", true},
		{"NOT turns AND into OR", "WHERE NOT (id = 1 AND false)", false},
		{"NOT turns OR into AND", "WHERE NOT (id = 1 OR false)", true},
		{"NOT NOT is nothing", "WHERE NOT NOT (id = 1 OR true)", false},
		{"NOT of a column restricts", "WHERE NOT deleted", true},
		{"IS TRUE of a column restricts", "WHERE (id = 1) IS TRUE", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, text := range []string{"DELETE FROM t " + tt.where, "UPDATE t SET a = b " + tt.where} {
				if got := parseOne(t, text).Units[0].Filtered; got != tt.filtered {
					t.Errorf("%s: filtered %v", text, got)
				}
			}
		})
	}
}

func TestWhatIsNoUpdateOrDeleteCountsAsFiltered(t *testing.T) {
	for _, text := range []string{"SELECT 1", "INSERT INTO t VALUES (1)", "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", "DROP TABLE t"} {
		if !parseOne(t, text).Units[0].Filtered {
			t.Errorf("%s is unfiltered", text)
		}
	}
}
