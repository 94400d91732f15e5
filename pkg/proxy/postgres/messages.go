package postgres

import (
	"bytes"
	"encoding/binary"
)

// Message types that the client sends; "Message Formats" in the PostgreSQL manual.
const (
	msgBind         = 'B'
	msgClose        = 'C'
	msgCopyData     = 'd'
	msgCopyDone     = 'c'
	msgCopyFail     = 'f'
	msgDescribe     = 'D'
	msgExecute      = 'E'
	msgFlush        = 'H'
	msgFunctionCall = 'F'
	msgParse        = 'P'
	msgQuery        = 'Q'
	msgSync         = 'S'
	msgTerminate    = 'X'
)

// Message types that the server sends.
const (
	msgParseComplete        = '1'
	msgBindComplete         = '2'
	msgCloseComplete        = '3'
	msgNotification         = 'A'
	msgCommandComplete      = 'C'
	msgDataRow              = 'D'
	msgErrorResponse        = 'E'
	msgCopyInResponse       = 'G'
	msgCopyOutResponse      = 'H'
	msgEmptyQuery           = 'I'
	msgNoticeResponse       = 'N'
	msgParameterStatus      = 'S'
	msgRowDescription       = 'T'
	msgFunctionCallResponse = 'V'
	msgReadyForQuery        = 'Z'
	msgNoData               = 'n'
	msgPortalSuspended      = 's'
	msgParameterDescription = 't'
)

const (
	headerSize = 5 // bytes: type and length

	// maxMessage is the largest length that is believed; PostgreSQL's own limit is 1 GiB - 1.
	maxMessage = 1<<30 - 1
	// maxControl is the largest size of a message that has to be seen whole and holds no statement, and how much of a longer Bind is looked at.
	maxControl = 64 << 10
	// maxName is the longest name of a prepared statement or portal, bytes: of longer ones the server compares no more (NAMEDATALEN).
	maxName = 63
)

// header reads type and size (with the header itself) of the message that p begins with; ok is false for a length that no message has.
func header(p []byte) (typ byte, size int, ok bool) {
	n := binary.BigEndian.Uint32(p[1:])
	return p[0], int(n) + 1, n >= 4 && n <= maxMessage
}

// isName is true for a name by which the proxy and the server mean the same: the server cuts longer names, and converts what is not ASCII.
func isName(name []byte) bool { return len(name) <= maxName && isASCII(name) }

// A reader takes the fields of a message apart. The first field that is not there makes bad true, and all further reads zero.
type reader struct {
	p   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.p) {
		r.bad = true
		return nil
	}
	b := r.p[:n]
	r.p = r.p[n:]
	return b
}

// cstring is the bytes up to the next NUL, which is taken too.
func (r *reader) cstring() []byte {
	i := bytes.IndexByte(r.p, 0)
	if i < 0 {
		r.bad = true
		return nil
	}
	return r.take(i + 1)[:i]
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// end is true when every field was there and nothing is left.
func (r *reader) end() bool { return !r.bad && len(r.p) == 0 }

// appendMessage adds one message with a body of the given parts.
func appendMessage(dst []byte, typ byte, parts ...string) []byte {
	n := 4
	for _, p := range parts {
		n += len(p)
	}
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}

// rowsOf is the number of rows that a command tag ends with, such as "INSERT 0 5"; ok is false when it has none.
func rowsOf(tag []byte) (rows int64, ok bool) {
	for i := bytes.LastIndexByte(tag, ' ') + 1; i < len(tag); i++ {
		if tag[i] < '0' || tag[i] > '9' {
			return 0, false
		}
		rows, ok = rows*10+int64(tag[i]-'0'), true
	}
	return rows, ok
}

// errorField is one field of an ErrorResponse's body, such as 'C', the SQLSTATE; nil when it is not there.
func errorField(body []byte, code byte) []byte {
	for r := (reader{p: body}); ; {
		c := r.byte()
		if r.bad || c == 0 {
			return nil
		}
		if v := r.cstring(); c == code {
			return v
		}
	}
}

// soleString is the string that a message's body consists of.
func soleString(body []byte) ([]byte, bool) {
	i := bytes.IndexByte(body, 0)
	return body[:max(i, 0)], i >= 0 && i == len(body)-1
}
