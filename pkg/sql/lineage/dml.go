package lineage

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// target is the relation that a statement changes.
func (a *analyzer) target(r *pg.RangeVar) *item {
	if r == nil {
		return &item{row: row{open: true, rest: a.anything()}}
	}
	i := a.rangeVar(r)
	i.alias(r.Alias)
	found, _ := a.candidates(r.Schemaname, r.Relname)
	for _, candidate := range found {
		if candidate.Schema == "pg_catalog" && candidate.OID < catalog.FirstUserOID && candidate.OID != 0 {
			a.deny("the server's own catalogs can not be changed where columns are masked")
		}
		fired := map[uint32]bool{}
		i.fired = a.fires(candidate, fired) || i.fired
		a.referring(candidate, map[uint32]bool{}, fired)
		a.writing(candidate)
	}
	return i
}

// referring notes what a foreign key's action or error may tell of tables that refer to r.
func (a *analyzer) referring(r *catalog.Relation, seen, fired map[uint32]bool) {
	for _, oid := range r.ReferencedBy {
		if next := a.catalog.Relation(oid); next != nil && !seen[oid] {
			seen[oid] = true
			for _, f := range a.relation(next).fields {
				a.reach = a.reach.Union(f.value.masks)
			}
			a.fires(next, fired) // ON DELETE CASCADE
			a.referring(next, seen, fired)
		}
	}
}

// writing has the defaults and constraints of a table read, which a change evaluates, or of the tables below a view.
func (a *analyzer) writing(r *catalog.Relation) {
	if slices.Contains(a.writes, r.OID) && r.OID != 0 {
		return
	}
	a.writes = append(a.writes, r.OID)
	a.tables++
	defer func() { a.tables-- }()
	if r.Kind == catalog.View {
		tree, _, err := sql.Tree(r.Definition)
		if err != nil || r.Definition == "" {
			a.anything()
			return
		}
		eachRangeVar(tree, func(below *pg.RangeVar) {
			if b := a.catalog.RelationNamed(below.Schemaname, below.Relname); b != nil {
				a.fires(b, map[uint32]bool{})
				a.writing(b)
			}
		})
		return
	}
	columns := a.table(r)
	s := &scope{items: []*item{{name: r.Name, row: columns, columns: true, relation: true, system: true, typ: r.Type}}}
	for i := range r.Columns {
		c := &r.Columns[i]
		text := c.Expression
		if t := a.catalog.Type(c.Type); text == "" && t != nil {
			text = t.Default
		}
		if text == "" || c.Generated {
			continue
		}
		v := a.expression(text, &scope{})
		a.assign(v, columns.fields[i].value, "stored by the default of the column "+c.Name)
	}
	for _, check := range r.Checks {
		a.expression(check, s)
	}
}

// eachRangeVar calls f with every relation that a tree names.
func eachRangeVar(m proto.Message, f func(*pg.RangeVar)) {
	sql.EachChild(m, func(_ protoreflect.Name, child proto.Message) bool {
		if r, ok := child.(*pg.RangeVar); ok {
			f(r)
		}
		eachRangeVar(child, f)
		return true
	})
}

// assign notes that a value goes into a column. It may be where it is masked as it was: in a column with the same mask, unchanged.
func (a *analyzer) assign(v, column value, where string) {
	v = a.coerced(v, column.typ)
	same := v.unchanged && !v.unknown && len(v.masks) == 1 && column.unchanged && column.masks.equal(v.masks)
	if !same {
		a.store(v, where)
	}
}

func (a *analyzer) set(i *item, name string, v value) {
	column, found, _ := i.column(name)
	if !found {
		column = value{}
	}
	a.assign(v, column, "stored in the column "+name)
}

// level is a new level for a statement that changes a table.
func level(outer *scope) *scope {
	if outer == nil {
		return &scope{}
	}
	return outer.inner()
}

func (a *analyzer) insert(st *pg.InsertStmt, outer *scope) row {
	s := level(outer)
	a.with(st.WithClause, s)
	target := a.target(st.Relation)
	var source row
	if st.SelectStmt != nil {
		source = a.query(st.SelectStmt, s)
	}
	var names []string
	for _, n := range st.Cols {
		names = append(names, n.GetResTarget().GetName())
		for _, in := range n.GetResTarget().GetIndirection() {
			if index := in.GetAIndices(); index != nil {
				source.rest = derive(source.rest, a.maybe(index.Lidx, s), a.maybe(index.Uidx, s))
			}
		}
	}
	if len(st.Cols) == 0 {
		for _, f := range target.row.fields {
			names = append(names, f.name)
		}
	}
	excluded := row{open: target.row.open, rest: target.row.rest}
	for i, name := range names {
		v := clean(0)
		switch {
		case source.open:
			v = rowValue(source)
		case i < len(source.fields):
			v = source.fields[i].value
		}
		a.set(target, name, v)
		excluded.fields = append(excluded.fields, field{name, v})
	}
	if source.open || len(source.fields) > len(names) {
		a.store(rowValue(source), "stored in the table "+st.Relation.GetRelname())
	}
	a.onConflict(st.OnConflictClause, s, target, excluded)
	return a.returning(st.ReturningList, s, target)
}

// onConflict is ON CONFLICT, in which EXCLUDED is the row that was to be inserted.
func (a *analyzer) onConflict(c *pg.OnConflictClause, s *scope, target *item, excluded row) {
	if c == nil {
		return
	}
	for _, f := range target.row.fields { // those that were not given have their default
		if _, found, _ := (&item{row: excluded}).column(f.name); !found {
			excluded.fields = append(excluded.fields, field{f.name, clean(f.value.typ)})
		}
	}
	in := s.inner()
	in.items = []*item{target, {name: "excluded", row: excluded, relation: true, system: true}}
	if c.Infer != nil {
		for _, n := range c.Infer.IndexElems {
			a.where("ON CONFLICT", n.GetIndexElem().GetExpr(), in)
			if name := n.GetIndexElem().GetName(); name != "" {
				v, _, _ := target.column(name)
				a.use("ON CONFLICT", v.masks, v.unknown)
			}
		}
		a.where("ON CONFLICT", c.Infer.WhereClause, in)
	}
	a.assignments(c.TargetList, in, target)
	a.where("WHERE", c.WhereClause, in)
}

// assignments are the SET clause of UPDATE.
func (a *analyzer) assignments(list []*pg.Node, s *scope, target *item) {
	for _, n := range list {
		t := n.GetResTarget()
		v := a.maybe(t.GetVal(), s)
		for _, in := range t.GetIndirection() {
			if index := in.GetAIndices(); index != nil {
				v = derive(v, a.maybe(index.Lidx, s), a.maybe(index.Uidx, s))
			} else {
				v = derive(v)
			}
		}
		a.set(target, t.GetName(), v)
	}
}

func (a *analyzer) returning(list []*pg.Node, s *scope, items ...*item) row {
	in := s.beside()
	in.items = items
	r := a.targets(list, in)
	for _, i := range items {
		if i.fired { // even without a list, a rule may return something
			return row{open: true, rest: a.anything()}
		}
	}
	return r
}

func (a *analyzer) update(st *pg.UpdateStmt, outer *scope) row {
	s := level(outer)
	a.with(st.WithClause, s)
	target := a.target(st.Relation)
	s.items = append(s.items, target)
	a.from(st.FromClause, s)
	a.assignments(st.TargetList, s, target)
	a.where("WHERE", st.WhereClause, s)
	return a.returning(st.ReturningList, s, s.items...)
}

func (a *analyzer) remove(st *pg.DeleteStmt, outer *scope) row {
	s := level(outer)
	a.with(st.WithClause, s)
	s.items = append(s.items, a.target(st.Relation))
	a.from(st.UsingClause, s)
	a.where("WHERE", st.WhereClause, s)
	return a.returning(st.ReturningList, s, s.items...)
}

func (a *analyzer) mergeStmt(st *pg.MergeStmt, outer *scope) row {
	s := level(outer)
	a.with(st.WithClause, s)
	target := a.target(st.Relation)
	source := s.beside()
	if st.SourceRelation != nil {
		a.fromItem(st.SourceRelation, source)
	}
	s.items = append(s.items, target)
	s.items = append(s.items, source.items...)
	a.where("JOIN", st.JoinCondition, s)
	for _, n := range st.MergeWhenClauses {
		when := n.GetMergeWhenClause()
		a.where("MERGE", when.GetCondition(), s)
		if when.GetCommandType() != pg.CmdType_CMD_INSERT {
			a.assignments(when.GetTargetList(), s, target)
			continue
		}
		for i, v := range when.GetValues() {
			name := ""
			switch {
			case i < len(when.TargetList):
				name = when.TargetList[i].GetResTarget().GetName()
			case len(when.TargetList) == 0 && i < len(target.row.fields):
				name = target.row.fields[i].name
			}
			a.set(target, name, a.expr(v, s))
		}
	}
	// RETURNING * is the source's columns, then the target's.
	return a.returning(st.ReturningList, s, append(slices.Clone(source.items), target)...)
}
