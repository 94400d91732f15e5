package sql

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPreparedStatementsAndSearchPathsAreTold(t *testing.T) {
	type told struct {
		Prepares, Executes, Deallocates string
		DeallocatesAll                  bool
		SearchPath                      []string
		SearchPathChanged               bool
	}
	long := strings.Repeat("x", 70)
	tests := []struct {
		text string
		want told
	}{
		{"SELECT 1", told{}},
		{"PREPARE P AS SELECT 1", told{Prepares: "p"}},
		{`EXECUTE "P"(1)`, told{Executes: "P"}},
		{"EXPLAIN ANALYZE EXECUTE p", told{Executes: "p"}},
		{"CREATE TABLE t AS EXECUTE p", told{Executes: "p"}},
		{"DEALLOCATE PREPARE p", told{Deallocates: "p"}},
		{`DEALLOCATE "all"`, told{Deallocates: "all"}},
		{"DEALLOCATE ALL", told{DeallocatesAll: true}},
		{"DISCARD ALL", told{DeallocatesAll: true, SearchPathChanged: true}},
		{"DISCARD PLANS", told{}},
		{`SET search_path TO A, "B c", '$user', 'D, e'`, told{SearchPath: []string{"a", "B c", "$user", "D, e"}, SearchPathChanged: true}},
		{`SET LOCAL "SEARCH_PATH" = ''`, told{SearchPath: []string{""}, SearchPathChanged: true}},
		{"SET SCHEMA 'x'", told{SearchPath: []string{"x"}, SearchPathChanged: true}},
		{"SET search_path TO DEFAULT", told{SearchPathChanged: true}},
		{"RESET search_path", told{SearchPathChanged: true}},
		{"RESET ALL", told{SearchPathChanged: true}},
		{"SET search_path = " + long, told{SearchPath: []string{long[:63]}, SearchPathChanged: true}},
		{`SELECT set_config('search_path', 'A, "B""c" ,d', false)`, told{SearchPath: []string{"a", `B"c`, "d"}, SearchPathChanged: true}},
		{"SELECT set_config('search_path', '', false)", told{SearchPathChanged: true}},
		{"SELECT set_config('search_path', '" + long + "', false)", told{SearchPath: []string{long[:63]}, SearchPathChanged: true}},
		{"SELECT set_config('search_path', 'a', true), set_config('search_path', 'b', true)", told{SearchPath: []string{"a", "b"}, SearchPathChanged: true}},
		{"PREPARE p AS SELECT set_config('search_path', 'a', true)", told{Prepares: "p", SearchPath: []string{"a"}, SearchPathChanged: true}},
		{"ALTER ROLE r SET search_path = a", told{}},
		{"CREATE SCHEMA a", told{SearchPath: []string{"a"}, SearchPathChanged: true}},
		{"CREATE SCHEMA AUTHORIZATION CURRENT_USER", told{SearchPath: []string{"$user"}, SearchPathChanged: true}},
		{"ALTER SCHEMA a RENAME TO b", told{SearchPath: []string{"b"}, SearchPathChanged: true}},
	}
	for _, tt := range tests {
		st := parseOne(t, tt.text)
		if st.Denied != "" {
			t.Errorf("%s: denied: %s", tt.text, st.Denied)
		}
		got := told{st.Prepares, st.Executes, st.Deallocates, st.DeallocatesAll, st.SearchPath, st.SearchPathChanged}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.text, diff)
		}
	}
}

func TestTextOfSeveralStatementsIsAllOfThem(t *testing.T) {
	script, err := Parse("; SELECT 1; /* x */ ; DELETE FROM t; SET ROLE x;")
	if err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for _, st := range script.Statements {
		verbs = append(verbs, st.Units[0].Verb)
	}
	if diff := cmp.Diff([]string{"SELECT", "DELETE", "SET"}, verbs); diff != "" {
		t.Error(diff)
	}
}

func TestEmptyTextHasNoStatement(t *testing.T) {
	for _, text := range []string{"", " ", ";", "-- x", "/* x */ ; ;"} {
		script, err := Parse(text)
		if err != nil || len(script.Statements) != 0 {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestErrorsShowNothingOfTheText(t *testing.T) {
	tests := []struct{ text, want string }{
		{"SELEC 1", "syntax error at character 1"},
		{"SELECT 'geheim' 'x'", "syntax error at character 17"},
		{"ALTER ROLE x PASSWORD geheim", "syntax error at character 23"},
		{"ALTER ROLE x PASWORD 'geheim'", "syntax error at character 14"},
		{"SELECT 'é' geheim geheim", "syntax error at character 19"},
		{"SELECT", ""},
		{"SELECT (", "syntax error at character 9"},
		{`SELECT E'\uD800geheim'`, "invalid Unicode surrogate pair at character 16"},
		{`SELECT ""`, "zero-length delimited identifier at character 8"},
		{"SELECT $$geheim", errNoEnd.Error()},
		{"SELECT 1geheim", errNoEnd.Error()},
		{"SELECT 'a\x00b'", errNUL.Error()},
		{"\x00", errNUL.Error()},
		{strings.Repeat("(", 5000), errTooDeep.Error()},
	}
	for _, tt := range tests {
		_, err := Parse(tt.text)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if strings.Contains(got, "geheim") {
			t.Errorf("%q: the error quotes the text: %s", tt.text, got)
		}
		if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestTextThatIsNotUTF8(t *testing.T) {
	tests := []struct {
		name, text string
		denied     bool
	}{
		{"passes in a literal", "SELECT 'Caf\xe9' FROM t", false},
		{"passes in a comment", "SELECT 1 -- Caf\xe9", false},
		{"is denied in a table's name", "SELECT * FROM caf\xe9", true},
		{"is denied in a quoted name", "SELECT * FROM \"caf\xe9\"", true},
		{"is denied wherever a name has it", "SELECT a AS \xe9", true},
		{"is denied for a name that looks like UTF-8 beside it", "SELECT '\xe9' FROM \"Ã©\"", true},
		{"UTF-8 passes in names", "SELECT * FROM café", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if st := parseOne(t, tt.text); (st.Denied != "") != tt.denied {
				t.Errorf("denied: %q", st.Denied)
			}
		})
	}
}

func TestOnlyClientEncodingsThatExtendASCIIAreSafe(t *testing.T) {
	for _, name := range []string{
		"UTF8", "utf-8", "Unicode", "SQL_ASCII", "LATIN1", "latin-1", "LATIN10", "ISO_8859_5", "iso-8859-1", "WIN1252", "windows-1252", "win",
		"KOI8R", "KOI8-U", "EUC_JP", "EUC_JIS_2004", "EUC_TW", "EUC_CN", "EUC_KR", "MULE_INTERNAL", "WIN874", "WIN866", "ALT", "TCVN",
	} {
		if !SafeClientEncoding(name) {
			t.Errorf("%s is not safe", name)
		}
	}
	for _, name := range []string{
		"SJIS", "Shift_JIS", "mskanji", "SHIFT_JIS_2004", "BIG5", "win950", "windows-950", "GBK", "win936", "UHC", "win949", "GB18030", "JOHAB", "win932",
		"", "auto", "nonesuch", "UTF16", "latin11", "utf8é", "ſql_ascii",
	} {
		if SafeClientEncoding(name) {
			t.Errorf("%s is safe", name)
		}
	}
}

func TestParserLeavesStandardErrorAlone(t *testing.T) {
	before, err := os.Readlink("/proc/self/fd/2")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			var failed error
			for range 200 {
				_, err := Parse("CREATE GLOBAL TEMP TABLE t (a int)") // warns
				_, wrong := Parse("SELEC")
				failed = errors.Join(failed, err)
				if wrong == nil {
					failed = errors.Join(failed, errors.New("a wrong text was parsed"))
				}
				if now, _ := os.Readlink("/proc/self/fd/2"); now != before {
					failed = errors.Join(failed, errors.New("file descriptor 2 became "+now))
				}
			}
			done <- failed
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
