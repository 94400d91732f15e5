package mask

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// fixed gives the same value always, or NULL where the type does not take it.
func (b *builder) fixed(value string, t *Type, mod int32) rewrite {
	made, ok := b.encode(value, t, mod)
	if !ok {
		return null
	}
	return always(made)
}

// encode makes a value of a type from text.
func (b *builder) encode(value string, t *Type, mod int32) (string, bool) {
	switch {
	case t.Kind == Enum:
		return value, slices.Contains(t.Labels, value)
	case isText(t):
		limit := limitOf(t, mod)
		n := utf8.RuneCountInString(value)
		if limit > 0 && (n > limit || t.OID == oidName && len(value) > limit) {
			return "", false
		}
		if t.OID == oidBpchar && limit > 0 {
			value += strings.Repeat(" ", limit-n)
		}
		return value, true
	case t.OID == oidJSON:
		return value, json.Valid([]byte(value))
	case t.OID == oidJSONB:
		// jsonb has no NUL and no half of a surrogate pair: escapes are left to those who need them.
		if !json.Valid([]byte(value)) || strings.Contains(value, `\u`) {
			return "", false
		}
		if b.format == formatBinary {
			return "\x01" + value, true
		}
		return value, true
	case t.OID == oidXML:
		return value, isContent(value)
	case t.OID == oidChar:
		return value, len(value) == 1
	case t.OID == oidBit || t.OID == oidVarbit:
		return b.encodeBits(value, t, mod)
	case t.Kind == Base && t.OID < firstNormalOID:
		return b.encodeBase(value, t.OID, mod)
	}
	return "", false
}

// isContent is true for what the type xml takes: well-formed content.
func isContent(value string) bool {
	decoder := xml.NewDecoder(strings.NewReader(value))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			return false
		}
	}
}

// encodeBits makes a string of bits.
func (b *builder) encodeBits(value string, t *Type, mod int32) (string, bool) {
	if strings.Trim(value, "01") != "" || t.OID == oidBit && len(value) != int(mod) || mod >= 0 && len(value) > int(mod) {
		return "", false
	}
	if b.format == formatText {
		return value, true
	}
	made := []byte(zeroBits(len(value)).binary)
	for i := range len(value) {
		if value[i] == '1' {
			made[4+i/8] |= 0x80 >> (i % 8)
		}
	}
	return string(made), true
}

// zeroBits are n bits of 0; in binary the number of bits comes first.
func zeroBits(n int) constant {
	size := binary.BigEndian.AppendUint32(nil, uint32(n))
	return constant{string(bytes.Repeat([]byte{'0'}, n)), string(append(size, make([]byte, (n+7)/8)...))}
}
