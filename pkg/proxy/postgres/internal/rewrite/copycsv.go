package rewrite

import (
	"bytes"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// A csvCopy masks the CSV format; "COPY", "CSV Format" in the PostgreSQL manual.
type csvCopy struct {
	columns []Value
	format  *sql.CopyFormat
	plain   bool // the row passes: it is the header
	column  int
	state   csvState
	quoted  bool // the field that is coming has a quoted part
	field   field
	masked  []byte
}

// A csvState is where in a field the data is.
type csvState uint8

const (
	unquoted    csvState = iota
	inQuotes             // after an opening quote
	afterQuote           // after a quote in quotes: it ends them, or stands for itself if another follows
	afterEscape          // after the escape character in quotes, which is not the quote
)

// Append implements Copy.
func (c *csvCopy) Append(dst, data []byte) ([]byte, error) {
	f := c.format
	start := 0 // data[start:i] passes
	for i, b := range data {
		masked := c.maskedColumn()
		ends := false
		switch c.state {
		case afterEscape:
			c.state = inQuotes
			c.keep(masked, b)
			continue
		case inQuotes:
			switch {
			case b == f.Escape && f.Escape != f.Quote:
				c.state = afterEscape
			case b == f.Quote:
				c.state = afterQuote
			default:
				c.keep(masked, b)
			}
			continue
		case afterQuote:
			if c.state = unquoted; b == f.Quote && f.Escape == f.Quote {
				c.state = inQuotes
				c.keep(masked, b)
				continue
			}
		}
		switch b {
		case f.Delimiter, '\n':
			ends = true
		case f.Quote:
			c.state, c.quoted = inQuotes, true
		default:
			c.keep(masked, b)
		}
		if !ends {
			continue
		}
		if masked != nil {
			dst = c.appendMasked(dst, masked)
		} else {
			dst = append(dst, data[start:i]...)
		}
		dst = append(dst, b)
		start = i + 1
		c.quoted = false
		if err := c.next(b == '\n'); err != nil {
			return dst, err
		}
	}
	if c.maskedColumn() != nil {
		return dst, nil
	}
	return append(dst, data[start:]...), nil
}

func (c *csvCopy) maskedColumn() Value {
	if c.plain || c.column >= len(c.columns) {
		return nil
	}
	return c.columns[c.column]
}

func (c *csvCopy) keep(masked Value, b byte) {
	if masked != nil {
		c.field.add(b)
	}
}

func (c *csvCopy) next(row bool) error {
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
func (c *csvCopy) appendMasked(dst []byte, v Value) []byte {
	defer c.field.clear()
	if !c.quoted && !c.field.long && string(c.field.value) == c.format.Null {
		return append(dst, c.format.Null...)
	}
	var isNull bool
	if c.masked, isNull = c.field.appendTo(c.masked[:0], v); isNull {
		return append(dst, c.format.Null...)
	}
	f, value := c.format, c.masked
	if string(value) != f.Null && bytes.IndexByte(value, f.Delimiter) < 0 && bytes.IndexByte(value, f.Quote) < 0 && !bytes.ContainsAny(value, "\r\n\\") {
		return append(dst, value...)
	}
	dst = append(dst, f.Quote)
	for _, b := range value {
		if b == f.Quote || b == f.Escape {
			dst = append(dst, f.Escape)
		}
		dst = append(dst, b)
	}
	return append(dst, f.Quote)
}

// End implements Copy.
func (c *csvCopy) End(dst []byte) ([]byte, error) {
	if c.column != 0 || c.state != unquoted || len(c.field.value) > 0 || c.field.long {
		return dst, ErrFormat
	}
	return dst, nil
}
