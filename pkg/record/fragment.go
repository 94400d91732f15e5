package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Bytes that are no UTF-8 can not stand in JSON. Byte b is written as the private-use character invalidBase+b; such a
// character in the input is itself written byte by byte, so that every input has one form and every form one input.
const (
	invalidBase  = 0x10f800
	invalidFirst = invalidBase + 0x80
	invalidLast  = invalidBase + 0xff
)

// NewFragment encodes the fields of a struct, or a map, with encoding/json. Strings of any bytes survive: see Unescape. It
// panics when v is not an object that JSON can hold, which is a mistake in the calling code.
func NewFragment(v any) Fragment {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(escaped(reflect.ValueOf(v)).Interface()); err != nil {
		panic(fmt.Sprintf("record: fragment of %T: %v", v, err))
	}
	encoded := bytes.TrimSpace(b.Bytes())
	if encoded[0] != '{' {
		panic(fmt.Sprintf("record: fragment of %T, which is no JSON object", v))
	}
	return Fragment(encoded[1 : len(encoded)-1])
}

// escaped is a copy of v in which every string is valid UTF-8.
func escaped(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.String:
		if !needsEscape(v.String()) {
			return v
		}
		return reflect.ValueOf(escapeInvalid(v.String())).Convert(v.Type())
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			return v
		}
		inner := escaped(v.Elem())
		if v.Kind() == reflect.Interface {
			return inner
		}
		p := reflect.New(v.Type().Elem())
		p.Elem().Set(inner)
		return p
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(escaped(v.Field(i)))
			}
		}
		return out
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 || v.Len() == 0 {
			return v
		}
		out := reflect.New(v.Type()).Elem()
		if v.Kind() == reflect.Slice {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		}
		for i := range v.Len() {
			out.Index(i).Set(escaped(v.Index(i)))
		}
		return out
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeMapWithSize(v.Type(), v.Len())
		for key, value := range v.Seq2() {
			out.SetMapIndex(escaped(key), escaped(value))
		}
		return out
	default:
		return v
	}
}

func needsEscape(s string) bool {
	for i, r := range s {
		if isEscape(r) {
			return true
		}
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return true
			}
		}
	}
	return false
}

func isEscape(r rune) bool { return r >= invalidFirst && r <= invalidLast }

func escapeInvalid(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if (r == utf8.RuneError && size == 1) || isEscape(r) {
			for _, c := range []byte(s[:size]) {
				b.WriteRune(invalidBase + rune(c))
			}
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

// Unescape gives back the bytes of a string as they were before NewFragment: characters U+10F880 to U+10F8FF stand for the
// bytes 0x80 to 0xff.
func Unescape(s string) string {
	if strings.IndexFunc(s, isEscape) < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if isEscape(r) {
			b = append(b, byte(r-invalidBase))
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return string(b)
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string, in the same form as NewFragment, without allocating.
func appendString[T ~string | ~[]byte](buf []byte, s T) []byte {
	buf = append(buf, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			buf = append(buf, '\\', c)
			i++
		case c < 0x20:
			buf = append(buf, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
			i++
		case c < utf8.RuneSelf:
			buf = append(buf, c)
			i++
		default:
			// A slice of the string's next bytes: DecodeRune of a conversion of so few does not allocate.
			r, size := utf8.DecodeRune([]byte(s[i:min(len(s), i+utf8.UTFMax)]))
			if (r == utf8.RuneError && size == 1) || isEscape(r) {
				for _, c := range []byte(s[i : i+size]) {
					buf = utf8.AppendRune(buf, invalidBase+rune(c))
				}
			} else {
				buf = append(buf, s[i:i+size]...)
			}
			i += size
		}
	}
	return append(buf, '"')
}
