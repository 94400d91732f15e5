package mask_test

import (
	"fmt"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/mask"
)

func TestFixedValueIsOneOfTheTypeOrNULL(t *testing.T) {
	s := connect(t)
	for _, test := range []struct {
		name, as, from, value string
		want                  string // as the server writes it
		null                  bool
	}{
		{name: "text is put in place as it is", as: "text", from: "'x'", value: "(hidden)", want: "(hidden)"},
		{name: "text fits a varchar", as: "varchar(8)", from: "'x'", value: "(hidden)", want: "(hidden)"},
		{name: "text does not grow beyond a varchar", as: "varchar(7)", from: "'x'", value: "(hidden)", null: true},
		{name: "characters are counted, not bytes", as: "varchar(3)", from: "'x'", value: "äöü", want: "äöü"},
		{name: "a char has its length", as: "char(4)", from: "'x'", value: "ab", want: "ab"},
		{name: "a true is a bool", as: "bool", from: "false", value: "true", want: "true"},
		{name: "yes is none", as: "bool", from: "false", value: "yes", null: true},
		{name: "a number is an int4", as: "int4", from: "7", value: "-42", want: "-42"},
		{name: "a number has to fit", as: "int2", from: "7", value: "40000", null: true},
		{name: "text is no number", as: "int8", from: "7", value: "x", null: true},
		{name: "a fraction is a float", as: "float8", from: "7", value: "-1.5e10", want: "-15000000000"},
		{name: "a fraction is a float4", as: "float4", from: "7", value: "0.25", want: "0.25"},
		{name: "a decimal is a numeric", as: "numeric", from: "7", value: "-00123456.00070", want: "-123456.00070"},
		{name: "a small decimal is a numeric", as: "numeric", from: "7", value: "0.00001234", want: "0.00001234"},
		{name: "a round number is a numeric", as: "numeric", from: "7", value: "120000000", want: "120000000"},
		{name: "nought is a numeric", as: "numeric", from: "7", value: "-0.0", want: "0.0"},
		{name: "a numeric is filled up to its scale", as: "numeric(6,2)", from: "7", value: "1234.5", want: "1234.50"},
		{name: "a numeric has room before its point", as: "numeric(6,2)", from: "7", value: "12345", null: true},
		{name: "a numeric has room behind its point", as: "numeric(6,2)", from: "7", value: "1.234", null: true},
		{name: "a power of ten is not taken", as: "numeric", from: "7", value: "1e3", null: true},
		{name: "a date is a date", as: "date", from: "now()", value: "1999-12-31", want: "1999-12-31"},
		{name: "a day that was not is no date", as: "date", from: "now()", value: "1999-02-30", null: true},
		{name: "a date is a timestamp", as: "timestamp", from: "now()", value: "1999-12-31", want: "1999-12-31 00:00:00"},
		{name: "a time in another zone is a timestamptz", as: "timestamptz", from: "now()", value: "1999-12-31T23:59:59+02:00", want: "1999-12-31 21:59:59+00"},
		{name: "a UUID is a uuid", as: "uuid", from: "gen_random_uuid()", value: "C0FFEE00-1234-4abc-8def-0123456789ab", want: "c0ffee00-1234-4abc-8def-0123456789ab"},
		{name: "a UUID has its dashes", as: "uuid", from: "gen_random_uuid()", value: "c0ffee0012344abc8def0123456789ab", null: true},
		{name: "hex is a bytea", as: "bytea", from: "'x'", value: `\x00ff`, want: `\x00ff`},
		{name: "an address is an inet", as: "inet", from: "'1.2.3.4'", value: "192.0.2.1/24", want: "192.0.2.1/24"},
		{name: "an address with bits behind its length is no cidr", as: "cidr", from: "'1.2.3.4'", value: "192.0.2.1/24", null: true},
		{name: "a network is a cidr", as: "cidr", from: "'1.2.3.4'", value: "2001:db8::/32", want: "2001:db8::/32"},
		{name: "an address is a macaddr", as: "macaddr", from: "'08:00:2b:01:02:03'", value: "AA:bb:cc:00:11:22", want: "aa:bb:cc:00:11:22"},
		{name: "bits are as many as the type has", as: "bit(4)", from: "'0000'", value: "1010", want: "1010"},
		{name: "other numbers of bits are not", as: "bit(4)", from: "'0000'", value: "101", null: true},
		{name: "fewer bits are a varbit", as: "varbit(9)", from: "'0000'", value: "101100111", want: "101100111"},
		{name: "JSON is json", as: "json", from: "'1'", value: `{"a": [1]}`, want: `{"a": [1]}`},
		{name: "JSON is jsonb", as: "jsonb", from: "'1'", value: `{"a":[1]}`, want: `{"a": [1]}`},
		{name: "text is no json", as: "jsonb", from: "'1'", value: `hidden`, null: true},
		{name: "a label is an enum's", as: "mood", from: "'sad'", value: "happy", want: "happy"},
		{name: "another is not", as: "mood", from: "'sad'", value: "angry", null: true},
		{name: "XML is xml", as: "xml", from: "'<a/>'", value: "<b>c</b>", want: "<b>c</b>"},
		{name: "half of it is not", as: "xml", from: "'<a/>'", value: "<b>", null: true},
		{name: "an interval can not be given", as: "interval", from: "'1 day'", value: "2 days", null: true},
	} {
		for format := range int16(2) {
			t.Run(fmt.Sprintf("%s, in format %d", test.name, format), func(t *testing.T) {
				s.t = t
				value, oid, mod := s.value("select ("+test.from+")::"+test.as, format)
				out, null := with("fixed", test.value).Rewriter(secret, s.typeOf(oid), mod, format, mask.Options{}).Append(nil, value)
				if null || test.null {
					if null != test.null {
						t.Errorf("made %q, NULL is %v", out, null)
					}
					return
				}
				text, err := s.text(out, oid, format, test.as)
				if err != nil || text != test.want {
					t.Errorf("made %q: the server writes %q, %v; want %q", out, text, err, test.want)
				}
			})
		}
	}
}
