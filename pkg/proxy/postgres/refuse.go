package postgres

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// refusedName is the prepared statement that messages in the place of a denied Bind or Execute would make, if the server took them: its
// unnamed one is left alone, as it would be by the error of a real one.
var refusedName = []byte("sallyport")

var errProtocol = errors.New("protocol violation")

func (f *frontend) denyText(typ byte, name, text []byte, err error) step {
	d := policy.Decision{Rule: "unparsable", Message: err.Error()}
	op := record.Operation{Kind: kindOf(typ), Statement: statementFragment(sql.RedactUnparsed(string(text)), ""), Decision: decisionFragment(d)}
	return f.denyStatement(typ, name, f.unparsable(err), d, &op)
}

// denyStatement records a denial and refuses the message. Without an operation one is made.
func (f *frontend) denyStatement(typ byte, name []byte, words *denial, d policy.Decision, op *record.Operation) step {
	if op == nil {
		op = &record.Operation{Kind: kindOf(typ), Statement: statementFragment("", ""), Decision: decisionFragment(d)}
	}
	if _, err := f.judge.Admit(op, d); err != nil {
		words = f.noRecord()
	}
	f.recorded()
	return f.refuse(typ, name, words, d)
}

// refuse replaces a message by one of the same kind of answer that the server refuses.
func (f *frontend) refuse(typ byte, name []byte, words *denial, d policy.Decision) step {
	e := f.due.push()
	e.denied = words
	text := refusedText(d)
	if typ == msgQuery || typ == msgFunctionCall {
		e.kind = dueQuery
		f.batch++
		f.refused = appendMessage(f.refused[:0], msgQuery, text)
		return replace
	}
	e.kind = dueParse
	f.skipping = true
	f.refused = appendMessage(f.refused[:0], msgParse, string(name), "\x00", text, "\x00\x00")
	return replace
}

// violation ends the session: the client does not speak the protocol.
func (f *frontend) violation(out *relay.Output, what string) error {
	if !f.backendMid {
		out.Reply(bytes.Clone(f.encode(fatal(codeProtocolViolation, what, f.session))))
	}
	return fmt.Errorf("%w: %s", errProtocol, what)
}

func kindOf(typ byte) string {
	switch typ {
	case msgQuery:
		return "query"
	case msgParse:
		return "parse"
	case msgBind:
		return "bind"
	case msgExecute:
		return "execute"
	}
	return "function-call"
}
