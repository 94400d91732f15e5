package sql

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Inner is the message that a node of a parse tree wraps, or nil.
func Inner(n *pg.Node) proto.Message { return inner(n) }

// EachChild calls f with the messages in the fields of a message, in the order of its definition, until f returns false.
func EachChild(m proto.Message, f func(field protoreflect.Name, child proto.Message) bool) {
	eachChild(m, f)
}

// Name is the object that a list of strings names: the last is its name, the one before its schema.
func Name(names []*pg.Node) Object { return objectOf(names) }

// SearchPath reads a list of names as the server reads the value of search_path; ok is false when it would refuse it.
func SearchPath(value string) (schemas []string, ok bool) { return splitIdentifiers(value) }
