package sql

import (
	"github.com/google/go-cmp/cmp"
	"strings"
	"testing"
)

// show writes a statement's units in short: kind, verb, and what is set, one line a unit.
func show(st *Statement) []string {
	var lines []string
	for i := range st.Units {
		u := &st.Units[i]
		parts := []string{u.Kind + ": " + u.Verb}
		for _, list := range []struct {
			name    string
			objects []Object
		}{{"reads", u.Reads}, {"writes", u.Writes}, {"calls", u.Functions}} {
			if len(list.objects) > 0 {
				names := make([]string, len(list.objects))
				for i, o := range list.objects {
					names[i] = strings.TrimPrefix(o.Schema+"."+o.Name, ".")
				}
				parts = append(parts, list.name+" "+strings.Join(names, ","))
			}
		}
		for _, flag := range []struct {
			set  bool
			name string
		}{
			{!u.Filtered, "unfiltered"}, {u.Program, "program"}, {u.File, "file"}, {u.Role != "", "role=" + u.Role},
			{u.Setting != "", "setting=" + u.Setting},
		} {
			if flag.set {
				parts = append(parts, flag.name)
			}
		}
		lines = append(lines, strings.Join(parts, "; "))
	}
	if st.Denied != "" {
		lines = append(lines, "denied: "+st.Denied)
	}
	return lines
}

// parseOne is the only statement of a text.
func parseOne(t *testing.T, text string) *Statement {
	t.Helper()
	script, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if len(script.Statements) != 1 {
		t.Fatalf("%s: %d statements", text, len(script.Statements))
	}
	return script.Statements[0]
}

// A unitsTest is a sentence with statements that bear it out.
type unitsTest struct {
	name  string
	cases []unitsCase
}

// A unitsCase is a statement and its units, as show writes them.
type unitsCase struct {
	sql  string
	want []string
}

func checkUnits(t *testing.T, tests []unitsTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range tt.cases {
				if diff := cmp.Diff(c.want, show(parseOne(t, c.sql))); diff != "" {
					t.Errorf("%s (-want +got):\n%s", c.sql, diff)
				}
			}
		})
	}
}
