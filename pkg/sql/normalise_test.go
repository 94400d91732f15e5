package sql

import (
	"regexp"
	"testing"
)

func TestNormalisedTextHasNoLiterals(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"literals become parameters", "SELECT 'a', 1, 1.5, -2, B'01', X'ff', E'\\n', $$x$$, N'n', U&'\\0041'",
			"SELECT $1, $2, $3, -$4, $5, $6, $7, $8, N$9, $10"},
		{"numbers go on where the text's own parameters end", "SELECT $3, 'a', $1, 2", "SELECT $3, $4, $1, $5"},
		{"comments and white space shrink", " SELECT /* a */ 1 -- b\n\t+  2 ; ", "SELECT $1 + $2 ;"},
		{"names and words stay as they are", `select "A b", Ünï FROM t`, `select "A b", Ünï FROM t`},
		{"true and null stay", "SELECT true, NULL", "SELECT true, NULL"},
		{"parts of a string are one", "SELECT 'a'\n'b'", "SELECT $1"},
		{"utility statements too", "SET work_mem = '1GB'", "SET work_mem = $1"},
		{"bodies too", "DO $$ BEGIN END $$", "DO $1"},
		{"what is not UTF-8 is replaced", "SELECT a\xe9", "SELECT a\uFFFD"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			script, err := Parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if script.Normalised != tt.want {
				t.Errorf("got %s", script.Normalised)
			}
		})
	}
}

func TestFingerprintIsThatOfAShape(t *testing.T) {
	same := [][]string{
		{"SELECT a FROM t WHERE id = 1", "select  A from T where ID = 'x' -- y", "SELECT a FROM t WHERE id = $1"},
		{"SELECT 1 IN (1)", "SELECT 2 IN (1, 2, 3)", "SELECT $1 IN ($2, $3)"},
		{"INSERT INTO t VALUES (1, 2)", "INSERT INTO t VALUES (1, 2), (3, 4), (5, 6, 7)"},
	}
	seen := map[string]int{}
	for i, texts := range same {
		for _, text := range texts {
			script, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if !regexp.MustCompile("^[0-9a-f]{16}$").MatchString(script.Fingerprint) {
				t.Errorf("%s: fingerprint %q", text, script.Fingerprint)
			}
			if first, ok := seen[script.Fingerprint]; ok && first != i {
				t.Errorf("%s has the fingerprint of another shape", text)
			}
			seen[script.Fingerprint] = i
		}
	}
	if len(seen) != len(same) {
		t.Errorf("%d fingerprints for %d shapes", len(seen), len(same))
	}
}
