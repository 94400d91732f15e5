package mask

import (
	"bytes"
	"encoding/binary"
)

// array masks the elements of an array with f. Lower bounds become 1: they are numbers that anything can be put into.
// An array that is not one is NULL.
func (b *builder) array(f rewrite, t *Type) rewrite {
	if f == nil {
		return nil
	}
	if b.format == formatBinary {
		return binaryArray(f)
	}
	delimiter := t.Delimiter
	if delimiter == 0 {
		delimiter = ','
	}
	a := &textArray{element: f, delimiter: delimiter}
	return a.rewrite
}

// maxDimensions is MAXDIM of utils/array.h.
const maxDimensions = 6

// binaryArray rewrites array_send's layout: dimensions, whether there are NULLs, the element's type; of each dimension its length and
// lower bound; of each element its length, -1 for NULL, and value.
func binaryArray(f rewrite) rewrite {
	return func(dst, value []byte) ([]byte, bool) {
		r := reader{value}
		dimensions, flags, oid := r.int32(), r.int32(), r.int32()
		if r.bad() || dimensions < 0 || dimensions > maxDimensions || flags&^1 != 0 {
			return nil, true
		}
		start := len(dst)
		dst = appendInt32(appendInt32(appendInt32(dst, dimensions), flags), oid)
		count := int64(min(dimensions, 1))
		for range dimensions {
			length := r.int32()
			r.int32()
			if length < 0 || count*int64(length) > int64(len(value)) {
				return nil, true
			}
			count *= int64(length)
			dst = appendInt32(appendInt32(dst, length), 1)
		}
		for range count {
			element, isNull, ok := r.field()
			if !ok {
				return nil, true
			}
			if !isNull {
				dst, isNull = appendField(dst, element, f)
			} else {
				dst = appendInt32(dst, -1)
			}
			if isNull {
				dst[start+7] = 1
			}
		}
		return dst, r.bad() || len(r.rest) > 0
	}
}

// appendField appends the length and what f makes of the value; it is true for NULL.
func appendField(dst, value []byte, f rewrite) ([]byte, bool) {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	made, isNull := f(dst, value)
	if isNull {
		return appendInt32(dst[:at], -1), true
	}
	binary.BigEndian.PutUint32(made[at:], uint32(len(made)-at-4))
	return made, false
}

func appendInt32(dst []byte, v int32) []byte { return binary.BigEndian.AppendUint32(dst, uint32(v)) }

// A reader takes a binary value apart; after an error it gives zeros, and is bad.
type reader struct{ rest []byte }

var exhausted = []byte{}

func (r *reader) bad() bool { return r.rest == nil }

func (r *reader) int32() int32 {
	if len(r.rest) < 4 {
		r.rest = nil
		return 0
	}
	v := int32(binary.BigEndian.Uint32(r.rest))
	if r.rest = r.rest[4:]; len(r.rest) == 0 {
		r.rest = exhausted
	}
	return v
}

// field takes a value with its length before it.
func (r *reader) field() (value []byte, isNull, ok bool) {
	length := r.int32()
	switch {
	case r.bad() || length < -1 || int(length) > len(r.rest):
		return nil, false, false
	case length == -1:
		return nil, true, true
	}
	value = r.rest[:length]
	if r.rest = r.rest[length:]; len(r.rest) == 0 {
		r.rest = exhausted
	}
	return value, false, true
}

// A textArray rewrites array_out's text (manual, section 8.15.6): braces, elements, quotes around those that need them.
type textArray struct {
	element   rewrite
	delimiter byte
	scratch   []byte // an element without its quotes
}

func (a *textArray) rewrite(dst, value []byte) ([]byte, bool) {
	if len(value) > 0 && value[0] == '[' { // [2:3]={…}
		_, after, ok := bytes.Cut(value, []byte("="))
		if !ok {
			return nil, true
		}
		value = after
	}
	depth := 0
	expectElement := false
	for i := 0; i < len(value); {
		switch c := value[i]; {
		case c == '{':
			depth++
			expectElement = true
			dst = append(dst, c)
			i++
		case c == '}':
			if depth--; depth < 0 {
				return nil, true
			}
			expectElement = false
			dst = append(dst, c)
			i++
		case depth == 0:
			return nil, true
		case c == a.delimiter:
			expectElement = true
			dst = append(dst, c)
			i++
		default:
			if !expectElement {
				return nil, true
			}
			element, quoted, n := cutElement(a.scratch[:0], value[i:], a.delimiter)
			if n < 0 {
				return nil, true
			}
			a.scratch = element
			i += n
			expectElement = false
			dst = a.append(dst, element, quoted)
		}
	}
	return dst, depth != 0 || len(value) == 0
}

func (a *textArray) append(dst, element []byte, quoted bool) []byte {
	if !quoted && bytes.EqualFold(element, []byte("NULL")) {
		return append(dst, "NULL"...)
	}
	at := len(dst)
	made, isNull := a.element(dst, element)
	if isNull {
		return append(dst, "NULL"...)
	}
	if needsArrayQuotes(made[at:], a.delimiter) {
		return quoteFrom(made, at, '\\')
	}
	return made
}

// cutElement cuts an element off, without its quotes; n is how many bytes it took, -1 when it does not end.
func cutElement(dst, value []byte, delimiter byte) (element []byte, quoted bool, n int) {
	if value[0] != '"' {
		for n < len(value) && value[n] != delimiter && value[n] != '}' && value[n] != '{' && value[n] != '"' {
			if value[n] == '\\' {
				if n++; n == len(value) {
					return dst, false, -1
				}
			}
			dst = append(dst, value[n])
			n++
		}
		return dst, false, n
	}
	for n = 1; n < len(value); n++ {
		switch value[n] {
		case '"':
			return dst, true, n + 1
		case '\\':
			if n++; n == len(value) {
				return dst, true, -1
			}
		}
		dst = append(dst, value[n])
	}
	return dst, true, -1
}

func needsArrayQuotes(element []byte, delimiter byte) bool {
	if len(element) == 0 || bytes.EqualFold(element, []byte("NULL")) {
		return true
	}
	for _, c := range element {
		if c == '"' || c == '\\' || c == '{' || c == '}' || c == delimiter || isSpace(c) {
			return true
		}
	}
	return false
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// quoteFrom puts what follows at in double quotes; a quote in it is escaped by a backslash or doubled, a backslash likewise.
func quoteFrom(dst []byte, at int, escape byte) []byte {
	escapes := 0
	for _, c := range dst[at:] {
		if c == '"' || c == '\\' {
			escapes++
		}
	}
	end := len(dst)
	for range escapes + 2 {
		dst = append(dst, '"')
	}
	to := len(dst) - 1
	for from := end - 1; from >= at; from-- {
		c := dst[from]
		to--
		dst[to] = c
		if c == '"' || c == '\\' {
			to--
			dst[to] = c
			if escape == '\\' {
				dst[to] = '\\'
			}
		}
	}
	dst[at] = '"'
	return dst
}
