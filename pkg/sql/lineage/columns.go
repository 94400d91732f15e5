package lineage

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// star is what an item of a SELECT list stands for that ends with .*, or is *; ok is false for others.
func (a *analyzer) star(n *pg.Node, s *scope) (r row, ok bool) {
	switch v := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		fields := v.ColumnRef.Fields
		if len(fields) == 0 || fields[len(fields)-1].GetAStar() == nil {
			return row{}, false
		}
		switch len(fields) {
		case 1:
			return s.visible(), true
		default:
			o := sql.Name(fields[:len(fields)-1])
			if i := s.item(o.Schema, o.Name); i != nil {
				return i.row, true
			}
			return a.fieldsOf(a.columnRef(fields[:len(fields)-1], s)), true
		}
	case *pg.Node_AIndirection:
		in := v.AIndirection.Indirection
		if len(in) == 0 || in[len(in)-1].GetAStar() == nil {
			return row{}, false
		}
		return a.fieldsOf(a.indirection(v.AIndirection.Arg, in[:len(in)-1], s)), true
	}
	return row{}, false
}

// fieldsOf is a row value's columns.
func (a *analyzer) fieldsOf(v value) row {
	if len(v.fields) > 0 {
		return row{fields: v.fields}
	}
	if fields := a.compositeFields(v.typ, v); fields != nil {
		return row{fields: fields}
	}
	return row{open: true, rest: v}
}

// compositeFields are the fields of a composite type, each of which may contain what v does; nil when it is not known to be one.
func (a *analyzer) compositeFields(typ uint32, v value) []field {
	t := a.catalog.Type(typ)
	if t == nil {
		return nil
	}
	if t.Kind == 'd' {
		return a.compositeFields(t.Element, v)
	}
	r := a.catalog.Relation(t.Relation)
	if r == nil {
		return nil
	}
	fields := make([]field, len(r.Columns))
	for i := range r.Columns {
		part := derive(v)
		part.typ = r.Columns[i].Type
		fields[i] = field{r.Columns[i].Name, part}
	}
	return fields
}

// columnRef is a name with or without dots: a column, a row, a parameter, or a function of a row in attribute notation.
func (a *analyzer) columnRef(names []*pg.Node, s *scope) value {
	v := a.resolve(names, s)
	a.touch(v)
	return v
}

func (a *analyzer) resolve(names []*pg.Node, s *scope) value {
	last := names[len(names)-1].GetString_().GetSval()
	if len(names) == 1 {
		if v, ok := s.column(last); ok {
			return v
		}
		if i := s.item("", last); i != nil {
			return i.whole()
		}
		if v, ok := s.params.named(last); ok {
			return v
		}
		return a.absent()
	}
	o := sql.Name(names[:len(names)-1])
	if i := s.item(o.Schema, o.Name); i != nil {
		v, found, sure := i.column(last)
		switch {
		case found && sure:
			return v
		case found: // else a function of the row
			return derive(v, rowValue(i.row))
		}
		return a.attribute(i.whole(), last)
	}
	// A parameter, or the field of one: function.parameter, parameter.field, function.parameter.field.
	if s.params != nil {
		if v, ok := s.params.named(o.Name); ok {
			return a.attribute(v, last)
		}
		if v, ok := s.params.named(last); ok && o.Name == s.params.function {
			return v
		}
	}
	// database.schema.relation.column is read as schema.relation.column; else it is nothing that the server knows.
	return a.absent()
}

// attribute is one field of a row, or a function of it: t.f is f(t) where t has no column of that name.
func (a *analyzer) attribute(v value, name string) value {
	if f, ok := v.find(name); ok {
		return f
	}
	if len(v.fields) == 0 {
		if fields := a.compositeFields(v.typ, v); fields != nil {
			for _, f := range fields {
				if f.name == name {
					return f.value
				}
			}
		}
	}
	if a.anyFunction(name) {
		return a.apply(sql.Object{Name: name}, []value{v}, callShape{})
	}
	return derive(v)
}

// indirection is an expression with subscripts and fields behind it.
func (a *analyzer) indirection(arg *pg.Node, path []*pg.Node, s *scope) value {
	v := a.expr(arg, s)
	for _, n := range path {
		switch p := n.GetNode().(type) {
		case *pg.Node_String_:
			v = a.attribute(v, p.String_.Sval)
		case *pg.Node_AIndices:
			typ := uint32(0)
			if t := a.catalog.Type(v.typ); t != nil && t.Kind == 'a' && !p.AIndices.IsSlice {
				typ = t.Element
			}
			v = derive(v, a.maybe(p.AIndices.Lidx, s), a.maybe(p.AIndices.Uidx, s))
			v.typ = typ
		case *pg.Node_AStar: // where no list of columns may stand the server says so
		default:
			v = derive(v, a.unread(n, s))
		}
	}
	return v
}

// columnName is the name that the server gives a column of a result that has none (FigureColname in parse_target.c of PostgreSQL).
func columnName(n *pg.Node) string {
	if name, _ := figure(n); name != "" {
		return name
	}
	return "?column?"
}

// figure is columnName with how good the name is: 2 for one that the expression says itself.
func figure(n *pg.Node) (name string, good int) {
	last := func(names []*pg.Node) string {
		for i := len(names) - 1; i >= 0; i-- {
			if s := names[i].GetString_(); s != nil {
				return s.Sval
			}
		}
		return ""
	}
	switch v := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		if name := last(v.ColumnRef.Fields); name != "" {
			return name, 2
		}
	case *pg.Node_AIndirection:
		if name := last(v.AIndirection.Indirection); name != "" {
			return name, 2
		}
		return figure(v.AIndirection.Arg)
	case *pg.Node_FuncCall:
		return last(v.FuncCall.Funcname), 2
	case *pg.Node_AExpr:
		if v.AExpr.Kind == pg.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif", 2
		}
	case *pg.Node_TypeCast:
		if name, good := figure(v.TypeCast.Arg); good == 2 {
			return name, good
		}
		return last(v.TypeCast.TypeName.GetNames()), 1
	case *pg.Node_CollateClause:
		return figure(v.CollateClause.Arg)
	case *pg.Node_GroupingFunc:
		return "grouping", 2
	case *pg.Node_MergeSupportFunc:
		return "merge_action", 2
	case *pg.Node_SubLink:
		switch v.SubLink.SubLinkType {
		case pg.SubLinkType_EXISTS_SUBLINK:
			return "exists", 2
		case pg.SubLinkType_ARRAY_SUBLINK:
			return "array", 2
		case pg.SubLinkType_EXPR_SUBLINK:
			return subqueryName(v.SubLink.Subselect.GetSelectStmt())
		}
	case *pg.Node_CaseExpr:
		if name, good := figure(v.CaseExpr.Defresult); good > 0 {
			return name, good
		}
		return "case", 1
	case *pg.Node_AArrayExpr:
		return "array", 2
	case *pg.Node_RowExpr:
		return "row", 2
	case *pg.Node_CoalesceExpr:
		return "coalesce", 2
	case *pg.Node_MinMaxExpr:
		return strings.ToLower(strings.TrimPrefix(v.MinMaxExpr.Op.String(), "IS_")), 2
	case *pg.Node_SqlvalueFunction:
		return valueFunctionName(v.SqlvalueFunction.Op), 2
	case *pg.Node_XmlExpr:
		if v.XmlExpr.Op == pg.XmlExprOp_IS_DOCUMENT {
			return "", 0
		}
		return strings.ToLower(strings.Replace(v.XmlExpr.Op.String(), "IS_XML", "XML", 1)), 2
	case *pg.Node_XmlSerialize:
		return "xmlserialize", 2
	case *pg.Node_JsonParseExpr:
		return "json", 2
	case *pg.Node_JsonScalarExpr:
		return "json_scalar", 2
	case *pg.Node_JsonSerializeExpr:
		return "json_serialize", 2
	case *pg.Node_JsonObjectConstructor:
		return "json_object", 2
	case *pg.Node_JsonArrayConstructor, *pg.Node_JsonArrayQueryConstructor:
		return "json_array", 2
	case *pg.Node_JsonObjectAgg:
		return "json_objectagg", 2
	case *pg.Node_JsonArrayAgg:
		return "json_arrayagg", 2
	case *pg.Node_JsonFuncExpr:
		switch v.JsonFuncExpr.Op {
		case pg.JsonExprOp_JSON_EXISTS_OP:
			return "json_exists", 2
		case pg.JsonExprOp_JSON_QUERY_OP:
			return "json_query", 2
		case pg.JsonExprOp_JSON_VALUE_OP:
			return "json_value", 2
		}
	}
	return "", 0
}

// subqueryName is the name of a subquery's only column.
func subqueryName(st *pg.SelectStmt) (string, int) {
	for st.GetLarg() != nil {
		st = st.Larg
	}
	if len(st.GetValuesLists()) > 0 {
		return "column1", 2
	}
	if len(st.GetTargetList()) == 0 {
		return "", 0
	}
	t := st.TargetList[0].GetResTarget()
	if t.GetName() != "" {
		return t.Name, 2
	}
	if name, good := figure(t.GetVal()); good > 0 {
		return name, 2
	}
	return "?column?", 2
}

// valueFunctionName is the name of CURRENT_DATE and the like.
func valueFunctionName(op pg.SQLValueFunctionOp) string {
	name := strings.ToLower(strings.TrimPrefix(op.String(), "SVFOP_"))
	return strings.TrimSuffix(name, "_n")
}
