package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

func copyCommand(w *walker, m proto.Message) {
	s := m.(*pg.CopyStmt)
	w.unit.Program = s.IsProgram
	w.unit.File = s.Filename != "" && !s.IsProgram
	w.statement.Copy = copyFormat(s)
	w.writing = s.IsFrom
	if s.Relation != nil {
		w.table(s.Relation)
	}
	w.writing = false
	w.node(s.WhereClause)
	if s.Query != nil {
		w.command(inner(s.Query))
	}
}

func explainCommand(w *walker, m proto.Message) { w.command(inner(m.(*pg.ExplainStmt).Query)) }

func declareCommand(w *walker, m proto.Message) { w.command(inner(m.(*pg.DeclareCursorStmt).Query)) }

func fetchCommand(w *walker, m proto.Message) {
	if m.(*pg.FetchStmt).Ismove {
		w.unit.Verb = "MOVE"
	}
}

func prepareCommand(w *walker, m proto.Message) {
	s := m.(*pg.PrepareStmt)
	w.statement.Prepares = s.Name
	w.command(inner(s.Query))
}

func executeCommand(w *walker, m proto.Message) {
	s := m.(*pg.ExecuteStmt)
	w.statement.Executes = s.Name
	w.writing = false
	w.nodes(s.Params...)
}

func deallocateCommand(w *walker, m proto.Message) {
	s := m.(*pg.DeallocateStmt)
	w.statement.Deallocates, w.statement.DeallocatesAll = s.Name, s.Isall || s.Name == ""
}

func discardCommand(w *walker, m proto.Message) {
	target := m.(*pg.DiscardStmt).Target
	w.unit.Verb = strings.ReplaceAll(target.String(), "_", " ")
	if target == pg.DiscardMode_DISCARD_ALL {
		w.statement.DeallocatesAll, w.statement.SearchPathChanged = true, true
	}
}

func transactionCommand(w *walker, m proto.Message) {
	switch m.(*pg.TransactionStmt).Kind {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN:
		w.unit.Verb = "BEGIN"
	case pg.TransactionStmtKind_TRANS_STMT_START:
		w.unit.Verb = "START TRANSACTION"
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		w.unit.Verb = "COMMIT"
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK, pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		w.unit.Verb = "ROLLBACK"
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		w.unit.Verb = "SAVEPOINT"
	case pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		w.unit.Verb = "RELEASE"
	case pg.TransactionStmtKind_TRANS_STMT_PREPARE:
		w.unit.Verb = "PREPARE TRANSACTION"
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED:
		w.unit.Verb = "COMMIT PREPARED"
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
		w.unit.Verb = "ROLLBACK PREPARED"
	default:
		w.statement.deny("unknown transaction command")
	}
}

func vacuumCommand(w *walker, m proto.Message) {
	s := m.(*pg.VacuumStmt)
	w.unit.Verb = "VACUUM"
	if !s.IsVacuumcmd {
		w.unit.Verb, w.writing = "ANALYZE", false
	}
	w.nodes(s.Rels...)
}

func reindexCommand(w *walker, m proto.Message) {
	s := m.(*pg.ReindexStmt)
	w.write(s.Relation)
	if s.Kind == pg.ReindexObjectType_REINDEX_OBJECT_SCHEMA {
		w.writeSchema(s.Name)
	}
}

func grantCommand(w *walker, m proto.Message) {
	s := m.(*pg.GrantStmt)
	w.unit.Verb = "REVOKE"
	if s.IsGrant {
		w.unit.Verb = "GRANT"
	}
	for _, n := range s.Objects {
		if s.Targtype == pg.GrantTargetType_ACL_TARGET_ALL_IN_SCHEMA || s.Objtype == pg.ObjectType_OBJECT_SCHEMA {
			w.writeSchema(n.GetString_().GetSval())
		} else {
			w.named(s.Objtype, n)
		}
	}
}

func grantRoleCommand(w *walker, m proto.Message) {
	w.unit.Verb = "REVOKE ROLE"
	if m.(*pg.GrantRoleStmt).IsGrant {
		w.unit.Verb = "GRANT ROLE"
	}
}

func defaultPrivilegesCommand(w *walker, m proto.Message) {
	for _, n := range m.(*pg.AlterDefaultPrivilegesStmt).Options {
		if o := n.GetDefElem(); o.GetDefname() == "schemas" {
			for _, schema := range o.Arg.GetList().GetItems() {
				w.writeSchema(schema.GetString_().GetSval())
			}
		}
	}
}

func storedSettingCommand(w *walker, m proto.Message) {
	switch s := m.(type) {
	case *pg.AlterRoleSetStmt:
		w.storedSetting(s.Setstmt)
	case *pg.AlterDatabaseSetStmt:
		w.storedSetting(s.Setstmt)
	case *pg.AlterSystemStmt:
		w.storedSetting(s.Setstmt)
	}
}
