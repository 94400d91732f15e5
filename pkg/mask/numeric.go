package mask

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// Signs of a numeric in binary (utils/adt/numeric.c).
const (
	numericPositive = 0x0000
	numericNegative = 0x4000
)

// precisionOf reads a numeric's modifier: precision and scale, plus a header of 4; the scale has 11 bits and a sign.
func precisionOf(mod int32) (precision, scale int, ok bool) {
	if mod < 4 {
		return 0, 0, false
	}
	mod -= 4
	scale = int(mod & 0x7ff)
	if scale >= 1024 {
		scale -= 2048
	}
	return int(mod >> 16 & 0xffff), scale, true
}

// scaleOf is how many digits a numeric has behind its point, as its modifier says; 0 when it does not.
func scaleOf(mod int32) int {
	_, scale, _ := precisionOf(mod)
	return max(scale, 0)
}

// decimal appends a numeric as text without needless zeros, so that equal numbers are equal text in both formats.
func (b *builder) decimal(dst, value []byte) ([]byte, bool) {
	start := len(dst)
	if b.format == formatText {
		dst = append(dst, value...)
	} else {
		var ok bool
		if dst, ok = appendDecimal(dst, value); !ok {
			return dst, false
		}
	}
	if bytes.IndexByte(dst[start:], '.') >= 0 {
		dst = append(dst[:start], bytes.TrimRight(dst[start:], "0")...)
		dst = append(dst[:start], bytes.TrimSuffix(dst[start:], []byte("."))...)
	}
	return dst, len(dst) > start
}

// appendDecimal reads a numeric's binary layout: the number of digits to base 10000, the weight of the first, sign, scale, digits.
func appendDecimal(dst, value []byte) ([]byte, bool) {
	if len(value) < 8 {
		return dst, false
	}
	n := int(binary.BigEndian.Uint16(value))
	weight := int(int16(binary.BigEndian.Uint16(value[2:])))
	sign := binary.BigEndian.Uint16(value[4:])
	scale := int(binary.BigEndian.Uint16(value[6:]))
	if len(value) != 8+2*n {
		return dst, false
	}
	switch sign {
	case numericPositive:
	case numericNegative:
		dst = append(dst, '-')
	case 0xc000:
		return append(dst, "NaN"...), true
	case 0xd000:
		return append(dst, "Infinity"...), true
	case 0xf000:
		return append(dst, "-Infinity"...), true
	default:
		return dst, false
	}
	digit := func(i int) int {
		if i < 0 || i >= n {
			return 0
		}
		return int(binary.BigEndian.Uint16(value[8+2*i:]))
	}
	if weight < 0 {
		dst = append(dst, '0')
	}
	for i := 0; i <= weight; i++ {
		if i == 0 {
			dst = strconv.AppendInt(dst, int64(digit(0)), 10)
			continue
		}
		dst = appendFour(dst, digit(i))
	}
	if scale == 0 {
		return dst, true
	}
	dst = append(dst, '.')
	point := len(dst)
	for i := weight + 1; len(dst)-point < scale; i++ {
		dst = appendFour(dst, digit(i))
	}
	return dst[:point+scale], true
}

func appendFour(dst []byte, digit int) []byte {
	return append(dst, byte('0'+digit/1000%10), byte('0'+digit/100%10), byte('0'+digit/10%10), byte('0'+digit%10))
}

// appendNumeric appends a whole number as a numeric that shows so many digits behind its point.
func (b *builder) appendNumeric(dst []byte, n uint64, scale int) []byte {
	if b.format == formatText {
		if dst = strconv.AppendUint(dst, n, 10); scale > 0 {
			dst = append(dst, '.')
		}
		for range scale {
			dst = append(dst, '0')
		}
		return dst
	}
	var digits [5]uint16
	first := len(digits)
	for ; n > 0; n /= 10000 {
		first--
		digits[first] = uint16(n % 10000)
	}
	used := digits[first:]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(used)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(max(len(used)-1, 0)))
	dst = append(dst, 0, 0) // positive
	dst = binary.BigEndian.AppendUint16(dst, uint16(scale))
	for _, d := range used {
		dst = binary.BigEndian.AppendUint16(dst, d)
	}
	return dst
}
