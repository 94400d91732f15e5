// Package config turns documents into one immutable Snapshot. Load reads a directory; Parse does the same from bytes, so that
// the process that gets the files over a socket sees exactly what the process that read them saw.
//
// A set of documents is good as a whole or not at all: an error is an *Error that lists every problem with its file, line
// and field, and there is no Snapshot then. Whoever holds an earlier Snapshot keeps it.
//
// Unknown fields, wrong types, duplicate keys and references to what does not exist are problems; nothing is ignored.
package config
