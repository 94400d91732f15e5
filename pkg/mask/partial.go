package mask

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"time"
)

// partial shows a part of a value that is no text: the last digits of a long whole number, the year of a date, an address's network,
// a card's maker. Other types have no part that would be of use.
func (b *builder) partial(t *Type, mod int32) rewrite {
	if t.Kind != Base {
		return null
	}
	switch t.OID {
	case oidInt8:
		return b.partialInteger
	case oidNumeric:
		return b.partialNumeric(scaleOf(mod))
	case oidDate, oidTimestamp, oidTimestamptz:
		if b.format == formatText {
			return yearOfText(t.OID)
		}
		return yearOfBinary(t.OID)
	case oidInet, oidCIDR:
		return b.partialInet(t.OID == oidCIDR)
	case oidMacaddr, oidMacaddr8:
		return b.partialMacaddr
	}
	return null
}

// lastDigits are the digits of a number that may show, as visibleDigits has them; 0 for a short one.
func lastDigits(n uint64, digits int) uint64 {
	switch visibleDigits(nil, digits) {
	case 4:
		return n % 10000
	case 2:
		return n % 100
	}
	return 0
}

func (b *builder) partialInteger(dst, value []byte) ([]byte, bool) {
	n, ok := b.integer(value, 8)
	if !ok {
		return nil, true
	}
	magnitude := uint64(n)
	if n < 0 {
		magnitude = -magnitude
	}
	return b.appendInteger(dst, int64(lastDigits(magnitude, len(strconv.FormatUint(magnitude, 10)))), 8), false
}

func (b *builder) partialNumeric(scale int) rewrite {
	var decimal []byte
	return func(dst, value []byte) ([]byte, bool) {
		var ok bool
		if decimal, ok = b.decimal(decimal[:0], value); !ok {
			return nil, true
		}
		whole := bytes.TrimPrefix(decimal, []byte("-"))
		if n, err := strconv.ParseUint(string(whole), 10, 64); err == nil {
			return b.appendNumeric(dst, lastDigits(n, len(whole)), scale), false
		}
		return b.appendNumeric(dst, 0, scale), false
	}
}

// yearOfText keeps the year of a date as DateStyle ISO writes it; a date in another style, or infinity, is NULL.
func yearOfText(oid uint32) rewrite {
	after := map[uint32]string{oidDate: "-01-01", oidTimestamp: "-01-01 00:00:00", oidTimestamptz: "-01-01 00:00:00+00"}[oid]
	return func(dst, value []byte) ([]byte, bool) {
		n := 0
		for n < len(value) && value[n] >= '0' && value[n] <= '9' {
			n++
		}
		if n < 4 || len(value) < n+6 || value[n] != '-' || value[n+3] != '-' {
			return nil, true
		}
		dst = append(append(dst, value[:n]...), after...)
		if bytes.HasSuffix(value, []byte(" BC")) {
			return append(dst, " BC"...), string(value[:n]) == "4714" // which has no January
		}
		return dst, false
	}
}

// yearOfBinary keeps the year of days or microseconds since 2000; infinity, the least and the greatest number, is NULL.
func yearOfBinary(oid uint32) rewrite {
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * 60 * 60
	return func(dst, value []byte) ([]byte, bool) {
		if oid == oidDate {
			if len(value) != 4 {
				return nil, true
			}
			days := int32(binary.BigEndian.Uint32(value))
			if days == 1<<31-1 || days == -1<<31 {
				return nil, true
			}
			year := time.Unix(start.Unix()+int64(days)*day, 0).UTC().Year()
			first := (time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Unix() - start.Unix()) / day
			return binary.BigEndian.AppendUint32(dst, uint32(first)), first < firstDay
		}
		if len(value) != 8 {
			return nil, true
		}
		us := int64(binary.BigEndian.Uint64(value))
		if us == 1<<63-1 || us == -1<<63 {
			return nil, true
		}
		year := time.Unix(start.Unix()+us/1e6, us%1e6*1e3).UTC().Year()
		first := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Unix() - start.Unix()
		return binary.BigEndian.AppendUint64(dst, uint64(first*1e6)), first < firstDay*day
	}
}

// firstDay is the first date that PostgreSQL has, 4714-11-24 BC, in days from 2000-01-01; its year began before it.
const firstDay = -2451545

// Networks that partial shows: what a site gets.
const (
	ipv4Network = 24
	ipv6Network = 48
)

func network(addr netip.Addr) int {
	if addr.Is4() {
		return ipv4Network
	}
	return ipv6Network
}

// partialInet keeps an address's network; a cidr, which has no bits behind its length, is as short.
func (b *builder) partialInet(cidr bool) rewrite {
	return func(dst, value []byte) ([]byte, bool) {
		prefix, ok := b.prefix(value)
		if !ok {
			return nil, true
		}
		shown, err := prefix.Addr().Prefix(min(prefix.Bits(), network(prefix.Addr())))
		if err != nil {
			return nil, true
		}
		bits := prefix.Bits()
		if cidr {
			bits = shown.Bits()
		}
		return b.appendPrefix(dst, netip.PrefixFrom(shown.Addr(), bits), cidr), false
	}
}

// prefix reads an inet: text as the server writes it, or family (2 for IPv4, 3 for IPv6), bits, is_cidr, length, address.
func (b *builder) prefix(value []byte) (netip.Prefix, bool) {
	if b.format == formatText {
		if bytes.IndexByte(value, '/') >= 0 {
			prefix, err := netip.ParsePrefix(string(value))
			return prefix, err == nil && !prefix.Addr().Is4In6()
		}
		addr, err := netip.ParseAddr(string(value))
		return netip.PrefixFrom(addr, addr.BitLen()), err == nil && !addr.Is4In6()
	}
	if len(value) < 4 || int(value[3]) != len(value)-4 {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(value[4:])
	prefix := netip.PrefixFrom(addr, int(value[1]))
	return prefix, ok && prefix.IsValid()
}

func (b *builder) appendPrefix(dst []byte, prefix netip.Prefix, cidr bool) []byte {
	addr := prefix.Addr()
	if b.format == formatText {
		if prefix.IsSingleIP() && !cidr {
			return addr.AppendTo(dst)
		}
		return prefix.AppendTo(dst)
	}
	family, isCIDR := byte(2), byte(0)
	if addr.Is6() {
		family = 3
	}
	if cidr {
		isCIDR = 1
	}
	dst = append(dst, family, byte(prefix.Bits()), isCIDR, byte(addr.BitLen()/8))
	return append(dst, addr.AsSlice()...)
}

// partialMacaddr keeps the first three bytes, the maker's.
func (b *builder) partialMacaddr(dst, value []byte) ([]byte, bool) {
	if b.format == formatBinary {
		if len(value) != 6 && len(value) != 8 {
			return nil, true
		}
		return append(append(dst, value[:3]...), make([]byte, len(value)-3)...), false
	}
	if len(value) != 17 && len(value) != 23 {
		return nil, true
	}
	var maker [3]byte
	for i := range maker {
		if _, err := hex.Decode(maker[i:i+1], value[3*i:3*i+2]); err != nil || value[3*i+2] != ':' {
			return nil, true
		}
	}
	dst = append(dst, value[:8]...)
	for i := 8; i < len(value); i += 3 {
		dst = append(dst, ":00"...)
	}
	return dst, false
}
