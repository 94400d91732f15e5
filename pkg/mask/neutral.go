package mask

import "encoding/binary"

// redacted is what text becomes: of one length, whatever the secret's.
const redacted = "********"

// A constant is a value in both formats.
type constant struct{ text, binary string }

// in is the constant in a format.
func (c constant) in(format int16) string {
	if format == formatBinary {
		return c.binary
	}
	return c.text
}

// zeros are n bytes of 0.
func zeros(n int) string { return string(make([]byte, n)) }

func int32Bytes(v int32) string { return string(binary.BigEndian.AppendUint32(nil, uint32(v))) }
func int64Bytes(v int64) string { return string(binary.BigEndian.AppendUint64(nil, uint64(v))) }

// The Unix epoch as PostgreSQL counts, from 2000-01-01: in days, in microseconds.
const (
	epochDays         = -10957
	epochMicroseconds = epochDays * 86400 * 1000000
)

// neutral are the values that say nothing, by type: what "redact" gives. The binary layouts are those of the types' receive
// functions (src/backend/utils/adt).
var neutral = map[uint32]constant{
	oidBytea:       {`\x`, ""},
	oidChar:        {"*", "*"},
	oidInt8:        {"0", zeros(8)},
	oidInt2:        {"0", zeros(2)},
	oidInt4:        {"0", zeros(4)},
	oidFloat4:      {"0", zeros(4)},
	oidFloat8:      {"0", zeros(8)},
	790:            {"0", zeros(8)},     // money: how it is written is the locale's, but every locale reads this
	24:             {"-", zeros(4)},     // regproc
	2202:           {"-", zeros(4)},     // regprocedure
	2203:           {"0", zeros(4)},     // regoper
	2204:           {"0", zeros(4)},     // regoperator
	2205:           {"-", zeros(4)},     // regclass
	2206:           {"-", zeros(4)},     // regtype
	3734:           {"-", zeros(4)},     // regconfig
	3769:           {"-", zeros(4)},     // regdictionary
	4089:           {"-", zeros(4)},     // regnamespace
	4096:           {"-", zeros(4)},     // regrole
	4191:           {"-", zeros(4)},     // regcollation
	26:             {"0", zeros(4)},     // oid
	27:             {"(0,0)", zeros(6)}, // tid
	28:             {"0", zeros(4)},     // xid
	29:             {"0", zeros(4)},     // cid
	5069:           {"0", zeros(8)},     // xid8
	3220:           {"0/0", zeros(8)},   // pg_lsn
	oidDate:        {"1970-01-01", int32Bytes(epochDays)},
	oidTimestamp:   {"1970-01-01 00:00:00", int64Bytes(epochMicroseconds)},
	oidTimestamptz: {"1970-01-01 00:00:00+00", int64Bytes(epochMicroseconds)},
	1083:           {"00:00:00", zeros(8)},     // time
	1266:           {"00:00:00+00", zeros(12)}, // timetz
	1186:           {"00:00:00", zeros(16)},    // interval
	oidUUID:        {"00000000-0000-0000-0000-000000000000", zeros(16)},
	oidInet:        {"0.0.0.0", "\x02\x20\x00\x04" + zeros(4)}, // family, bits, is_cidr, length, address
	oidCIDR:        {"0.0.0.0/0", "\x02\x00\x01\x04" + zeros(4)},
	oidMacaddr:     {"00:00:00:00:00:00", zeros(6)},
	oidMacaddr8:    {"00:00:00:00:00:00:00:00", zeros(8)},
	600:            {"(0,0)", zeros(16)},                            // point
	601:            {"[(0,0),(0,0)]", zeros(32)},                    // lseg
	602:            {"((0,0))", "\x01" + int32Bytes(1) + zeros(16)}, // path, closed
	603:            {"(0,0),(0,0)", zeros(32)},                      // box
	604:            {"((0,0))", int32Bytes(1) + zeros(16)},          // polygon
	628:            {"{0,1,0}", zeros(8) + "\x3f\xf0" + zeros(14)},  // line: y = 0
	718:            {"<(0,0),0>", zeros(24)},                        // circle
	oidTsvector:    {"", zeros(4)},
	oidTsquery:     {"'masked'", int32Bytes(1) + "\x01\x00\x00masked\x00"}, // one operand: kind, weight, prefix, word; none is no value in binary
	4072:           {"$", "\x01$"},                                         // jsonpath, version 1
	2278:           {"", ""},                                               // void
	oidXML:         {"<masked/>", "<masked/>"},
}

// emptyOf are the neutral values of what holds others.
var (
	emptyRange      = constant{"empty", "\x01"} // RANGE_EMPTY (utils/rangetypes.h)
	emptyMultirange = constant{"{}", zeros(4)}
)
