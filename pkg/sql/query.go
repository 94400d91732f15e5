package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// selectCommand is SELECT, VALUES and TABLE, or SELECT INTO, which makes a table.
func selectCommand(w *walker, m proto.Message) {
	s := m.(*pg.SelectStmt)
	if into := intoOf(s); into != nil {
		w.unit.Kind, w.unit.Verb = KindDDL, "SELECT INTO"
		w.script.plain = false
		w.write(into.Rel)
		w.begin(command{kind: KindQuery, verb: "SELECT"})
	}
	w.query(s)
}

// intoOf is the INTO clause of a query; of a set operation it is that of the leftmost part.
func intoOf(s *pg.SelectStmt) *pg.IntoClause {
	for s.Larg != nil {
		s = s.Larg
	}
	return s.IntoClause
}

// query walks through a SELECT that belongs to the unit at hand.
func (w *walker) query(s *pg.SelectStmt) {
	if s == nil {
		return
	}
	writing := w.writing
	w.writing = false
	defer func() { w.writing = writing }()
	defer w.with(s.WithClause)()
	w.query(s.Larg)
	w.query(s.Rarg)
	w.nodes(s.DistinctClause...)
	outer := w.listed
	w.listed = w.settingListed(s)
	w.nodes(s.TargetList...)
	w.listed = outer
	w.nodes(s.FromClause...)
	w.node(s.WhereClause)
	w.nodes(s.GroupClause...)
	w.node(s.HavingClause)
	w.nodes(s.WindowClause...)
	w.nodes(s.ValuesLists...)
	w.nodes(s.SortClause...)
	w.nodes(s.LimitOffset, s.LimitCount)
}

// with walks through the queries of a WITH clause and brings their names in sight, until the function that it returns is called. A
// query sees those before it, with RECURSIVE all ("WITH Queries" in the PostgreSQL manual). One that changes data is a unit of
// its own.
func (w *walker) with(c *pg.WithClause) (done func()) {
	if c == nil {
		return func() {}
	}
	if c.Recursive {
		for _, n := range c.Ctes {
			w.ctes[n.GetCommonTableExpr().GetCtename()]++
		}
	}
	for _, n := range c.Ctes {
		cte := n.GetCommonTableExpr()
		if s := cte.GetCtequery().GetSelectStmt(); s != nil {
			writing := w.writing
			w.writing = false
			w.query(s)
			w.writing = writing
		} else {
			w.command(inner(cte.GetCtequery()))
		}
		if cycle := cte.GetCycleClause(); cycle != nil {
			w.children(cycle)
		}
		if !c.Recursive {
			w.ctes[cte.GetCtename()]++
		}
	}
	return func() {
		for _, n := range c.Ctes {
			w.ctes[n.GetCommonTableExpr().GetCtename()]--
		}
	}
}

func insertCommand(w *walker, m proto.Message) {
	s := m.(*pg.InsertStmt)
	w.write(s.Relation)
	w.writing = false
	defer w.with(s.WithClause)()
	w.nodes(s.Cols...)
	w.query(s.SelectStmt.GetSelectStmt())
	if s.OnConflictClause != nil {
		w.children(s.OnConflictClause)
	}
	w.nodes(s.ReturningList...)
}

func updateCommand(w *walker, m proto.Message) {
	s := m.(*pg.UpdateStmt)
	if r := s.Relation; r.GetRelname() == "pg_settings" && (r.Schemaname == "" || r.Schemaname == "pg_catalog") {
		// The view has a rule that turns UPDATE into set_config().
		w.statement.deny("an UPDATE of pg_settings may change how the server reads text; use SET")
	}
	w.write(s.Relation)
	w.writing = false
	defer w.with(s.WithClause)()
	w.nodes(s.TargetList...)
	w.nodes(s.FromClause...)
	w.node(s.WhereClause)
	w.nodes(s.ReturningList...)
	w.unit.Filtered = filters(s.WhereClause)
}

func deleteCommand(w *walker, m proto.Message) {
	s := m.(*pg.DeleteStmt)
	w.write(s.Relation)
	w.writing = false
	defer w.with(s.WithClause)()
	w.nodes(s.UsingClause...)
	w.node(s.WhereClause)
	w.nodes(s.ReturningList...)
	w.unit.Filtered = filters(s.WhereClause)
}

func mergeCommand(w *walker, m proto.Message) {
	s := m.(*pg.MergeStmt)
	w.write(s.Relation)
	w.writing = false
	defer w.with(s.WithClause)()
	w.nodes(s.SourceRelation, s.JoinCondition)
	w.nodes(s.MergeWhenClauses...)
	w.nodes(s.ReturningList...)
}

// call notes a function call. set_config() is SET by another name.
func (w *walker) call(f *pg.FuncCall) {
	w.function(f.Funcname)
	o := objectOf(f.Funcname)
	switch {
	case o.Name == "set_config":
		w.script.plain = false
		w.setConfig(f.Args)
	case strings.HasPrefix(o.Name, secretFunctions):
		w.script.plain = false
	}
	w.nodes(f.Args...)
	w.nodes(f.AggOrder...)
	w.node(f.AggFilter)
	if f.Over != nil {
		w.children(f.Over)
	}
}

// filters is true for a WHERE clause that can restrict rows by what they hold, as far as its structure tells: a column or a sub-query
// stands in every arm of OR, or it is WHERE CURRENT OF.
func filters(where *pg.Node) bool { return where != nil && restricts(where, false) }

// restricts looks into AND, OR and NOT; negated is true below an odd number of NOTs, where AND and OR change places (De Morgan).
func restricts(n *pg.Node, negated bool) bool {
	b := n.GetBoolExpr()
	if b == nil {
		return mentions(n)
	}
	switch b.Boolop {
	case pg.BoolExprType_NOT_EXPR:
		return len(b.Args) > 0 && restricts(b.Args[0], !negated)
	case pg.BoolExprType_AND_EXPR, pg.BoolExprType_OR_EXPR:
		every := (b.Boolop == pg.BoolExprType_OR_EXPR) != negated
		for _, arg := range b.Args {
			if restricts(arg, negated) != every {
				return !every
			}
		}
		return every
	}
	return false
}

// mentions is true for an expression with a column or a sub-query in it.
func mentions(n *pg.Node) bool {
	switch n := n.GetNode().(type) {
	case *pg.Node_ColumnRef, *pg.Node_SubLink, *pg.Node_CurrentOfExpr:
		return true
	case *pg.Node_AExpr:
		return mentions(n.AExpr.Lexpr) || mentions(n.AExpr.Rexpr)
	case nil, *pg.Node_AConst, *pg.Node_ParamRef:
		return false
	}
	return anyNode(inner(n), mentions)
}
