package mask

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// json masks the strings, numbers and booleans of JSON; its shape stays. In a column's own value the keys stay that look like names;
// in what was made of others, where a key may be a secret, those that Keep knows.
func (b *builder) json(with string, m *rule, unchanged bool, t *Type) rewrite {
	j := &jsonText{keep: b.keeper(unchanged), number: always("0"), boolean: always("false")}
	switch with {
	case v1alpha1.MaskHash:
		j.str = hashText(m.key, 0, false)
	case v1alpha1.MaskPartial:
		j.str = partialText
	default:
		j.str = always(redacted)
	}
	return b.versioned(j.rewrite, t)
}

// versioned puts jsonb's version byte before what f makes in binary.
func (b *builder) versioned(f rewrite, t *Type) rewrite {
	if t.OID != oidJSONB || b.format != formatBinary {
		return f
	}
	return func(dst, value []byte) ([]byte, bool) {
		if len(value) == 0 || value[0] != 1 {
			return nil, true
		}
		return f(append(dst, 1), value[1:])
	}
}

// keeper says which keys stay.
func (b *builder) keeper(unchanged bool) func([]byte) bool {
	switch {
	case unchanged:
		return isName
	case b.options.Keep != nil:
		return b.options.Keep
	}
	return func([]byte) bool { return false }
}

// isName is true for what programs call things: letters, digits, dashes and underscores, with few digits.
func isName(key []byte) bool {
	if len(key) == 0 || len(key) > 64 {
		return false
	}
	digits := 0
	for _, c := range key {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c != '_' && c != '-' && (c|0x20 < 'a' || c|0x20 > 'z'):
			return false
		}
	}
	return digits <= 3
}

// A jsonText rewrites JSON token by token. nil functions leave their tokens as they are.
type jsonText struct {
	keep                 func(key []byte) bool // nil: keys are rewritten as strings are
	str, number, boolean rewrite
	scratch              []byte // a string without its escapes
	keys                 int    // replaced in this value
}

func (j *jsonText) rewrite(dst, value []byte) ([]byte, bool) {
	// A value that is not JSON has no strings to be found in.
	if !json.Valid(value) || j.str == nil {
		return nil, true
	}
	j.keys = 0
	for i := 0; i < len(value); {
		var isNull bool
		n := 1
		switch c := value[i]; {
		case c == '"':
			n = stringLength(value[i:])
			key := bytes.TrimLeft(value[i+n:], " \t\r\n")
			dst = j.appendString(dst, value[i:i+n], len(key) > 0 && key[0] == ':')
		case c == '-' || c >= '0' && c <= '9':
			n = tokenLength(value[i:])
			dst, isNull = apply(dst, value[i:i+n], j.number)
		case c == 't' || c == 'f':
			n = tokenLength(value[i:])
			dst, isNull = apply(dst, value[i:i+n], j.boolean)
		default:
			dst = append(dst, c)
		}
		if isNull {
			dst = append(dst, "null"...)
		}
		i += n
	}
	return dst, false
}

// apply appends what f makes of a token; it gives back dst itself with NULL.
func apply(dst, token []byte, f rewrite) ([]byte, bool) {
	if f == nil {
		return append(dst, token...), false
	}
	made, isNull := f(dst, token)
	if isNull {
		return dst, true
	}
	return made, false
}

func (j *jsonText) appendString(dst, token []byte, key bool) []byte {
	j.scratch = unescapeJSON(j.scratch[:0], token[1:len(token)-1])
	if key && j.keep != nil {
		if j.keep(j.scratch) {
			return append(dst, token...)
		}
		j.keys++
		dst = append(dst, `"k`...)
		return append(strconv.AppendInt(dst, int64(j.keys), 10), '"')
	}
	at := len(dst)
	made, isNull := j.str(append(dst, '"'), j.scratch)
	switch {
	case isNull && key:
		j.keys++
		return append(strconv.AppendInt(append(dst, `"k`...), int64(j.keys), 10), '"')
	case isNull:
		return append(dst, "null"...)
	case bytes.Equal(made[at+1:], j.scratch):
		return append(dst, token...) // as it was written
	}
	for _, c := range made[at+1:] {
		if c == '"' || c == '\\' || c < ' ' || c >= 0x80 {
			quoted, err := json.Marshal(string(made[at+1:]))
			if err != nil {
				return append(dst, "null"...)
			}
			return append(dst, quoted...)
		}
	}
	return append(made, '"')
}

// stringLength is the length of the string that valid JSON begins with, quotes included.
func stringLength(value []byte) int {
	for i := 1; i < len(value); i++ {
		switch value[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return len(value)
}

func tokenLength(value []byte) int {
	if n := bytes.IndexAny(value, ",]} \t\r\n"); n >= 0 {
		return n
	}
	return len(value)
}

// unescapeJSON decodes the inside of a string of valid JSON.
func unescapeJSON(dst, token []byte) []byte {
	for i := 0; i < len(token); i++ {
		if token[i] != '\\' || i+1 == len(token) {
			dst = append(dst, token[i])
			continue
		}
		i++
		switch c := token[i]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hexRune(token[i+1:])
			i += 4
			if low := token[min(i+1, len(token)):]; utf16.IsSurrogate(r) && len(low) >= 6 && low[0] == '\\' && low[1] == 'u' {
				if pair := utf16.DecodeRune(r, hexRune(low[2:])); pair != utf8.RuneError {
					r = pair
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func hexRune(digits []byte) rune {
	n, err := strconv.ParseUint(string(digits[:min(4, len(digits))]), 16, 32)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}
