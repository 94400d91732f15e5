package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// SQLSTATEs; appendix A of the PostgreSQL manual.
const (
	codeInsufficientPrivilege = "42501"
	codeSyntaxError           = "42601"
	codeNoSuchStatement       = "26000"
	codeNoSuchCursor          = "34000"
	codeProgramLimit          = "54000"
	codeDiskFull              = "53100"
	codeTooManyConnections    = "53300"
	codeProtocolViolation     = "08P01"
	codeConnectionFailure     = "08006"
	codeCanNotConnect         = "08001"
	codeInvalidAuthorization  = "28000"
	codeAdminShutdown         = "57P01"
	codeNotSupported          = "0A000"
	codeInternal              = "XX000"
)

// A denial is an ErrorResponse in the making: all that the client is told.
type denial struct {
	severity string // "ERROR", unless set
	code     string
	message  string
	hint     string
	position int // in the statement's text, in characters from 1; 0 is none
}

// encode gives the ErrorResponse; the slice is used until the next call.
func (m *machine) encode(d *denial) []byte {
	m.errors = appendDenial(m.errors[:0], d)
	return m.errors
}

func appendDenial(dst []byte, d *denial) []byte {
	severity := d.severity
	if severity == "" {
		severity = "ERROR"
	}
	out, err := (&pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: d.code, Message: clean(d.message), Hint: clean(d.hint),
		Position: int32(d.position), File: "sallyport",
	}).Encode(dst)
	if err != nil { // only a message over 1 GiB
		return appendMessage(dst, msgErrorResponse, "SERROR\x00C"+codeInternal+"\x00Msallyport: denied\x00\x00")
	}
	return out
}

// clean makes a text fit for a field of an ErrorResponse.
func clean(s string) string { return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "?") }

func (m *machine) hint() string { return hint(m.session) }

func hint(session string) string {
	return "The session goes on. Give the policy's owner the session " + session + "."
}

func (m *machine) policyDenial(d policy.Decision) *denial {
	message := fmt.Sprintf("sallyport: denied by rule %q", d.Rule)
	if d.Policy != "" {
		message += fmt.Sprintf(" of policy %q", d.Policy)
	}
	if d.Message != "" {
		message += ": " + d.Message
	}
	return &denial{code: codeInsufficientPrivilege, message: message, hint: m.hint()}
}

// unparsable is a syntax error as the server would tell it, but that its file is "sallyport"; else it says what the parser can not do.
func (m *machine) unparsable(err error) *denial {
	var syntax *sql.SyntaxError
	if errors.As(err, &syntax) {
		return &denial{code: codeSyntaxError, message: syntax.Message, position: syntax.Position}
	}
	return &denial{code: codeSyntaxError, message: "sallyport: " + err.Error(), hint: "What can not be parsed is not forwarded. Session " + m.session + "."}
}

func (m *machine) tooLong(limit int) *denial {
	return &denial{code: codeProgramLimit, message: fmt.Sprintf("sallyport: the statement is longer than %d bytes and can not be decided on", limit), hint: m.hint()}
}

func (m *machine) noRecord() *denial {
	return &denial{code: codeDiskFull, message: "sallyport: the record of this session can not be written; nothing is forwarded without it", hint: m.hint()}
}

func (m *machine) noSuchStatement(name string) *denial {
	return &denial{code: codeNoSuchStatement, message: fmt.Sprintf("prepared statement %q does not exist", quoteName(name)), hint: m.hint()}
}

func (m *machine) nestedExecute(name string) *denial {
	return &denial{code: codeNotSupported, message: fmt.Sprintf("sallyport: prepared statement %q is itself an EXECUTE and can not be decided on", quoteName(name)), hint: m.hint()}
}

func (m *machine) badName() *denial {
	return &denial{code: codeNotSupported, message: fmt.Sprintf("sallyport: names of prepared statements and portals must be ASCII, and of %d bytes at most", maxName), hint: m.hint()}
}

func (m *machine) replacedPortal(name string) *denial {
	return &denial{code: codeNotSupported, message: fmt.Sprintf("sallyport: a cursor was declared since portal %q was bound, and may have taken its name", quoteName(name)), hint: m.hint()}
}

func (m *machine) noSuchPortal(name string) *denial {
	return &denial{code: codeNoSuchCursor, message: fmt.Sprintf("portal %q does not exist", quoteName(name)), hint: m.hint()}
}

func (m *machine) unknownFunction(oid uint32) *denial {
	return &denial{code: codeInsufficientPrivilege, message: fmt.Sprintf("sallyport: denied: the function with OID %d, called by a FunctionCall message, is not known", oid), hint: m.hint()}
}

func (m *machine) preparedUnmasked() *denial {
	return &denial{code: codeNoSuchStatement, message: "sallyport: the statement was prepared before the policy had masks; prepare it again", hint: m.hint()}
}

func (m *machine) tooManyNames() *denial {
	return &denial{code: codeProgramLimit, message: "sallyport: too many prepared statements or portals", hint: m.hint()}
}

// fatal is a denial that ends the session.
func fatal(code, message, session string) *denial {
	d := &denial{severity: "FATAL", code: code, message: "sallyport: " + message}
	if session != "" {
		d.hint = "Session " + session + "."
	}
	return d
}

func shutdown(session string) *denial {
	d := fatal(codeAdminShutdown, "terminating connection: the proxy is being stopped or replaced", session)
	return d
}

// refusedText is what the server gets in place of a denied statement: no PostgreSQL parses it, and its log then says why.
func refusedText(d policy.Decision) string {
	text := "sallyport: denied"
	if d.Rule != "" {
		text += " by " + d.Policy + "/" + d.Rule
	}
	return strings.ReplaceAll(text, "\x00", "") + "\x00"
}
