package lineage

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// define is a statement that changes the catalog, or one that is not known.
func (a *analyzer) define(n *pg.Node, s *scope) row {
	a.changes = true
	switch v := n.GetNode().(type) {
	case *pg.Node_CreateTableAsStmt:
		a.createAs(v.CreateTableAsStmt, s)
	case *pg.Node_ViewStmt:
		a.createView(v.ViewStmt)
	case *pg.Node_CreateFunctionStmt:
		a.createFunction(v.CreateFunctionStmt)
	case *pg.Node_CreateStmt:
		a.createTable(v.CreateStmt)
	case *pg.Node_AlterTableStmt:
		a.alterTable(v.AlterTableStmt)
	case *pg.Node_RenameStmt:
		a.rename(v.RenameStmt)
	case *pg.Node_AlterObjectSchemaStmt:
		a.moveObject(v.AlterObjectSchemaStmt)
	case *pg.Node_AlterFunctionStmt:
		o := sql.Name(v.AlterFunctionStmt.Func.GetObjname())
		a.redefine(o)
		a.guardedFunction(o, "a change")
	case *pg.Node_IndexStmt:
		a.onTable(v.IndexStmt.Relation, v.IndexStmt, "")
	case *pg.Node_CreateStatsStmt:
		for _, r := range v.CreateStatsStmt.Relations {
			a.onTable(r.GetRangeVar(), v.CreateStatsStmt, "")
		}
	case *pg.Node_CreatePolicyStmt:
		a.guarded(v.CreatePolicyStmt.Table, "a row-security policy")
		a.onTable(v.CreatePolicyStmt.Table, v.CreatePolicyStmt, "")
	case *pg.Node_AlterPolicyStmt:
		a.guarded(v.AlterPolicyStmt.Table, "a row-security policy")
		a.onTable(v.AlterPolicyStmt.Table, v.AlterPolicyStmt, "")
	case *pg.Node_CreateTrigStmt:
		a.createTrigger(v.CreateTrigStmt)
	case *pg.Node_RuleStmt, *pg.Node_CreateEventTrigStmt, *pg.Node_AlterEventTrigStmt:
		a.strictly("rules and event triggers run later, and what they do with masked columns is not known then")
	case *pg.Node_CreateForeignTableStmt, *pg.Node_ImportForeignSchemaStmt, *pg.Node_CreateForeignServerStmt,
		*pg.Node_AlterForeignServerStmt, *pg.Node_CreateUserMappingStmt, *pg.Node_AlterUserMappingStmt, *pg.Node_CreateFdwStmt,
		*pg.Node_AlterFdwStmt, *pg.Node_CreateSubscriptionStmt, *pg.Node_AlterSubscriptionStmt, *pg.Node_CreatePublicationStmt,
		*pg.Node_AlterPublicationStmt:
		a.strictly("foreign data and replication would be another way to masked columns")
	case *pg.Node_CreateDomainStmt:
		a.constraints(v.CreateDomainStmt.Constraints, a.domainScope())
		a.made.name(sql.Name(v.CreateDomainStmt.Domainname).Name)
	case *pg.Node_AlterDomainStmt:
		if c := v.AlterDomainStmt.Def.GetConstraint(); c != nil {
			a.constraints([]*pg.Node{v.AlterDomainStmt.Def}, a.domainScope())
		} else if v.AlterDomainStmt.Def != nil {
			a.store(a.expr(v.AlterDomainStmt.Def, &scope{}), "stored by a default")
		}
		a.made.name(sql.Name(v.AlterDomainStmt.TypeName).Name)
	case *pg.Node_CreateSchemaStmt:
		a.addPath(v.CreateSchemaStmt.Schemaname)
		for _, element := range v.CreateSchemaStmt.SchemaElts {
			a.command(element, s)
		}
	case *pg.Node_DefineStmt:
		a.made.name(sql.Name(v.DefineStmt.Defnames).Name)
		for _, option := range v.DefineStmt.Definition { // functions can not be told from types in the tree
			arg := option.GetDefElem().GetArg()
			for _, names := range [][]*pg.Node{arg.GetTypeName().GetNames(), arg.GetList().GetItems()} {
				a.guardedFunction(sql.Name(names), "a use")
			}
		}
	case *pg.Node_CompositeTypeStmt:
		a.made.name(v.CompositeTypeStmt.Typevar.GetRelname())
	case *pg.Node_CreateEnumStmt:
		a.made.name(sql.Name(v.CreateEnumStmt.TypeName).Name)
	case *pg.Node_CreateRangeStmt:
		a.made.name(sql.Name(v.CreateRangeStmt.TypeName).Name)
	case *pg.Node_CreateCastStmt:
		a.guardedFunction(sql.Name(v.CreateCastStmt.Func.GetObjname()), "a use")
		a.made.all = true
	case *pg.Node_CreateTransformStmt, *pg.Node_CreateConversionStmt, *pg.Node_CreateExtensionStmt,
		*pg.Node_AlterExtensionStmt, *pg.Node_AlterExtensionContentsStmt, *pg.Node_AlterTypeStmt, *pg.Node_AlterOperatorStmt:
		a.made.all = true
	case *pg.Node_DropStmt, *pg.Node_DropOwnedStmt, *pg.Node_ReassignOwnedStmt, *pg.Node_CreateSeqStmt, *pg.Node_AlterSeqStmt,
		*pg.Node_AlterEnumStmt, *pg.Node_AlterStatsStmt, *pg.Node_AlterTableMoveAllStmt, *pg.Node_AlterObjectDependsStmt,
		*pg.Node_AlterOwnerStmt, *pg.Node_AlterCollationStmt, *pg.Node_CreateOpClassStmt, *pg.Node_CreateOpFamilyStmt,
		*pg.Node_AlterOpFamilyStmt, *pg.Node_AlterTsdictionaryStmt, *pg.Node_AlterTsconfigurationStmt, *pg.Node_CreateAmStmt,
		*pg.Node_CreatePlangStmt, *pg.Node_DropSubscriptionStmt, *pg.Node_DropUserMappingStmt:
	case *pg.Node_CommentStmt, *pg.Node_SecLabelStmt, *pg.Node_GrantStmt, *pg.Node_GrantRoleStmt, *pg.Node_AlterDefaultPrivilegesStmt,
		*pg.Node_CreateRoleStmt, *pg.Node_AlterRoleStmt, *pg.Node_AlterRoleSetStmt, *pg.Node_DropRoleStmt, *pg.Node_CreatedbStmt,
		*pg.Node_AlterDatabaseStmt, *pg.Node_AlterDatabaseRefreshCollStmt, *pg.Node_AlterDatabaseSetStmt, *pg.Node_DropdbStmt,
		*pg.Node_AlterSystemStmt, *pg.Node_CreateTableSpaceStmt, *pg.Node_DropTableSpaceStmt, *pg.Node_AlterTableSpaceOptionsStmt:
		a.changes = false
	default:
		a.deny("the statement is not known to masking")
		return row{open: true, rest: a.anything()}
	}
	return row{}
}

// strictly denies where what is not known is denied.
func (a *analyzer) strictly(reason string) {
	if a.s.options.Strict {
		a.deny(reason)
	}
}

// guarded denies a change of a relation that shows masked columns: its own, or as a view those of others.
func (a *analyzer) guarded(r *pg.RangeVar, change string) {
	found, known := a.candidates(r.GetSchemaname(), r.GetRelname())
	for _, candidate := range found {
		v := rowValue(a.relation(candidate))
		if len(v.masks) > 0 || v.unknown && len(a.s.masks) > 0 {
			a.deny(change + " of what shows masked columns could show them unmasked")
		}
	}
	if !known {
		a.missing = true
	}
}

// guardedFunction denies a change of functions of a name, or a use of them under another name, that show or store masked values.
func (a *analyzer) guardedFunction(o sql.Object, change string) {
	for _, f := range a.catalog.FunctionsNamed(o.Name) {
		if !f.Builtin() && a.inSight(o.Schema, f.Schema) && !a.harmless(f) {
			a.deny(change + " of the function " + o.Name + ", which may show or store masked columns")
		}
	}
}

// harmless is whether a function shows nothing of masked columns but of its arguments, and stores nothing of these.
func (a *analyzer) harmless(f *catalog.Function) (ok bool) {
	before := a.effects
	defer func() { a.effects = before }()
	a.effects = effects{}
	clean := make([]value, len(inputs(f)))
	secret := make([]value, len(clean))
	for i := range secret {
		secret[i] = value{masks: a.s.masks}
	}
	v := a.invoke(f, clean, callShape{})
	a.invoke(f, secret, callShape{})
	return !v.secret() && a.denied == "" && a.pending == ""
}

// onTable has all expressions of a statement about a table read: its functions run. stored says where their values go, "" if nowhere.
func (a *analyzer) onTable(r *pg.RangeVar, m proto.Message, stored string) {
	s := &scope{}
	if r != nil {
		s.items = []*item{a.rangeVar(r)}
	}
	v := a.expressions(m, s)
	if stored != "" {
		a.store(v, stored)
	}
}

// expressions are all that a definition holds: fields of the tree that are no names.
func (a *analyzer) expressions(m proto.Message, s *scope) value {
	var parts []value
	sql.EachChild(m, func(name protoreflect.Name, child proto.Message) bool {
		n, ok := child.(*pg.Node)
		if !ok {
			return true
		}
		switch inner := n.GetNode().(type) {
		case *pg.Node_IndexElem:
			parts = append(parts, a.maybe(inner.IndexElem.Expr, s))
		case *pg.Node_StatsElem:
			parts = append(parts, a.maybe(inner.StatsElem.Expr, s))
		default:
			switch name {
			case "where_clause", "qual", "with_check", "when_clause", "raw_expr":
				parts = append(parts, a.expr(n, s))
			}
		}
		return true
	})
	return derive(parts...)
}

// createAs is CREATE TABLE AS and CREATE MATERIALIZED VIEW.
func (a *analyzer) createAs(st *pg.CreateTableAsStmt, s *scope) {
	r := a.command(st.Query, s)
	if st.Query.GetExecuteStmt() != nil {
		a.strictly("what EXECUTE would have stored is not known")
	}
	a.store(rowValue(r), "stored by CREATE TABLE AS or a materialized view")
	a.created(st.Into.GetRel(), rename(r, st.Into.GetColNames()))
}

// created notes a new table.
func (a *analyzer) created(name *pg.RangeVar, r row) {
	made := &catalog.Relation{Schema: name.GetSchemaname(), Name: name.GetRelname(), Kind: catalog.Table}
	if name.GetRelpersistence() == "t" {
		made.Schema = "pg_temp"
	}
	for i, f := range r.fields {
		made.Columns = append(made.Columns, catalog.Column{Name: f.name, Attribute: int16(i + 1), Type: f.value.typ, Typmod: -1})
	}
	if r.open {
		a.made.name(made.Name)
		return
	}
	a.made.create(made, made.Name)
}

func (a *analyzer) createView(st *pg.ViewStmt) {
	name := st.View.GetRelname()
	if st.Replace {
		if found, known := a.candidates(st.View.GetSchemaname(), name); known || len(found) > 0 {
			a.guarded(st.View, "another definition")
		}
	}
	a.store(rowValue(a.query(st.Query, &scope{})), "shown by a view that is made where it is masked")
	a.made.name(name)
}

// redefine is a change of a function: one that is trusted must stay what it is.
func (a *analyzer) redefine(o sql.Object) {
	schemas := append([]string{"pg_catalog", o.Schema}, a.path...)
	for _, f := range a.catalog.FunctionsNamed(o.Name) {
		schemas = append(schemas, f.Schema)
	}
	for _, schema := range schemas {
		if a.s.options.Trusted(schema, o.Name) {
			a.deny("the function " + o.Name + " is trusted, and must not be changed where columns are masked")
		}
	}
	a.made.name(o.Name)
}

func (a *analyzer) createFunction(st *pg.CreateFunctionStmt) {
	o := sql.Name(st.Funcname)
	a.redefine(o)
	if st.Replace {
		for _, f := range a.catalog.FunctionsNamed(o.Name) {
			if !f.Builtin() && a.inSight(o.Schema, f.Schema) && f.Language == "sql" && !a.harmless(f) {
				a.deny("another body of the function " + o.Name + ", which shows or stores masked columns")
			}
		}
	}
	language, body := "", ""
	for _, n := range st.Options {
		switch o := n.GetDefElem(); o.GetDefname() {
		case "language":
			language = strings.ToLower(o.Arg.GetString_().GetSval())
		case "as":
			if items := o.Arg.GetList().GetItems(); len(items) > 0 {
				body = items[0].GetString_().GetSval()
			}
		}
	}
	p := &params{function: o.Name}
	for _, n := range st.Parameters {
		param := n.GetFunctionParameter()
		if param.GetDefexpr() != nil {
			a.expr(param.Defexpr, &scope{})
		}
		switch param.GetMode() {
		case pg.FunctionParameterMode_FUNC_PARAM_OUT, pg.FunctionParameterMode_FUNC_PARAM_TABLE:
			continue
		}
		v := clean(0)
		if t := a.typeName(param.GetArgType()); t != nil {
			v.typ = t.OID
		}
		p.fields = append(p.fields, field{param.GetName(), v})
	}
	if st.SqlBody == nil && language != "sql" && language != "" {
		a.strictly("the body of a function in " + language + " can not be read, and what it does with masked columns is not known")
		return
	}
	run := func() row {
		if st.SqlBody != nil {
			return a.bodyNode(st.SqlBody, &scope{params: p})
		}
		path := a.path // what it does now, and what it may do under another search path
		defer func() { a.path = path }()
		a.path = append(a.schemas(), path...)
		return a.body(body, p)
	}
	// Nobody may be able to tell a moment later that the function is another one.
	a.store(rowValue(run()), "shown by a function that is made where it is masked")
	for i := range p.fields {
		p.fields[i].value.masks = a.s.masks
	}
	a.within++
	run()
	a.within--
}

// schemas are all schemas that have relations or functions with masks in reach of a name.
func (a *analyzer) schemas() (all []string) {
	seen := map[string]bool{}
	a.catalog.Relations(func(r *catalog.Relation) bool {
		if !seen[r.Schema] && a.s.masked(r) {
			seen[r.Schema] = true
			all = append(all, r.Schema)
		}
		return true
	})
	return all
}

func (a *analyzer) createTrigger(st *pg.CreateTrigStmt) {
	a.guarded(st.Relation, "a trigger")
	o := sql.Name(st.Funcname)
	for _, f := range a.catalog.FunctionsNamed(o.Name) {
		if a.inSight(o.Schema, f.Schema) && !f.Builtin() && !a.s.options.Trusted(f.Schema, f.Name) {
			a.strictly("the trigger function " + o.Name + " can not be read, and what it does with masked columns is not known")
		}
	}
	if a.changed.dirty(o.Name) || len(a.catalog.FunctionsNamed(o.Name)) == 0 {
		a.missing = true
		a.strictly("the trigger function " + o.Name + " is not known")
	}
	a.onTable(nil, st, "")
}

// domainScope is what the constraints of a domain see: VALUE, which may be anything some time.
func (a *analyzer) domainScope() *scope {
	return &scope{items: []*item{{row: row{fields: []field{{"value", value{masks: a.s.masks}}}}, columns: true}}}
}
