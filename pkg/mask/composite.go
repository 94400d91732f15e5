package mask

import "bytes"

// composite masks the fields of a row. A row that has other fields than its type is NULL.
func (b *builder) composite(c Contents, t *Type, depth int) rewrite {
	if t.Fields != nil && len(c.Fields) > 0 && len(c.Fields) != len(t.Fields) {
		c = Contents{Masks: c.all(nil)} // which is which is not known
	}
	of := func(i int) Contents {
		switch {
		case i < len(c.Fields):
			return c.Fields[i]
		case len(c.Fields) > 0:
			return Contents{Masks: c.all(nil)} // a field that nobody knows of
		}
		return c
	}
	var fields []rewrite
	any := false
	for i, f := range t.Fields {
		made := b.build(of(i), f.Type, f.Mod, depth+1)
		any = any || made != nil
		fields = append(fields, made)
	}
	if t.Fields != nil && !any {
		return nil
	}
	if b.format == formatBinary {
		if t.Fields == nil {
			fields = nil
		}
		return b.binaryComposite(fields, t.Fields == nil, of, depth)
	}
	row := &textComposite{fields: fields, known: t.Fields != nil}
	if !row.known {
		// The fields of a record have no types in text; they are taken for text.
		row.of = func(i int) rewrite { return b.build(of(i), Builtin(oidText), -1, depth+1) }
	}
	return row.rewrite
}

// binaryComposite rewrites record_send's layout: the number of fields; of each its type, its length, -1 for NULL, and value.
func (b *builder) binaryComposite(fields []rewrite, record bool, of func(int) Contents, depth int) rewrite {
	type key struct {
		field int
		oid   uint32
	}
	made := map[key]rewrite{}
	field := func(i int, oid uint32) rewrite {
		if !record {
			return fields[i]
		}
		f, ok := made[key{i, oid}]
		if !ok {
			f = b.build(of(i), b.typeOf(oid), -1, depth+1)
			if len(made) < 10_000 {
				made[key{i, oid}] = f
			}
		}
		return f
	}
	return func(dst, value []byte) ([]byte, bool) {
		r := reader{value}
		n := r.int32()
		if r.bad() || n < 0 || int(n) > len(value) || !record && int(n) != len(fields) {
			return nil, true
		}
		dst = appendInt32(dst, n)
		for i := range int(n) {
			oid := r.int32()
			content, isNull, ok := r.field()
			if !ok {
				return nil, true
			}
			dst = appendInt32(dst, oid)
			if isNull {
				dst = appendInt32(dst, -1)
				continue
			}
			f := field(i, uint32(oid))
			if f == nil {
				dst = append(appendInt32(dst, int32(len(content))), content...)
				continue
			}
			dst, _ = appendField(dst, content, f)
		}
		return dst, r.bad() || len(r.rest) > 0
	}
}

// typeOf finds the type of a record's field.
func (b *builder) typeOf(oid uint32) *Type {
	if t := Builtin(oid); t != nil {
		return t
	}
	if b.options.Types == nil {
		return nil
	}
	return b.options.Types(oid)
}

// A textComposite rewrites record_out's text (manual, section 8.16.6).
type textComposite struct {
	fields  []rewrite
	known   bool
	of      func(i int) rewrite // makes those that are not known beforehand
	scratch []byte
}

func (t *textComposite) rewrite(dst, value []byte) ([]byte, bool) {
	if len(value) < 2 || value[0] != '(' {
		return nil, true
	}
	if t.known && len(t.fields) == 0 {
		return append(dst, value...), string(value) != "()"
	}
	dst = append(dst, '(')
	for i, at := 0, 1; ; i++ {
		content, isNull, n := cutField(t.scratch[:0], value[at:])
		if n < 0 || at+n >= len(value) || t.known && i >= len(t.fields) {
			return nil, true
		}
		t.scratch = content
		if !t.known && i >= len(t.fields) {
			t.fields = append(t.fields, t.of(i))
		}
		if !isNull {
			dst = appendTextField(dst, content, t.fields[i])
		}
		at += n
		end := value[at]
		dst = append(dst, end)
		at++
		if end == ')' {
			return dst, at != len(value) || t.known && i+1 != len(t.fields)
		}
	}
}

// cutField cuts a field off, up to the comma or parenthesis after it; n is -1 when there is none.
func cutField(dst, value []byte) (content []byte, isNull bool, n int) {
	isNull, quoted := true, false
	for n < len(value) {
		c := value[n]
		switch {
		case !quoted && (c == ',' || c == ')'):
			return dst, isNull, n
		case c == '\\':
			if n++; n == len(value) {
				return dst, false, -1
			}
			dst = append(dst, value[n])
		case c == '"' && quoted && n+1 < len(value) && value[n+1] == '"':
			n++
			dst = append(dst, '"')
		case c == '"':
			quoted = !quoted
		default:
			dst = append(dst, c)
		}
		isNull = false
		n++
	}
	return dst, false, -1
}

func appendTextField(dst, content []byte, f rewrite) []byte {
	at := len(dst)
	made, isNull := append(dst, content...), false
	if f != nil {
		made, isNull = f(dst, content)
	}
	switch {
	case isNull:
		return dst
	case needsFieldQuotes(made[at:]):
		return quoteFrom(made, at, '"')
	}
	return made
}

func needsFieldQuotes(field []byte) bool {
	return len(field) == 0 || bytes.ContainsAny(field, "\"\\(),") || bytes.ContainsFunc(field, func(r rune) bool {
		return r < 0x80 && isSpace(byte(r))
	})
}
