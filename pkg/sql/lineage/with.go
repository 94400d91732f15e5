package lineage

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// with brings the queries of a WITH clause in sight of s. A query sees those before it, with RECURSIVE all, itself included.
func (a *analyzer) with(c *pg.WithClause, s *scope) {
	if c == nil {
		return
	}
	var made []*cte
	for _, n := range c.Ctes {
		q := n.GetCommonTableExpr()
		k := &cte{}
		made = append(made, k)
		if !c.Recursive {
			k.row = a.searched(q, a.plainCTE(q, s))
			s.ctes = &ctes{s.ctes, q.GetCtename(), k}
			continue
		}
		s.ctes = &ctes{s.ctes, q.GetCtename(), k}
	}
	if !c.Recursive {
		return
	}
	for i, n := range c.Ctes {
		q, k := n.GetCommonTableExpr(), made[i]
		k.evaluate = func() {
			k.evaluate = nil
			a.recursiveCTE(q, k, s)
		}
	}
	for _, k := range made {
		k.done()
	}
}

// done has the query evaluated; while that is going on, its row is what is known so far.
func (k *cte) done() {
	if k.evaluate != nil {
		k.evaluate()
	}
}

// plainCTE is what a WITH query returns: it sees the other queries, and the levels around, but not the FROM clause beside it.
func (a *analyzer) plainCTE(q *pg.CommonTableExpr, s *scope) row {
	return rename(a.query(q.GetCtequery(), s.beside()), q.GetAliascolnames())
}

// recursiveCTE reads a query that may name itself, until what it contains grows no more.
func (a *analyzer) recursiveCTE(q *pg.CommonTableExpr, k *cte, s *scope) {
	st := q.GetCtequery().GetSelectStmt()
	if st.GetOp() != pg.SetOperation_SETOP_UNION {
		k.row = row{open: true, rest: a.unknown()}
		k.row = a.searched(q, a.plainCTE(q, s))
		return
	}
	base := s.beside()
	a.with(st.WithClause, base)
	k.row = rename(a.selectStmt(st.Larg, base), q.GetAliascolnames())
	for range len(k.row.fields) + 2 {
		next := rename(merge(k.row, a.selectStmt(st.Rarg, base)), q.GetAliascolnames())
		grown := next.open != k.row.open || !sameMasks(rowValue(next), rowValue(k.row)) || !sameRow(next, k.row)
		k.row = next
		if !grown {
			a.orderAndLimit(st, base, k.row)
			k.row = a.searched(q, k.row)
			return
		}
	}
	a.cut = true
	all := a.anything()
	for i := range k.row.fields {
		k.row.fields[i].value = all
	}
	k.row.rest = all
}

func sameMasks(x, y value) bool { return x.unknown == y.unknown && x.masks.equal(y.masks) }

func sameRow(x, y row) bool {
	if len(x.fields) != len(y.fields) {
		return false
	}
	for i := range x.fields {
		if !sameMasks(x.fields[i].value, y.fields[i].value) {
			return false
		}
	}
	return true
}

// searched adds the columns of SEARCH and CYCLE to a WITH query's, which hold the values that these go by.
func (a *analyzer) searched(q *pg.CommonTableExpr, r row) row {
	by := func(columns []*pg.Node) value {
		var parts []value
		for _, n := range columns {
			if v, found, _ := (&item{row: r}).column(n.GetString_().GetSval()); found {
				parts = append(parts, v)
			} else {
				parts = append(parts, rowValue(r))
			}
		}
		return derive(parts...)
	}
	add := func(name string, v value) { r = r.append(row{fields: []field{{name, v}}}) }
	if c := q.GetSearchClause(); c != nil {
		add(c.SearchSeqColumn, by(c.SearchColList))
	}
	if c := q.GetCycleClause(); c != nil {
		v := by(c.CycleColList)
		a.use("CYCLE", v.masks, v.unknown)
		add(c.CycleMarkColumn, clean(0))
		add(c.CyclePathColumn, v)
	}
	return r
}

// rename gives the first columns other names.
func rename(r row, names []*pg.Node) row {
	if len(names) == 0 {
		return r
	}
	fields := make([]field, max(len(r.fields), len(names)))
	for i := range fields {
		switch {
		case i < len(r.fields):
			fields[i] = r.fields[i]
		default: // of a row that is open
			fields[i] = field{"", rowValue(r)}
		}
		if i < len(names) {
			fields[i].name = names[i].GetString_().GetSval()
			if r.open { // which of them comes first is not known
				fields[i].value = rowValue(r)
			}
		}
	}
	return row{fields: fields, open: r.open, rest: r.rest}
}
