package rewrite

import "encoding/binary"

const (
	rowHeader = 7 // bytes of a DataRow before its first value: type, length, number of columns

	// maxCollected is how much of one row is kept in memory, because its length is sent before its values.
	maxCollected = 16 << 20
	null         = 0xffffffff // the length of NULL
)

// A Row masks the DataRow messages of one result.
type Row struct {
	columns []Value
	last    int // how many columns have to be looked at
	large   large
}

// A large is a message that comes in pieces.
type large struct {
	left   int    // bytes that are still to come
	out    []byte // the message as far as it was rewritten
	column int    // whose length or value is coming
	field  []byte // what has come of the length, or of a value that is masked
	value  int    // bytes of a value that are still to come
	what   treatment
}

// A treatment is what happens to the value that is coming.
type treatment uint8

const (
	noValue treatment = iota // a length is coming
	pass
	collect // to be masked
	discard // to be masked, but too long to be kept
)

// NewRow is for results of len(columns) columns.
func NewRow(columns []Value) *Row { return &Row{columns: columns, last: lastMasked(columns)} }

// Append adds to dst what stands in the place of a whole DataRow message.
func (r *Row) Append(dst, message []byte) ([]byte, error) {
	if len(message) < rowHeader || int(binary.BigEndian.Uint16(message[5:])) != len(r.columns) {
		return dst, ErrFormat
	}
	start, copied, at := len(dst), 0, rowHeader // message[copied:at] passes
	for _, v := range r.columns[:r.last] {
		if len(message)-at < 4 {
			return dst[:start], ErrFormat
		}
		length := binary.BigEndian.Uint32(message[at:])
		at += 4
		if length == null {
			continue
		}
		if uint64(length) > uint64(len(message)-at) {
			return dst[:start], ErrFormat
		}
		value := message[at : at+int(length)]
		at += int(length)
		if v == nil {
			continue
		}
		dst = append(dst, message[copied:at-len(value)-4]...)
		dst = appendField(dst, v, value)
		copied = at
	}
	dst = append(dst, message[copied:]...)
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst, nil
}

// appendField adds length and value of a column.
func appendField(dst []byte, v Value, value []byte) []byte {
	dst = append(dst, 0, 0, 0, 0)
	out, isNull := appendValue(dst, v, value)
	return finishField(dst, out, isNull)
}

// finishField writes the length of the value that was added to dst, whose last four bytes are for it.
func finishField(dst, out []byte, isNull bool) []byte {
	length := uint32(len(out) - len(dst))
	if isNull {
		out, length = dst, null
	}
	binary.BigEndian.PutUint32(out[len(dst)-4:], length)
	return out
}

// Begin starts a DataRow message of size bytes that is to be fed in pieces.
func (r *Row) Begin(size int) { r.large = large{left: size} }

// Feed takes the next piece of the message, and says how much of it was used. Until everything up to the last masked value has
// come, out is nil. Then out is the message up to there, and the rest bytes that are still to come pass as they are.
func (r *Row) Feed(p []byte) (used int, out []byte, rest int, err error) {
	g := &r.large
	p = p[:min(len(p), g.left)]
	for len(g.out) < rowHeader || g.column < r.last {
		switch {
		case g.left == 0:
			return used, nil, 0, ErrFormat
		case used == len(p):
			return used, nil, 0, nil
		}
		n, err := r.step(p[used:])
		if used, g.left = used+n, g.left-n; err != nil {
			return used, nil, 0, err
		}
		if len(g.out) > maxCollected {
			return used, nil, 0, ErrTooLarge
		}
	}
	out, rest = g.out, g.left
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)+rest-1))
	r.large = large{}
	return used, out, rest, nil
}

// step uses some of p, which is not empty.
func (r *Row) step(p []byte) (n int, err error) {
	g := &r.large
	switch {
	case len(g.out) < rowHeader:
		n = min(rowHeader-len(g.out), len(p))
		g.out = append(g.out, p[:n]...)
		if len(g.out) == rowHeader && int(binary.BigEndian.Uint16(g.out[5:])) != len(r.columns) {
			return n, ErrFormat
		}
	case g.what == noValue:
		n = min(4-len(g.field), len(p))
		if g.field = append(g.field, p[:n]...); len(g.field) == 4 {
			return n, r.length(binary.BigEndian.Uint32(g.field), g.left-n)
		}
	default:
		n = min(g.value, len(p))
		switch g.what {
		case pass:
			g.out = append(g.out, p[:n]...)
		case collect:
			g.field = append(g.field, p[:n]...)
		}
		if g.value -= n; g.value == 0 {
			r.complete()
		}
	}
	return n, nil
}

// length begins a value of which at most left bytes can come.
func (r *Row) length(length uint32, left int) error {
	g := &r.large
	g.field = g.field[:0]
	switch v := r.columns[g.column]; {
	case length == null:
		g.out = binary.BigEndian.AppendUint32(g.out, length)
		g.column++
		return nil
	case uint64(length) > uint64(left):
		return ErrFormat
	case v == nil:
		g.out = binary.BigEndian.AppendUint32(g.out, length)
		g.what = pass
	case length > MaxValue:
		g.what = discard
	default:
		g.what = collect
	}
	if g.value = int(length); length == 0 {
		r.complete()
	}
	return nil
}

// complete is the end of a value.
func (r *Row) complete() {
	g, v := &r.large, r.columns[r.large.column]
	switch g.what {
	case collect:
		g.out = appendField(g.out, v, g.field)
	case discard:
		g.out = append(g.out, 0, 0, 0, 0)
		out, isNull := v.Oversize(g.out)
		g.out = finishField(g.out, out, isNull)
	}
	g.field, g.what = g.field[:0], noValue
	g.column++
}
