package lineage

import (
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// query is what a statement returns that may stand in brackets: SELECT, VALUES, or one with RETURNING.
func (a *analyzer) query(n *pg.Node, s *scope) row {
	a.nesting++
	defer func() { a.nesting-- }()
	if !a.spend() {
		return row{open: true, rest: a.anything()}
	}
	switch v := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		return a.selectStmt(v.SelectStmt, s)
	case *pg.Node_InsertStmt:
		return a.insert(v.InsertStmt, s)
	case *pg.Node_UpdateStmt:
		return a.update(v.UpdateStmt, s)
	case *pg.Node_DeleteStmt:
		return a.remove(v.DeleteStmt, s)
	case *pg.Node_MergeStmt:
		return a.mergeStmt(v.MergeStmt, s)
	}
	a.deny("a statement is not known to masking")
	return row{open: true, rest: a.anything()}
}

// text is what the last statement of a text returns: of a view's definition or a function's body. params are the function's arguments.
func (a *analyzer) text(text string, p *params) (last row) {
	tree, foreign, err := sql.Tree(text) // once for each view, which is remembered
	if err != nil || foreign {
		a.deny("the text of a view or function can not be read")
		return row{open: true, rest: a.anything()}
	}
	for _, raw := range tree.Stmts {
		last = a.query(raw.Stmt, &scope{params: p})
	}
	return last
}

// expression is what an expression contains that the catalog has as text.
func (a *analyzer) expression(text string, s *scope) (v value) {
	tree, ok := a.s.tree("SELECT " + text)
	targets := tree.GetStmts()
	if !ok || len(targets) != 1 {
		a.deny("an expression of the catalog can not be read")
		return a.anything()
	}
	read := a.inside(catalogPath, func() {
		r := a.targets(targets[0].Stmt.GetSelectStmt().GetTargetList(), s)
		v = rowValue(r)
		if len(r.fields) == 1 && !r.open {
			v = r.fields[0].value
		}
	})
	if !read {
		return a.anything()
	}
	return v
}

// selectStmt is SELECT, VALUES, TABLE, or a set operation. s is the level around it.
func (a *analyzer) selectStmt(st *pg.SelectStmt, outer *scope) row {
	if st == nil {
		return row{open: true, rest: a.anything()}
	}
	s := &scope{outer: outer}
	if outer != nil {
		s.ctes, s.params = outer.ctes, outer.params
	}
	a.with(st.WithClause, s)
	switch {
	case st.Op != pg.SetOperation_SETOP_NONE:
		return a.setOperation(st, s)
	case len(st.ValuesLists) > 0:
		r := a.values(st.ValuesLists, s)
		a.orderAndLimit(st, s, r)
		return r
	}
	a.from(st.FromClause, s)
	a.where("WHERE", st.WhereClause, s)
	a.windows(st.WindowClause, s)
	result := a.targets(st.TargetList, s)
	a.group(st.GroupClause, s, result)
	a.where("HAVING", st.HavingClause, s)
	a.distinct(st, s, result)
	a.orderAndLimit(st, s, result)
	a.into(st.IntoClause, result)
	return result
}

// into is SELECT INTO, which makes a table.
func (a *analyzer) into(c *pg.IntoClause, r row) {
	if c == nil {
		return
	}
	a.changes = true
	a.store(rowValue(r), "stored by SELECT INTO")
	a.created(c.Rel, r)
}

// where is a clause whose value is only a condition.
func (a *analyzer) where(place string, n *pg.Node, s *scope) {
	if n != nil {
		a.using(place, func() { a.expr(n, s) })
	}
}

// targets is a SELECT list or RETURNING.
func (a *analyzer) targets(list []*pg.Node, s *scope) (result row) {
	for _, n := range list {
		t := n.GetResTarget()
		if star, ok := a.star(t.GetVal(), s); ok {
			for _, f := range star.fields {
				a.touch(f.value)
			}
			result = result.append(star)
			continue
		}
		name := t.GetName()
		if name == "" {
			name = columnName(t.GetVal())
		}
		result.fields = append(result.fields, field{name, a.expr(t.GetVal(), s)})
	}
	return result
}

// setOperation joins two queries by position.
func (a *analyzer) setOperation(st *pg.SelectStmt, s *scope) row {
	left := a.selectStmt(st.Larg, s)
	right := a.selectStmt(st.Rarg, s)
	for _, f := range left.fields {
		a.touch(f.value)
	}
	if !st.All || st.Op != pg.SetOperation_SETOP_UNION {
		for _, r := range []row{left, right} {
			v := rowValue(r)
			a.use(st.Op.String()[len("SETOP_"):], v.masks, v.unknown)
		}
	}
	result := merge(left, right)
	if st.Op == pg.SetOperation_SETOP_EXCEPT && !left.open && !right.open && len(left.fields) == len(right.fields) {
		result = left // rows of the left side, as they are
	}
	a.orderAndLimit(st, s, result)
	leftmost := st.Larg // has the INTO of the whole
	for leftmost.GetLarg() != nil {
		leftmost = leftmost.Larg
	}
	a.into(leftmost.GetIntoClause(), result)
	return result
}

// values is VALUES: columns are joined over the rows.
func (a *analyzer) values(lists []*pg.Node, s *scope) row {
	rows := make([]row, 0, len(lists))
	for _, list := range lists {
		var r row
		for _, n := range list.GetList().GetItems() {
			if star, ok := a.star(n, s); ok {
				r = r.append(star)
				continue
			}
			r.fields = append(r.fields, field{"", a.expr(n, s)})
		}
		rows = append(rows, r)
	}
	return named(merge(rows...))
}

// named gives columns the names of VALUES.
func named(r row) row {
	fields := make([]field, len(r.fields))
	for i, f := range r.fields {
		fields[i] = field{"column" + strconv.Itoa(i+1), f.value}
	}
	return row{fields: fields, open: r.open, rest: r.rest}
}

// group is GROUP BY: columns, positions in the result, expressions, or names of the result.
func (a *analyzer) group(clause []*pg.Node, s *scope, result row) {
	for _, n := range clause {
		if set := n.GetGroupingSet(); set != nil {
			a.group(set.Content, s, result)
			continue
		}
		a.using("GROUP BY", func() { a.byName(n, s, result) })
	}
}

// byName is what ORDER BY, GROUP BY and DISTINCT ON name: a position in the result, a name in it, or an expression.
func (a *analyzer) byName(n *pg.Node, s *scope, result row) {
	if c := n.GetAConst(); c != nil {
		if at := int(c.GetIval().GetIval()); at >= 1 && at <= len(result.fields) {
			a.touch(result.fields[at-1].value)
		} else if result.open {
			a.touch(rowValue(result))
		}
		return
	}
	if fields := n.GetColumnRef().GetFields(); len(fields) == 1 {
		name := fields[0].GetString_().GetSval()
		inResult := result.open
		for _, f := range result.fields {
			if f.name == name {
				a.touch(f.value)
				inResult = true
			}
		}
		if _, found := s.column(name); !found && inResult {
			return
		}
	}
	a.expr(n, s)
}

func (a *analyzer) distinct(st *pg.SelectStmt, s *scope, result row) {
	for _, n := range st.DistinctClause {
		a.using("DISTINCT", func() {
			if n.GetNode() == nil { // without ON: the whole result
				a.touch(rowValue(result))
				return
			}
			a.byName(n, s, result)
		})
	}
}

func (a *analyzer) orderAndLimit(st *pg.SelectStmt, s *scope, result row) {
	for _, n := range st.SortClause {
		a.using("ORDER BY", func() { a.sort(n.GetSortBy(), s, &result) })
	}
	a.where("LIMIT", st.LimitOffset, s)
	a.where("LIMIT", st.LimitCount, s)
}

// sort is one item of ORDER BY; result is nil where names of a result are not in sight.
func (a *analyzer) sort(by *pg.SortBy, s *scope, result *row) value {
	if len(by.GetUseOp()) > 0 {
		v := a.expr(by.GetNode(), s)
		return derive(v, a.operator(by.UseOp, v, v))
	}
	if result != nil {
		a.byName(by.GetNode(), s, *result)
		return value{}
	}
	return a.expr(by.GetNode(), s)
}

// windows is the WINDOW clause.
func (a *analyzer) windows(clause []*pg.Node, s *scope) {
	for _, n := range clause {
		a.window(n.GetWindowDef(), s)
	}
}

func (a *analyzer) window(w *pg.WindowDef, s *scope) {
	if w == nil {
		return
	}
	a.using("WINDOW", func() {
		for _, n := range w.PartitionClause {
			a.expr(n, s)
		}
		for _, n := range w.OrderClause {
			a.sort(n.GetSortBy(), s, nil)
		}
		for _, n := range []*pg.Node{w.StartOffset, w.EndOffset} {
			if n != nil {
				a.expr(n, s)
			}
		}
	})
}
