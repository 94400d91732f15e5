package postgres

import (
	"bytes"
	"errors"

	"github.com/sallyport-dev/sallyport/pkg/mask"
	"github.com/sallyport-dev/sallyport/pkg/proxy/postgres/internal/rewrite"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
	"github.com/sallyport-dev/sallyport/pkg/sql/lineage"
)

const (
	oidText = 25

	formatText   = 0
	formatBinary = 1
	// maxTypeDepth bounds how deep types lie in each other.
	maxTypeDepth = 16
)

var errRowDescription = errors.New("malformed RowDescription")

// A shape is what a RowDescription says, and what is done with each column for it.
type shape struct {
	description []byte
	rows        *rewrite.Row // nil when all columns pass
}

// shape reads the body of the RowDescription to the results of a statement, of which nothing is known but what the server says if it is strange.
func (t *trace) shape(statement int, body []byte, strange bool) (*shape, error) {
	if statement < len(t.shapes) && !strange {
		if last := t.shapes[statement]; last != nil && bytes.Equal(last.description, body) {
			return last, nil
		}
	}
	st, err := t.statement(statement)
	if err != nil {
		return nil, err
	}
	if strange && st != nil {
		st = &lineage.Statement{Opaque: true, Reach: t.view.picture.schema(t.rules).Masks()}
	}
	r := reader{p: body}
	columns := make([]rewrite.Value, r.uint16())
	any := false
	for i := range columns {
		r.cstring()
		relation, attribute, typ := r.uint32(), int16(r.uint16()), r.uint32()
		r.uint16() // the type's size
		mod, format := int32(r.uint32()), int16(r.uint16())
		if r.bad {
			return nil, errRowDescription
		}
		columns[i] = t.value(t.column(st, i, len(columns), relation, attribute), typ, mod, format)
		any = any || columns[i] != nil
	}
	if !r.end() {
		return nil, errRowDescription
	}
	s := &shape{description: bytes.Clone(body)}
	if any {
		s.rows = rewrite.NewRow(columns)
	}
	if statement < len(t.shapes) && !strange {
		t.shapes[statement] = s
	}
	return s, nil
}

// statement is the lineage of one; nil when no mask names columns.
func (t *trace) statement(i int) (*lineage.Statement, error) {
	switch {
	case t.view == nil:
		return nil, nil
	case i >= len(t.statements):
		return nil, errors.New("more results than statements")
	}
	return &t.statements[i], nil
}

// column is what the i-th of n columns contains. The server's word on which column of a table it is counts more than what the text seems
// to say, unless it is a table that the catalog's picture does not show.
func (t *trace) column(st *lineage.Statement, i, n int, relation uint32, attribute int16) lineage.Value {
	if st == nil {
		return lineage.Value{}
	}
	v := t.contained(st, i, n, relation, attribute)
	if !st.Added.Empty() {
		v.Masks, v.Unchanged, v.Fields = v.Masks.Union(st.Added), false, nil
	}
	return v
}

func (t *trace) contained(st *lineage.Statement, i, n int, relation uint32, attribute int16) lineage.Value {
	if relation != 0 && t.view.picture.catalog.Relation(relation) != nil {
		return t.view.picture.schema(t.rules).ValueOf(relation, attribute, t.at)
	}
	switch {
	case st.Opaque:
		return lineage.Value{Masks: st.Reach, Unknown: true}
	case len(st.Columns) != n:
		// Other rows than the statement asks for: a rule put another one in its place, and that may read anything.
		return lineage.Value{Masks: t.view.picture.schema(t.rules).Masks(), Unknown: true}
	}
	return st.Columns[i]
}

// value is what masks a column; nil lets it pass.
func (t *trace) value(v lineage.Value, typ uint32, mod int32, format int16) rewrite.Value {
	types := func(oid uint32) *mask.Type { return mask.Builtin(oid) }
	if t.view != nil {
		types = t.view.picture.typ
	}
	w := t.rules.Rewriter(contents(v), types(typ), mod, format, mask.Options{Types: types, Tally: t.tally})
	if w == nil {
		return nil
	}
	return w
}

func contents(v lineage.Value) mask.Contents {
	c := mask.Contents{Masks: v.Masks, Unchanged: v.Unchanged && !v.Unknown}
	for _, f := range v.Fields {
		c.Fields = append(c.Fields, contents(f))
	}
	return c
}

// typ is a type of the catalog as package mask sees it; nil when it is not known.
func (p *picture) typ(oid uint32) *mask.Type {
	if t := mask.Builtin(oid); t != nil {
		return t
	}
	p.shared.mu.Lock()
	defer p.shared.mu.Unlock()
	if t, ok := p.shared.types[oid]; ok {
		return t
	}
	t := typeIn(p.catalog, oid, maxTypeDepth)
	p.shared.types[oid] = t
	return t
}

func typeIn(c *catalog.Catalog, oid uint32, depth int) *mask.Type {
	if t := mask.Builtin(oid); t != nil {
		return t
	}
	from := c.Type(oid)
	if from == nil || depth == 0 {
		return nil
	}
	t := &mask.Type{OID: oid, Name: from.Name, Mod: -1, Labels: from.Labels}
	switch from.Kind {
	case catalog.Base:
	case catalog.Enum:
		t.Kind = mask.Enum
	case catalog.Array:
		t.Kind = mask.Array
		if element := c.Type(from.Element); element != nil {
			t.Delimiter = element.Delimiter
		}
	case catalog.Composite:
		t.Kind = mask.Composite
		r := c.Relation(from.Relation)
		if r == nil {
			return nil
		}
		t.Fields = []mask.Field{}
		for _, column := range r.Columns {
			t.Fields = append(t.Fields, mask.Field{Name: column.Name, Type: typeIn(c, column.Type, depth-1), Mod: column.Typmod})
		}
		return t
	case catalog.Range:
		t.Kind = mask.Range
	case catalog.Multirange:
		t.Kind = mask.Multirange
	case catalog.Domain:
		t.Kind, t.Mod = mask.Domain, from.Mod
	default:
		return nil
	}
	if from.Element != 0 {
		t.Element = typeIn(c, from.Element, depth-1)
	}
	if t.Element == nil && t.Kind != mask.Base && t.Kind != mask.Enum {
		return nil
	}
	return t
}
