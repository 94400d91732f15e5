// Package rewrite masks values inside the messages in which PostgreSQL sends results: DataRow, and the CopyData of COPY TO STDOUT
// in text, CSV and binary. It knows how values are framed and not what they are: a Value says what stands in the place of one.
//
// Memory is bounded whatever the server sends: a masked value that is longer than MaxValue is dropped as it comes. What does not have the
// form that the manual describes is an error, after which nothing of the result may be forwarded. Only package postgres uses it.
package rewrite

import (
	"errors"
	"fmt"

	"github.com/sallyport-dev/sallyport/pkg/mask"
)

// MaxValue is the longest value, in bytes, that is collected to be masked.
const MaxValue = mask.MaxValueBytes

// A Value masks the values of one column; a nil one lets them pass. mask.Rewriter is one.
type Value interface {
	// Append adds to dst what stands in the place of a value that is not NULL; null says that it is NULL, and then dst is as it was.
	Append(dst, value []byte) (out []byte, null bool)
	// Oversize is Append for a value of more than MaxValue bytes.
	Oversize(dst []byte) (out []byte, null bool)
}

// ErrFormat says that a message has not the form that it should have.
var ErrFormat = errors.New("malformed result")

// ErrTooLarge says that a row can not be masked within the bound of memory.
var ErrTooLarge = fmt.Errorf("more than %d bytes of a row stand before its last masked value", maxCollected)

// appendValue adds what stands in the place of one value that is not NULL.
func appendValue(dst []byte, v Value, value []byte) (out []byte, null bool) {
	if len(value) > MaxValue {
		return v.Oversize(dst)
	}
	return v.Append(dst, value)
}

// lastMasked is the number of columns up to the last that is masked.
func lastMasked(columns []Value) int {
	n := len(columns)
	for n > 0 && columns[n-1] == nil {
		n--
	}
	return n
}
