package mask_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/mask"
)

// key is a test's key of hashes.
var key = []byte("a key of 32 bytes for the tests..")

// with are rules of one mask for the column secret.
func with(method string, value ...string) *mask.Rules {
	m := v1alpha1.Mask{Name: "m", Columns: []string{"*.secret"}, With: method}
	if len(value) > 0 {
		m.Value = &value[0]
	}
	return mask.Compile([]mask.Source{{Policy: "p", Masks: []v1alpha1.Mask{m}, Key: key}})
}

// A sample is a type with values that hold a canary: text that must not be in what is made of them.
type sample struct {
	as     string // the type
	value  string // as a literal of SQL
	canary string // "" when the whole text is
	// rest are methods that must not give NULL.
	rest string
}

// samples are values of all types that PostgreSQL brings, and of the test's own.
var samples = []sample{
	{"text", "'Kanarienvogel'", "anarienvoge", "redact partial hash fixed"},
	{"text", "''", "-", "redact partial hash fixed"},
	{"text", "'Zoë'", "Zo", "redact partial hash fixed"},
	{"text", "'jane.canary@example.com'", "canary", "redact partial hash fixed"},
	{"text", "'4111 1111 1111 1111'", "4111 1111 1111", "redact partial hash fixed"},
	{"text", "'+49 30 9876543'", "987", "redact partial hash fixed"},
	{"text", `E'a "quoted"\\\n{canary},(x)'`, "canary", "redact partial hash fixed"},
	{"varchar(30)", "'Kanarienvogel'", "anarienvoge", "redact partial hash fixed"},
	{"varchar(9)", "'Kanarienv'", "anarien", "redact partial hash fixed"},
	{"varchar(3)", "'Kan'", "Kan", "redact partial"},
	{"char(12)", "'Kanarien'", "anarie", "redact partial hash fixed"},
	{"char(2)", "'Ka'", "Ka", "redact partial"},
	{"bpchar", "'Kanarien '", "anarie", "redact partial hash fixed"},
	{"name", "'Kanarienvogel'", "anarienvoge", "redact partial hash fixed"},
	{`"char"`, "'K'", "K", "redact"},
	{"citext", "'Kanarienvogel'", "anarienvoge", "redact partial hash fixed"},
	{"mail", "'jane.canary@example.com'", "canary", "redact partial hash fixed"},
	{"bool", "true", "t", ""},
	{"int2", "31337", "31337", "redact hash"},
	{"int4", "-1234567890", "234567890", "redact hash"},
	{"int8", "4111111111111111", "411111111111", "redact partial hash"},
	{"int8", "-9223372036854775808", "922337203685477", "redact partial hash"},
	{"int8", "12345", "12345", "redact partial hash"},
	{"float4", "3.14159", "3.14159", "redact"},
	{"float8", "-271828.1828", "271828", "redact"},
	{"numeric", "12345.6789", "12345", "redact partial hash"},
	{"numeric", "4111111111111111", "411111111111", "redact partial hash"},
	{"numeric", "-0.000012345", "12345", "redact partial hash"},
	{"numeric", "'NaN'", "NaN", "redact partial hash"},
	{"numeric", "1e100", "1000", "redact partial hash"},
	{"numeric(12,2)", "123456.78", "123456", "redact partial hash"},
	{"numeric(3,2)", "1.23", "1.23", "redact partial"},
	{"money", "12345.67", "12,345.67", "redact"},
	{"oid", "123456", "123456", "redact"},
	{"regclass", "'customers'", "customers", "redact"},
	{"regtype", "'person'", "person", "redact"},
	{"regproc", "'now'", "now", "redact"},
	{"regoper", "'||/'", "||/", "redact"},
	{"regoperator", "'+(int4,int4)'", "int", "redact"},
	{"regprocedure", "'now()'", "now", "redact"},
	{"regconfig", "'english'", "english", "redact"},
	{"regdictionary", "'english_stem'", "english", "redact"},
	{"regnamespace", "'public'", "public", "redact"},
	{"regrole", "'postgres'", "postgres", "redact"},
	{"regcollation", `'"C"'`, `C`, "redact"},
	{"xid", "'123456'", "123456", "redact"},
	{"cid", "'123456'", "123456", "redact"},
	{"xid8", "'123456'", "123456", "redact"},
	{"tid", "'(123,45)'", "123", "redact"},
	{"pg_lsn", "'16/B374D848'", "B374D848", "redact"},
	{"date", "'1984-06-23'", "06-23", "redact partial"},
	{"date", "'0044-03-15 BC'", "03-15", "redact partial"},
	{"date", "'4714-11-24 BC'", "11-24", "redact"},
	{"date", "'infinity'", "infinity", "redact"},
	{"timestamp", "'1984-06-23 12:34:56.789'", "06-23", "redact partial"},
	{"timestamp", "'4714-11-24 00:00:00 BC'", "11-24 00:00:0", "redact"},
	{"timestamp(0)", "'294276-12-31 23:59:59'", "12-31", "redact partial"},
	{"timestamptz", "'1984-06-23 12:34:56.789+02'", "06-23", "redact partial"},
	{"timestamptz", "'-infinity'", "infinity", "redact"},
	{"time", "'12:34:56.789'", "12:34", "redact"},
	{"timetz", "'12:34:56.789+02'", "12:34", "redact"},
	{"interval", "'1 year 2 days 03:04:05'", "year", "redact"},
	{"uuid", "'c0ffee00-1234-4abc-8def-0123456789ab'", "c0ffee00", "redact hash fixed-uuid"},
	{"bytea", `'\x6b616e617269656e766f67656c'`, "6b616e", "redact hash"},
	{"bytea", `''`, "-", "redact hash"},
	{"bit(5)", "B'10110'", "10110", "redact"},
	{"varbit(20)", "B'1011011101'", "1011011101", "redact"},
	{"inet", "'10.20.30.40'", ".40", "redact partial"},
	{"inet", "'10.20.30.40/8'", ".40", "redact partial"},
	{"inet", "'2001:db8:1:2:3:4:5:6/64'", ":2:3", "redact partial"},
	{"cidr", "'10.20.30.40/32'", ".40", "redact partial"},
	{"cidr", "'10.16.0.0/12'", "-", "redact partial"},
	{"cidr", "'2001:db8:1:2::/64'", ":1:2", "redact partial"},
	{"macaddr", "'08:00:2b:01:02:03'", "01:02:03", "redact partial"},
	{"macaddr8", "'08:00:2b:01:02:03:04:05'", "01:02:03", "redact partial"},
	{"point", "'(1.5,2.5)'", "1.5", "redact"},
	{"line", "'{1.5,2.5,3.5}'", "1.5", "redact"},
	{"lseg", "'[(1.5,2),(3,4)]'", "1.5", "redact"},
	{"box", "'(1.5,2),(3,4)'", "1.5", "redact"},
	{"path", "'[(1.5,2),(3,4)]'", "1.5", "redact"},
	{"polygon", "'((1.5,2),(3,4),(5,6))'", "1.5", "redact"},
	{"circle", "'<(1.5,2),3>'", "1.5", "redact"},
	{"tsvector", "to_tsvector('kanarienvogel fat cat')", "kanarien", "redact"},
	{"tsquery", "to_tsquery('kanarienvogel & cat')", "kanarien", "redact"},
	{"jsonpath", "'$.kanarienvogel'", "kanarien", "redact"},
	{"xml", "'<a b=\"kanarienvogel\">x</a>'", "kanarien", "redact fixed"},
	{"json", `'{"name": "Kanarienvogel", "age": 31337, "ok": true, "no": null, "tags": ["Kanarienvogel", 1.5e10, {}]}'`, "narienv", "redact partial hash"},
	{"json", `'"\u004banarienvogel\ud83d\ude00"'`, "narienv", "redact partial hash"},
	{"json", `'31337'`, "31337", "redact partial hash"},
	{"json", `'{"canary@example.com": 1, "canary@example.org": 2}'`, "canary", "redact partial hash"},
	{"jsonb", `'{"name": "Kanarienvogel", "age": 31337, "a": {"b": [[["Kanarienvogel"]]]}}'`, "narienv", "redact partial hash"},
	{"jsonb", `'[]'`, "-", "redact partial hash"},
	{"hstore", `'"name"=>"Kanarienvogel", "none"=>NULL, "q\"\\"=>"a\"narien"'`, "narien", "redact partial hash"},
	{"hstore", `''`, "-", "redact partial hash"},
	{"mood", "'happy'", "happy", "fixed-mood"},
	{"text[]", `array['Kanarienvogel', null, 'a "b" \ {c}, narienvo', '', 'NULL']`, "narienvo", "redact partial hash fixed"},
	{"text[]", `'{}'`, "-", "redact partial hash fixed"},
	{"text[]", `array[array['Kanarienvogel', 'x'], array['y', 'z']]`, "narienvo", "redact partial hash fixed"},
	{"text[]", `'[31337:31338]={Kanarienvogel,x}'`, "31337", "redact partial hash fixed"},
	{"varchar(9)[]", `array['Kanarienv']`, "narien", "redact partial hash fixed"},
	{"int4[]", `array[[31337, null], [1, 2]]`, "31337", "redact hash"},
	{"int4[]", `'[31337:31338]={7,8}'`, "31337", "redact hash"},
	{"bool[]", `array[true, false]`, "f", "redact partial hash fixed"},
	{"box[]", `array[box '(1.5,2),(3,4)', box '(5,6),(7,8)']`, "1.5", "redact"},
	{"date[]", `array[date '1984-06-23']`, "06-23", "redact partial"},
	{"jsonb[]", `array[jsonb '{"a": "Kanarienvogel"}', '1']`, "narienv", "redact partial hash"},
	{"mood[]", `array['happy', 'sad']::mood[]`, "sad", "redact partial hash fixed"},
	{"mails", `array['jane.canary@example.com']`, "canary", "redact partial hash"},
	{"int4range", `'[31337,41337)'`, "1337", "redact"},
	{"numrange", `'(,31337]'`, "31337", "redact"},
	{"tstzrange", `'[1984-06-23,)'`, "1984", "redact"},
	{"textrange", `'[kanarien,vogel]'`, "kanarien", "redact"},
	{"int4multirange", `'{[31337,41337),[51337,)}'`, "1337", "redact"},
	{"int4range[]", `array[int4range '[31337,41337)']`, "1337", "redact"},
	{"address", `row('Kanarien "(str,) \ 5', 31337, '1984-06-23', array['narienv', 'a"b'])`, "narien", "redact partial hash fixed"},
	{"person", `row('Kanarienvogel', row('Kanarienweg', 31337, '1984-06-23', array[null, 'narien']), array['sad']::mood[], null)`, "narien", "redact partial hash fixed"},
	{"address[]", `array[row('Kanarienweg', 31337, '1984-06-23', null)::address, null]`, "narien", "redact partial hash fixed"},
	{"customers", `row(31337, 'jane.canary@example.com', '{"a": "canary"}')`, "canary", "redact partial hash fixed"},
}

// secret is unchanged contents under mask 0.
var secret = mask.Contents{Masks: []int{0}, Unchanged: true}

func TestServerTakesWhatWasMadeOfItsValues(t *testing.T) {
	s := connect(t)
	for _, method := range []string{"redact", "partial", "hash", "null", "fixed", "fixed-mood", "fixed-uuid", "derived"} {
		rules := with(strings.TrimSuffix(strings.TrimSuffix(method, "-mood"), "-uuid"),
			map[string]string{"fixed-mood": "content", "fixed-uuid": "00000000-0000-8000-8000-000000000001"}[method])
		contents := secret
		switch method {
		case "fixed":
			rules = with("fixed", "kept")
		case "derived":
			rules, contents.Unchanged = with("partial"), false
		}
		for _, v := range samples {
			for format := range int16(2) {
				t.Run(fmt.Sprintf("%s of %s %s in format %d", method, v.as, v.value, format), func(t *testing.T) {
					s.t = t
					s.tryValue(rules, contents, method, v, format)
				})
			}
		}
	}
}

// tryValue masks one value as the server sends it, and gives it back to the server.
func (s *server) tryValue(rules *mask.Rules, contents mask.Contents, method string, v sample, format int16) {
	s.t.Helper()
	value, oid, mod := s.value("select ("+v.value+")::"+v.as, format)
	tally := make([]uint64, rules.Len())
	w := rules.Rewriter(contents, s.typeOf(oid), mod, format, mask.Options{Tally: tally})
	if w == nil {
		s.t.Fatal("it is not masked")
	}
	prefix := []byte("before")
	out, null := w.Append(prefix, value)
	if !bytes.HasPrefix(out, prefix) || null && len(out) != len(prefix) {
		s.t.Fatalf("made %q, want it behind what was there", out)
	}
	if tally[0] != 1 {
		s.t.Errorf("counted %d values", tally[0])
	}
	out = out[len(prefix):]
	if null {
		if strings.Contains(" "+v.rest+" ", " "+method+" ") {
			s.t.Error("it became NULL")
		}
		return
	}
	if method == "null" {
		s.t.Errorf("it became %q", out)
	}
	text, err := s.text(out, oid, format, v.as)
	if err != nil {
		s.t.Fatalf("the server does not take %q: %v", out, err)
	}
	canary := v.canary
	for name, hidden := range map[string]string{
		"as it is": canary, "in hex": hex.EncodeToString([]byte(canary)), "in base64": base64.StdEncoding.EncodeToString([]byte(canary)),
	} {
		if canary != "-" && (strings.Contains(text, hidden) || bytes.Contains(out, []byte(hidden))) {
			s.t.Errorf("%q is there %s: %q, %q", canary, name, out, text)
		}
	}
	if again, null := w.Append(nil, value); null || !bytes.Equal(again, out) {
		s.t.Errorf("made %q first, then %q", out, again)
	}
	// What is made must be as the server would write it, or the next reader finds other than this one.
	if format == 0 && !strings.HasPrefix(v.as, "hstore") && v.as != "money" && v.as != "inet" && !strings.Contains(v.as, "json") && text != string(out) &&
		strings.TrimRight(text, " ") != strings.TrimRight(string(out), " ") {
		s.t.Errorf("made %q, which the server writes as %q", out, text)
	}
}
