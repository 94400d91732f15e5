package lineage

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// expand is what a function in SQL gives: what its body's last statement returns, with the arguments in place of the parameters.
func (a *analyzer) expand(f *catalog.Function, args []value, shape callShape) value {
	if slices.Contains(a.functions, f.OID) {
		a.cut = true
		a.deny("the function " + f.Name + " calls itself, and what it shows of masked columns is not known")
		return a.result(f, args, a.anything())
	}
	a.functions = append(a.functions, f.OID)
	outer := a.effects
	a.effects = effects{}
	p := a.parameters(f, args, shape)
	runtime, memo := a.runtime, a.memo
	for _, setting := range f.Config {
		name, value, _ := strings.Cut(setting, "=")
		if name != "search_path" {
			continue
		}
		if path, ok := sql.SearchPath(value); ok {
			a.runtime = path
		} else {
			a.deny("the search path of the function " + f.Name + " can not be read")
		}
		a.memo = a.memoFor(a.runtime)
	}
	last := row{open: true, rest: a.unknown()}
	if f.SQLBody != "" {
		a.inside(catalogPath, func() { last = a.standardBody(f, p) })
	} else {
		a.inside(a.runtime, func() { last = a.body(f.Body, p) })
	}
	a.runtime, a.memo = runtime, memo
	a.functions = a.functions[:len(a.functions)-1]
	a.called = a.called.Union(a.reach)
	outer.add(a.effects)
	a.effects = outer
	// Another body may be in its place a moment later, or was when a materialised view was filled: one that gives what it is given.
	return a.returns(f, args, last).plus(derive(args...))
}

// parameters are the arguments as the body sees them.
func (a *analyzer) parameters(f *catalog.Function, args []value, shape callShape) *params {
	p := &params{function: f.Name}
	in := inputs(f)
	given := make([]bool, len(in))
	for _, param := range in {
		p.fields = append(p.fields, field{param.Name, clean(param.Type)})
	}
	give := func(at int, v value) {
		v.typ = in[at].Type
		if given[at] {
			v = derive(p.fields[at].value, v)
			v.typ = in[at].Type
		}
		p.fields[at].value, given[at] = v, true
	}
	for i, arg := range args {
		at := i
		if i < len(shape.names) && shape.names[i] != "" {
			at = slices.IndexFunc(in, func(param catalog.Argument) bool { return param.Name == shape.names[i] })
		}
		if at >= len(in) {
			at = len(in) - 1
		}
		switch {
		case at < 0: // an OUT parameter of a procedure, of which only the type counts
		case in[at].Mode == 'v' && !shape.variadic:
			give(at, derive(arg))
		default:
			polymorphic := in[at].Type
			give(at, arg)
			if t := a.catalog.Type(polymorphic); t != nil && t.Kind == catalog.Pseudo {
				p.fields[at].value.typ = arg.typ
			}
		}
	}
	if slices.Contains(given, false) && f.Defaults != "" {
		v := a.expression(f.Defaults, &scope{})
		for at := range in {
			if !given[at] {
				p.fields[at].value = typed(v, in[at].Type)
			}
		}
	}
	return p
}

// body is what the last statement of a body in a string returns.
func (a *analyzer) body(text string, p *params) (last row) {
	tree, ok := a.s.tree(text)
	if !ok {
		a.deny("the body of the function " + p.function + " can not be read")
		return row{open: true, rest: a.anything()}
	}
	for _, raw := range tree.Stmts {
		last = a.command(raw.Stmt, &scope{params: p})
	}
	return last
}

// standardBody is body for one in the SQL standard's form: RETURN expression, or BEGIN ATOMIC … END.
func (a *analyzer) standardBody(f *catalog.Function, p *params) row {
	tree, ok := a.s.tree("CREATE FUNCTION f() RETURNS void LANGUAGE sql " + f.SQLBody)
	if !ok || len(tree.Stmts) != 1 {
		a.deny("the body of the function " + f.Name + " can not be read")
		return row{open: true, rest: a.anything()}
	}
	return a.bodyNode(tree.Stmts[0].Stmt.GetCreateFunctionStmt().GetSqlBody(), &scope{params: p})
}

func (a *analyzer) bodyNode(n *pg.Node, s *scope) (last row) {
	switch {
	case n.GetList() != nil:
		for _, item := range n.GetList().Items {
			if item.GetNode() != nil { // an empty statement
				last = a.bodyNode(item, s)
			}
		}
		return last
	case n.GetReturnStmt() != nil:
		return row{fields: []field{{"", a.expr(n.GetReturnStmt().Returnval, s)}}}
	}
	return a.command(n, s)
}

// returns is the last row of a body as what the function returns.
func (a *analyzer) returns(f *catalog.Function, args []value, last row) value {
	whole := rowValue(last)
	if f.Returns == typeVoid {
		return clean(typeVoid)
	}
	var names []field
	for _, arg := range f.Arguments {
		if arg.Out() {
			names = append(names, field{arg.Name, clean(arg.Type)})
		}
	}
	typ := a.returned(f, args)
	if len(names) < 2 && typ != typeRecord {
		names = a.compositeFields(typ, value{})
	}
	switch {
	case len(names) == 0 && typ == typeRecord && !last.open: // a list of columns follows the call
		if len(last.fields) == 1 && len(last.fields[0].value.fields) > 0 {
			return last.fields[0].value
		}
		whole.fields, whole.typ = last.fields, typ
		return whole
	case len(names) == 0:
		v := whole
		if len(last.fields) == 1 && !last.open {
			v = last.fields[0].value
			if v.typ != typ && (!isText(v.typ) || !isText(typ)) {
				v = derive(v)
			}
		}
		if made := a.coerced(v, typ); !sameMasks(made, v) {
			v = made
		}
		v.typ = typ
		return v
	}
	from := last.fields
	if len(from) == 1 && len(names) > 1 {
		from = from[0].value.fields
	}
	v := derive(whole)
	v.typ = typ
	for i := range names {
		part := derive(whole)
		if !last.open && len(from) == len(names) {
			part = from[i].value
		}
		part.typ = names[i].value.typ
		v.fields = append(v.fields, field{names[i].name, part})
	}
	return v
}
