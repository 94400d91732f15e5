package postgres

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
)

var errMismatch = errors.New("the server's answer matches nothing that was asked")

// A backend processes what the server sends.
type backend struct {
	*machine
	rest int  // bytes of the current message that are still to come
	drop bool // … and are not forwarded
}

// Process implements relay.Half.
func (b *backend) Process(p []byte, out *relay.Output) (int, error) {
	if b.reset == resetting {
		return b.resetAnswer(p, out)
	}
	if b.masks != nil {
		b.masks.room = b.masks.room[:0]
	}
	off, start := 0, 0 // p[start:off] is to be forwarded
	defer func() {
		if b.serverMid, b.backendMid = b.rest > 0, b.rest > 0 && !b.drop; b.masks != nil {
			b.masks.giveBack(b.due.n == 0)
		}
	}()
	for off < len(p) {
		if b.rest > 0 && b.masks != nil && b.masks.large {
			n, err := b.continued(p[off:], out)
			if off, start = off+n, off+n; err != nil {
				return off, b.mismatch(out, err.Error())
			}
			continue
		}
		if b.rest > 0 {
			n := min(b.rest, len(p)-off)
			if b.drop {
				out.Forward(p[start:off])
				start = off + n
			}
			off, b.rest = off+n, b.rest-n
			continue
		}
		b.drop = false
		if len(p)-off < headerSize {
			out.Need = headerSize
			break
		}
		typ, size, ok := header(p[off:])
		if !ok {
			out.Forward(p[start:off])
			return off, b.mismatch(out, fmt.Sprintf("message %q with an impossible length", typ))
		}
		whole := min(size, len(p)-off)
		if e := b.due.front(); typ == msgDataRow && e != nil && e.hasRows() && e.masked == nil { // by far the most frequent
			e.rows, e.bytes = e.rows+1, e.bytes+int64(size)
			off, b.rest = off+whole, size-whole
			continue
		}
		if b.masks != nil && isMasked(typ) {
			out.Forward(p[start:off])
			n, err := b.masked(typ, p[off:], size, out)
			if err != nil {
				return off, b.mismatch(out, err.Error())
			}
			if off, start = off+n, off+n; n == 0 {
				return off, nil
			}
			continue
		}
		if need := min(size, backendWhole(typ)); whole < need {
			out.Need = need
			break
		}
		denied, err := b.message(typ, p[off+headerSize:off+whole], size)
		if err != nil {
			out.Forward(p[start:off])
			return off, b.mismatch(out, err.Error())
		}
		if denied != nil {
			out.Forward(p[start:off])
			out.Forward(appendDenial(nil, denied))
			start = off + whole
			b.drop = true
		}
		off, b.rest = off+whole, size-whole
		if b.serverMid = b.rest > 0; b.draining && b.idle() {
			out.Forward(p[start:off])
			out.Forward(appendDenial(nil, shutdown(b.session)))
			return off, relay.ErrDone
		}
	}
	out.Forward(p[start:off])
	return off, nil
}

// backendWhole is how many bytes of a message have to be seen at once.
func backendWhole(typ byte) int {
	switch typ {
	case msgCommandComplete, msgReadyForQuery, msgParameterStatus, msgErrorResponse:
		return maxControl
	}
	return headerSize
}

// message notes what an answer means. A denial that it returns takes the place of the message.
func (b *backend) message(typ byte, body []byte, size int) (*denial, error) {
	switch typ { // these come at any time
	case msgNotification, msgNoticeResponse:
		return nil, nil
	case msgParameterStatus:
		return nil, b.parameterStatus(body)
	}
	e := b.due.front()
	if e == nil {
		if typ == msgErrorResponse { // mostly the server ends the session of its own accord
			b.skipping = b.skipping || b.open
			return nil, nil
		}
		return nil, fmt.Errorf("message %q", typ)
	}
	e.bytes += int64(size)
	if e.masked != nil {
		b.masks.tainted = b.masks.tainted || e.masked.reach
		e.masked.settled(typ)
	}
	if typ == msgErrorResponse {
		return b.failed(e, body), nil
	}
	if e.denied != nil && !(e.failed && typ == msgReadyForQuery) {
		return nil, fmt.Errorf("message %q to what it had to refuse", typ)
	}
	switch typ {
	case msgParseComplete:
		if e.kind != dueParse {
			break
		}
		b.statements.confirm(e.statement, e.plan)
		b.next()
		return nil, nil
	case msgBindComplete:
		if e.kind != dueBind {
			break
		}
		b.portals.confirm(e.portal, e.bound)
		b.next()
		return nil, nil
	case msgCloseComplete:
		if e.kind != dueClose {
			break
		}
		if e.statement != nil {
			b.statements.unset(e.statement)
		}
		if e.portal != nil {
			b.portals.unset(e.portal)
		}
		b.next()
		return nil, nil
	case msgParameterDescription:
		if e.kind == dueDescribe {
			return nil, nil
		}
	case msgRowDescription, msgNoData:
		switch e.kind {
		case dueDescribe:
			b.next()
			return nil, nil
		case dueQuery:
			return nil, nil
		}
	case msgCommandComplete, msgEmptyQuery, msgPortalSuspended:
		return nil, b.completed(e, typ, body)
	case msgCopyInResponse:
		if e.kind == dueQuery || e.kind == dueExecute {
			return nil, b.copyStarts()
		}
	case msgCopyOutResponse, msgCopyDone:
		if e.kind == dueQuery || e.kind == dueExecute {
			return nil, nil
		}
	case msgCopyData:
		if e.kind == dueQuery || e.kind == dueExecute {
			e.rows++
			return nil, nil
		}
	case msgFunctionCallResponse:
		if e.kind == dueFunctionCall {
			return nil, nil
		}
	case msgReadyForQuery:
		if e.endsBatch() && len(body) == 1 {
			return nil, b.ready(e, body[0])
		}
	}
	return nil, fmt.Errorf("message %q", typ)
}

// completed is CommandComplete and its kin.
func (b *backend) completed(e *expected, typ byte, body []byte) error {
	if typ == msgCommandComplete {
		tag, _ := soleString(body)
		if n, ok := rowsOf(tag); ok {
			if e.counted {
				n += e.tagged
			}
			e.tagged, e.counted = n, true
		}
	}
	switch e.kind {
	case dueQuery: // a string of several statements has several
		return nil
	case dueExecute:
		b.complete(e)
		b.next()
		return nil
	}
	return fmt.Errorf("message %q", typ)
}

// complete makes a finished operation's changes and records its end.
func (b *backend) complete(e *expected) {
	b.copyIn = false
	b.done(e, e.failed)
	b.finish(e, e.sqlstate())
}

// failed is ErrorResponse: an error of the operation in front.
func (b *backend) failed(e *expected, body []byte) *denial {
	b.copyIn = false
	if s := errorField(body, 'V'); string(s) == "FATAL" || string(s) == "PANIC" {
		return nil // the server says goodbye: nothing may take that message's place
	}
	denied := e.denied
	e.failed = true
	copy(e.code[:], errorField(body, 'C'))
	switch {
	case e.kind == dueSync, e.kind == dueQuery, e.kind == dueFunctionCall:
		return denied // ReadyForQuery follows
	default:
		b.done(e, true)
		b.finish(e, e.sqlstate())
		b.forgetAfterError()
		return denied
	}
}

// ready is ReadyForQuery.
func (b *backend) ready(e *expected, status byte) error {
	b.complete(e)
	b.next()
	b.status = status
	if status == 'I' {
		b.portals.sweep() // they end with the transaction
		if b.masks != nil {
			b.masks.transactionOver(b.due.n == 0)
		}
	}
	return nil
}

// copyStarts is CopyInResponse. The server is reading CopyData now and ignores a Sync before its end.
func (b *backend) copyStarts() error {
	for b.due.n > 1 {
		kind := b.due.at(1).kind
		if kind != dueSync && kind != dueCopyEnd {
			return errors.New("copy data while other answers are due")
		}
		b.due.remove(1)
		if kind == dueCopyEnd {
			return nil
		}
	}
	b.copyIn = true
	return nil
}

func (b *backend) parameterStatus(body []byte) error {
	r := reader{p: body}
	name, value := string(r.cstring()), string(r.cstring())
	if !r.end() {
		return errors.New("malformed ParameterStatus")
	}
	b.parameters[name] = value
	return safeParameter(name, value)
}

// mismatch ends the session: what the server says can not be understood safely.
func (b *backend) mismatch(out *relay.Output, what string) error {
	out.Forward(bytes.Clone(b.encode(fatal(codeProtocolViolation, "the connection is closed, because of the server: "+what, b.session))))
	b.judge.Note("error", record.NewFragment(map[string]string{"error": what}))
	return fmt.Errorf("%w: %s", errMismatch, what)
}
