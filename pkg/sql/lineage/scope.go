package lineage

import (
	"strings"
)

// A scope is what one query level can see: the items of its FROM clause, and the levels around it.
type scope struct {
	outer *scope
	items []*item
	ctes  *ctes
	// params are a function's arguments; nil outside one. They are in sight at all levels of its body.
	params *params
}

// An item is one thing in FROM: a table, a subquery, a function, a join with an alias.
type item struct {
	// name is the alias or the relation's name, "" for what can not be named; schema is that of a relation without alias.
	name, schema string
	row          row
	// columns and relation are true while its columns may be named without it, and it itself may be named.
	columns, relation bool
	// system is true for a relation, which has system columns.
	system bool
	// partial are names of columns that only some of the relations have that the name may mean.
	partial map[string]bool
	// typ is the type of its rows, 0 if not known.
	typ uint32
	// scalar is true for a function's result that is one value: its name means that value.
	scalar bool
	// fired is true for the target of a change that rules or triggers replace by another.
	fired bool
}

// whole is the item as a row value.
func (i *item) whole() value {
	if i.scalar && len(i.row.fields) == 1 {
		return i.row.fields[0].value
	}
	v := rowValue(i.row)
	v.typ = i.typ
	return v
}

// column looks a column of the item up. sure is false when the name may mean something else.
func (i *item) column(name string) (v value, found, sure bool) {
	for _, f := range i.row.fields {
		if f.name == name {
			if found {
				v = derive(v, f.value) // the server calls it ambiguous
			} else {
				v, found = f.value, true
			}
		}
	}
	switch {
	case found:
		return v, true, !i.partial[name] && !i.row.open
	case i.system && isSystemColumn(name):
		return clean(0), true, true
	case i.row.open:
		return i.row.rest, true, false
	}
	return value{}, false, false
}

// isSystemColumn is true for the columns that every table has ("System Columns" in the PostgreSQL manual). None contains a value.
func isSystemColumn(name string) bool {
	switch name {
	case "ctid", "tableoid", "xmin", "xmax", "cmin", "cmax":
		return true
	}
	return false
}

// column looks an unqualified name up as a column: in the innermost level that has it.
func (s *scope) column(name string) (v value, found bool) {
	var parts []value
	for level := s; level != nil; level = level.outer {
		hit := false
		for _, i := range level.items {
			if !i.columns {
				continue
			}
			v, found, sure := i.column(name)
			if found {
				parts = append(parts, v)
				hit = hit || sure
			}
		}
		if hit {
			break
		}
	}
	switch len(parts) {
	case 0:
		return value{}, false
	case 1:
		return parts[0], true
	}
	return derive(parts...), true
}

// item looks a name in FROM up: in the innermost level that has it.
func (s *scope) item(schema, name string) *item {
	for level := s; level != nil; level = level.outer {
		for _, i := range level.items {
			if i.relation && i.name == name && name != "" && (schema == "" || i.schema == schema) {
				return i
			}
		}
	}
	return nil
}

// visible are the columns that * stands for.
func (s *scope) visible() (all row) {
	for _, i := range s.items {
		if i.columns {
			all = all.append(i.row)
		}
	}
	return all
}

// append is the columns of r and then those of other.
func (r row) append(other row) row {
	joined := row{fields: make([]field, 0, len(r.fields)+len(other.fields)), open: r.open || other.open}
	joined.fields = append(append(joined.fields, r.fields...), other.fields...)
	if joined.open {
		joined.rest = derive(r.rest, other.rest)
	}
	return joined
}

// inner is a new level within s.
func (s *scope) inner() *scope { return &scope{outer: s, ctes: s.ctes, params: s.params} }

// beside is a new level that does not see the items of s, only what is around it.
func (s *scope) beside() *scope { return &scope{outer: s.outer, ctes: s.ctes, params: s.params} }

// ctes are the WITH queries in sight, the innermost first.
type ctes struct {
	outer *ctes
	name  string
	cte   *cte
}

func (c *ctes) find(name string) *cte {
	for ; c != nil; c = c.outer {
		if c.name == name {
			return c.cte
		}
	}
	return nil
}

// A cte is one WITH query.
type cte struct {
	row row
	// evaluate fills row; nil when that is done.
	evaluate func()
}

// params are the arguments of a function whose body is read.
type params struct {
	function string
	fields   []field
}

func (p *params) number(n int) (value, bool) {
	if p == nil || n < 1 || n > len(p.fields) {
		return value{}, false
	}
	return p.fields[n-1].value, true
}

func (p *params) named(name string) (value, bool) {
	if p == nil || name == "" {
		return value{}, false
	}
	for _, f := range p.fields {
		if f.name == name {
			return f.value, true
		}
	}
	return value{}, false
}

// isTemporary is true for the schemas of sessions' temporary tables.
func isTemporary(schema string) bool {
	return schema == "pg_temp" || strings.HasPrefix(schema, "pg_temp_")
}
