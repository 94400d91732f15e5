// Package sql says what a PostgreSQL statement does: its verbs, the objects that it reads and writes, the functions that
// it calls, and whether an UPDATE or DELETE is filtered. The answer comes from PostgreSQL's own parser, never from
// matching text. The package does no I/O and knows nothing of policy.
package sql
