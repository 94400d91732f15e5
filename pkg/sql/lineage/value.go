package lineage

// unknownType is the type of a string constant or parameter of which nothing is known yet (UNKNOWNOID).
const unknownType = 705

// A value is what an expression contains, while a statement is read.
type value struct {
	masks Set
	// unchanged is true for one column's value as stored. It says nothing where masks is empty.
	unchanged bool
	unknown   bool
	// typ is the type's OID, 0 when it is not known.
	typ uint32
	// relation and attribute name the column.
	relation  uint32
	attribute int16
	// fields are a row's. masks is the union of theirs.
	fields []field
}

// A field is a column of a result, or of a row.
type field struct {
	name  string
	value value
}

// A row is the columns of a query, in order. Where open is true there may be others, of which each contains no more than rest.
type row struct {
	fields []field
	open   bool
	rest   value
}

// clean is a value that contains nothing of a masked column.
func clean(typ uint32) value { return value{typ: typ} }

// secret is true for a value that may contain something of a masked column.
func (v value) secret() bool { return v.unknown || len(v.masks) > 0 }

// derive is a value that is made of others.
func derive(values ...value) value {
	var d value
	for _, v := range values {
		d.masks = d.masks.Union(v.masks)
		d.unknown = d.unknown || v.unknown
	}
	return d
}

// plus is v when b had a part in choosing or making it.
func (v value) plus(b value) value {
	if !b.secret() {
		return v
	}
	d := derive(v, b)
	d.typ = v.typ
	for _, f := range v.fields {
		d.fields = append(d.fields, field{f.name, f.value.plus(b)})
	}
	return d
}

// either is a value that is one of several, unchanged.
func either(values ...value) value {
	d := derive(values...)
	d.unchanged = len(d.masks) == 1 && !d.unknown
	known := true
	for _, v := range values {
		if v.secret() && !v.unchanged {
			d.unchanged = false
		}
		switch {
		case v.typ == 0:
			known = false
		case v.typ == unknownType, v.typ == d.typ:
		case isText(v.typ) && isText(d.typ):
			d.typ = typeText
		case d.typ == 0:
			d.typ = v.typ
		default:
			known = false
		}
	}
	if !known { // a conversion may change it
		d.unchanged, d.typ = false, 0
	}
	if d.typ == 0 && known && len(values) > 0 {
		d.typ = unknownType
	}
	if len(values) > 0 && sameFields(values) {
		d.fields = eitherFields(values)
	}
	return d
}

func sameFields(values []value) bool {
	for _, v := range values {
		if len(v.fields) == 0 || len(v.fields) != len(values[0].fields) {
			return false
		}
	}
	return true
}

func eitherFields(values []value) []field {
	fields := make([]field, len(values[0].fields))
	for i := range fields {
		parts := make([]value, len(values))
		for j, v := range values {
			parts[j] = v.fields[i].value
		}
		fields[i] = field{values[0].fields[i].name, either(parts...)}
	}
	return fields
}

// rowValue is a row as one value.
func rowValue(r row) value {
	parts := make([]value, 0, len(r.fields)+1)
	for _, f := range r.fields {
		parts = append(parts, f.value)
	}
	if r.open {
		parts = append(parts, r.rest)
	}
	v := derive(parts...)
	if !r.open {
		v.fields = r.fields
	}
	return v
}

// find is the field of a name.
func (v value) find(name string) (value, bool) {
	for _, f := range v.fields {
		if f.name == name {
			return f.value, true
		}
	}
	return value{}, false
}

// export is the value as callers see it; reach is what an unknown value may contain.
func (v value) export(reach Set) Value {
	out := Value{Masks: v.masks, Unchanged: v.unchanged && len(v.masks) == 1 || !v.secret() && v.attribute != 0, Unknown: v.unknown,
		Relation: v.relation, Attribute: v.attribute}
	if v.unknown {
		out.Masks, out.Unchanged = v.masks.Union(reach), false
	}
	for _, f := range v.fields {
		out.Fields = append(out.Fields, f.value.export(reach))
	}
	return out
}

// merge is rows of which each may be the result: of a set operation, or of several relations that a name may mean. Fields are
// joined by position and have the names of the first.
func merge(rows ...row) row {
	m := rows[0]
	for _, r := range rows[1:] {
		if m.open || r.open || len(m.fields) != len(r.fields) {
			rest := derive(rowValue(m), rowValue(r))
			open := row{open: true, rest: rest}
			for _, f := range m.fields { // their names are in sight, whatever they are
				open.fields = append(open.fields, field{f.name, rest})
			}
			m = open
			continue
		}
		fields := make([]field, len(m.fields))
		for i, f := range m.fields {
			fields[i] = field{f.name, either(f.value, r.fields[i].value)}
		}
		m = row{fields: fields}
	}
	return m
}
