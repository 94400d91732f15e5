package postgres

import (
	"errors"

	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
)

// resetQuery undoes all that a session can have left behind ("DISCARD ALL" in the manual says what it does).
var resetQuery = appendMessage(nil, msgQuery, "DISCARD ALL\x00")

// Stages of a reset.
type resetStage uint8

const (
	notReset resetStage = iota
	resetting
	wasReset
)

var errNotReset = errors.New("the server did not reset the session")

// beginReset answers Terminate when the connection is to be kept: the server gets the reset, the client nothing more.
func (f *frontend) beginReset(out *relay.Output) {
	f.reset = resetting
	out.Forward(resetQuery)
	out.Deaf = true
}

// resetAnswer processes what the server says to the reset. Nothing of it is for the client.
func (b *backend) resetAnswer(p []byte, out *relay.Output) (int, error) {
	off := 0
	for len(p)-off >= headerSize {
		typ, size, ok := header(p[off:])
		if !ok || size > maxControl {
			return off, errNotReset
		}
		if len(p)-off < size {
			out.Need = size
			return off, nil
		}
		body := p[off+headerSize : off+size]
		off += size
		switch typ {
		case msgCommandComplete, msgNoticeResponse:
		case msgParameterStatus:
			if err := b.parameterStatus(body); err != nil {
				return off, err
			}
		case msgReadyForQuery:
			if len(body) != 1 || body[0] != 'I' || off != len(p) {
				return off, errNotReset
			}
			b.reset = wasReset
			return off, relay.ErrDone
		default: // an error, or a notification to a session that has ended
			return off, errNotReset
		}
	}
	if off < len(p) {
		out.Need = headerSize
	}
	return off, nil
}
