package sql

// A Script is one string that a client sent, parsed: what the server would run for one Query or Parse message.
// It is immutable and shared between sessions.
type Script struct {
	// Statements are the top-level statements in order; empty for an empty query string.
	Statements []*Statement
	// Normalised is the text with literals replaced by $1, $2 …, comments dropped, and password literals gone; safe to record.
	Normalised string
	// Fingerprint identifies statements of one shape: 16 hexadecimal digits.
	Fingerprint string

	// plain is true when what the statements are does not depend on the values of literals, and no literal is a secret: the script
	// then stands for every text that differs in literals alone.
	plain bool
	// redacted is the text without secrets; "" when it has none.
	redacted string
}

// RedactedText is the full text with the password literals of CREATE/ALTER ROLE, USER MAPPING, SUBSCRIPTION, dblink and the like
// replaced. actual is the text that the script was got for.
func (s *Script) RedactedText(actual string) string {
	if s.redacted != "" {
		return s.redacted
	}
	return actual
}

// A Statement is one top-level SQL statement. Policy decides on its units, and allows it only if it allows every one.
type Statement struct {
	// Units are the operations that the statement contains, the outermost first: EXPLAIN, PREPARE, DECLARE, COPY (query),
	// CREATE TABLE AS and data-modifying WITH queries have more than one. Never empty.
	Units []Unit

	// Prepares is the name that PREPARE gives its statement; else "".
	Prepares string
	// Executes is the prepared statement that EXECUTE runs (EXPLAIN EXECUTE too); the session adds that statement's units. Else "".
	Executes string
	// Deallocates is the name that DEALLOCATE drops; DeallocatesAll is DEALLOCATE ALL, DISCARD ALL.
	Deallocates    string
	DeallocatesAll bool
	// SearchPath is what SET search_path (or set_config with literals) may set it to. SearchPathChanged is true when the statement may change it.
	SearchPath        []string
	SearchPathChanged bool
	// Copy is the form of a COPY's data; nil for other statements.
	Copy *CopyFormat
	// Denied is why the statement can not be decided on at all (it would change how the server reads text, for example);
	// "" for nearly all.
	Denied string
}

// A Unit is one operation on which policy decides.
type Unit struct {
	// Kind is one of the Kind constants.
	Kind string
	// Verb is the SQL command as PostgreSQL names it in its command tags, upper case: SELECT, INSERT, UPDATE, DELETE, MERGE,
	// CREATE TABLE, DROP DATABASE, SET, BEGIN, COPY, CALL, DO …
	Verb string
	// Reads and Writes are the tables, views and sequences involved.
	Reads, Writes []Object
	// Functions are the functions called.
	Functions []Object
	// Filtered is true for an UPDATE or DELETE whose WHERE clause restricts rows by a column, and for what is not one of these.
	Filtered bool
	// Program is true for COPY FROM/TO PROGRAM; File is true for COPY FROM/TO a file of the server.
	Program, File bool
	// Role is the role that SET ROLE or SET SESSION AUTHORIZATION asks for; else "".
	Role string
	// Setting is the parameter that SET, RESET or SHOW names; else "".
	Setting string
}

// Object names a table, view, sequence or function. Schema is "" when the statement leaves it to the search path.
type Object struct{ Schema, Name string }

// Kinds of units.
const (
	KindQuery       = "query"       // SELECT, VALUES, TABLE, EXPLAIN, DECLARE, FETCH, MOVE, CLOSE
	KindDML         = "dml"         // INSERT, UPDATE, DELETE, MERGE
	KindDDL         = "ddl"         // CREATE, ALTER, DROP, TRUNCATE, COMMENT, SELECT INTO …
	KindDCL         = "dcl"         // GRANT, REVOKE, roles, default privileges
	KindTransaction = "transaction" // BEGIN, COMMIT, SAVEPOINT …
	KindSession     = "session"     // SET, RESET, SHOW, DISCARD, PREPARE, EXECUTE, DEALLOCATE, LISTEN, NOTIFY, LOCK …
	KindCopy        = "copy"        // COPY
	KindCall        = "call"        // CALL, FunctionCall
	KindDo          = "do"          // DO
	KindMaintenance = "maintenance" // VACUUM, ANALYZE, REINDEX, CLUSTER, CHECKPOINT, LOAD …
)
