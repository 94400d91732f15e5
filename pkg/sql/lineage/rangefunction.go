package lineage

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// rangeFunction is a function, or ROWS FROM several, in FROM. It sees the items before it, with LATERAL or without.
func (a *analyzer) rangeFunction(f *pg.RangeFunction, s *scope) *item {
	i := &item{columns: true, relation: true}
	var calls []*pg.Node
	var lists [][]*pg.Node
	for _, n := range f.Functions {
		pair := n.GetList().GetItems() // the call, and its list of columns
		if len(pair) == 0 {
			continue
		}
		list := f.Coldeflist
		if len(pair) > 1 && len(list) == 0 {
			list = pair[1].GetList().GetItems()
		}
		for _, call := range unnested(pair[0], len(list)) {
			calls, lists = append(calls, call), append(lists, list)
		}
	}
	for at, call := range calls {
		v := a.expr(call, s)
		name := columnName(call)
		if at == 0 {
			i.name = name
		}
		if len(calls) == 1 && !f.Ordinality {
			i.typ = v.typ
			if f.Alias != nil && len(lists[at]) == 0 {
				name = f.Alias.Aliasname
			}
		}
		r, scalar := a.functionRow(call, v, name, lists[at])
		i.row = i.row.append(r)
		i.scalar = scalar && len(calls) == 1 && !f.Ordinality
	}
	if f.Ordinality {
		i.row = i.row.append(row{fields: []field{{"ordinality", clean(typeInt8)}}})
	}
	i.alias(f.Alias)
	return i
}

// unnested takes unnest(a, b) apart, as the server does ("Table Functions" in the PostgreSQL manual).
func unnested(call *pg.Node, columns int) []*pg.Node {
	f := call.GetFuncCall()
	if f == nil || len(f.Funcname) != 1 || sql.Name(f.Funcname).Name != "unnest" || len(f.Args) < 2 || columns > 0 {
		return []*pg.Node{call}
	}
	var calls []*pg.Node
	for _, arg := range f.Args {
		calls = append(calls, &pg.Node{Node: &pg.Node_FuncCall{FuncCall: &pg.FuncCall{Funcname: f.Funcname, Args: []*pg.Node{arg}}}})
	}
	return calls
}

// functionRow is the columns of a function's result. scalar is true where it is one value.
func (a *analyzer) functionRow(call *pg.Node, v value, name string, list []*pg.Node) (r row, scalar bool) {
	if len(list) > 0 {
		for at, n := range list {
			part := derive(v)
			if len(v.fields) == len(list) {
				part = v.fields[at].value
			}
			r.fields = append(r.fields, field{n.GetColumnDef().GetColname(), a.castTo(derive(part), n.GetColumnDef().GetTypeName())})
		}
		return r, false
	}
	if len(v.fields) > 0 {
		return row{fields: v.fields}, false
	}
	if fields := a.compositeFields(v.typ, v); fields != nil {
		return row{fields: fields}, false
	}
	one := a.scalarName(call, name)
	if t := a.catalog.Type(v.typ); one.known || t != nil && v.typ != typeRecord {
		return row{fields: []field{{one.name, v}}}, true
	}
	return row{fields: []field{{one.name, v}}, open: true, rest: derive(v)}, false
}

// A scalarColumn is the only column of a function in FROM; known is true when it is sure that there is but one.
type scalarColumn struct {
	name  string
	known bool
}

// scalarName is the name of the column of a function that returns one value: that of its only OUT parameter, or the alias, or its own.
func (a *analyzer) scalarName(call *pg.Node, name string) scalarColumn {
	f := call.GetFuncCall()
	if f == nil {
		return scalarColumn{name, true}
	}
	o := sql.Name(f.Funcname)
	column := scalarColumn{name, false}
	known := true
	for _, f := range a.catalog.FunctionsNamed(o.Name) {
		if !a.inSight(o.Schema, f.Schema) {
			continue
		}
		t := a.catalog.Type(f.Returns)
		known = known && t != nil && t.Kind != catalog.Composite && t.Kind != catalog.Pseudo
		column.known = known
		var out []string
		for _, arg := range f.Arguments {
			if arg.Out() {
				out = append(out, arg.Name)
			}
		}
		if len(out) == 1 && out[0] != "" {
			column.name = out[0]
		}
	}
	return column
}
