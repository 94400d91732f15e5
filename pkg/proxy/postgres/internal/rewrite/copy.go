package rewrite

import (
	"fmt"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// A Copy masks what COPY TO STDOUT sends. The pieces of data may end anywhere: in the middle of a value, too.
type Copy interface {
	// Append adds to dst what stands in the place of the next piece of data.
	Append(dst, data []byte) ([]byte, error)
	// End adds what was held back; it is an error when the data ends where no row does.
	End(dst []byte) ([]byte, error)
}

// NewCopy is for a COPY of len(columns) columns in the given format.
func NewCopy(f *sql.CopyFormat, columns []Value) Copy {
	switch {
	case f.Binary:
		return &binaryCopy{columns: columns}
	case f.CSV:
		return &csvCopy{columns: columns, format: f, plain: f.Header}
	}
	return &textCopy{columns: columns, last: lastMasked(columns), format: f, plain: f.Header}
}

// A field is a masked value of which pieces come.
type field struct {
	value []byte
	long  bool // more than MaxValue bytes came; they are not kept
}

func (f *field) add(p ...byte) {
	if len(f.value)+len(p) > MaxValue {
		f.value, f.long = f.value[:0], true
	}
	if !f.long {
		f.value = append(f.value, p...)
	}
}

func (f *field) clear() { f.value, f.long = f.value[:0], false }

// appendTo adds what stands in the field's place.
func (f *field) appendTo(dst []byte, v Value) (out []byte, null bool) {
	if f.long {
		return v.Oversize(dst)
	}
	return v.Append(dst, f.value)
}

// wrongColumns is a row that has not the number of columns that the server announced.
func wrongColumns(got, want int) error {
	return fmt.Errorf("%w: a row of COPY has %d columns in the place of %d", ErrFormat, got, want)
}
