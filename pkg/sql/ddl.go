package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// typeNames are what command tags call the types of objects, where that is not the name of the constant.
var typeNames = map[pg.ObjectType]string{
	pg.ObjectType_OBJECT_ATTRIBUTE:       "TABLE",
	pg.ObjectType_OBJECT_COLUMN:          "TABLE",
	pg.ObjectType_OBJECT_TABCONSTRAINT:   "TABLE",
	pg.ObjectType_OBJECT_DOMCONSTRAINT:   "DOMAIN",
	pg.ObjectType_OBJECT_FDW:             "FOREIGN DATA WRAPPER",
	pg.ObjectType_OBJECT_FOREIGN_SERVER:  "SERVER",
	pg.ObjectType_OBJECT_LARGEOBJECT:     "LARGE OBJECT",
	pg.ObjectType_OBJECT_MATVIEW:         "MATERIALIZED VIEW",
	pg.ObjectType_OBJECT_OPCLASS:         "OPERATOR CLASS",
	pg.ObjectType_OBJECT_OPFAMILY:        "OPERATOR FAMILY",
	pg.ObjectType_OBJECT_STATISTIC_EXT:   "STATISTICS",
	pg.ObjectType_OBJECT_TSCONFIGURATION: "TEXT SEARCH CONFIGURATION",
	pg.ObjectType_OBJECT_TSDICTIONARY:    "TEXT SEARCH DICTIONARY",
	pg.ObjectType_OBJECT_TSPARSER:        "TEXT SEARCH PARSER",
	pg.ObjectType_OBJECT_TSTEMPLATE:      "TEXT SEARCH TEMPLATE",
}

func typeName(t pg.ObjectType) string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return strings.ReplaceAll(strings.TrimPrefix(t.String(), "OBJECT_"), "_", " ")
}

// named notes the object that n names: a relation, function, type or the like, of whatever form such a name has in the tree. A schema is
// noted as "schema.*". Roles, databases and others that are in no schema are not noted.
func (w *walker) named(t pg.ObjectType, n *pg.Node) {
	list := n.GetList().GetItems()
	switch t {
	case pg.ObjectType_OBJECT_SCHEMA:
		w.writeSchema(n.GetString_().GetSval())
	case pg.ObjectType_OBJECT_CAST, pg.ObjectType_OBJECT_TRANSFORM: // types
	case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_ATTRIBUTE, pg.ObjectType_OBJECT_TABCONSTRAINT, pg.ObjectType_OBJECT_TRIGGER,
		pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY: // table, then name
		if len(list) > 1 {
			w.writeName(list[:len(list)-1])
		}
	case pg.ObjectType_OBJECT_OPCLASS, pg.ObjectType_OBJECT_OPFAMILY: // access method, then name
		if len(list) > 1 {
			w.writeName(list[1:])
		}
	case pg.ObjectType_OBJECT_DOMCONSTRAINT:
		if len(list) > 0 {
			w.writeName(list[0].GetTypeName().GetNames())
		}
	case pg.ObjectType_OBJECT_TYPE, pg.ObjectType_OBJECT_DOMAIN:
		w.writeName(n.GetTypeName().GetNames())
		w.writeName(list)
	default:
		w.writeName(list)
		w.node(n) // RangeVar, ObjectWithArgs
	}
}

func dropCommand(w *walker, m proto.Message) {
	s := m.(*pg.DropStmt)
	w.unit.Verb = "DROP " + typeName(s.RemoveType)
	for _, n := range s.Objects {
		w.named(s.RemoveType, n)
	}
}

func alterTableCommand(w *walker, m proto.Message) {
	s := m.(*pg.AlterTableStmt)
	w.unit.Verb = "ALTER " + typeName(s.Objtype)
	w.children(s)
}

func alterTableAllCommand(w *walker, m proto.Message) {
	w.unit.Verb = "ALTER " + typeName(m.(*pg.AlterTableMoveAllStmt).Objtype)
	w.writeSchema("*")
}

func renameCommand(w *walker, m proto.Message) {
	s := m.(*pg.RenameStmt)
	t := s.RenameType
	if t == pg.ObjectType_OBJECT_COLUMN || t == pg.ObjectType_OBJECT_ATTRIBUTE {
		t = s.RelationType
	}
	w.unit.Verb = "ALTER " + typeName(t)
	w.write(s.Relation)
	w.named(s.RenameType, s.Object)
	switch s.RenameType {
	case pg.ObjectType_OBJECT_SCHEMA:
		w.writeSchema(s.Subname)
		w.writeSchema(s.Newname)
		w.mayResolveTo(s.Newname)
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_SEQUENCE,
		pg.ObjectType_OBJECT_INDEX, pg.ObjectType_OBJECT_FOREIGN_TABLE:
		w.note(&w.unit.Writes, Object{s.Relation.GetSchemaname(), s.Newname})
	case pg.ObjectType_OBJECT_FUNCTION, pg.ObjectType_OBJECT_PROCEDURE, pg.ObjectType_OBJECT_ROUTINE, pg.ObjectType_OBJECT_AGGREGATE:
		w.note(&w.unit.Functions, Object{objectOf(s.Object.GetObjectWithArgs().GetObjname()).Schema, s.Newname})
	case pg.ObjectType_OBJECT_ROLE:
		w.unit.Kind = KindDCL
	}
}

func objectSchemaCommand(w *walker, m proto.Message) {
	s := m.(*pg.AlterObjectSchemaStmt)
	w.unit.Verb = "ALTER " + typeName(s.ObjectType)
	w.write(s.Relation)
	w.named(s.ObjectType, s.Object)
	for _, o := range w.unit.Writes {
		w.note(&w.unit.Writes, Object{s.Newschema, o.Name})
	}
	for _, o := range w.unit.Functions {
		w.note(&w.unit.Functions, Object{s.Newschema, o.Name})
	}
}

func objectDependsCommand(w *walker, m proto.Message) {
	s := m.(*pg.AlterObjectDependsStmt)
	w.unit.Verb = "ALTER " + typeName(s.ObjectType)
	w.write(s.Relation)
	w.named(s.ObjectType, s.Object)
}

func ownerCommand(w *walker, m proto.Message) {
	s := m.(*pg.AlterOwnerStmt)
	w.unit.Verb = "ALTER " + typeName(s.ObjectType)
	w.write(s.Relation)
	w.named(s.ObjectType, s.Object)
}

func commentCommand(w *walker, m proto.Message) {
	s := m.(*pg.CommentStmt)
	w.named(s.Objtype, s.Object)
}

func securityLabelCommand(w *walker, m proto.Message) {
	s := m.(*pg.SecLabelStmt)
	w.named(s.Objtype, s.Object)
}

func extensionContentsCommand(w *walker, m proto.Message) {
	s := m.(*pg.AlterExtensionContentsStmt)
	w.named(s.Objtype, s.Object)
}

// createAsCommand is CREATE TABLE AS and CREATE MATERIALIZED VIEW; the query is a unit of its own.
func createAsCommand(w *walker, m proto.Message) {
	s := m.(*pg.CreateTableAsStmt)
	w.unit.Verb = "CREATE TABLE AS"
	if s.Objtype == pg.ObjectType_OBJECT_MATVIEW {
		w.unit.Verb = "CREATE MATERIALIZED VIEW"
	}
	w.write(s.Into.GetRel())
	w.command(inner(s.Query))
}

func createForeignTableCommand(w *walker, m proto.Message) {
	if s := m.(*pg.CreateForeignTableStmt); s.BaseStmt != nil {
		w.children(s.BaseStmt)
	}
}

// createSchemaCommand is CREATE SCHEMA with its elements, which come to be in the new schema.
func createSchemaCommand(w *walker, m proto.Message) {
	s := m.(*pg.CreateSchemaStmt)
	name := s.Schemaname
	if name == "" {
		name = s.Authrole.GetRolename()
	}
	if name == "" { // AUTHORIZATION CURRENT_USER
		name = "$user"
	}
	w.writeSchema(name)
	w.mayResolveTo(name)
	w.schema = name
	w.commands(s.SchemaElts)
	w.schema = ""
}

// mayResolveTo notes a schema that comes into being: it may stand in the search path already, where it had no effect so far.
func (w *walker) mayResolveTo(schema string) {
	w.statement.SearchPathChanged = true
	w.statement.SearchPath = append(w.statement.SearchPath, schema)
}

func sequenceCommand(w *walker, m proto.Message) {
	var options []*pg.Node
	switch s := m.(type) {
	case *pg.CreateSeqStmt:
		w.write(s.Sequence)
		options = s.Options
	case *pg.AlterSeqStmt:
		w.write(s.Sequence)
		options = s.Options
	}
	for _, n := range options {
		if o := n.GetDefElem(); o.GetDefname() == "owned_by" {
			w.named(pg.ObjectType_OBJECT_COLUMN, o.Arg)
		}
	}
}

// ruleCommand is CREATE RULE; what the rule does is a unit each.
func ruleCommand(w *walker, m proto.Message) {
	s := m.(*pg.RuleStmt)
	w.write(s.Relation)
	w.writing = false
	w.node(s.WhereClause)
	w.commands(s.Actions)
}

func triggerCommand(w *walker, m proto.Message) {
	s := m.(*pg.CreateTrigStmt)
	w.write(s.Relation)
	w.read(s.Constrrel)
	w.function(s.Funcname)
	w.node(s.WhenClause)
}

func eventTriggerCommand(w *walker, m proto.Message) {
	w.function(m.(*pg.CreateEventTrigStmt).Funcname)
}

// createFunctionCommand is CREATE FUNCTION and PROCEDURE. Statements of a body in the SQL standard's form are units each; a body in a
// string is the server's business.
func createFunctionCommand(w *walker, m proto.Message) {
	s := m.(*pg.CreateFunctionStmt)
	w.unit.Verb = "CREATE FUNCTION"
	if s.IsProcedure {
		w.unit.Verb = "CREATE PROCEDURE"
	}
	w.function(s.Funcname)
	w.writing = false
	w.nodes(s.Parameters...)
	w.functionOptions(s.Options)
	w.body(s.SqlBody)
}

// body is RETURN expression, or lists of statements.
func (w *walker) body(n *pg.Node) {
	switch {
	case n.GetNode() == nil:
	case n.GetList() != nil:
		for _, item := range n.GetList().Items {
			w.body(item)
		}
	case n.GetReturnStmt() != nil:
		w.node(n.GetReturnStmt().Returnval)
	default:
		w.command(inner(n))
	}
}

func alterFunctionCommand(w *walker, m proto.Message) {
	s := m.(*pg.AlterFunctionStmt)
	w.unit.Verb = "ALTER " + typeName(s.Objtype)
	w.function(s.Func.GetObjname())
	w.functionOptions(s.Actions)
}

// functionOptions looks for SET, which holds while the function runs, and for the support function.
func (w *walker) functionOptions(options []*pg.Node) {
	for _, n := range options {
		o := n.GetDefElem()
		switch o.GetDefname() {
		case "set":
			w.storedSetting(o.Arg.GetVariableSetStmt())
		case "support":
			w.function(o.Arg.GetList().GetItems())
		}
	}
}

func createStatisticsCommand(w *walker, m proto.Message) {
	s := m.(*pg.CreateStatsStmt)
	w.writeName(s.Defnames)
	w.writing = false
	w.nodes(s.Exprs...)
	w.nodes(s.Relations...)
}

func createDomainCommand(w *walker, m proto.Message) {
	s := m.(*pg.CreateDomainStmt)
	w.writeName(s.Domainname)
	w.nodes(s.Constraints...)
}

// typeNameCommand is for statements on one named object of the kind of a type.
func typeNameCommand(w *walker, m proto.Message) {
	switch s := m.(type) {
	case *pg.CreateEnumStmt:
		w.writeName(s.TypeName)
	case *pg.CreateRangeStmt:
		w.writeName(s.TypeName)
		w.definition(s.Params)
	case *pg.AlterStatsStmt:
		w.writeName(s.Defnames)
	case *pg.AlterDomainStmt:
		w.writeName(s.TypeName)
		w.node(s.Def)
	case *pg.AlterEnumStmt:
		w.writeName(s.TypeName)
	case *pg.AlterTypeStmt:
		w.writeName(s.TypeName)
		w.definition(s.Options)
	case *pg.AlterCollationStmt:
		w.writeName(s.Collname)
	case *pg.AlterTSDictionaryStmt:
		w.writeName(s.Dictname)
	case *pg.AlterTSConfigurationStmt:
		w.writeName(s.Cfgname)
	}
}

// defineCommand is CREATE AGGREGATE, OPERATOR, TYPE, COLLATION and TEXT SEARCH ….
func defineCommand(w *walker, m proto.Message) {
	s := m.(*pg.DefineStmt)
	w.unit.Verb = "CREATE " + typeName(s.Kind)
	switch s.Kind {
	case pg.ObjectType_OBJECT_AGGREGATE:
		w.function(s.Defnames)
	case pg.ObjectType_OBJECT_OPERATOR:
	default:
		w.writeName(s.Defnames)
	}
	w.definition(s.Definition)
}

// definition notes what a list of options names as functions: in the tree, functions cannot be told from types there.
func (w *walker) definition(options []*pg.Node) {
	for _, n := range options {
		arg := n.GetDefElem().GetArg()
		w.function(arg.GetTypeName().GetNames())
		w.function(arg.GetList().GetItems())
	}
}

func operatorClassCommand(w *walker, m proto.Message) {
	switch s := m.(type) {
	case *pg.CreateOpClassStmt:
		w.writeName(s.Opclassname)
	case *pg.CreateOpFamilyStmt:
		w.writeName(s.Opfamilyname)
	case *pg.AlterOpFamilyStmt:
		w.writeName(s.Opfamilyname)
	}
	w.children(m)
}

func foreignDataWrapperCommand(w *walker, m proto.Message) {
	switch s := m.(type) {
	case *pg.CreateFdwStmt:
		w.definition(s.FuncOptions)
	case *pg.AlterFdwStmt:
		w.definition(s.FuncOptions)
	}
}

func handlerCommand(w *walker, m proto.Message) {
	switch s := m.(type) {
	case *pg.CreateAmStmt:
		w.function(s.HandlerName)
	case *pg.CreatePLangStmt:
		w.function(s.Plhandler)
		w.function(s.Plinline)
		w.function(s.Plvalidator)
	}
}

func createConversionCommand(w *walker, m proto.Message) {
	s := m.(*pg.CreateConversionStmt)
	w.writeName(s.ConversionName)
	w.function(s.FuncName)
	if s.Def {
		w.statement.deny("a default conversion changes how the server reads text")
	}
}

func importCommand(w *walker, m proto.Message) {
	w.writeSchema(m.(*pg.ImportForeignSchemaStmt).LocalSchema)
}

func publicationCommand(w *walker, m proto.Message) {
	var objects []*pg.Node
	switch s := m.(type) {
	case *pg.CreatePublicationStmt:
		objects = s.Pubobjects
	case *pg.AlterPublicationStmt:
		objects = s.Pubobjects
	}
	for _, n := range objects {
		o := n.GetPublicationObjSpec()
		if o.GetPubobjtype() == pg.PublicationObjSpecType_PUBLICATIONOBJ_TABLES_IN_SCHEMA {
			w.writeSchema(o.Name)
		} else {
			w.node(n)
		}
	}
}
