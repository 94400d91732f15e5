package rewrite

import "encoding/binary"

// signature begins the binary format; "COPY", "Binary Format" in the PostgreSQL manual.
const signature = "PGCOPY\n\xff\r\n\x00"

const (
	binaryHeader = len(signature) + 4 + 4 // with flags, and the length of the header's extension
	endOfCopy    = 0xffff                 // in the place of a row's number of columns
)

// A binaryCopy masks the binary format.
type binaryCopy struct {
	columns []Value
	stage   binaryStage
	part    []byte // of what comes next, if it has a fixed length
	pass    int    // bytes that pass
	value   int    // bytes of a masked value that are still to come
	column  int
	field   field
}

// A binaryStage is what comes next.
type binaryStage uint8

const (
	header binaryStage = iota
	extension
	count     // of a row's columns
	length    // of a value
	passing   // a value
	masking   // a value
	completed // nothing more
)

// Append implements Copy.
func (c *binaryCopy) Append(dst, data []byte) ([]byte, error) {
	var err error
	for len(data) > 0 && err == nil {
		switch c.stage {
		case header:
			if part := c.whole(&data, binaryHeader); part != nil {
				dst, err = c.header(dst, part)
			}
		case extension, passing:
			n := min(c.pass, len(data))
			dst = append(dst, data[:n]...)
			data = data[n:]
			if c.pass -= n; c.pass == 0 {
				c.passed()
			}
		case count:
			if part := c.whole(&data, 2); part != nil {
				dst = append(dst, part...)
				err = c.row(int(binary.BigEndian.Uint16(part)))
			}
		case length:
			if part := c.whole(&data, 4); part != nil {
				dst, err = c.begin(dst, binary.BigEndian.Uint32(part))
			}
		case masking:
			n := min(c.value, len(data))
			c.field.add(data[:n]...)
			data = data[n:]
			if c.value -= n; c.value == 0 {
				dst = c.masked(dst)
			}
		case completed:
			err = ErrFormat
		}
	}
	return dst, err
}

// whole takes n bytes off data, or what there is; they are nil until all have come, and used until the next call.
func (c *binaryCopy) whole(data *[]byte, n int) []byte {
	take := min(n-len(c.part), len(*data))
	c.part = append(c.part, (*data)[:take]...)
	if *data = (*data)[take:]; len(c.part) < n {
		return nil
	}
	part := c.part
	c.part = c.part[:0]
	return part
}

func (c *binaryCopy) header(dst, part []byte) ([]byte, error) {
	flags := binary.BigEndian.Uint32(part[len(signature):])
	if string(part[:len(signature)]) != signature || flags != 0 { // no server from 12 on sets a flag
		return dst, ErrFormat
	}
	c.pass, c.stage = int(binary.BigEndian.Uint32(part[len(signature)+4:])), extension
	if c.pass == 0 {
		c.stage = count
	}
	return append(dst, part...), nil
}

// passed is the end of what passes.
func (c *binaryCopy) passed() {
	if c.stage == extension {
		c.stage = count
		return
	}
	c.nextColumn()
}

func (c *binaryCopy) nextColumn() {
	c.column++
	if c.stage = length; c.column == len(c.columns) {
		c.stage = count
	}
}

func (c *binaryCopy) row(columns int) error {
	switch {
	case columns == endOfCopy:
		c.stage = completed
	case columns != len(c.columns):
		return wrongColumns(columns, len(c.columns))
	case columns > 0:
		c.column, c.stage = 0, length
	}
	return nil
}

// begin starts a value of n bytes.
func (c *binaryCopy) begin(dst []byte, n uint32) ([]byte, error) {
	masked := c.columns[c.column]
	switch {
	case n == null:
		c.nextColumn()
		return binary.BigEndian.AppendUint32(dst, n), nil
	case n >= 1<<30:
		return dst, ErrFormat
	case masked == nil:
		dst = binary.BigEndian.AppendUint32(dst, n)
		if c.pass, c.stage = int(n), passing; n == 0 {
			c.nextColumn()
		}
		return dst, nil
	}
	if c.value, c.stage = int(n), masking; n == 0 {
		dst = c.masked(dst)
	}
	return dst, nil
}

// masked is the end of a masked value.
func (c *binaryCopy) masked(dst []byte) []byte {
	dst = append(dst, 0, 0, 0, 0)
	out, isNull := c.field.appendTo(dst, c.columns[c.column])
	c.field.clear()
	c.nextColumn()
	return finishField(dst, out, isNull)
}

// End implements Copy.
func (c *binaryCopy) End(dst []byte) ([]byte, error) {
	if c.stage != completed {
		return dst, ErrFormat
	}
	return dst, nil
}
