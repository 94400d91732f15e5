package lineage

import (
	"slices"

	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// A memo remembers what relations contain, for one search path: functions in views follow it.
type memo struct {
	relations map[uint32]remembered
}

type remembered struct {
	row     row
	effects effects
}

// catalogPath is the search path with which the catalog's expressions and definitions are deparsed.
var catalogPath = []string{"pg_catalog"}

// samples are the columns of the server's own catalogs that hold data of users' tables, or text of users' statements.
var samples = map[string][]string{
	"pg_statistic":          {"stavalues1", "stavalues2", "stavalues3", "stavalues4", "stavalues5"},
	"pg_statistic_ext_data": {"stxdmcv", "stxdexpr"},
	"pg_attribute":          {"attmissingval"},
	"pg_largeobject":        {"data"},
}

// relation is what the columns of a relation contain. The caller is as much concerned by the effects of reading it.
func (a *analyzer) relation(r *catalog.Relation) row {
	if known, ok := a.memo.get(a.s, r.OID); ok {
		a.effects.add(known.effects)
		return known.row
	}
	if slices.Contains(a.views, r.OID) {
		a.cut = true
		return row{open: true, rest: a.anything()}
	}
	a.views = append(a.views, r.OID)
	outer, cut := a.effects, a.cut
	a.effects, a.cut = effects{}, false
	defer func() {
		a.effects, a.cut = outer, cut || a.cut
		a.views = a.views[:len(a.views)-1]
	}()

	var found row
	switch {
	case r.Kind == catalog.View, r.Kind == catalog.MaterialisedView:
		found = a.view(r)
	case r.Kind == catalog.TOAST:
		found = a.toast(r)
	default:
		found = a.table(r)
	}
	for _, f := range found.fields {
		a.reach = a.reach.Union(f.value.masks)
	}
	if !a.cut {
		a.memo.put(a.s, r.OID, remembered{found, a.effects})
	}
	outer.add(a.effects)
	return found
}

func (m *memo) get(s *Schema, oid uint32) (remembered, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := m.relations[oid]
	return known, ok && oid != 0
}

func (m *memo) put(s *Schema, oid uint32, what remembered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.relations[oid] = what
}

// table is a relation that stores its columns.
func (a *analyzer) table(r *catalog.Relation) row {
	fields := make([]field, len(r.Columns))
	for i := range r.Columns {
		c := &r.Columns[i]
		v := a.s.column(r, c.Name)
		v.typ, v.relation, v.attribute = c.Type, r.OID, c.Attribute
		if inner := a.ofType(c.Type, nil); inner.secret() {
			masks := v.masks.Union(inner.masks)
			v.unchanged = v.unchanged && masks.equal(v.masks) || len(v.masks) == 0 && inner.unchanged
			v.masks = masks
			v.fields = inner.fields
		}
		fields[i] = field{c.Name, v}
	}
	a.tables++
	defer func() { a.tables-- }()
	for i := range r.Columns {
		if !r.Columns[i].Generated {
			continue
		}
		if r.Columns[i].Expression == "" { // of a table that was locked
			fields[i].value.masks, fields[i].value.unchanged = a.s.masks, false
			continue
		}
		v := a.expression(r.Columns[i].Expression, &scope{items: []*item{{name: r.Name, row: row{fields: fields}, columns: true, relation: true,
			system: true, typ: r.Type}}})
		if v.secret() {
			masks := v.masks
			if v.unknown {
				masks = a.s.masks
			}
			made := &fields[i].value
			made.masks, made.unchanged = made.masks.Union(masks), false
		}
	}
	return row{fields: fields}
}

// column is what a column's own masks say: those of its name in the relation, and in those with which it shares rows.
func (s *Schema) column(r *catalog.Relation, name string) value {
	var masks Set
	see := func(r *catalog.Relation) {
		if mask, ok := s.sensitive(r, name); ok {
			masks = masks.Union(Set{mask})
		}
	}
	see(r)
	seen := map[uint32]bool{r.OID: true}
	var walk func(oids []uint32, up bool)
	walk = func(oids []uint32, up bool) {
		for _, oid := range oids {
			next := s.catalog.Relation(oid)
			if next == nil || seen[oid] {
				continue
			}
			seen[oid] = true
			see(next)
			if up {
				walk(next.Parents, true)
			} else {
				walk(next.Children, false)
			}
		}
	}
	walk(r.Parents, true)
	walk(r.Children, false)
	v := value{masks: masks, unchanged: true}
	if r.OID < catalog.FirstUserOID && r.OID != 0 && r.Schema == "pg_catalog" && slices.Contains(samples[r.Name], name) {
		v = value{masks: s.masks}
	}
	return v
}

// ofType is what every value of a type contains: rows of a table with masked columns, or of a composite type that has some.
func (a *analyzer) ofType(oid uint32, seen []uint32) value {
	t := a.catalog.Type(oid)
	if t == nil || slices.Contains(seen, oid) || oid < catalog.FirstUserOID {
		return clean(oid)
	}
	seen = append(seen, oid)
	switch t.Kind {
	case catalog.Array, catalog.Domain, catalog.Range, catalog.Multirange:
		v := a.ofType(t.Element, seen)
		if t.Kind != catalog.Domain {
			v = derive(v)
		}
		v.typ = oid
		return v
	case catalog.Composite:
		r := a.catalog.Relation(t.Relation)
		if r == nil {
			return clean(oid)
		}
		if r.Kind != catalog.CompositeType { // rows of a table, with what is generated in them
			v := rowValue(a.relation(r))
			v.typ = oid
			return v
		}
		fields := make([]field, len(r.Columns))
		parts := make([]value, len(r.Columns))
		for i := range r.Columns {
			v := a.s.column(r, r.Columns[i].Name)
			if inner := a.ofType(r.Columns[i].Type, seen); inner.secret() {
				v.masks, v.unchanged, v.fields = v.masks.Union(inner.masks), v.unchanged && len(v.masks) > 0, inner.fields
			}
			v.typ = r.Columns[i].Type
			fields[i], parts[i] = field{r.Columns[i].Name, v}, v
		}
		v := derive(parts...)
		v.fields, v.typ = fields, oid
		return v
	}
	return clean(oid)
}

// toast is the TOAST table of a table: parts of its long values.
func (a *analyzer) toast(r *catalog.Relation) row {
	var masks Set
	if owner := a.catalog.Relation(r.TOASTOf); owner != nil {
		masks = derive(rowValue(a.relation(owner))).masks
	} else {
		masks = a.s.masks
	}
	var found row
	for i := range r.Columns {
		v := clean(r.Columns[i].Type)
		if r.Columns[i].Name == "chunk_data" {
			v.masks = masks
		}
		v.relation, v.attribute = r.OID, r.Columns[i].Attribute
		found.fields = append(found.fields, field{r.Columns[i].Name, v})
	}
	return found
}

// view is what the query of a view returns, with the names of the view's columns.
func (a *analyzer) view(r *catalog.Relation) row {
	a.owner++
	defer func() { a.owner-- }()
	var result row
	read := r.Definition != "" && a.inside(catalogPath, func() { result = a.text(r.Definition, nil) })
	exact := read && !result.open && len(result.fields) == len(r.Columns)
	fields := make([]field, len(r.Columns))
	for i := range r.Columns {
		c := &r.Columns[i]
		v := value{unknown: true, masks: a.s.masks}
		if exact {
			v = result.fields[i].value
		}
		if v.unknown { // and so it is for whoever reads the view
			v.masks = a.s.masks
			a.reach = a.s.masks
		}
		own := a.s.column(r, c.Name)
		if !own.masks.Empty() {
			v.unchanged = len(v.masks) == 0 || v.unchanged
			v.masks = v.masks.Union(own.masks)
		}
		v.typ, v.relation, v.attribute = c.Type, r.OID, c.Attribute
		fields[i] = field{c.Name, v}
	}
	return row{fields: fields}
}

// masked is whether a relation has columns that have masks of their own, not because of what they are computed from.
func (s *Schema) masked(r *catalog.Relation) bool {
	if r.Schema == "pg_catalog" && r.OID < catalog.FirstUserOID {
		return false
	}
	for i := range r.Columns {
		if v := s.column(r, r.Columns[i].Name); !v.masks.Empty() {
			return true
		}
	}
	return false
}
