package postgres

// functionNames are the functions that clients call by FunctionCall messages: libpq's large-object interface.
// The OIDs are fixed in PostgreSQL's pg_proc.dat. Any other OID is denied, because its name can not be vouched for.
var functionNames = map[uint32]string{
	764:  "lo_import",
	765:  "lo_export",
	767:  "lo_import",
	715:  "lo_create",
	952:  "lo_open",
	953:  "lo_close",
	954:  "loread",
	955:  "lowrite",
	956:  "lo_lseek",
	957:  "lo_creat",
	958:  "lo_tell",
	964:  "lo_unlink",
	1004: "lo_truncate",
	3170: "lo_lseek64",
	3171: "lo_tell64",
	3172: "lo_truncate64",
}
