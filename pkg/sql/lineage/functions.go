package lineage

import (
	"fmt"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// A callShape is how a function is called, besides its arguments.
type callShape struct {
	// names are those of arguments that are given by name, "" for the others.
	names []string
	// variadic is true where the last argument is an array of the rest.
	variadic bool
	// star is true for f(*).
	star bool
	// cast is true for the function of a cast, which may be given more than the value.
	cast bool
}

// call is a call of a function, aggregate or window function.
func (a *analyzer) call(f *pg.FuncCall, s *scope) value {
	if f == nil {
		return a.anything()
	}
	shape := callShape{variadic: f.FuncVariadic, star: f.AggStar}
	var args []value
	a.using("FUNCTION", func() {
		for _, n := range f.Args {
			name := n.GetNamedArgExpr().GetName()
			shape.names = append(shape.names, name)
			args = append(args, a.expr(n, s))
		}
		if f.AggWithinGroup { // the sorted column is the last argument
			for _, n := range f.AggOrder {
				args = append(args, a.expr(n.GetSortBy().GetNode(), s))
				shape.names = append(shape.names, "")
			}
		}
	})
	order := f.AggOrder
	if f.AggWithinGroup {
		order = nil
	}
	a.aggregateClauses(order, f.AggFilter, f.Over, s)
	o := sql.Name(f.Funcname)
	if o.Name == "set_config" {
		a.setConfig(f.Args)
	}
	return a.apply(o, args, shape)
}

// aggregateClauses are what decides over which rows, and in which order, an aggregate goes.
func (a *analyzer) aggregateClauses(order []*pg.Node, filter *pg.Node, over *pg.WindowDef, s *scope) {
	for _, n := range order {
		a.using("ORDER BY", func() { a.sort(n.GetSortBy(), s, nil) })
	}
	a.where("FILTER", filter, s)
	a.window(over, s)
}

// apply is what a function of a name gives, whichever of those the name may mean.
func (a *analyzer) apply(o sql.Object, args []value, shape callShape) value {
	if a.changed.dirty(o.Name) {
		return a.unreadable(o, args)
	}
	var found []*catalog.Function
	for _, f := range a.catalog.FunctionsNamed(o.Name) {
		if a.inSight(o.Schema, f.Schema) && (o.Schema != "" || !isTemporary(f.Schema)) && a.takes(f, args, shape) {
			found = append(found, f)
		}
	}
	found = a.closest(found, args, shape)
	if len(found) == 0 {
		return a.notation(o, args)
	}
	results := make([]value, len(found))
	for i, f := range found {
		results[i] = a.invoke(f, args, shape)
	}
	v := either(results...)
	if len(found) == 1 {
		v = results[0]
	}
	if len(args) == 1 && o.Schema == "" { // f(t) may be t.f
		if field, ok := args[0].find(o.Name); ok {
			v = derive(v, field)
		}
	}
	return v
}

// notation is a call of what is no function: f(t) for the column t.f, or a type's name as a cast.
func (a *analyzer) notation(o sql.Object, args []value) value {
	if len(args) == 1 {
		if field, ok := args[0].find(o.Name); ok && o.Schema == "" {
			return field
		}
		for _, t := range a.catalog.TypesNamed(o.Name) {
			if a.inSight(o.Schema, t.Schema) {
				return derive(a.castType(args[0], t, false))
			}
		}
	}
	a.missing = true
	return a.unreadable(o, args)
}

// anyFunction is whether a name is that of a function in sight; userFunction whether of one that is not the server's own.
func (a *analyzer) anyFunction(name string) bool {
	return a.changed.dirty(name) || slices.ContainsFunc(a.catalog.FunctionsNamed(name), func(f *catalog.Function) bool { return a.inSight("", f.Schema) })
}

func (a *analyzer) userFunction(name string) bool {
	return a.changed.dirty(name) ||
		slices.ContainsFunc(a.catalog.FunctionsNamed(name), func(f *catalog.Function) bool { return !f.Builtin() && a.inSight("", f.Schema) })
}

// inputs are the parameters that a caller gives.
func inputs(f *catalog.Function) (in []catalog.Argument) {
	for _, arg := range f.Arguments {
		if arg.In() {
			in = append(in, arg)
		}
	}
	return in
}

// takes is whether a function may be called with so many arguments.
func (a *analyzer) takes(f *catalog.Function, args []value, shape callShape) bool {
	n := len(inputs(f))
	switch {
	case shape.cast:
		return true
	case shape.star:
		return n == 0 || f.Kind == catalog.Aggregate
	case f.Kind == catalog.Procedure: // OUT parameters are given too
		return true
	case len(args) > n:
		return f.Variadic
	case len(args) < n:
		return f.Builtin() || f.Defaults != "" || f.Variadic
	}
	return true
}

// closest are those functions that the server may choose: one whose parameters are exactly of the arguments' types, else all that fit.
func (a *analyzer) closest(found []*catalog.Function, args []value, shape callShape) []*catalog.Function {
	if len(found) < 2 {
		return found
	}
	var exact, fitting []*catalog.Function
	for _, f := range found {
		in := inputs(f)
		same, fits := len(in) == len(args) && !shape.variadic, true
		for i, arg := range args {
			if i >= len(in) || shape.names != nil && shape.names[i] != "" {
				same = false
				break
			}
			param := in[i].Type
			if in[i].Mode == 'v' && !shape.variadic {
				same = false
				break
			}
			same = same && param == arg.typ && param != unknownType
			fits = fits && a.fits(param, arg)
		}
		if same {
			exact = append(exact, f)
		}
		if fits {
			fitting = append(fitting, f)
		}
	}
	switch {
	case len(exact) > 0:
		return exact
	case len(fitting) > 0:
		return fitting
	}
	return found
}

// unreadable is for a function of which nothing is known.
func (a *analyzer) unreadable(o sql.Object, args []value) value {
	if !a.s.options.Strict {
		return derive(args...)
	}
	if a.tables > 0 {
		a.reach = a.reach.Union(a.s.masks)
		return derive(args...)
	}
	if a.owner == 0 {
		a.deny(fmt.Sprintf("the function %s can not be read, and what it shows of masked columns is not known", o.Name))
	}
	v := a.anything()
	a.called = a.called.Union(a.s.masks)
	return derive(append(args, v)...)
}

// invoke is what a function gives for arguments.
func (a *analyzer) invoke(f *catalog.Function, args []value, shape callShape) value {
	if !f.Builtin() {
		args = slices.Clone(args)
		for i, arg := range args {
			if in := inputs(f); i < len(in) && !shape.cast {
				args[i] = a.coerced(arg, in[i].Type)
			}
		}
	}
	all := derive(args...)
	switch {
	case a.s.options.Trusted(f.Schema, f.Name):
		a.changes = a.changes || f.Volatility == 'v' && !f.Builtin()
		return a.result(f, args, all)
	case f.Builtin():
		return a.builtin(f, args, all)
	case f.Kind == catalog.Aggregate:
		for _, oid := range f.Supports {
			if support := a.catalog.Function(oid); support != nil && !support.Builtin() {
				all = derive(all, a.invoke(support, []value{all, all}, callShape{cast: true}))
			}
		}
		return a.result(f, args, all)
	case f.Language == "sql":
		return a.expand(f, args, shape)
	case f.Language == "c" || f.Language == "internal":
		known := harmless[f.Extension]
		if isRefused(f.Body) || f.Volatility != 'i' && !known {
			break
		}
		if f.Volatility == 'v' {
			a.store(all, "given to the function "+f.Name)
		}
		return a.result(f, args, all)
	}
	return a.result(f, args, a.unreadable(sql.Object{Schema: f.Schema, Name: f.Name}, args))
}

// coerced is an argument as its parameter's type.
func (a *analyzer) coerced(v value, typ uint32) value {
	if typ < catalog.FirstUserOID || typ == v.typ {
		return v
	}
	if made := a.coerce(v, typ, 0); !sameMasks(made, v) {
		return derive(made)
	}
	return v
}

// builtin is what a function of the server gives: what its arguments contain, but for those in the lists.
func (a *analyzer) builtin(f *catalog.Function, args []value, all value) value {
	switch {
	case isRefused(f.Name) || f.Name == "ts_rewrite" && len(args) == 2:
		a.deny(fmt.Sprintf("the function %s reads more than its arguments, and can not be masked", f.Name))
		return a.result(f, args, a.anything())
	case f.Volatility == 'v' && !forgetful[f.Name]:
		a.store(all, "given to the function "+f.Name)
	case silent[f.Name]:
		return a.result(f, args, value{})
	case choosing[f.Name] && len(args) > 0:
		chosen := args[0]
		switch f.Name {
		case "percentile_disc", "mode": // the value is the sorted one's, the argument says which
			chosen = args[len(args)-1].plus(derive(args[:len(args)-1]...))
		case "lag", "lead":
			if len(args) > 2 {
				chosen = either(args[0], args[2])
			}
			chosen = chosen.plus(derive(args[min(1, len(args)):min(2, len(args))]...))
		case "nth_value":
			chosen = chosen.plus(derive(args[1:]...))
		}
		return chosen
	}
	return a.result(f, args, all)
}

// result is a value as what a function returns: with the names of its fields, and its type.
func (a *analyzer) result(f *catalog.Function, args []value, v value) value {
	v = derive(v)
	v.typ = a.returned(f, args)
	var out []field
	for _, arg := range f.Arguments {
		if arg.Out() {
			part := typed(derive(v), arg.Type)
			if column, ok := telling[f.Name]; ok && f.Builtin() && column == arg.Name {
				part.masks = a.s.masks
			}
			out = append(out, field{arg.Name, part})
		}
	}
	if len(out) > 1 {
		v.fields = out
		v.masks = rowValue(row{fields: out}).masks
	}
	return v
}

// returned is the type of a function's result for arguments, 0 when it is not known.
func (a *analyzer) returned(f *catalog.Function, args []value) uint32 {
	isElement := func(typ uint32) bool {
		return typ == anyElement || typ == anyNonArray || typ == anyEnum || typ == anyCompatible || typ == anyCompatibleNonArray
	}
	isArray := func(typ uint32) bool { return typ == anyArray || typ == anyCompatibleArray }
	if !isElement(f.Returns) && !isArray(f.Returns) {
		if t := a.catalog.Type(f.Returns); t != nil && t.Kind == catalog.Pseudo && f.Returns != typeRecord && f.Returns != typeVoid {
			return 0
		}
		return f.Returns
	}
	for i, in := range inputs(f) {
		if i >= len(args) || args[i].typ == 0 {
			continue
		}
		given := args[i].typ
		if given == unknownType {
			given = typeText
		}
		t := a.catalog.Type(given)
		switch {
		case t == nil:
		case isElement(f.Returns) && isElement(in.Type), isArray(f.Returns) && isArray(in.Type):
			return given
		case isElement(f.Returns) && isArray(in.Type):
			return t.Element
		case isArray(f.Returns) && isElement(in.Type):
			return t.Array
		}
	}
	return 0
}
