// Package lineage says which masked columns the values of a statement's result come from, and where else a statement would let
// them go. It reads PostgreSQL's parse tree as the server's analysis would, with views and SQL functions expanded from a
// catalog; the answer is never less than what the server can show.
//
// A [Schema] is a catalog seen through the masks of a policy; [Schema.Analyze] is the package's one question, [Schema.ValueOf] the
// short cut for a column that the server names itself. What is not known is taken for all that can be reached. There is no I/O.
package lineage
