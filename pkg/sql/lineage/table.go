package lineage

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// createTable is CREATE TABLE: its columns are the ones that it defines, after those of tables that it inherits from or is like.
func (a *analyzer) createTable(st *pg.CreateStmt) {
	made := &catalog.Relation{Schema: st.Relation.GetSchemaname(), Name: st.Relation.GetRelname(), Kind: catalog.Table}
	if st.Relation.GetRelpersistence() == "t" {
		made.Schema = "pg_temp"
	}
	whole := st.OfTypename == nil
	add := func(c catalog.Column) {
		if made.Column(c.Name) == nil {
			c.Attribute = int16(len(made.Columns) + 1)
			c.Generated, c.Expression = false, ""
			made.Columns = append(made.Columns, c)
		}
	}
	from := func(r *pg.RangeVar, inherits bool) {
		i := a.rangeVar(r)
		found, known := a.candidates(r.GetSchemaname(), r.GetRelname())
		whole = whole && known && !i.row.open
		for _, parent := range found {
			for _, c := range parent.Columns {
				add(c)
			}
			if inherits && parent.OID != 0 {
				made.Parents = append(made.Parents, parent.OID)
			}
		}
	}
	for _, n := range st.InhRelations {
		from(n.GetRangeVar(), true)
	}
	for _, n := range st.TableElts {
		switch e := n.GetNode().(type) {
		case *pg.Node_ColumnDef:
			c := catalog.Column{Name: e.ColumnDef.Colname, Typmod: -1}
			if t := a.typeName(e.ColumnDef.TypeName); t != nil {
				c.Type = t.OID
			}
			add(c)
		case *pg.Node_TableLikeClause:
			from(e.TableLikeClause.Relation, false)
		}
	}
	columns := a.table(made)
	s := &scope{items: []*item{{name: made.Name, row: columns, columns: true, relation: true, system: true}}}
	for _, n := range st.TableElts {
		switch e := n.GetNode().(type) {
		case *pg.Node_ColumnDef:
			a.columnDef(e.ColumnDef, s)
		case *pg.Node_Constraint:
			a.constraints([]*pg.Node{n}, s)
		}
	}
	a.constraints(st.Constraints, s)
	a.bound(st.Partbound)
	for _, n := range st.Partspec.GetPartParams() {
		a.maybe(n.GetPartitionElem().GetExpr(), s)
	}
	if whole {
		a.made.create(made, made.Name)
	} else {
		a.made.name(made.Name)
	}
}

func (a *analyzer) columnDef(c *pg.ColumnDef, s *scope) {
	a.constraints(c.GetConstraints(), s)
	if c.GetRawDefault() != nil {
		a.store(a.expr(c.RawDefault, s), "stored in the column "+c.Colname)
	}
}

// constraints has the expressions of constraints read. Those of defaults and generated columns are stored.
func (a *analyzer) constraints(list []*pg.Node, s *scope) {
	for _, n := range list {
		c := n.GetConstraint()
		if c == nil {
			continue
		}
		a.maybe(c.WhereClause, s)
		if c.Pktable != nil {
			a.rangeVar(c.Pktable)
		}
		if c.RawExpr == nil {
			continue
		}
		v := a.expr(c.RawExpr, s)
		if c.Contype == pg.ConstrType_CONSTR_DEFAULT || c.Contype == pg.ConstrType_CONSTR_GENERATED {
			a.store(v, "stored by a default or generated column")
		}
	}
}

// bound is a partition's: values that the catalog keeps and shows.
func (a *analyzer) bound(b *pg.PartitionBoundSpec) {
	if b == nil {
		return
	}
	for _, list := range [][]*pg.Node{b.Listdatums, b.Lowerdatums, b.Upperdatums} {
		for _, n := range list {
			if n.GetPartitionRangeDatum() != nil { // made by analysis, after parsing
				continue
			}
			if len(n.GetColumnRef().GetFields()) == 1 { // MINVALUE, MAXVALUE
				continue
			}
			a.store(a.expr(n, &scope{}), "stored as the bound of a partition")
		}
	}
}

// alterTable is ALTER TABLE. Of a table with masked columns only what can not move their values or their names is possible.
func (a *analyzer) alterTable(st *pg.AlterTableStmt) {
	r := st.Relation
	i := a.rangeVar(r)
	s := &scope{items: []*item{i}}
	for _, n := range st.Cmds {
		c := n.GetAlterTableCmd()
		switch c.GetSubtype() {
		case pg.AlterTableType_AT_AddColumn:
			a.columnDef(c.Def.GetColumnDef(), s)
		case pg.AlterTableType_AT_ColumnDefault, pg.AlterTableType_AT_SetExpression:
			a.store(a.maybe(c.Def, s), "stored in the column "+c.Name)
		case pg.AlterTableType_AT_AddConstraint:
			a.constraints([]*pg.Node{c.Def}, s)
		case pg.AlterTableType_AT_AlterColumnType:
			if using := c.Def.GetColumnDef().GetRawDefault(); using != nil {
				a.set(i, c.Name, a.expr(using, s))
			}
		case pg.AlterTableType_AT_DropColumn, pg.AlterTableType_AT_SetNotNull, pg.AlterTableType_AT_DropNotNull,
			pg.AlterTableType_AT_DropExpression, pg.AlterTableType_AT_SetStatistics, pg.AlterTableType_AT_SetOptions,
			pg.AlterTableType_AT_ResetOptions, pg.AlterTableType_AT_SetStorage, pg.AlterTableType_AT_SetCompression,
			pg.AlterTableType_AT_AlterConstraint, pg.AlterTableType_AT_ValidateConstraint, pg.AlterTableType_AT_AddIndexConstraint,
			pg.AlterTableType_AT_DropConstraint, pg.AlterTableType_AT_ChangeOwner, pg.AlterTableType_AT_ClusterOn,
			pg.AlterTableType_AT_DropCluster, pg.AlterTableType_AT_SetLogged, pg.AlterTableType_AT_SetUnLogged,
			pg.AlterTableType_AT_SetAccessMethod, pg.AlterTableType_AT_SetTableSpace, pg.AlterTableType_AT_SetRelOptions,
			pg.AlterTableType_AT_ResetRelOptions, pg.AlterTableType_AT_ReplicaIdentity, pg.AlterTableType_AT_EnableRowSecurity,
			pg.AlterTableType_AT_DisableRowSecurity, pg.AlterTableType_AT_ForceRowSecurity, pg.AlterTableType_AT_NoForceRowSecurity,
			pg.AlterTableType_AT_AddIdentity, pg.AlterTableType_AT_SetIdentity, pg.AlterTableType_AT_DropIdentity:
		case pg.AlterTableType_AT_GenericOptions, pg.AlterTableType_AT_AlterColumnGenericOptions:
			a.strictly("foreign data would be another way to masked columns")
		default:
			a.guarded(r, "this change")
			if cmd := c.GetDef().GetPartitionCmd(); cmd != nil {
				a.guarded(cmd.Name, "this change")
				a.bound(cmd.Bound)
			}
			if parent := c.GetDef().GetRangeVar(); parent != nil {
				a.guarded(parent, "this change")
			}
		}
	}
	a.made.alter(r.GetRelname())
}

// rename is ALTER … RENAME: masks go by names.
func (a *analyzer) rename(st *pg.RenameStmt) {
	switch st.RenameType {
	case pg.ObjectType_OBJECT_SCHEMA:
		a.guardSchema(st.Subname)
		a.addPath(st.Newname)
		a.made.all = true
	case pg.ObjectType_OBJECT_COLUMN:
		a.guarded(st.Relation, "another name for a column")
		a.made.alter(st.Relation.GetRelname())
	case pg.ObjectType_OBJECT_FUNCTION, pg.ObjectType_OBJECT_PROCEDURE, pg.ObjectType_OBJECT_ROUTINE, pg.ObjectType_OBJECT_AGGREGATE:
		o := sql.Name(st.Object.GetObjectWithArgs().GetObjname())
		a.redefine(o)
		a.redefine(sql.Object{Schema: o.Schema, Name: st.Newname})
		a.guardedFunction(o, "another name")
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_FOREIGN_TABLE,
		pg.ObjectType_OBJECT_ATTRIBUTE, pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_INDEX:
		a.guarded(st.Relation, "another name")
		a.made.name(st.Newname)
		a.made.name(st.Relation.GetRelname())
	case pg.ObjectType_OBJECT_TYPE, pg.ObjectType_OBJECT_DOMAIN:
		o := sql.Name(st.Object.GetList().GetItems())
		a.guarded(&pg.RangeVar{Schemaname: o.Schema, Relname: o.Name}, "another name")
		a.made.all = true
	case pg.ObjectType_OBJECT_TABCONSTRAINT, pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY,
		pg.ObjectType_OBJECT_ROLE, pg.ObjectType_OBJECT_DATABASE, pg.ObjectType_OBJECT_TABLESPACE:
	default:
		a.made.all = true
	}
}

func (a *analyzer) guardSchema(schema string) {
	a.catalog.Relations(func(r *catalog.Relation) bool {
		if r.Schema == schema {
			a.guarded(&pg.RangeVar{Schemaname: r.Schema, Relname: r.Name}, "another schema")
		}
		return a.denied == ""
	})
}

// moveObject is ALTER … SET SCHEMA.
func (a *analyzer) moveObject(st *pg.AlterObjectSchemaStmt) {
	name := st.Relation.GetRelname()
	if st.Relation != nil {
		a.guarded(st.Relation, "another schema")
	} else if o := st.Object.GetObjectWithArgs(); o != nil {
		from := sql.Name(o.Objname)
		a.redefine(from)
		a.guardedFunction(from, "another schema")
		a.redefine(sql.Object{Schema: st.Newschema, Name: from.Name})
		name = from.Name
	} else {
		from := sql.Name(st.Object.GetList().GetItems())
		a.guarded(&pg.RangeVar{Schemaname: from.Schema, Relname: from.Name}, "another schema")
		a.made.all = true
		return
	}
	a.made.name(name)
}
