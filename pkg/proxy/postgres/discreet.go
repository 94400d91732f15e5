package postgres

import (
	"bytes"
	"encoding/binary"

	"github.com/sallyport-dev/sallyport/pkg/mask"
)

// Fields of ErrorResponse and NoticeResponse; "Error and Notice Message Fields" in the PostgreSQL manual.
const (
	fieldSeverity   = 'S'
	fieldSeverityEN = 'V'
	fieldCode       = 'C'
	fieldMessage    = 'M'
	fieldHint       = 'H'
	fieldPosition   = 'P'
	fieldSchema     = 's'
	fieldTable      = 't'
	fieldColumn     = 'c'
	fieldConstraint = 'n'

	fieldContext          = 'W'
	fieldInternalPosition = 'p'
	fieldInternalQuery    = 'q'
)

// conditions are words for the errors that an application meets in its daily life. Others are named by the SQLSTATE alone.
var conditions = map[string]string{
	"22001": "a value is too long", "22003": "a number is out of range", "22007": "invalid date or time", "22008": "a date or time is out of range",
	"22012": "division by zero", "22P02": "invalid text for a type", "22P03": "invalid binary value for a type", "22P05": "a character has no equivalent",
	"23502": "a column is not to be NULL", "23503": "a foreign key is violated", "23505": "a value exists already, and has to be unique",
	"23514": "a check is violated", "23P01": "an exclusion constraint is violated", "25P02": "the transaction is aborted; commands are ignored until its end",
	"40001": "could not serialize access", "40P01": "deadlock detected", "42501": "permission denied", "42601": "syntax error",
	"42703": "a column does not exist", "42P01": "a table does not exist", "42883": "a function does not exist",
	"55P03": "a lock is not available", "57014": "canceled", "57P01": "terminated by an administrator", "P0001": "raised by a function",
}

// discreet is an ErrorResponse or NoticeResponse that tells nothing of values: severity, SQLSTATE, position, and such names
// of objects as the catalog knows. A function could put a value in the place of a name.
func (m *machine) discreet(typ byte, body []byte) []byte {
	fields := map[byte]string{}
	r := reader{p: body}
	for code := r.byte(); code != 0; code = r.byte() {
		fields[code] = string(r.cstring())
	}
	if r.end() && ofAnalysis(typ, fields) {
		return completed(append([]byte{typ, 0, 0, 0, 0}, body...))
	}
	severity := fields[fieldSeverityEN]
	if !severities[severity] {
		severity = "ERROR"
		if typ == msgNoticeResponse {
			severity = "NOTICE"
		}
	}
	out := map[byte]string{fieldSeverity: severity, fieldSeverityEN: severity, fieldCode: codeInternal}
	if isSQLSTATE(fields[fieldCode]) {
		out[fieldCode] = fields[fieldCode]
	}
	what := conditions[out[fieldCode]]
	if what == "" {
		what = "SQLSTATE " + out[fieldCode]
	}
	out[fieldMessage] = "sallyport: " + what
	out[fieldHint] = "The server's own words may quote masked values and are not shown. Session " + m.session + "."
	if p := fields[fieldPosition]; isPosition(p) {
		out[fieldPosition] = p
	}
	m.knownNames(fields, out)
	b := []byte{typ, 0, 0, 0, 0}
	for _, code := range []byte{fieldSeverity, fieldSeverityEN, fieldCode, fieldMessage, fieldHint, fieldPosition, fieldSchema, fieldTable, fieldColumn, fieldConstraint} {
		if value, ok := out[code]; ok {
			b = append(append(append(b, code), value...), 0)
		}
	}
	return completed(append(b, 0))
}

// ofAnalysis is true for an error of the server's analysis of the client's own text, such as a column that does not exist: it has a
// position in that text, which no error of a function's has, and nothing was read yet.
func ofAnalysis(typ byte, fields map[byte]string) bool {
	code := fields[fieldCode]
	return typ == msgErrorResponse && isSQLSTATE(code) && code[:2] == "42" && isPosition(fields[fieldPosition]) &&
		fields[fieldContext] == "" && fields[fieldInternalPosition] == "" && fields[fieldInternalQuery] == ""
}

var severities = map[string]bool{"ERROR": true, "FATAL": true, "PANIC": true, "WARNING": true, "NOTICE": true, "DEBUG": true, "INFO": true, "LOG": true}

// knownNames copies names that the catalog has.
func (m *machine) knownNames(from, to map[byte]string) {
	if m.masks.view == nil || m.masks.view.picture == nil {
		return
	}
	r := m.masks.view.picture.catalog.RelationNamed(from[fieldSchema], from[fieldTable])
	if r == nil {
		return
	}
	to[fieldSchema], to[fieldTable] = from[fieldSchema], from[fieldTable]
	if r.Column(from[fieldColumn]) != nil {
		to[fieldColumn] = from[fieldColumn]
	}
	if code := to[fieldCode]; code[:2] == "23" && from[fieldConstraint] != "" { // integrity: a constraint of that table
		to[fieldConstraint] = from[fieldConstraint]
	}
}

func isSQLSTATE(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return len(s) == 5
}

func isPosition(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) > 0 && len(s) < 10
}

// lookedThrough is an ErrorResponse or NoticeResponse in whose texts the detectors have masked what they know.
func (m *machine) lookedThrough(typ byte, body []byte) []byte {
	w := m.masks.rules.Rewriter(mask.Contents{}, mask.Builtin(oidText), -1, formatText, mask.Options{Tally: m.masks.tally})
	b := []byte{typ, 0, 0, 0, 0}
	for r := (reader{p: body}); ; {
		code := r.byte()
		value := r.cstring()
		if r.bad || code == 0 {
			break
		}
		b = append(b, code)
		switch {
		case w == nil || bytes.IndexByte([]byte{fieldSeverity, fieldSeverityEN, fieldCode, fieldPosition}, code) >= 0:
			b = append(b, value...)
		default:
			if masked, null := w.Append(b, value); !null {
				b = masked
			}
		}
		b = append(b, 0)
	}
	return completed(append(b, 0))
}

// completed is a message with its length.
func completed(message []byte) []byte {
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-1))
	return message
}
