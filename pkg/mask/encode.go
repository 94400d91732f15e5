package mask

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// encodeBase makes a value of one of PostgreSQL's own types from what the document says: numbers in decimal, dates and times as ISO
// 8601 has them, addresses as they are written everywhere. It is false for what is no such value, and for other types.
func (b *builder) encodeBase(value string, oid uint32, mod int32) (string, bool) {
	switch oid {
	case oidBool:
		return b.encodeBool(value)
	case oidInt2, oidInt4, oidInt8:
		size := map[uint32]int{oidInt2: 2, oidInt4: 4, oidInt8: 8}[oid]
		n, err := strconv.ParseInt(value, 10, 8*size)
		return string(b.appendInteger(nil, n, size)), err == nil
	case oidFloat4, oidFloat8:
		return b.encodeFloat(value, oid)
	case oidNumeric:
		return b.encodeNumeric(value, mod)
	case oidDate, oidTimestamp, oidTimestamptz:
		return b.encodeTime(value, oid)
	case oidUUID:
		id, err := hex.DecodeString(strings.ReplaceAll(value, "-", ""))
		if err != nil || len(id) != 16 || len(value) != 36 || string(appendUUID(nil, id)) != strings.ToLower(value) {
			return "", false
		}
		return b.choose(strings.ToLower(value), id)
	case oidBytea:
		raw, ok := appendBytea(nil, []byte(value))
		if !ok {
			return "", false
		}
		return b.choose(`\x`+hex.EncodeToString(raw), raw)
	case oidInet, oidCIDR:
		return b.encodePrefix(value, oid == oidCIDR)
	case oidMacaddr:
		raw, err := hex.DecodeString(strings.ReplaceAll(value, ":", ""))
		if err != nil || len(raw) != 6 || len(value) != 17 {
			return "", false
		}
		return b.choose(strings.ToLower(value), raw)
	}
	return "", false
}

// choose is a value in the format.
func (b *builder) choose(text string, binary []byte) (string, bool) {
	if b.format == formatText {
		return text, true
	}
	return string(binary), true
}

func (b *builder) encodeBool(value string) (string, bool) {
	switch value {
	case "true", "t":
		return b.choose("t", []byte{1})
	case "false", "f":
		return b.choose("f", []byte{0})
	}
	return "", false
}

func (b *builder) encodeFloat(value string, oid uint32) (string, bool) {
	bits := 64
	if oid == oidFloat4 {
		bits = 32
	}
	f, err := strconv.ParseFloat(value, bits)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || strings.ContainsAny(value, "xXpP_") {
		return "", false
	}
	raw := binary.BigEndian.AppendUint64(nil, math.Float64bits(f))
	if bits == 32 {
		raw = binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(f)))
	}
	return b.choose(strconv.FormatFloat(f, 'g', -1, bits), raw)
}

// maxFixedDigits bounds the digits of a number that is put in place.
const maxFixedDigits = 1000

// encodeNumeric takes decimal digits with a point, as many as precision and scale have room for; the scale is filled up.
func (b *builder) encodeNumeric(value string, mod int32) (string, bool) {
	digits, negative := strings.CutPrefix(value, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	if whole+fraction == "" || len(value) > maxFixedDigits || strings.Trim(whole+fraction, "0123456789") != "" {
		return "", false
	}
	whole = strings.TrimLeft(whole, "0")
	if precision, scale, ok := precisionOf(mod); ok {
		if len(fraction) > max(scale, 0) || len(whole) > precision-scale {
			return "", false
		}
		fraction += strings.Repeat("0", max(scale, 0)-len(fraction))
	}
	if strings.Trim(whole+fraction, "0") == "" {
		negative = false
	}
	if b.format == formatBinary {
		return string(numericBinary(whole, fraction, negative)), true
	}
	text := whole
	if whole == "" {
		text = "0"
	}
	if negative {
		text = "-" + text
	}
	if fraction != "" {
		text += "." + fraction
	}
	return text, true
}

// numericBinary is numeric_send's layout of digits before and behind the point.
func numericBinary(whole, fraction string, negative bool) []byte {
	scale := len(fraction)
	whole = strings.Repeat("0", (4-len(whole)%4)%4) + whole
	fraction += strings.Repeat("0", (4-len(fraction)%4)%4)
	all, weight := whole+fraction, len(whole)/4-1
	for strings.HasPrefix(all, "0000") {
		all, weight = all[4:], weight-1
	}
	for strings.HasSuffix(all, "0000") {
		all = all[:len(all)-4]
	}
	if all == "" {
		weight = 0
	}
	sign := uint16(numericPositive)
	if negative {
		sign = numericNegative
	}
	made := binary.BigEndian.AppendUint16(nil, uint16(len(all)/4))
	made = binary.BigEndian.AppendUint16(made, uint16(int16(weight)))
	made = binary.BigEndian.AppendUint16(made, sign)
	made = binary.BigEndian.AppendUint16(made, uint16(scale))
	for ; all != ""; all = all[4:] {
		made = binary.BigEndian.AppendUint16(made, uint16(value([]byte(all[:4]))))
	}
	return made
}

// encodeTime takes a date, or a date and a time; of the years, those with four digits.
func (b *builder) encodeTime(value string, oid uint32) (string, bool) {
	layouts := []string{time.DateOnly}
	if oid != oidDate {
		layouts = append(layouts, time.DateTime, "2006-01-02T15:04:05", time.RFC3339, "2006-01-02 15:04:05Z07:00")
	}
	for _, layout := range layouts {
		at, err := time.Parse(layout, value)
		if err != nil || at.Year() < 1 {
			continue
		}
		at = at.UTC()
		since := at.Unix() - time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
		switch oid {
		case oidDate:
			return b.choose(at.Format(time.DateOnly), binary.BigEndian.AppendUint32(nil, uint32(since/(24*60*60))))
		case oidTimestamp:
			return b.choose(at.Format(time.DateTime), binary.BigEndian.AppendUint64(nil, uint64(since*1e6)))
		default:
			return b.choose(at.Format(time.DateTime)+"+00", binary.BigEndian.AppendUint64(nil, uint64(since*1e6)))
		}
	}
	return "", false
}

func (b *builder) encodePrefix(value string, cidr bool) (string, bool) {
	text := &builder{format: formatText}
	prefix, ok := text.prefix([]byte(value))
	if !ok || prefix.Addr().Zone() != "" || cidr && prefix != prefix.Masked() {
		return "", false
	}
	return string(b.appendPrefix(nil, netip.PrefixFrom(prefix.Addr(), prefix.Bits()), cidr)), true
}
