package lineage

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// from puts the items of a FROM clause in sight, from left to right, because LATERAL ones see those before them.
func (a *analyzer) from(clause []*pg.Node, s *scope) {
	for _, n := range clause {
		a.fromItem(n, s)
	}
}

// fromItem adds one item of FROM to s, and returns the columns that it has for a join around it.
func (a *analyzer) fromItem(n *pg.Node, s *scope) row {
	a.nesting++
	defer func() { a.nesting-- }()
	if !a.spend() {
		return row{open: true, rest: a.anything()}
	}
	var i *item
	switch v := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		i = a.named(v.RangeVar, s)
	case *pg.Node_RangeSubselect:
		within := s.beside()
		if v.RangeSubselect.Lateral {
			within = s
		}
		i = subquery(a.query(v.RangeSubselect.Subquery, within), v.RangeSubselect.Alias)
	case *pg.Node_RangeFunction:
		i = a.rangeFunction(v.RangeFunction, s)
	case *pg.Node_RangeTableSample:
		for _, arg := range v.RangeTableSample.Args {
			a.where("TABLESAMPLE", arg, s)
		}
		a.where("TABLESAMPLE", v.RangeTableSample.Repeatable, s)
		if sql.Name(v.RangeTableSample.Method).Schema != "" || a.userFunction(sql.Name(v.RangeTableSample.Method).Name) {
			a.deny("a sampling method that is not the server's own can not be read")
		}
		return a.fromItem(v.RangeTableSample.Relation, s)
	case *pg.Node_RangeTableFunc:
		i = a.xmlTable(v.RangeTableFunc, s)
	case *pg.Node_JsonTable:
		i = a.jsonTable(v.JsonTable, s)
	case *pg.Node_JoinExpr:
		return a.join(v.JoinExpr, s)
	default:
		i = &item{row: row{open: true, rest: a.unread(n, s)}, columns: true, relation: true}
	}
	s.items = append(s.items, i)
	return i.row
}

// subquery is an item without columns of a system.
func subquery(r row, alias *pg.Alias) *item {
	i := &item{row: r, columns: true}
	if alias != nil {
		i.alias(alias)
	}
	return i
}

// alias gives an item its alias, and columns theirs.
func (i *item) alias(alias *pg.Alias) {
	if alias == nil {
		return
	}
	i.name, i.schema, i.relation = alias.Aliasname, "", true
	if len(alias.Colnames) > 0 {
		i.row = rename(i.row, alias.Colnames)
		i.typ, i.partial = 0, nil
	}
}

// named is a relation or WITH query by its name.
func (a *analyzer) named(r *pg.RangeVar, s *scope) *item {
	var i *item
	if k := s.ctes.find(r.Relname); k != nil && r.Schemaname == "" {
		k.done()
		i = &item{name: r.Relname, row: k.row, columns: true, relation: true}
	} else {
		i = a.rangeVar(r)
	}
	i.alias(r.Alias)
	return i
}

// join is two items of which rows are put together. Its inputs stay in sight by their names, unless it has an alias.
func (a *analyzer) join(j *pg.JoinExpr, s *scope) row {
	start := len(s.items)
	left := a.fromItem(j.Larg, s)
	right := a.fromItem(j.Rarg, s)

	var names []string
	for _, n := range j.UsingClause {
		names = append(names, n.GetString_().GetSval())
	}
	if j.IsNatural {
		for _, f := range left.fields {
			if slices.ContainsFunc(right.fields, func(r field) bool { return r.name == f.name }) {
				names = append(names, f.name)
			}
		}
	}
	joined := a.merged(left, right, names)
	if j.IsNatural && (left.open || right.open) { // which columns are one is not known
		v := derive(rowValue(left), rowValue(right))
		a.use("JOIN", v.masks, v.unknown)
		joined = merge(joined, row{open: true, rest: v})
	}
	a.where("JOIN", j.Quals, s)
	for _, i := range s.items[start:] {
		i.columns = false
		if j.Alias != nil {
			i.relation = false
		}
	}
	i := &item{row: joined, columns: true}
	i.alias(j.Alias)
	s.items = append(s.items, i)
	if j.JoinUsingAlias != nil {
		s.items = append(s.items, &item{name: j.JoinUsingAlias.Aliasname, row: row{fields: joined.fields[:min(len(names), len(joined.fields))]}, relation: true})
	}
	return i.row
}

// merged is the columns of a join: first those of USING, which are both sides', then the others.
func (a *analyzer) merged(left, right row, names []string) row {
	if len(names) == 0 {
		return left.append(right)
	}
	take := func(r row, name string) value {
		v, found, _ := (&item{row: r}).column(name)
		if !found {
			v = rowValue(r)
		}
		return v
	}
	var joined row
	for _, name := range names {
		l, r := take(left, name), take(right, name)
		v := either(l, r)
		a.use("JOIN", v.masks, v.unknown)
		if op := a.operator(equality, l, r); !sameMasks(op, v) {
			v = v.plus(op)
		}
		joined.fields = append(joined.fields, field{name, v})
	}
	rest := func(r row) row {
		kept := row{open: r.open, rest: r.rest}
		for _, f := range r.fields {
			if !slices.Contains(names, f.name) {
				kept.fields = append(kept.fields, f)
			}
		}
		return kept
	}
	return joined.append(rest(left)).append(rest(right))
}

// equality is the operator that USING, CASE and IN apply.
var equality = []*pg.Node{pg.MakeStrNode("=")}

// xmlTable is XMLTABLE: all its columns are made of the document.
func (a *analyzer) xmlTable(t *pg.RangeTableFunc, s *scope) *item {
	parts := []value{a.maybe(t.Docexpr, s), a.maybe(t.Rowexpr, s)}
	for _, n := range t.Namespaces {
		parts = append(parts, a.expr(n.GetResTarget().GetVal(), s))
	}
	document := derive(parts...)
	var r row
	for _, n := range t.Columns {
		c := n.GetRangeTableFuncCol()
		v := clean(0)
		if !c.GetForOrdinality() {
			v = derive(document, a.maybe(c.GetColexpr(), s), a.maybe(c.GetColdefexpr(), s))
			v = a.castTo(v, c.GetTypeName())
		}
		r.fields = append(r.fields, field{c.GetColname(), v})
	}
	i := subquery(r, t.Alias)
	if t.Alias == nil {
		i.name, i.relation = "xmltable", true
	}
	return i
}

// jsonTable is JSON_TABLE.
func (a *analyzer) jsonTable(t *pg.JsonTable, s *scope) *item {
	document := a.children(t.ContextItem, s)
	for _, n := range t.Passing {
		document = derive(document, a.children(sql.Inner(n), s))
	}
	if t.OnError != nil {
		document = derive(document, a.children(t.OnError, s))
	}
	var r row
	var columns func([]*pg.Node)
	columns = func(list []*pg.Node) {
		for _, n := range list {
			c := n.GetJsonTableColumn()
			switch c.GetColtype() {
			case pg.JsonTableColumnType_JTC_NESTED:
				columns(c.Columns)
				continue
			case pg.JsonTableColumnType_JTC_FOR_ORDINALITY:
				r.fields = append(r.fields, field{c.Name, clean(0)})
				continue
			}
			v := document
			for _, b := range []*pg.JsonBehavior{c.GetOnEmpty(), c.GetOnError()} {
				if b != nil {
					v = derive(v, a.children(b, s))
				}
			}
			r.fields = append(r.fields, field{c.GetName(), a.castTo(v, c.GetTypeName())})
		}
	}
	columns(t.Columns)
	i := subquery(r, t.Alias)
	if t.Alias == nil {
		i.name, i.relation = "json_table", true
	}
	return i
}
