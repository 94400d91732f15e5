package mask_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/mask"
)

// fuzzTypes are types of every layout.
var fuzzTypes = func() []*mask.Type {
	extension := func(name string) *mask.Type { return &mask.Type{OID: 30000, Name: name, Mod: -1} }
	types := []*mask.Type{nil, rowType, {OID: 30001, Kind: mask.Array, Element: rowType}, extension("citext"), extension("hstore"), extension("geometry")}
	for _, oid := range []uint32{16, 17, 18, 20, 21, 23, 25, 114, 142, 650, 700, 829, 869, 1007, 1009, 1020, 1042, 1043, 1082, 1114, 1184, 1560, 1562, 1700, 2249,
		2287, 2950, 3614, 3802, 3807, 3904, 4451, 6150} {
		types = append(types, mask.Builtin(oid))
	}
	return types
}()

// FuzzRewriter gives values that nobody vouches for: nothing may panic, what was in dst stays, and the same value gives the same.
func FuzzRewriter(f *testing.F) {
	for _, seed := range []string{"", "x", "jane@example.com", "{a,NULL,\"b\\\"\"}", "[1:2]={{1},{2}}", "(a,7,\"{}\")", `"a"=>"b", "c"=>NULL`, `{"a":["\ud83d\ude00",1.5e3,true]}`,
		"\x01{\"a\":1}", "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x19\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01x", "\x00\x00\x00\x02\x00\x00\x00\x19\xff\xff\xff\xff\x00\x00\x00\x17\x00\x00\x00\x04\x00\x00\x00\x07",
		"\x00\x02\x00\x01\x00\x00\x00\x02\x00\x01\x09\x29", "1984-06-23", "10.1.2.3/8", "4111 1111 1111 1111", "DE89370400440532013000", "+49 (0)30 123456"} {
		f.Add([]byte(seed), uint8(len(seed)), int32(-1))
	}
	rules := several()
	contents := []mask.Contents{{}, column(0), column(1), column(2), column(3), column(4), computed(0, 1), {Fields: []mask.Contents{column(1), {}, computed(0)}}}
	f.Fuzz(func(t *testing.T, value []byte, pick uint8, mod int32) {
		typ := fuzzTypes[int(pick)%len(fuzzTypes)]
		if mod > 1<<16 {
			mod = 1 << 16 // bit(n) has n bits, whatever the value
		}
		for _, c := range contents {
			for format := range int16(2) {
				w := rules.Rewriter(c, typ, mod, format, mask.Options{Types: mask.Builtin})
				if w == nil {
					continue
				}
				out, null := w.Append([]byte("before"), value)
				if !bytes.HasPrefix(out, []byte("before")) || null && len(out) != 6 {
					t.Fatalf("made %q", out)
				}
				again, nullAgain := w.Append([]byte("before"), value)
				if null != nullAgain || !bytes.Equal(out, again) {
					t.Fatalf("made %q, then %q", out, again)
				}
				if !null && typ != nil && typ.OID == 114 && json.Valid(value) && !json.Valid(out[6:]) && !(len(c.Masks) == 1 && c.Masks[0] == 4) {
					t.Fatalf("made %q of %q", out[6:], value)
				}
			}
		}
	})
}
