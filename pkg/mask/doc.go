// Package mask rewrites values so that they say nothing, or no more than a mask lets them say, and stay values of their type: in
// PostgreSQL's text and binary formats, down to the elements of arrays, the fields of composites and the strings of JSON.
//
// Rules are the masks of the policies that apply to a session. What a result's column contains is the caller's to know
// (Contents); a Rewriter is made once for each column and applied to each value. What a method can not express in a type becomes
// NULL, and so does a value that is not what its type says. Detectors look for what has no column: addresses, numbers of
// cards and accounts, keys, in text that no mask names.
//
// The package does no I/O and knows no protocol but PostgreSQL's formats of values.
package mask
