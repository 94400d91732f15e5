package rewrite

import (
	"bytes"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// A textCopy masks the text format; "COPY", "Text Format" in the PostgreSQL manual.
type textCopy struct {
	columns []Value
	last    int // how many columns have to be looked at
	format  *sql.CopyFormat
	plain   bool // the line passes: it is the header
	column  int
	escaped bool  // a backslash was the last byte
	field   field // the masked value that is coming, as the server wrote it
	value   []byte
	masked  []byte
}

// Append implements Copy.
func (c *textCopy) Append(dst, data []byte) ([]byte, error) {
	start := 0 // data[start:i] passes
	for i, b := range data {
		switch {
		case c.escaped:
			c.escaped = false
		case b == '\\':
			c.escaped = true
		case b == c.format.Delimiter || b == '\n':
			if masked := c.maskedColumn(); masked != nil {
				c.field.add(data[start:i]...)
				dst = c.appendMasked(dst, masked)
			} else {
				dst = append(dst, data[start:i]...)
			}
			dst = append(dst, b)
			start = i + 1
			if err := c.next(b == '\n'); err != nil {
				return dst, err
			}
		}
	}
	if c.maskedColumn() != nil {
		c.field.add(data[start:]...)
		return dst, nil
	}
	return append(dst, data[start:]...), nil
}

func (c *textCopy) maskedColumn() Value {
	if c.plain || c.column >= c.last {
		return nil
	}
	return c.columns[c.column]
}

// next is the end of a field, or of a row.
func (c *textCopy) next(row bool) error {
	c.column++
	switch {
	case !row && c.column >= max(1, len(c.columns)), row && c.column != max(1, len(c.columns)):
		return wrongColumns(c.column, len(c.columns))
	case row:
		c.column, c.plain = 0, false
	}
	return nil
}

// appendMasked adds what stands in the place of the field that has come.
func (c *textCopy) appendMasked(dst []byte, v Value) []byte {
	defer c.field.clear()
	if !c.field.long {
		if string(c.field.value) == c.format.Null {
			return append(dst, c.format.Null...)
		}
		c.value = unescapeText(c.value[:0], c.field.value)
	}
	var isNull bool
	if c.field.long {
		c.masked, isNull = v.Oversize(c.masked[:0])
	} else {
		c.masked, isNull = appendValue(c.masked[:0], v, c.value)
	}
	if isNull {
		return append(dst, c.format.Null...)
	}
	return escapeText(dst, c.masked, c.format.Delimiter)
}

// End implements Copy.
func (c *textCopy) End(dst []byte) ([]byte, error) {
	if c.column != 0 || c.escaped || len(c.field.value) > 0 || c.field.long {
		return dst, ErrFormat
	}
	return dst, nil
}

// unescapeText adds the value that a field of the text format stands for.
func unescapeText(dst, p []byte) []byte {
	for {
		i := bytes.IndexByte(p, '\\')
		if i < 0 || i == len(p)-1 {
			return append(dst, p...)
		}
		dst = append(dst, p[:i]...)
		p = p[i+1:]
		n, c := 1, p[0]
		switch {
		case c == 'b':
			c = '\b'
		case c == 'f':
			c = '\f'
		case c == 'n':
			c = '\n'
		case c == 'r':
			c = '\r'
		case c == 't':
			c = '\t'
		case c == 'v':
			c = '\v'
		case c == 'x' && len(p) > 1 && unhex(p[1]) >= 0:
			n, c = 2, byte(unhex(p[1]))
			if len(p) > 2 && unhex(p[2]) >= 0 {
				n, c = 3, c<<4|byte(unhex(p[2]))
			}
		case c >= '0' && c <= '7':
			c -= '0'
			for ; n < min(3, len(p)) && p[n] >= '0' && p[n] <= '7'; n++ {
				c = c<<3 | (p[n] - '0')
			}
		}
		dst = append(dst, c)
		p = p[n:]
	}
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// escapeText adds a value as the server writes it (CopyAttributeOutText in copyto.c).
func escapeText(dst, value []byte, delimiter byte) []byte {
	for _, c := range value {
		switch c {
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\v':
			dst = append(dst, '\\', 'v')
		case '\\', delimiter:
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
