package mask

// A Kind is how values of a type are made up.
type Kind uint8

// Kinds of types.
const (
	Base Kind = iota
	Enum
	Array
	Composite
	Range
	Multirange
	Domain
)

// A Type is what a value is.
type Type struct {
	OID  uint32
	Kind Kind
	// Name tells types of extensions, which have no OID of their own: citext, hstore.
	Name string
	// Element is an array's element, a range's subtype, a multirange's range, a domain's base.
	Element *Type
	// Mod is the modifier of a domain's base, -1 for none.
	Mod int32
	// Delimiter is what is between an array's elements in text; 0 is a comma.
	Delimiter byte
	// Fields are those of a composite, without dropped ones; nil when they are not known, as with record.
	Fields []Field
	// Labels are an enum's.
	Labels []string
}

// A Field is one of a composite.
type Field struct {
	Name string
	Type *Type // nil when it is not known
	Mod  int32
}

// OIDs of types that are treated by name, from pg_type.dat.
const (
	oidBool, oidBytea, oidChar, oidName, oidInt8, oidInt2, oidInt4, oidText     = 16, 17, 18, 19, 20, 21, 23, 25
	oidJSON, oidXML, oidCIDR, oidUnknown, oidMacaddr, oidMacaddr8, oidInet      = 114, 142, 650, 705, 829, 774, 869
	oidBpchar, oidVarchar, oidDate, oidTimestamp, oidTimestamptz                = 1042, 1043, 1082, 1114, 1184
	oidBit, oidVarbit, oidNumeric, oidRefcursor, oidRecord, oidCstring, oidUUID = 1560, 1562, 1700, 1790, 2249, 2275, 2950
	oidTsvector, oidTsquery, oidJSONB, oidFloat4, oidFloat8                     = 3614, 3615, 3802, 700, 701
)

// firstNormalOID is the first that PostgreSQL does not assign itself (access/transam.h).
const firstNormalOID = 16384

// Elements of the arrays, subtypes of the ranges and ranges of the multiranges that PostgreSQL brings (pg_type.dat, pg_range.dat).
var (
	builtinArrays = map[uint32]uint32{143: 142, 199: 114, 271: 5069, 629: 628, 651: 650, 719: 718, 775: 774, 791: 790, 1000: 16, 1001: 17,
		1002: 18, 1003: 19, 1005: 21, 1006: 22, 1007: 23, 1008: 24, 1009: 25, 1010: 27, 1011: 28, 1012: 29, 1013: 30, 1014: 1042, 1015: 1043,
		1016: 20, 1017: 600, 1018: 601, 1019: 602, 1020: 603, 1021: 700, 1022: 701, 1027: 604, 1028: 26, 1034: 1033, 1040: 829, 1041: 869,
		1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184, 1187: 1186, 1231: 1700, 1263: 2275, 1270: 1266, 1561: 1560, 1563: 1562, 2201: 1790,
		2207: 2202, 2208: 2203, 2209: 2204, 2210: 2205, 2211: 2206, 2287: 2249, 2949: 2970, 2951: 2950, 3221: 3220, 3643: 3614, 3644: 3642,
		3645: 3615, 3735: 3734, 3770: 3769, 3807: 3802, 3905: 3904, 3907: 3906, 3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926, 4073: 4072,
		4090: 4089, 4097: 4096, 4192: 4191, 5039: 5038, 6150: 4451, 6151: 4532, 6152: 4533, 6153: 4534, 6155: 4535, 6157: 4536}
	builtinRanges      = map[uint32]uint32{3904: 23, 3906: 1700, 3908: 1114, 3910: 1184, 3912: 1082, 3926: 20}
	builtinMultiranges = map[uint32]uint32{4451: 3904, 4532: 3906, 4533: 3908, 4534: 3910, 4535: 3912, 4536: 3926}
)

// Builtin is a type that PostgreSQL brings, or nil for others and for the rows of its tables.
func Builtin(oid uint32) *Type {
	t := &Type{OID: oid, Mod: -1}
	if element, ok := builtinArrays[oid]; ok {
		t.Kind, t.Element = Array, Builtin(element)
		if element == 603 { // box, whose text has commas
			t.Delimiter = ';'
		}
		return t
	}
	if subtype, ok := builtinRanges[oid]; ok {
		t.Kind, t.Element = Range, Builtin(subtype)
		return t
	}
	if element, ok := builtinMultiranges[oid]; ok {
		t.Kind, t.Element = Multirange, Builtin(element)
		return t
	}
	if oid == oidRecord {
		t.Kind = Composite
		return t
	}
	if _, ok := neutral[oid]; ok || isText(t) || leaves[oid] {
		return t
	}
	return nil
}

// leaves are base types that have no neutral value, or a value of their own making.
var leaves = map[uint32]bool{oidBool: true, oidJSON: true, oidJSONB: true, oidXML: true, oidBit: true, oidVarbit: true, oidNumeric: true}

// isText is true for types whose value is text in both formats.
func isText(t *Type) bool {
	switch t.OID {
	case oidText, oidVarchar, oidBpchar, oidName, oidUnknown, oidCstring, oidRefcursor:
		return true
	}
	return t.OID >= firstNormalOID && t.Kind == Base && t.Name == "citext"
}

func isHstore(t *Type) bool { return t.OID >= firstNormalOID && t.Kind == Base && t.Name == "hstore" }

// isJSON is true for json and jsonb.
func isJSON(t *Type) bool { return t.OID == oidJSON || t.OID == oidJSONB }
