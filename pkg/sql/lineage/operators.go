package lineage

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// operation is an expression with an operator, or one of the forms that the parser writes so.
func (a *analyzer) operation(e *pg.A_Expr, s *scope) value {
	var left *value
	if e.Lexpr != nil {
		v := a.expr(e.Lexpr, s)
		left = &v
	}
	var rights []value
	if items := e.Rexpr.GetList().GetItems(); items != nil { // IN and BETWEEN
		rights = a.each(items, s)
	} else {
		rights = []value{a.maybe(e.Rexpr, s)}
	}
	names := [][]*pg.Node{e.Name}
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_OP_ANY, pg.A_Expr_Kind_AEXPR_OP_ALL, pg.A_Expr_Kind_AEXPR_DISTINCT,
		pg.A_Expr_Kind_AEXPR_NOT_DISTINCT, pg.A_Expr_Kind_AEXPR_NULLIF, pg.A_Expr_Kind_AEXPR_IN, pg.A_Expr_Kind_AEXPR_LIKE,
		pg.A_Expr_Kind_AEXPR_ILIKE, pg.A_Expr_Kind_AEXPR_SIMILAR:
	case pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN, pg.A_Expr_Kind_AEXPR_BETWEEN_SYM,
		pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		names = between
	default:
		return a.unread(&pg.Node{Node: &pg.Node_AExpr{AExpr: e}}, s)
	}
	parts := slices.Clone(rights)
	if left != nil {
		parts = append(parts, *left)
	}
	for _, name := range names {
		for _, right := range rights {
			parts = append(parts, a.apply2(name, left, right))
		}
	}
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_NULLIF:
		if left != nil {
			return left.plus(derive(rights...))
		}
	case pg.A_Expr_Kind_AEXPR_OP:
		v := derive(parts...)
		if left != nil {
			v.typ = resultType(sql.Name(e.Name).Name, left.typ, rights[0].typ)
		}
		return v
	}
	return typed(derive(parts...), typeBool)
}

// between are the operators of BETWEEN.
var between = [][]*pg.Node{operatorName(">="), operatorName("<=")}

func operatorName(name string) []*pg.Node { return []*pg.Node{pg.MakeStrNode(name)} }

// resultType is the type that an operator of the server gives, where that is plain; else 0.
func resultType(name string, left, right uint32) uint32 {
	switch name {
	case "=", "<>", "!=", "<", ">", "<=", ">=", "~", "~*", "!~", "!~*", "~~", "!~~", "~~*", "!~~*", "@>", "<@", "?", "?|", "?&", "&&", "@@", "@?":
		return typeBool
	case "->>", "#>>":
		return typeText
	case "->", "#>":
		return left
	case "+", "-", "*", "/", "%", "||":
		if left == right && left != unknownType {
			return left
		}
	}
	return 0
}

// operator is what an operator between two values gives.
func (a *analyzer) operator(name []*pg.Node, left, right value) value {
	return a.apply2(name, &left, right)
}

// apply2 is what an operator gives; left is nil for a prefix operator. The server's own have no part but in their operands; the others are
// functions.
func (a *analyzer) apply2(name []*pg.Node, left *value, right value) value {
	o := sql.Name(name)
	args := []value{right}
	if left != nil {
		args = []value{*left, right}
	}
	result := derive(args...)
	if a.changed.dirty(o.Name) || !a.catalog.KnowsOperator(o.Name) {
		a.missing = true
		return a.unreadable(o, args)
	}
	for _, op := range a.catalog.Operators(o.Name) {
		if !a.inSight(o.Schema, op.Schema) || (op.Left == 0) != (left == nil) || !a.fits(op.Right, right) ||
			left != nil && !a.fits(op.Left, *left) {
			continue
		}
		f := a.catalog.Function(op.Function)
		if f == nil {
			result = derive(result, a.unreadable(o, args))
			continue
		}
		result = derive(result, a.invoke(f, args, callShape{}))
	}
	return result
}

// fits is whether a value may be given for a parameter of a type, with the conversions that are not asked for.
func (a *analyzer) fits(param uint32, v value) bool {
	arg := v.typ
	if param == arg || arg == 0 || arg == unknownType {
		return true
	}
	p, t := a.catalog.Type(param), a.catalog.Type(arg)
	if p == nil || t == nil {
		return true
	}
	if p.Kind == catalog.Pseudo {
		return a.fitsAny(p.Name, t)
	}
	for t.Kind == catalog.Domain { // is its base's value
		if t = a.catalog.Type(t.Element); t == nil || t.OID == param {
			return true
		}
	}
	if p.OID < catalog.FirstUserOID && t.OID < catalog.FirstUserOID {
		if strings.HasPrefix(p.Name, "reg") && family(t.Name) == "string" {
			return true
		}
		return family(p.Name) == family(t.Name) || t.Kind == catalog.Array && p.Kind == catalog.Array
	}
	if p.Kind == catalog.Array && t.Kind == catalog.Array {
		return a.fits(p.Element, value{typ: t.Element})
	}
	for _, c := range a.catalog.Casts() {
		if c.Source == t.OID && c.Target == param && c.Implicit {
			return true
		}
	}
	return p.Kind == catalog.Domain && a.fits(p.Element, v)
}

// fitsAny is whether a value of a type may be given for a parameter of a polymorphic one ("Polymorphic Types" in the PostgreSQL manual).
func (a *analyzer) fitsAny(param string, t *catalog.Type) bool {
	for t.Kind == catalog.Domain {
		if t = a.catalog.Type(t.Element); t == nil {
			return true
		}
	}
	switch param {
	case "anyarray", "anycompatiblearray":
		return t.Kind == catalog.Array || t.Kind == catalog.Pseudo || t.Name == "int2vector" || t.Name == "oidvector"
	case "anynonarray", "anycompatiblenonarray":
		return t.Kind != catalog.Array
	case "anyrange", "anycompatiblerange":
		return t.Kind == catalog.Range || t.Kind == catalog.Pseudo
	case "anymultirange", "anycompatiblemultirange":
		return t.Kind == catalog.Multirange || t.Kind == catalog.Pseudo
	case "anyenum":
		return t.Kind == catalog.Enum || t.Kind == catalog.Pseudo
	}
	return true
}

// family is a name for the server's own types of which one is taken for another without a cast.
func family(name string) string {
	switch name {
	case "int2", "int4", "int8", "numeric", "float4", "float8", "money", "oid", "regclass", "regproc", "regprocedure", "regtype", "regrole",
		"regnamespace", "regoper", "regoperator", "regconfig", "regdictionary", "regcollation":
		return "number"
	case "text", "varchar", "bpchar", "name", "char", "xml", "pg_node_tree":
		return "string"
	case "date", "timestamp", "timestamptz", "time", "timetz", "interval":
		return "time"
	case "inet", "cidr":
		return "network"
	case "bit", "varbit":
		return "bits"
	}
	return name
}

// castTo is v as a value of the type that is named.
func (a *analyzer) castTo(v value, name *pg.TypeName) value {
	if name == nil {
		return v
	}
	t := a.typeName(name)
	if t == nil {
		if o := sql.Name(name.Names); !name.PctType && (a.changed.dirty(o.Name) || len(a.catalog.TypesNamed(o.Name)) == 0) {
			a.missing = true
			a.store(v, "given to a type that is not known")
		}
		if !name.PctType {
			for _, t := range a.catalog.TypesNamed(sql.Name(name.Names).Name) { // any of several
				v = derive(v, a.coerce(v, t.OID, 0))
			}
		}
		return derive(v)
	}
	return a.castType(v, t, len(name.Typmods) == 0)
}

// castType is v as a value of a type; whole is true when the type has no modifier that shortens it.
func (a *analyzer) castType(v value, t *catalog.Type, whole bool) value {
	same := v.typ == t.OID || isText(v.typ) && isText(t.OID)
	made := a.coerce(v, t.OID, 0)
	if !sameMasks(made, v) || !same || !whole {
		fields := v.fields
		relation := a.catalog.Relation(t.Relation)
		v = derive(v, made)
		if relation != nil && len(fields) == len(relation.Columns) {
			v.fields = make([]field, len(fields))
			for i, f := range fields {
				v.fields[i] = field{relation.Columns[i].Name, derive(f.value)}
				v.fields[i].value.typ = relation.Columns[i].Type
			}
		}
	}
	v.typ = t.OID
	return v
}

func isText(typ uint32) bool { return typ == typeText || typ == typeVarchar }

// coerce has a value converted to a type: casts that are functions are called, and a domain's constraints. It is the value with what these
// add. depth ends at types that hold themselves.
func (a *analyzer) coerce(v value, typ uint32, depth int) value {
	t := a.catalog.Type(typ)
	if t == nil || depth > 8 {
		return v
	}
	result := v
	if len(a.catalog.Casts()) > 0 && v.typ != unknownType {
		source := v.typ
		for d := a.catalog.Type(source); d != nil && d.Kind == catalog.Domain; d = a.catalog.Type(source) {
			source = d.Element
		}
		for _, c := range a.catalog.Casts() {
			if c.Target != typ || c.Function == 0 || source != 0 && source != c.Source {
				continue
			}
			if f := a.catalog.Function(c.Function); f != nil {
				result = derive(result, a.invoke(f, []value{v}, callShape{cast: true}))
			}
		}
	}
	if typ < catalog.FirstUserOID && t.Kind != catalog.Array {
		return result
	}
	inner := v
	inner.typ = 0
	switch t.Kind {
	case catalog.Domain:
		a.tables++
		for _, check := range t.Checks {
			a.expression(check, &scope{items: []*item{{row: row{fields: []field{{"value", v}}}, columns: true}}})
		}
		a.tables--
		return derive(result, a.coerce(v, t.Element, depth+1))
	case catalog.Array:
		if e := a.catalog.Type(v.typ); e != nil {
			inner.typ = e.Element
		}
		return derive(result, a.coerce(inner, t.Element, depth+1))
	case catalog.Composite:
		if r := a.catalog.Relation(t.Relation); r != nil && r.Kind == catalog.CompositeType {
			for i := range r.Columns {
				if r.Columns[i].Type >= catalog.FirstUserOID {
					result = derive(result, a.coerce(inner, r.Columns[i].Type, depth+1))
				}
			}
		}
	}
	return result
}
