package mask

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

const (
	// hashLength is the number of characters of a hash in text: 128 bits in base32. Where a column takes less, less is given, but
	// not less than minHashLength (40 bits).
	hashLength    = 26
	minHashLength = 8
	// minHashDigits is the precision that a numeric must have before its point.
	minHashDigits = 9
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// A digest is HMAC-SHA-256 under one key.
type digest func(value []byte) []byte

// newDigest is nil without a key. What it returns is overwritten by the next call.
func newDigest(key []byte) digest {
	if len(key) == 0 {
		return nil
	}
	mac := hmac.New(sha256.New, key)
	sum := make([]byte, 0, sha256.Size)
	return func(value []byte) []byte {
		mac.Reset()
		mac.Write(value)
		sum = mac.Sum(sum[:0])
		return sum
	}
}

// hashText hashes text. Equal text has equal hashes, whatever the type; trailing spaces of a bpchar are no part of it.
func hashText(key []byte, limit int, trim bool) rewrite {
	sum := newDigest(key)
	if sum == nil || limit > 0 && limit < minHashLength {
		return null
	}
	return func(dst, value []byte) ([]byte, bool) {
		if trim {
			value = bytes.TrimRight(value, " ")
		}
		return base32Lower.AppendEncode(dst, sum(value)[:16])[:len(dst)+hashLength], false
	}
}

// hash hashes values of other types that have room for a hash; the same value has the same hash in text and in binary.
func (b *builder) hash(key []byte, t *Type, mod int32) rewrite {
	sum := newDigest(key)
	if sum == nil || t.Kind != Base {
		return null
	}
	switch t.OID {
	case oidInt2, oidInt4, oidInt8:
		return b.hashInteger(sum, t.OID)
	case oidNumeric:
		return b.hashNumeric(sum, mod)
	case oidUUID:
		return b.hashUUID(sum)
	case oidBytea:
		return b.hashBytea(sum)
	}
	return null
}

// hashInteger gives a positive number of the type's range, from the number in decimal.
func (b *builder) hashInteger(sum digest, oid uint32) rewrite {
	size := map[uint32]int{oidInt2: 2, oidInt4: 4, oidInt8: 8}[oid]
	var decimal []byte
	return func(dst, value []byte) ([]byte, bool) {
		n, ok := b.integer(value, size)
		if !ok {
			return nil, true
		}
		decimal = strconv.AppendInt(decimal[:0], n, 10)
		h := int64(binary.BigEndian.Uint64(sum(decimal)) >> (65 - 8*size))
		return b.appendInteger(dst, max(h, 1), size), false
	}
}

// integer reads an integer of so many bytes.
func (b *builder) integer(value []byte, size int) (int64, bool) {
	if b.format == formatText {
		n, err := strconv.ParseInt(string(value), 10, 8*size)
		return n, err == nil
	}
	if len(value) != size {
		return 0, false
	}
	var n uint64
	for _, c := range value {
		n = n<<8 | uint64(c)
	}
	shift := 64 - 8*size
	return int64(n<<shift) >> shift, true
}

func (b *builder) appendInteger(dst []byte, n int64, size int) []byte {
	if b.format == formatText {
		return strconv.AppendInt(dst, n, 10)
	}
	for shift := 8 * (size - 1); shift >= 0; shift -= 8 {
		dst = append(dst, byte(n>>shift))
	}
	return dst
}

// hashNumeric gives a whole number that the precision has room for, from the number without needless zeros.
func (b *builder) hashNumeric(sum digest, mod int32) rewrite {
	digits, scale := 18, scaleOf(mod)
	if precision, scale, ok := precisionOf(mod); ok {
		digits = min(digits, precision-scale)
	}
	if digits < minHashDigits {
		return null
	}
	modulus := uint64(1)
	for range digits {
		modulus *= 10
	}
	var decimal []byte
	return func(dst, value []byte) ([]byte, bool) {
		var ok bool
		if decimal, ok = b.decimal(decimal[:0], value); !ok {
			return nil, true
		}
		h := binary.BigEndian.Uint64(sum(decimal)) % modulus
		return b.appendNumeric(dst, max(h, 1), scale), false
	}
}

// hashUUID gives a UUID of version 8 (RFC 9562 section 5.8), from the canonical text.
func (b *builder) hashUUID(sum digest) rewrite {
	var text []byte
	return func(dst, value []byte) ([]byte, bool) {
		if text = text[:0]; b.format == formatText {
			text = append(text, bytes.ToLower(value)...)
		} else if len(value) == 16 {
			text = appendUUID(text, value)
		}
		if len(text) != 36 {
			return nil, true
		}
		made := sum(text)[:16]
		made[6] = made[6]&0x0f | 0x80
		made[8] = made[8]&0x3f | 0x80
		if b.format == formatBinary {
			return append(dst, made...), false
		}
		return appendUUID(dst, made), false
	}
}

func appendUUID(dst, id []byte) []byte {
	for i, part := range [][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:16]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, part)
	}
	return dst
}

// hashBytea gives 32 bytes.
func (b *builder) hashBytea(sum digest) rewrite {
	var raw []byte
	return func(dst, value []byte) ([]byte, bool) {
		if b.format == formatBinary {
			return append(dst, sum(value)...), false
		}
		var ok bool
		if raw, ok = appendBytea(raw[:0], value); !ok {
			return nil, true
		}
		return hex.AppendEncode(append(dst, `\x`...), sum(raw)), false
	}
}

// appendBytea decodes bytea's text: hex or escape format (manual, section 8.4).
func appendBytea(dst, text []byte) ([]byte, bool) {
	if digits, ok := bytes.CutPrefix(text, []byte(`\x`)); ok {
		dst, err := hex.AppendDecode(dst, digits)
		return dst, err == nil
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != '\\' {
			dst = append(dst, c)
			continue
		}
		rest := text[i+1:]
		switch {
		case len(rest) > 0 && rest[0] == '\\':
			dst = append(dst, '\\')
			i++
		case len(rest) >= 3 && isOctal(rest[0], '3') && isOctal(rest[1], '7') && isOctal(rest[2], '7'):
			dst = append(dst, (rest[0]-'0')<<6|(rest[1]-'0')<<3|(rest[2]-'0'))
			i += 3
		default:
			return dst, false
		}
	}
	return dst, true
}

func isOctal(c, last byte) bool { return c >= '0' && c <= last }
