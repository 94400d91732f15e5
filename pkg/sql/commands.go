package sql

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// A command is what is known of one kind of statement.
type command struct {
	kind string
	// verb is its command tag; "" where run sets it.
	verb string
	// run notes what the statement does. Without one every table in it is changed, every function called, and nothing else is to be
	// known.
	run func(w *walker, m proto.Message)
}

// commandOf knows the statements of the grammar. One that it does not know is denied.
func commandOf(m proto.Message) (c command, ok bool) {
	switch m.(type) {
	case *pg.SelectStmt:
		c = command{KindQuery, "SELECT", selectCommand}
	case *pg.InsertStmt:
		c = command{KindDML, "INSERT", insertCommand}
	case *pg.UpdateStmt:
		c = command{KindDML, "UPDATE", updateCommand}
	case *pg.DeleteStmt:
		c = command{KindDML, "DELETE", deleteCommand}
	case *pg.MergeStmt:
		c = command{KindDML, "MERGE", mergeCommand}
	case *pg.CopyStmt:
		c = command{KindCopy, "COPY", copyCommand}
	case *pg.CallStmt:
		c = command{KindCall, "CALL", nil}
	case *pg.DoStmt:
		c = command{KindDo, "DO", nil}

	case *pg.ExplainStmt:
		c = command{KindQuery, "EXPLAIN", explainCommand}
	case *pg.DeclareCursorStmt:
		c = command{KindQuery, "DECLARE CURSOR", declareCommand}
	case *pg.FetchStmt:
		c = command{KindQuery, "FETCH", fetchCommand}
	case *pg.ClosePortalStmt:
		c = command{KindQuery, "CLOSE CURSOR", nil}

	case *pg.TransactionStmt:
		c = command{KindTransaction, "", transactionCommand}
	case *pg.VariableSetStmt:
		c = command{KindSession, "SET", setCommand}
	case *pg.VariableShowStmt:
		c = command{KindSession, "SHOW", showCommand}
	case *pg.ConstraintsSetStmt:
		c = command{KindTransaction, "SET CONSTRAINTS", nothing}
	case *pg.DiscardStmt:
		c = command{KindSession, "", discardCommand}
	case *pg.PrepareStmt:
		c = command{KindSession, "PREPARE", prepareCommand}
	case *pg.ExecuteStmt:
		c = command{KindSession, "EXECUTE", executeCommand}
	case *pg.DeallocateStmt:
		c = command{KindSession, "DEALLOCATE", deallocateCommand}
	case *pg.ListenStmt:
		c = command{KindSession, "LISTEN", nil}
	case *pg.NotifyStmt:
		c = command{KindSession, "NOTIFY", nil}
	case *pg.UnlistenStmt:
		c = command{KindSession, "UNLISTEN", nil}
	case *pg.LockStmt:
		c = command{KindSession, "LOCK TABLE", nil}

	case *pg.VacuumStmt:
		c = command{KindMaintenance, "", vacuumCommand}
	case *pg.ClusterStmt:
		c = command{KindMaintenance, "CLUSTER", nil}
	case *pg.ReindexStmt:
		c = command{KindMaintenance, "REINDEX", reindexCommand}
	case *pg.RefreshMatViewStmt:
		c = command{KindMaintenance, "REFRESH MATERIALIZED VIEW", nil}
	case *pg.CheckPointStmt:
		c = command{KindMaintenance, "CHECKPOINT", nil}
	case *pg.LoadStmt:
		c = command{KindMaintenance, "LOAD", nil}

	case *pg.GrantStmt:
		c = command{KindDCL, "", grantCommand}
	case *pg.GrantRoleStmt:
		c = command{KindDCL, "", grantRoleCommand}
	case *pg.AlterDefaultPrivilegesStmt:
		c = command{KindDCL, "ALTER DEFAULT PRIVILEGES", defaultPrivilegesCommand}
	case *pg.CreateRoleStmt:
		c = command{KindDCL, "CREATE ROLE", nil}
	case *pg.AlterRoleStmt:
		c = command{KindDCL, "ALTER ROLE", nil}
	case *pg.AlterRoleSetStmt:
		c = command{KindDCL, "ALTER ROLE", storedSettingCommand}
	case *pg.DropRoleStmt:
		c = command{KindDCL, "DROP ROLE", nil}
	case *pg.DropOwnedStmt:
		c = command{KindDCL, "DROP OWNED", nil}
	case *pg.ReassignOwnedStmt:
		c = command{KindDCL, "REASSIGN OWNED", nil}

	case *pg.CreateStmt:
		c = command{KindDDL, "CREATE TABLE", nil}
	case *pg.CreateTableAsStmt:
		c = command{KindDDL, "", createAsCommand}
	case *pg.CreateForeignTableStmt:
		c = command{KindDDL, "CREATE FOREIGN TABLE", createForeignTableCommand}
	case *pg.CreateSchemaStmt:
		c = command{KindDDL, "CREATE SCHEMA", createSchemaCommand}
	case *pg.CreateSeqStmt:
		c = command{KindDDL, "CREATE SEQUENCE", sequenceCommand}
	case *pg.IndexStmt:
		c = command{KindDDL, "CREATE INDEX", nil}
	case *pg.ViewStmt:
		c = command{KindDDL, "CREATE VIEW", nil}
	case *pg.RuleStmt:
		c = command{KindDDL, "CREATE RULE", ruleCommand}
	case *pg.CreateTrigStmt:
		c = command{KindDDL, "CREATE TRIGGER", triggerCommand}
	case *pg.CreateEventTrigStmt:
		c = command{KindDDL, "CREATE EVENT TRIGGER", eventTriggerCommand}
	case *pg.CreatePolicyStmt:
		c = command{KindDDL, "CREATE POLICY", nil}
	case *pg.CreateFunctionStmt:
		c = command{KindDDL, "", createFunctionCommand}
	case *pg.CreateStatsStmt:
		c = command{KindDDL, "CREATE STATISTICS", createStatisticsCommand}
	case *pg.CreateDomainStmt:
		c = command{KindDDL, "CREATE DOMAIN", createDomainCommand}
	case *pg.CompositeTypeStmt:
		c = command{KindDDL, "CREATE TYPE", nil}
	case *pg.CreateEnumStmt:
		c = command{KindDDL, "CREATE TYPE", typeNameCommand}
	case *pg.CreateRangeStmt:
		c = command{KindDDL, "CREATE TYPE", typeNameCommand}
	case *pg.DefineStmt:
		c = command{KindDDL, "", defineCommand}
	case *pg.CreateCastStmt:
		c = command{KindDDL, "CREATE CAST", nil}
	case *pg.CreateConversionStmt:
		c = command{KindDDL, "CREATE CONVERSION", createConversionCommand}
	case *pg.CreateTransformStmt:
		c = command{KindDDL, "CREATE TRANSFORM", nil}
	case *pg.CreateOpClassStmt:
		c = command{KindDDL, "CREATE OPERATOR CLASS", operatorClassCommand}
	case *pg.CreateOpFamilyStmt:
		c = command{KindDDL, "CREATE OPERATOR FAMILY", operatorClassCommand}
	case *pg.CreateAmStmt:
		c = command{KindDDL, "CREATE ACCESS METHOD", handlerCommand}
	case *pg.CreatePLangStmt:
		c = command{KindDDL, "CREATE LANGUAGE", handlerCommand}
	case *pg.CreateExtensionStmt:
		c = command{KindDDL, "CREATE EXTENSION", nil}
	case *pg.CreateFdwStmt:
		c = command{KindDDL, "CREATE FOREIGN DATA WRAPPER", foreignDataWrapperCommand}
	case *pg.CreateForeignServerStmt:
		c = command{KindDDL, "CREATE SERVER", nil}
	case *pg.CreateUserMappingStmt:
		c = command{KindDDL, "CREATE USER MAPPING", nil}
	case *pg.ImportForeignSchemaStmt:
		c = command{KindDDL, "IMPORT FOREIGN SCHEMA", importCommand}
	case *pg.CreatePublicationStmt:
		c = command{KindDDL, "CREATE PUBLICATION", publicationCommand}
	case *pg.CreateSubscriptionStmt:
		c = command{KindDDL, "CREATE SUBSCRIPTION", nil}
	case *pg.CreateTableSpaceStmt:
		c = command{KindDDL, "CREATE TABLESPACE", nil}
	case *pg.CreatedbStmt:
		c = command{KindDDL, "CREATE DATABASE", nil}

	case *pg.AlterTableStmt:
		c = command{KindDDL, "", alterTableCommand}
	case *pg.AlterTableMoveAllStmt:
		c = command{KindDDL, "", alterTableAllCommand}
	case *pg.AlterSeqStmt:
		c = command{KindDDL, "ALTER SEQUENCE", sequenceCommand}
	case *pg.AlterPolicyStmt:
		c = command{KindDDL, "ALTER POLICY", nil}
	case *pg.AlterEventTrigStmt:
		c = command{KindDDL, "ALTER EVENT TRIGGER", nil}
	case *pg.AlterFunctionStmt:
		c = command{KindDDL, "", alterFunctionCommand}
	case *pg.AlterStatsStmt:
		c = command{KindDDL, "ALTER STATISTICS", typeNameCommand}
	case *pg.AlterDomainStmt:
		c = command{KindDDL, "ALTER DOMAIN", typeNameCommand}
	case *pg.AlterEnumStmt:
		c = command{KindDDL, "ALTER TYPE", typeNameCommand}
	case *pg.AlterTypeStmt:
		c = command{KindDDL, "ALTER TYPE", typeNameCommand}
	case *pg.AlterCollationStmt:
		c = command{KindDDL, "ALTER COLLATION", typeNameCommand}
	case *pg.AlterOperatorStmt:
		c = command{KindDDL, "ALTER OPERATOR", nil}
	case *pg.AlterOpFamilyStmt:
		c = command{KindDDL, "ALTER OPERATOR FAMILY", operatorClassCommand}
	case *pg.AlterTSDictionaryStmt:
		c = command{KindDDL, "ALTER TEXT SEARCH DICTIONARY", typeNameCommand}
	case *pg.AlterTSConfigurationStmt:
		c = command{KindDDL, "ALTER TEXT SEARCH CONFIGURATION", typeNameCommand}
	case *pg.AlterExtensionStmt:
		c = command{KindDDL, "ALTER EXTENSION", nil}
	case *pg.AlterExtensionContentsStmt:
		c = command{KindDDL, "ALTER EXTENSION", extensionContentsCommand}
	case *pg.AlterFdwStmt:
		c = command{KindDDL, "ALTER FOREIGN DATA WRAPPER", foreignDataWrapperCommand}
	case *pg.AlterForeignServerStmt:
		c = command{KindDDL, "ALTER SERVER", nil}
	case *pg.AlterUserMappingStmt:
		c = command{KindDDL, "ALTER USER MAPPING", nil}
	case *pg.AlterPublicationStmt:
		c = command{KindDDL, "ALTER PUBLICATION", publicationCommand}
	case *pg.AlterSubscriptionStmt:
		c = command{KindDDL, "ALTER SUBSCRIPTION", nil}
	case *pg.AlterTableSpaceOptionsStmt:
		c = command{KindDDL, "ALTER TABLESPACE", nil}
	case *pg.AlterDatabaseStmt:
		c = command{KindDDL, "ALTER DATABASE", nil}
	case *pg.AlterDatabaseRefreshCollStmt:
		c = command{KindDDL, "ALTER DATABASE", nil}
	case *pg.AlterDatabaseSetStmt:
		c = command{KindDDL, "ALTER DATABASE", storedSettingCommand}
	case *pg.AlterSystemStmt:
		c = command{KindDDL, "ALTER SYSTEM", storedSettingCommand}

	case *pg.DropStmt:
		c = command{KindDDL, "", dropCommand}
	case *pg.TruncateStmt:
		c = command{KindDDL, "TRUNCATE TABLE", nil}
	case *pg.DropTableSpaceStmt:
		c = command{KindDDL, "DROP TABLESPACE", nil}
	case *pg.DropUserMappingStmt:
		c = command{KindDDL, "DROP USER MAPPING", nil}
	case *pg.DropSubscriptionStmt:
		c = command{KindDDL, "DROP SUBSCRIPTION", nil}
	case *pg.DropdbStmt:
		c = command{KindDDL, "DROP DATABASE", nil}

	case *pg.RenameStmt:
		c = command{KindDDL, "", renameCommand}
	case *pg.AlterObjectSchemaStmt:
		c = command{KindDDL, "", objectSchemaCommand}
	case *pg.AlterObjectDependsStmt:
		c = command{KindDDL, "", objectDependsCommand}
	case *pg.AlterOwnerStmt:
		c = command{KindDDL, "", ownerCommand}
	case *pg.CommentStmt:
		c = command{KindDDL, "COMMENT", commentCommand}
	case *pg.SecLabelStmt:
		c = command{KindDDL, "SECURITY LABEL", securityLabelCommand}
	default:
		return c, false
	}
	return c, true
}

// nothing is for statements that name no object.
func nothing(*walker, proto.Message) {}
