package mask_test

import (
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/mask"
)

// several are masks 0 redact, 1 partial, 2 hash, 3 null, 4 fixed "x", and 5 that looks for e-mail addresses.
func several() *mask.Rules {
	x := "x"
	var masks []v1alpha1.Mask
	for _, method := range []string{"redact", "partial", "hash", "null", "fixed"} {
		m := v1alpha1.Mask{Name: method, Columns: []string{"*." + method}, With: method, Inference: "allow"}
		if method == "fixed" {
			m.Value = &x
		}
		masks = append(masks, m)
	}
	masks = append(masks, v1alpha1.Mask{Name: "mails", Detect: []string{"email"}, With: "redact"})
	return mask.Compile([]mask.Source{{Policy: "p", Masks: masks, Key: key}})
}

func column(masks ...int) mask.Contents   { return mask.Contents{Masks: masks, Unchanged: true} }
func computed(masks ...int) mask.Contents { return mask.Contents{Masks: masks} }

// rowType is a composite of text, int4 and json.
var rowType = &mask.Type{OID: 20000, Kind: mask.Composite, Name: "person", Mod: -1, Fields: []mask.Field{
	{Name: "name", Type: mask.Builtin(25), Mod: -1}, {Name: "age", Type: mask.Builtin(23), Mod: -1}, {Name: "notes", Type: mask.Builtin(114), Mod: -1}}}

func TestContentsDecideHowAValueIsMasked(t *testing.T) {
	const text, integer, textArray, json, record = 25, 23, 1009, 114, 2249
	const address = "jane.doe@example.com"
	for _, test := range []struct {
		name     string
		contents mask.Contents
		oid      uint32
		typ      *mask.Type
		value    string
		want     string // "NULL", or "passes" when it is not masked
	}{
		{name: "a column is masked by its method", contents: column(1), oid: text, value: address, want: "j***@e******.com"},
		{name: "what is made of a column is redacted", contents: computed(1), oid: text, value: address, want: "********"},
		{name: "what is made of a hashed column is redacted", contents: computed(2), oid: text, value: address, want: "********"},
		{name: "what is made of a column with null is NULL", contents: computed(3), oid: text, value: address, want: "NULL"},
		{name: "what is made of a column with a fixed value is that", contents: computed(4), oid: text, value: address, want: "x"},
		{name: "what is made of several columns is redacted", contents: computed(1, 2, 4), oid: text, value: address, want: "********"},
		{name: "several masks of a column are no method of one", contents: column(1, 2), oid: text, value: address, want: "********"},
		{name: "null among several masks is NULL", contents: computed(0, 3), oid: integer, value: "7", want: "NULL"},
		{name: "what is of no masked column is looked into", contents: mask.Contents{}, oid: text, value: "to " + address, want: "to ********"},
		{name: "a number of no masked column passes", contents: mask.Contents{}, oid: integer, value: "7", want: "passes"},
		{name: "a masked value of no known type is NULL", contents: column(0), value: "7", want: "NULL"},
		{name: "a value of no known type with an address is NULL", contents: mask.Contents{}, value: address, want: "NULL"},
		{name: "a value of no known type without one passes", contents: mask.Contents{}, value: "7", want: "7"},
		{name: "bounds of an array are not told", contents: computed(0), oid: textArray, value: "[123456789:123456790]={a,b}", want: "{********,********}"},
		{name: "an array that is none is NULL", contents: column(0), oid: textArray, value: "{a,{", want: "NULL"},
		{name: "an array with something behind it is NULL", contents: column(0), oid: textArray, value: "{a}b", want: "NULL"},
		{name: "a column's keys that are names stay", contents: column(0), oid: json, value: `{"name":"x","jane@example.com":true,"078-05-1120":1}`, want: `{"name":"********","k1":false,"k2":0}`},
		{name: "keys of what is made of columns do not", contents: computed(0), oid: json, value: `{"name":"x","kept":[1]}`, want: `{"k1":"********","kept":[0]}`},
		{name: "JSON that is none is NULL", contents: column(0), oid: json, value: `{"name`, want: "NULL"},
		{name: "each field of a row has its own mask", typ: rowType, contents: mask.Contents{Masks: []int{1}, Fields: []mask.Contents{column(1), {}, {}}},
			value: `(jane.doe@example.com,7,"{""a"": 1}")`, want: `(j***@e******.com,7,"{""a"": 1}")`},
		{name: "a field with null is NULL", typ: rowType, contents: mask.Contents{Masks: []int{3}, Fields: []mask.Contents{column(3), {}, column(0)}},
			value: `(x,7,"{""a"": 1}")`, want: `(,7,"{""a"": 0}")`},
		{name: "fields of another number are masked by all", typ: rowType, contents: mask.Contents{Fields: []mask.Contents{{}, column(1)}},
			value: `(jane,7,"{""a"": 1}")`, want: `(********,0,"{""k1"": 0}")`},
		{name: "a masked row has all its fields masked", typ: rowType, contents: computed(0), value: `("a ""b""",7,)`, want: `(********,0,)`},
		{name: "a row of fewer fields is NULL", typ: rowType, contents: computed(0), value: `(a,7)`, want: "NULL"},
		{name: "a row of more fields is NULL", typ: rowType, contents: computed(0), value: `(a,7,1,2)`, want: "NULL"},
		{name: "a row that does not end is NULL", typ: rowType, contents: computed(0), value: `(a,7,"1`, want: "NULL"},
		{name: "a row of fields without masks is looked into", typ: rowType, contents: mask.Contents{}, value: `(a@b.com,7,"{""a"": ""c@d.com""}")`, want: `(********,7,"{""a"": ""********""}")`},
		{name: "a record's fields are masked one by one", oid: record, contents: mask.Contents{Fields: []mask.Contents{{}, column(1), computed(3)}},
			value: `(7,jane.doe@example.com,x)`, want: `(7,j***@e******.com,)`},
		{name: "a record has a field that nobody knows of", oid: record, contents: mask.Contents{Fields: []mask.Contents{{}, column(1)}},
			value: `(7,jane.doe@example.com,x)`, want: `(7,j***@e******.com,********)`},
		{name: "fields of what has none count all", contents: mask.Contents{Fields: []mask.Contents{{}, column(1)}}, oid: text, value: address, want: "********"},
	} {
		t.Run(test.name, func(t *testing.T) {
			typ := test.typ
			if typ == nil {
				typ = mask.Builtin(test.oid)
			}
			w := several().Rewriter(test.contents, typ, -1, 0, mask.Options{Keep: func(key []byte) bool { return string(key) == "kept" }})
			got := "passes"
			if w != nil {
				out, null := w.Append(nil, []byte(test.value))
				if got = string(out); null {
					got = "NULL"
				}
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestBinaryRecordsAreMaskedByTheTypesThatTheyName(t *testing.T) {
	s := connect(t)
	value, oid, mod := s.value(`select row(7, 'jane.doe@example.com'::text, 'happy'::mood, row('secret', 8::int8), null::text)`, 1)
	contents := mask.Contents{Fields: []mask.Contents{{}, column(1), column(0), computed(0), column(0)}}
	out, null := several().Rewriter(contents, s.typeOf(oid), mod, 1, mask.Options{Types: s.typeOf}).Append(nil, value)
	if null {
		t.Fatal("it became NULL")
	}
	want, _, _ := s.value(`select row(7, 'j***@e******.com'::text, null::mood, row('********'::text, 0::int8), null::text)`, 1)
	// The server says of a literal that its type is unknown, of what is cast text.
	if len(out) != len(want) {
		t.Errorf("got  %q\nwant %q", out, want)
	}
	for _, hidden := range []string{"jane.doe", "happy", "secret"} {
		if contains(out, hidden) {
			t.Errorf("%s is in %q", hidden, out)
		}
	}
	if _, null := several().Rewriter(contents, s.typeOf(oid), mod, 1, mask.Options{}).Append(nil, value[:len(value)-1]); !null {
		t.Error("a record that is cut off is not NULL")
	}
}

func contains(out []byte, text string) bool {
	for i := range out {
		if len(out)-i >= len(text) && string(out[i:i+len(text)]) == text {
			return true
		}
	}
	return false
}

func TestHashIsTheSameInEachFormatAndUnderOneKeyAlone(t *testing.T) {
	s := connect(t)
	other := mask.Compile([]mask.Source{{Policy: "p", Masks: []v1alpha1.Mask{{Name: "m", Columns: []string{"*.secret"}, With: "hash"}}, Key: []byte("another key of 32 bytes ........")}})
	none := mask.Compile([]mask.Source{{Policy: "p", Masks: []v1alpha1.Mask{{Name: "m", Columns: []string{"*.secret"}, With: "hash"}}}})
	for _, as := range []string{"'Jane'::text", "42::int2", "42::int4", "42::int8", "12.50::numeric", "1e20::numeric", "-0.00012::numeric", "120000::numeric(20,2)",
		"'c0ffee00-1234-4abc-8def-0123456789ab'::uuid", `'\x00ff5c'::bytea`} {
		var texts []string
		for format := range int16(2) {
			value, oid, mod := s.value("select "+as, format)
			for _, rules := range []*mask.Rules{with("hash"), other} {
				out, null := rules.Rewriter(secret, s.typeOf(oid), mod, format, mask.Options{}).Append(nil, value)
				if null {
					t.Fatalf("%s is NULL", as)
				}
				text, err := s.text(out, oid, format, "text")
				if oid != oidText {
					text, err = s.text(out, oid, format, s.strings("select format_type(%d, null)", oid)[0])
				}
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, text)
			}
			if _, null := none.Rewriter(secret, s.typeOf(oid), mod, format, mask.Options{}).Append(nil, value); !null {
				t.Errorf("%s without a key is not NULL", as)
			}
		}
		if texts[0] != texts[2] || texts[1] != texts[3] || texts[0] == texts[1] {
			t.Errorf("%s: %v", as, texts)
		}
	}
}

func TestEqualNumbersHaveEqualHashes(t *testing.T) {
	hash := func(value string) string {
		out, _ := with("hash").Rewriter(secret, mask.Builtin(1700), -1, 0, mask.Options{}).Append(nil, []byte(value))
		return string(out)
	}
	if hash("12.5") != hash("12.500") || hash("7") != hash("7.00") || hash("7") == hash("70") {
		t.Errorf("%s %s, %s %s, %s", hash("12.5"), hash("12.500"), hash("7"), hash("7.00"), hash("70"))
	}
}

func TestOversizedValueIsNULLAndCounted(t *testing.T) {
	tally := make([]uint64, 6)
	w := several().Rewriter(column(0), mask.Builtin(25), -1, 0, mask.Options{Tally: tally})
	if out, null := w.Oversize([]byte("before")); !null || string(out) != "before" || tally[0] != 1 {
		t.Errorf("made %q, %v, counted %v", out, null, tally)
	}
}

func TestFormatThatThereIsNotIsNULL(t *testing.T) {
	if _, null := several().Rewriter(column(0), mask.Builtin(25), -1, 2, mask.Options{}).Append(nil, []byte("x")); !null {
		t.Error("a value in format 2 is not NULL")
	}
}

func TestRulesWithoutMasksMaskNothing(t *testing.T) {
	rules := mask.Compile([]mask.Source{{Policy: "p"}})
	if rules != nil || rules.Len() != 0 || rules.HasColumns() || rules.Detects() || rules.Strict() || rules.Trusted("a", "b") {
		t.Error("there are rules")
	}
	if _, ok := rules.Column("a", "b", "c"); ok || rules.Rewriter(mask.Contents{}, mask.Builtin(25), -1, 0, mask.Options{}) != nil {
		t.Error("something is masked")
	}
}

func TestFunctionIsTrustedByEveryPolicyOrNot(t *testing.T) {
	masks := []v1alpha1.Mask{{Name: "m", Columns: []string{"*.a"}, With: "null"}}
	source := func(mode string, trusted ...string) mask.Source {
		return mask.Source{Policy: "p", Masks: masks, Masking: v1alpha1.Masking{Mode: mode, TrustedFunctions: trusted}}
	}
	rules := mask.Compile([]mask.Source{source("lenient", "public.f", "public.g"), source("lenient", "public.g"), {Policy: "without masks"}})
	if rules.Trusted("public", "f") || !rules.Trusted("public", "g") || rules.Trusted("public", "G") || rules.Strict() {
		t.Error("what one policy does not trust is trusted, or the other way round")
	}
	if !mask.Compile([]mask.Source{source("lenient"), source("strict")}).Strict() {
		t.Error("one strict policy is not enough")
	}
}
