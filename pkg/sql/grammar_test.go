package sql

import (
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// notCommands are nodes with a statement's name that no client's text begins with, and what they are.
var notCommands = map[protoreflect.Name]string{
	"RawStmt":             "wraps every statement",
	"SetOperationStmt":    "made by analysis, after parsing",
	"ReturnStmt":          "the body of a function",
	"PLAssignStmt":        "PL/pgSQL's assignment",
	"ReplicaIdentityStmt": "part of ALTER TABLE",
}

func TestEveryStatementOfTheGrammarIsKnown(t *testing.T) {
	fields := (&pg.Node{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	commands := 0
	for i := range fields.Len() {
		field := fields.Get(i)
		name := field.Message().Name()
		if !strings.HasSuffix(string(name), "Stmt") {
			continue
		}
		node := &pg.Node{}
		node.ProtoReflect().Set(field, node.ProtoReflect().NewField(field))
		st := analyse(&Script{}, node)
		_, known := commandOf(inner(node))
		_, other := notCommands[name]
		switch {
		case known == other:
			t.Errorf("%s: known %v, listed as no command %v", name, known, other)
		case len(st.Units) == 0:
			t.Errorf("%s has no unit", name)
		case known && (st.Units[0].Verb == "" || st.Units[0].Kind == "") && name != "TransactionStmt":
			t.Errorf("%s has the unit %+v", name, st.Units[0])
		case other && st.Denied != "unknown statement":
			t.Errorf("%s is denied for %q", name, st.Denied)
		}
		if known {
			commands++
		}
	}
	if commands < 110 {
		t.Errorf("only %d statements were found", commands)
	}
}

func TestStatementWithoutHandlingIsDenied(t *testing.T) {
	for _, node := range []*pg.Node{nil, {}, {Node: &pg.Node_Query{Query: &pg.Query{}}}, {Node: &pg.Node_ReturnStmt{ReturnStmt: &pg.ReturnStmt{}}}} {
		st := analyse(&Script{plain: true}, node)
		if st.Denied != "unknown statement" || len(st.Units) != 1 {
			t.Errorf("%v: denied %q, %d units", node, st.Denied, len(st.Units))
		}
	}
}
