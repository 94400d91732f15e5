package lineage

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// command is what a statement shows, of whatever kind. s holds the parameters of a function in whose body it stands.
func (a *analyzer) command(n *pg.Node, s *scope) row {
	switch v := n.GetNode().(type) {
	case *pg.Node_SelectStmt, *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		return a.query(n, s)
	case *pg.Node_CopyStmt:
		return a.copy(v.CopyStmt, s)
	case *pg.Node_ExplainStmt:
		return a.explain(v.ExplainStmt, s)
	case *pg.Node_DeclareCursorStmt:
		a.declares = v.DeclareCursorStmt.Portalname
		return a.command(v.DeclareCursorStmt.Query, s)
	case *pg.Node_PrepareStmt:
		return a.command(v.PrepareStmt.Query, s)
	case *pg.Node_ExecuteStmt:
		for _, param := range v.ExecuteStmt.Params {
			a.store(a.expr(param, s), "given to a prepared statement")
		}
		return row{open: true}
	case *pg.Node_FetchStmt:
		if v.FetchStmt.Ismove {
			return row{}
		}
		a.fetches = v.FetchStmt.Portalname
		return row{open: true, rest: a.anything()}
	case *pg.Node_CallStmt:
		a.changes = true
		return a.callStmt(v.CallStmt, s)
	case *pg.Node_VariableShowStmt:
		return row{fields: []field{{v.VariableShowStmt.Name, clean(typeText)}}}
	case *pg.Node_VariableSetStmt:
		if strings.EqualFold(v.VariableSetStmt.Name, "search_path") {
			for _, arg := range v.VariableSetStmt.Args {
				a.addPath(arg.GetAConst().GetSval().GetSval())
			}
		}
	case *pg.Node_DoStmt:
		a.changes = true
		if a.s.options.Strict {
			a.deny("the code of DO can not be read, and what it does with masked columns is not known")
		}
	case *pg.Node_TransactionStmt, *pg.Node_DiscardStmt, *pg.Node_ListenStmt, *pg.Node_UnlistenStmt, *pg.Node_NotifyStmt, *pg.Node_LockStmt,
		*pg.Node_CheckPointStmt, *pg.Node_ConstraintsSetStmt, *pg.Node_DeallocateStmt, *pg.Node_ClosePortalStmt, *pg.Node_LoadStmt:
	case *pg.Node_TruncateStmt:
		for _, r := range v.TruncateStmt.Relations {
			a.rangeVar(r.GetRangeVar())
		}
	case *pg.Node_VacuumStmt, *pg.Node_ClusterStmt, *pg.Node_ReindexStmt, *pg.Node_RefreshMatViewStmt:
		a.reach = a.reach.Union(a.s.masks) // an error may quote an index's key
	default:
		return a.define(n, s)
	}
	return row{}
}

// addPath adds a schema to those in which names are looked up: what follows in the text may be meant so.
func (a *analyzer) addPath(schemas ...string) {
	for _, schema := range schemas {
		if schema != "" && !slices.Contains(a.morePath, schema) {
			a.morePath = append(a.morePath, schema)
		}
	}
}

// setConfig is set_config('search_path', …), which is SET by another name. Policy denies it for what is no literal.
func (a *analyzer) setConfig(args []*pg.Node) {
	if len(args) != 3 || !strings.EqualFold(text(args[0]), "search_path") {
		return
	}
	schemas, _ := sql.SearchPath(text(args[1]))
	a.addPath(schemas...)
}

// text is a string constant's, whatever it is cast to.
func text(n *pg.Node) string {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	return n.GetAConst().GetSval().GetSval()
}

// copy is COPY: its fields are the columns that it sends.
func (a *analyzer) copy(st *pg.CopyStmt, s *scope) row {
	in := level(s)
	if st.Query != nil {
		r := a.command(st.Query, in)
		if st.IsProgram || st.Filename != "" {
			a.store(rowValue(r), "written to a file or program of the server")
			return row{}
		}
		return r
	}
	if st.IsFrom {
		i := a.target(st.Relation)
		if (st.IsProgram || st.Filename != "") && a.s.options.Strict {
			a.deny("what COPY reads from a file or program of the server is not known, and may be of masked columns")
		}
		in.items = []*item{i}
		a.where("WHERE", st.WhereClause, in)
		return row{}
	}
	i := a.rangeVar(st.Relation)
	r := a.copied(st, i)
	if st.IsProgram || st.Filename != "" {
		a.store(rowValue(r), "written to a file or program of the server")
		return row{}
	}
	return r
}

// copied are the columns of COPY table TO: those of the list, else all that are not generated.
func (a *analyzer) copied(st *pg.CopyStmt, i *item) (r row) {
	if len(st.Attlist) == 0 {
		if i.row.open {
			return i.row
		}
		found, _ := a.candidates(st.Relation.GetSchemaname(), st.Relation.GetRelname())
		for at, f := range i.row.fields {
			if len(found) > 0 && at < len(found[0].Columns) && found[0].Columns[at].Generated {
				continue
			}
			r.fields = append(r.fields, f)
		}
		return r
	}
	for _, n := range st.Attlist {
		name := n.GetString_().GetSval()
		v, found, _ := i.column(name)
		if !found {
			v = a.absent()
		}
		r.fields = append(r.fields, field{name, v})
	}
	return r
}

// explain is EXPLAIN. A plan prints the statement's constants, and what functions gave while it was made; the tables' values it does not.
func (a *analyzer) explain(st *pg.ExplainStmt, s *scope) row {
	a.command(st.Query, s)
	v := value{masks: a.called}
	return row{fields: []field{{"QUERY PLAN", typed(v, typeText)}}}
}

// callStmt is CALL. Its row are the OUT parameters.
func (a *analyzer) callStmt(st *pg.CallStmt, s *scope) row {
	v := a.call(st.Funccall, level(s))
	if len(v.fields) > 0 {
		return row{fields: v.fields}
	}
	if v.typ == typeVoid {
		return row{}
	}
	return row{open: true, rest: v}
}
