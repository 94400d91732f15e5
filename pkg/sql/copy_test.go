package sql

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheFormOfACopyIsRead(t *testing.T) {
	text := CopyFormat{Delimiter: '\t', Null: `\N`}
	csv := CopyFormat{CSV: true, Delimiter: ',', Quote: '"', Escape: '"'}
	with := func(f CopyFormat, change func(f *CopyFormat)) CopyFormat { change(&f); return f }
	for _, c := range []struct {
		name, text string
		want       CopyFormat
	}{
		{"text is the default", "COPY t TO STDOUT", text},
		{"text is said", "COPY t TO STDOUT (FORMAT text, FREEZE)", text},
		{"CSV", "COPY t TO STDOUT (FORMAT csv)", csv},
		{"CSV in capitals is a name that is folded", "COPY t TO STDOUT (FORMAT CSV)", csv},
		{"CSV in the old syntax", "COPY t TO STDOUT CSV HEADER", with(csv, func(f *CopyFormat) { f.Header = true })},
		{"binary", "COPY (SELECT 1) TO STDOUT (FORMAT 'binary')", CopyFormat{Binary: true}},
		{"binary in the oldest syntax", "COPY BINARY t TO STDOUT", CopyFormat{Binary: true}},
		{"delimiter and null", "COPY t TO STDOUT (DELIMITER '|', NULL 'none')", CopyFormat{Delimiter: '|', Null: "none"}},
		{"delimiter and null in the old syntax", "COPY t TO STDOUT DELIMITERS '|' WITH NULL AS 'none'", CopyFormat{Delimiter: '|', Null: "none"}},
		{"quote alone is the escape too", "COPY t TO STDOUT (FORMAT csv, QUOTE '''')", with(csv, func(f *CopyFormat) { f.Quote, f.Escape = '\'', '\'' })},
		{"quote and escape", `COPY t TO STDOUT (FORMAT csv, QUOTE '$', ESCAPE '\', FORCE_QUOTE *)`, with(csv, func(f *CopyFormat) { f.Quote, f.Escape = '$', '\\' })},
		{"no header", "COPY t TO STDOUT (FORMAT csv, HEADER false)", csv},
		{"a header by number", "COPY t TO STDOUT (FORMAT csv, HEADER 1)", with(csv, func(f *CopyFormat) { f.Header = true })},
		{"a safe encoding", "COPY t TO STDOUT (ENCODING 'latin1')", text},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(&c.want, copyOf(t, c.text)); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, text := range map[string]string{
		"an option twice":              "COPY t TO STDOUT (NULL 'a', NULL 'b')",
		"an option that is not known":  "COPY t TO STDOUT (COMPRESSION 'a')",
		"another format":               "COPY t TO STDOUT (FORMAT parquet)",
		"a delimiter of two bytes":     "COPY t TO STDOUT (DELIMITER 'ab')",
		"a delimiter that is no ASCII": "COPY t TO STDOUT (DELIMITER 'ä')",
		"a header that is no Boolean":  "COPY t TO STDOUT (FORMAT csv, HEADER maybe)",
		"an encoding that hides bytes": "COPY t TO STDOUT (ENCODING 'sjis')",
		"a null that is no ASCII":      "COPY t TO STDOUT (NULL 'ä')",
	} {
		if f := copyOf(t, text); f.Unknown == "" {
			t.Errorf("%s: the form of %s is %+v", name, text, f)
		}
	}
}

func copyOf(t *testing.T, text string) *CopyFormat {
	t.Helper()
	script, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return script.Statements[0].Copy
}
