package lineage

import (
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// OIDs of the server's own types (pg_type.dat of PostgreSQL).
const (
	typeBool, typeInt8, typeInt4, typeText    = 16, 20, 23, 25
	typeVarchar, typeBpchar                   = 1043, 1042
	typeNumeric, typeBit, typeVoid            = 1700, 1560, 2278
	typeRecord, textArray                     = 2249, 1009
	anyElement, anyArray, anyNonArray         = 2283, 2277, 2776
	anyEnum, anyCompatible                    = 3500, 5077
	anyCompatibleArray, anyCompatibleNonArray = 5078, 5079
)

// maybe is expr for what may be left out.
func (a *analyzer) maybe(n *pg.Node, s *scope) value {
	if n == nil {
		return clean(unknownType)
	}
	return a.expr(n, s)
}

// list is an expression's parts, joined.
func (a *analyzer) list(nodes []*pg.Node, s *scope) value {
	parts := make([]value, len(nodes))
	for i, n := range nodes {
		parts[i] = a.expr(n, s)
	}
	return derive(parts...)
}

// expr is what an expression contains. What it has no case for may contain anything.
func (a *analyzer) expr(n *pg.Node, s *scope) value {
	a.nesting++
	defer func() { a.nesting-- }()
	if !a.spend() {
		return a.anything()
	}
	switch v := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		if len(v.ColumnRef.Fields) > 0 && v.ColumnRef.Fields[len(v.ColumnRef.Fields)-1].GetAStar() != nil {
			star, _ := a.star(n, s) // count(t.*), ROW(t.*)
			whole := rowValue(star)
			a.touch(whole)
			return whole
		}
		return a.columnRef(v.ColumnRef.Fields, s)
	case *pg.Node_AConst:
		return clean(constantType(v.AConst))
	case *pg.Node_ParamRef:
		if v, ok := s.params.number(int(v.ParamRef.Number)); ok {
			return v
		}
		return clean(unknownType)
	case *pg.Node_AExpr:
		return a.operation(v.AExpr, s)
	case *pg.Node_BoolExpr:
		return typed(a.list(v.BoolExpr.Args, s), typeBool)
	case *pg.Node_FuncCall:
		return a.call(v.FuncCall, s)
	case *pg.Node_TypeCast:
		return a.castTo(a.expr(v.TypeCast.Arg, s), v.TypeCast.TypeName)
	case *pg.Node_SubLink:
		return a.subLink(v.SubLink, s)
	case *pg.Node_CaseExpr:
		return a.caseExpr(v.CaseExpr, s)
	case *pg.Node_CoalesceExpr:
		return either(a.each(v.CoalesceExpr.Args, s)...)
	case *pg.Node_MinMaxExpr:
		return either(a.each(v.MinMaxExpr.Args, s)...)
	case *pg.Node_NullTest: // that a value is there is not the value
		a.expr(v.NullTest.Arg, s)
		return typed(value{}, typeBool)
	case *pg.Node_BooleanTest:
		return typed(derive(a.expr(v.BooleanTest.Arg, s)), typeBool)
	case *pg.Node_CollateClause:
		return a.expr(v.CollateClause.Arg, s)
	case *pg.Node_NamedArgExpr:
		return a.expr(v.NamedArgExpr.Arg, s)
	case *pg.Node_RowExpr:
		return a.rowExpr(v.RowExpr, s)
	case *pg.Node_AArrayExpr:
		return a.array(v.AArrayExpr, s)
	case *pg.Node_AIndirection:
		if _, ok := a.star(n, s); ok {
			return a.indirection(v.AIndirection.Arg, v.AIndirection.Indirection[:len(v.AIndirection.Indirection)-1], s)
		}
		return a.indirection(v.AIndirection.Arg, v.AIndirection.Indirection, s)
	case *pg.Node_MultiAssignRef:
		source := a.expr(v.MultiAssignRef.Source, s)
		if at := int(v.MultiAssignRef.Colno) - 1; at >= 0 && at < len(source.fields) {
			return source.fields[at].value
		}
		return derive(source)
	case *pg.Node_List:
		return a.list(v.List.Items, s)
	case *pg.Node_GroupingFunc: // which columns are grouped by, not their values
		return clean(0)
	case *pg.Node_SqlvalueFunction, *pg.Node_MergeSupportFunc, *pg.Node_SetToDefault, *pg.Node_CurrentOfExpr:
		return clean(0)
	case *pg.Node_XmlSerialize:
		return a.castTo(a.expr(v.XmlSerialize.Expr, s), v.XmlSerialize.TypeName)
	case *pg.Node_XmlExpr:
		return a.children(v.XmlExpr, s)
	case *pg.Node_JsonIsPredicate, *pg.Node_JsonParseExpr, *pg.Node_JsonScalarExpr, *pg.Node_JsonSerializeExpr, *pg.Node_JsonFuncExpr,
		*pg.Node_JsonObjectConstructor, *pg.Node_JsonArrayConstructor, *pg.Node_JsonKeyValue, *pg.Node_JsonValueExpr,
		*pg.Node_JsonArgument:
		return a.children(sql.Inner(n), s)
	case *pg.Node_JsonArrayQueryConstructor:
		v2 := derive(rowValue(a.query(v.JsonArrayQueryConstructor.Query, s)))
		return a.jsonOutput(v2, v.JsonArrayQueryConstructor.Output)
	case *pg.Node_JsonObjectAgg:
		return derive(a.children(v.JsonObjectAgg.Arg, s), a.jsonAggregate(v.JsonObjectAgg.Constructor, s))
	case *pg.Node_JsonArrayAgg:
		return derive(a.children(v.JsonArrayAgg.Arg, s), a.jsonAggregate(v.JsonArrayAgg.Constructor, s))
	case *pg.Node_ResTarget: // an attribute of XMLELEMENT and the like
		return a.maybe(v.ResTarget.Val, s)
	}
	return a.unread(n, s)
}

// each is expr for several.
func (a *analyzer) each(nodes []*pg.Node, s *scope) []value {
	values := make([]value, len(nodes))
	for i, n := range nodes {
		values[i] = a.expr(n, s)
	}
	return values
}

// typed is v as a value of a type.
func typed(v value, typ uint32) value {
	v.typ = typ
	return v
}

// constantType is the OID of a constant's type.
func constantType(c *pg.A_Const) uint32 {
	switch v := c.GetVal().(type) {
	case *pg.A_Const_Ival:
		return typeInt4
	case *pg.A_Const_Fval:
		if n, err := strconv.ParseInt(v.Fval.GetFval(), 0, 64); err == nil && n != 0 {
			return typeInt8
		}
		return typeNumeric
	case *pg.A_Const_Boolval:
		return typeBool
	case *pg.A_Const_Bsval:
		return typeBit
	}
	return unknownType
}

// children is what an expression contains that is made of all that it holds, which are expressions.
func (a *analyzer) children(m proto.Message, s *scope) value {
	if m == nil || !m.ProtoReflect().IsValid() {
		return clean(0)
	}
	var parts []value
	sql.EachChild(m, func(_ protoreflect.Name, child proto.Message) bool {
		switch c := child.(type) {
		case *pg.Node:
			parts = append(parts, a.expr(c, s))
		case *pg.TypeName:
			parts = append(parts, a.castTo(derive(parts...), c))
		default:
			parts = append(parts, a.children(c, s))
		}
		return true
	})
	return derive(parts...)
}

// unread is for a part of a tree that is not known here: it may reach all that it names, and contain all that the statement reaches.
func (a *analyzer) unread(n *pg.Node, s *scope) value {
	if m := sql.Inner(n); m != nil {
		a.reachAll(m, s)
	}
	v := a.unknown()
	a.touch(v)
	if !a.s.options.Strict {
		return derive(value{masks: a.touched})
	}
	return v
}

// reachAll notes every relation that a part of a tree names.
func (a *analyzer) reachAll(m proto.Message, s *scope) {
	sql.EachChild(m, func(_ protoreflect.Name, child proto.Message) bool {
		switch c := child.(type) {
		case *pg.RangeVar:
			a.rangeVar(c)
		case *pg.FuncCall:
			a.call(c, s)
			return true
		case *pg.Node:
			switch inner := c.GetNode().(type) {
			case *pg.Node_RangeVar:
				a.rangeVar(inner.RangeVar)
				return true
			case *pg.Node_FuncCall:
				a.call(inner.FuncCall, s)
				return true
			}
		}
		a.reachAll(child, s)
		return true
	})
}

func (a *analyzer) jsonOutput(v value, o *pg.JsonOutput) value {
	if o == nil {
		return v
	}
	return a.castTo(v, o.TypeName)
}

func (a *analyzer) jsonAggregate(c *pg.JsonAggConstructor, s *scope) value {
	if c == nil {
		return value{}
	}
	a.aggregateClauses(c.AggOrder, c.AggFilter, c.Over, s)
	return a.jsonOutput(value{}, c.Output)
}

// subLink is a subquery in an expression.
func (a *analyzer) subLink(l *pg.SubLink, s *scope) value {
	test := a.maybe(l.Testexpr, s)
	r := a.query(l.Subselect, s)
	whole := rowValue(r)
	switch l.SubLinkType {
	case pg.SubLinkType_EXISTS_SUBLINK:
		return typed(value{}, typeBool)
	case pg.SubLinkType_EXPR_SUBLINK, pg.SubLinkType_MULTIEXPR_SUBLINK:
		a.touch(whole)
		if len(r.fields) == 1 && !r.open {
			return r.fields[0].value
		}
		return whole
	case pg.SubLinkType_ARRAY_SUBLINK:
		a.touch(whole)
		v := derive(whole)
		if len(r.fields) == 1 {
			if t := a.catalog.Type(r.fields[0].value.typ); t != nil {
				v.typ = t.Array
			}
		}
		return v
	}
	a.touch(whole)
	name := l.OperName
	if len(name) == 0 {
		name = equality
	}
	element := whole
	if len(r.fields) == 1 {
		element = r.fields[0].value
	}
	return typed(derive(a.operator(name, test, element), test, whole), typeBool)
}

// caseExpr is CASE: its value is one of the results, chosen by the conditions.
func (a *analyzer) caseExpr(c *pg.CaseExpr, s *scope) value {
	var conditions, results []value
	var operand value
	if c.Arg != nil {
		operand = a.expr(c.Arg, s)
		conditions = append(conditions, operand)
	}
	for _, n := range c.Args {
		when := n.GetCaseWhen()
		condition := a.expr(when.GetExpr(), s)
		if c.Arg != nil {
			condition = derive(condition, a.operator(equality, operand, condition))
		}
		conditions = append(conditions, condition)
		results = append(results, a.expr(when.GetResult(), s))
	}
	if c.Defresult != nil {
		results = append(results, a.expr(c.Defresult, s))
	}
	chosen := derive(conditions...)
	if chosen.secret() {
		a.use("CASE", chosen.masks, chosen.unknown)
	}
	return either(results...).plus(chosen)
}

// rowExpr is ROW(…), whose fields are named f1, f2 ….
func (a *analyzer) rowExpr(r *pg.RowExpr, s *scope) value {
	var all row
	for _, n := range r.Args {
		if star, ok := a.star(n, s); ok {
			for _, f := range star.fields {
				a.touch(f.value)
			}
			all = all.append(star)
			continue
		}
		all.fields = append(all.fields, field{"", a.expr(n, s)})
	}
	fields := make([]field, len(all.fields))
	for i, f := range all.fields {
		fields[i] = field{"f" + strconv.Itoa(i+1), f.value}
	}
	all.fields = fields
	return rowValue(all)
}

func (a *analyzer) array(x *pg.A_ArrayExpr, s *scope) value {
	elements := a.each(x.Elements, s)
	one := either(elements...)
	v := derive(elements...)
	switch t := a.catalog.Type(one.typ); {
	case one.typ == unknownType:
		v.typ = textArray
	case t == nil:
	case t.Kind == catalog.Array:
		v.typ = one.typ
	default:
		v.typ = t.Array
	}
	return v
}
