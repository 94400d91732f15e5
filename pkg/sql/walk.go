package sql

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A walker visits the whole parse tree of one statement. What it has no special case for it walks through by reflection, so that no
// table or function call is missed in a corner of the grammar.
type walker struct {
	script    *Script
	statement *Statement
	units     []*draft
	unit      *draft // where objects are noted
	// writing is true where a table that is named is changed rather than read.
	writing bool
	// ctes counts the WITH queries in sight by name; they hide tables.
	ctes map[string]int
	// schema is the schema that CREATE SCHEMA makes, in which its elements come to be; else "".
	schema string
	// listed is the setting whose row of pg_settings the query at hand selects; else "".
	listed string
}

// A draft is a unit in the making.
type draft struct {
	Unit
	seen map[sighting]struct{}
}

// A sighting is an object in one of a unit's lists.
type sighting struct {
	list   *[]Object
	object Object
}

// analyse says what one statement does.
func analyse(script *Script, n *pg.Node) *Statement {
	w := &walker{script: script, statement: &Statement{}, ctes: map[string]int{}}
	switch n.GetNode().(type) {
	case *pg.Node_SelectStmt, *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
	default:
		script.plain = false
	}
	w.command(inner(n))
	for _, u := range w.units {
		w.statement.Units = append(w.statement.Units, u.Unit)
	}
	return w.statement
}

// deny keeps the first reason.
func (s *Statement) deny(reason string) {
	if s.Denied == "" {
		s.Denied = reason
	}
}

// command makes a unit of a statement, or several.
func (w *walker) command(m proto.Message) {
	outer, writing := w.unit, w.writing
	defer func() { w.unit, w.writing = outer, writing }()
	c, ok := commandOf(m)
	if !ok {
		w.begin(command{kind: KindDDL, verb: "UNKNOWN"})
		w.statement.deny("unknown statement")
		return
	}
	w.begin(c)
	w.writing = true
	if c.run != nil {
		c.run(w, m)
	} else {
		w.children(m)
	}
}

// begin makes the unit that objects are noted in from now on.
func (w *walker) begin(c command) {
	w.unit = &draft{Unit: Unit{Kind: c.kind, Verb: c.verb, Filtered: true}, seen: map[sighting]struct{}{}}
	w.units = append(w.units, w.unit)
}

// commands makes units of statements.
func (w *walker) commands(nodes []*pg.Node) {
	for _, n := range nodes {
		w.command(inner(n))
	}
}

func (w *walker) nodes(nodes ...*pg.Node) {
	for _, n := range nodes {
		w.node(n)
	}
}

// node walks what a node holds. The frequent kinds come first, for speed.
func (w *walker) node(n *pg.Node) {
	switch v := n.GetNode().(type) {
	case nil, *pg.Node_AConst, *pg.Node_ColumnRef, *pg.Node_ParamRef, *pg.Node_AStar, *pg.Node_String_, *pg.Node_Integer:
	case *pg.Node_List:
		w.nodes(v.List.Items...)
	case *pg.Node_AExpr:
		w.nodes(v.AExpr.Lexpr, v.AExpr.Rexpr)
	case *pg.Node_BoolExpr:
		w.nodes(v.BoolExpr.Args...)
	case *pg.Node_ResTarget:
		w.nodes(v.ResTarget.Indirection...)
		w.node(v.ResTarget.Val)
	case *pg.Node_RangeVar:
		w.table(v.RangeVar)
	case *pg.Node_FuncCall:
		w.call(v.FuncCall)
	default:
		w.message(inner(n))
	}
}

// message walks through a message of the parse tree.
func (w *walker) message(m proto.Message) {
	switch m := m.(type) {
	case nil, *pg.LockingClause: // FOR UPDATE OF names items of FROM, not tables
	case *pg.Node:
		w.node(m)
	case *pg.RangeVar:
		w.table(m)
	case *pg.SelectStmt:
		w.query(m)
	case *pg.FuncCall:
		w.call(m)
	case *pg.ObjectWithArgs:
		w.function(m.Objname)
	case *pg.TypeName:
		w.nodes(m.Typmods...)
	case *pg.TableLikeClause:
		w.read(m.Relation)
	case *pg.Constraint:
		w.read(m.Pktable)
		w.children(m, "pktable")
	default:
		if _, ok := commandOf(m); ok {
			w.command(m)
			return
		}
		w.children(m)
	}
}

// children walks through the fields of a message, but those with the given names.
func (w *walker) children(m proto.Message, skip ...protoreflect.Name) {
	eachChild(m, func(name protoreflect.Name, child proto.Message) bool {
		if !slices.Contains(skip, name) {
			w.message(child)
		}
		return true
	})
}

// eachChild calls f with the messages in the fields of a message, in the order of its definition, until f returns false.
func eachChild(m proto.Message, f func(field protoreflect.Name, child proto.Message) bool) {
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.Message() == nil || !r.Has(field):
		case field.IsList():
			for list, i := r.Get(field).List(), 0; i < list.Len(); i++ {
				if !f(field.Name(), list.Get(i).Message().Interface()) {
					return
				}
			}
		case !f(field.Name(), r.Get(field).Message().Interface()):
			return
		}
	}
}

// anyNode is true when f is for one of the nodes that a message holds, directly or in a message that is no node.
func anyNode(m proto.Message, f func(*pg.Node) bool) (found bool) {
	eachChild(m, func(_ protoreflect.Name, child proto.Message) bool {
		if n, ok := child.(*pg.Node); ok {
			found = f(n)
		} else {
			found = anyNode(child, f)
		}
		return !found
	})
	return found
}

// inner is the message that a node wraps, or nil.
func inner(n *pg.Node) proto.Message {
	if n.GetNode() == nil {
		return nil
	}
	m := n.ProtoReflect()
	return m.Get(m.WhichOneof(m.Descriptor().Oneofs().Get(0))).Message().Interface()
}

// table notes a table where it stands: read or changed.
func (w *walker) table(r *pg.RangeVar) {
	if w.writing {
		w.write(r)
	} else {
		w.read(r)
	}
}

// read notes a table that is read, unless it is a WITH query in sight.
func (w *walker) read(r *pg.RangeVar) {
	switch {
	case r == nil, r.Schemaname == "" && w.ctes[r.Relname] > 0:
	default:
		w.note(&w.unit.Reads, Object{r.Schemaname, r.Relname})
	}
}

func (w *walker) write(r *pg.RangeVar) {
	if r != nil {
		w.note(&w.unit.Writes, Object{r.Schemaname, r.Relname})
	}
}

// writeName notes an object whose name is a list of strings.
func (w *walker) writeName(names []*pg.Node) {
	if o := objectOf(names); o.Name != "" {
		w.note(&w.unit.Writes, o)
	}
}

// writeSchema notes that a whole schema is changed, as "schema.*".
func (w *walker) writeSchema(schema string) {
	if schema != "" {
		w.note(&w.unit.Writes, Object{schema, "*"})
	}
}

// function notes a function, but not an operator.
func (w *walker) function(names []*pg.Node) {
	o := objectOf(names)
	if strings.IndexFunc(o.Name, func(r rune) bool { return r >= 0x80 || !isOperator(byte(r)) }) >= 0 {
		w.note(&w.unit.Functions, o)
	}
}

// note adds an object to a list of the unit, once.
func (w *walker) note(list *[]Object, o Object) {
	key := sighting{list, o}
	if _, ok := w.unit.seen[key]; ok {
		return
	}
	w.unit.seen[key] = struct{}{}
	if list == &w.unit.Writes && o.Name == "pg_settings" && w.unit.Kind == KindDDL {
		w.statement.deny("a relation of the name pg_settings could pass for the system's") // see settingListed
	}
	*list = append(*list, o)
	if w.schema != "" && o.Schema == "" {
		w.note(list, Object{w.schema, o.Name})
	}
}

// objectOf is the object that a list of strings names: the last is its name, the one before its schema.
func objectOf(names []*pg.Node) Object {
	var o Object
	if n := len(names); n > 0 {
		o.Name = names[n-1].GetString_().GetSval()
		if n > 1 {
			o.Schema = names[n-2].GetString_().GetSval()
		}
	}
	return o
}
