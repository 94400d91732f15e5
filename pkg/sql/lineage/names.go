package lineage

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// candidates are the relations that a name may mean. known is false when it may be another one too.
func (a *analyzer) candidates(schema, name string) (found []*catalog.Relation, known bool) {
	for _, r := range a.catalog.RelationsNamed(name) {
		if a.inSight(schema, r.Schema) {
			found = append(found, r)
		}
	}
	known = !a.changed.dirty(name)
	for _, r := range a.changed.created[name] {
		if schema == "" || r.Schema == "" || a.inSight(schema, r.Schema) {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		known = false
	}
	return found, known
}

// inSight is whether something in a schema is what a name with or without schema may mean.
func (a *analyzer) inSight(schema, of string) bool {
	if schema == "pg_temp" {
		return isTemporary(of)
	}
	if schema != "" {
		return of == schema
	}
	return of == "pg_catalog" || isTemporary(of) || slices.Contains(a.path, of)
}

// rangeVar is a relation that is named in FROM, or as the target of a change.
func (a *analyzer) rangeVar(r *pg.RangeVar) *item {
	i := &item{name: r.Relname, schema: r.Schemaname, columns: true, relation: true, system: true}
	found, known := a.candidates(r.Schemaname, r.Relname)
	rows := make([]row, len(found))
	for j, candidate := range found {
		if candidate.OID == 0 {
			rows[j] = a.table(candidate)
			for _, f := range rows[j].fields {
				a.reach = a.reach.Union(f.value.masks)
			}
		} else {
			rows[j] = a.relation(candidate)
		}
		i.typ = candidate.Type
		if a.changed.altered[r.Relname] { // it may have columns that the picture does not have
			rows[j] = row{fields: rows[j].fields, open: true, rest: a.added(candidate)}
		}
	}
	switch {
	case !known:
		v := a.absent()
		i.row = row{open: true, rest: v}
		for _, r := range rows { // so that a name that is a column's is not looked for further out
			for _, f := range r.fields {
				i.row.fields = append(i.row.fields, field{f.name, v})
			}
		}
	case len(rows) == 1:
		i.row = rows[0]
	default:
		i.row, i.partial = several(rows)
		i.typ = 0
	}
	return i
}

// added is what columns may contain that were added to a table since the picture was taken: nothing that was stored, but their names may
// be masked.
func (a *analyzer) added(r *catalog.Relation) value {
	if a.s.masked(r) {
		return a.anything()
	}
	return clean(0)
}

// several is a name that may mean several relations: a column is that of any that has it.
func several(rows []row) (row, map[string]bool) {
	same := !slices.ContainsFunc(rows, func(r row) bool {
		return r.open || !slices.EqualFunc(r.fields, rows[0].fields, func(x, y field) bool { return x.name == y.name })
	})
	if same {
		return merge(rows...), nil
	}
	all, partial := row{open: true}, map[string]bool{}
	counts := map[string]int{}
	for _, r := range rows {
		for _, f := range r.fields {
			at := slices.IndexFunc(all.fields, func(x field) bool { return x.name == f.name })
			if at < 0 {
				all.fields = append(all.fields, f)
			} else {
				all.fields[at].value = either(all.fields[at].value, f.value)
			}
			counts[f.name]++
		}
		if r.open {
			all.rest = derive(all.rest, r.rest)
		}
	}
	for name, n := range counts {
		partial[name] = n < len(rows)
	}
	return all, partial
}

// typeName is the type that a name means, nil when it is none, or may be several.
func (a *analyzer) typeName(n *pg.TypeName) *catalog.Type {
	if n == nil || n.PctType {
		return nil
	}
	o := sql.Name(n.Names)
	if a.changed.dirty(o.Name) {
		return nil
	}
	var found *catalog.Type
	for _, t := range a.catalog.TypesNamed(o.Name) {
		if !a.inSight(o.Schema, t.Schema) {
			continue
		}
		if found != nil && (found.Schema != "pg_catalog" && t.Schema != "pg_catalog" || slices.Contains(a.path, "pg_catalog")) {
			return nil // pg_catalog is not the first where the path names it
		}
		if found == nil || t.Schema == "pg_catalog" {
			found = t
		}
	}
	if found != nil && len(n.ArrayBounds) > 0 {
		found = a.catalog.Type(found.Array)
	}
	return found
}
