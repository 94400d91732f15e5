package postgres

import (
	"errors"
	"fmt"

	"github.com/sallyport-dev/sallyport/pkg/proxy/postgres/internal/rewrite"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

const (
	// maxDescription is the longest RowDescription: 1,664 columns with the longest names.
	maxDescription = 256 << 10
	// atOnce is up to which size a row, or a piece of COPY data, is waited for as a whole.
	atOnce = 256 << 10
)

// An answers is what is known of the answers to one message, in a session with masks.
type answers struct {
	*trace
	formats   []*sql.CopyFormat // by statement
	statement int               // whose answers come
	shape     *shape            // of the rows that come
	copy      rewrite.Copy      // for the data that comes, nil when it passes
	copying   bool              // data comes
}

// isMasked is true for the messages of the server that are treated by masked.
func isMasked(typ byte) bool {
	switch typ {
	case msgDataRow, msgRowDescription, msgNoData, msgCopyOutResponse, msgCopyData, msgCopyDone, msgErrorResponse, msgNoticeResponse, msgNotification:
		return true
	}
	return false
}

// masked processes the message that p begins with, of size bytes in all, where nothing masked may pass, and says how much of p it used.
// That is nothing when out.Need is set. What is forwarded is in out; b.rest and b.drop are set for what is still to come of the message.
func (b *backend) masked(typ byte, p []byte, size int, out *relay.Output) (int, error) {
	e := b.due.front()
	switch {
	case typ == msgErrorResponse || typ == msgNoticeResponse:
		return b.maskedText(e, typ, p, size, out)
	case typ == msgNotification:
		return b.maskedNotification(p, size, out)
	case e == nil || e.masked == nil || e.denied != nil:
		return b.unmasked(typ, p, size, out)
	}
	switch typ {
	case msgDataRow:
		if e.hasRows() {
			return b.maskedRows(e, p, size, out)
		}
	case msgRowDescription, msgNoData:
		return b.described(e, typ, p, size, out)
	case msgCopyOutResponse:
		return b.copyBegins(e, p, size, out)
	case msgCopyData:
		if e.masked.copy != nil {
			return b.maskedCopy(e, p, size, out)
		}
	case msgCopyDone:
		if err := b.copyEnds(e, out); err != nil {
			return 0, err
		}
	}
	return b.unmasked(typ, p, size, out)
}

// unmasked lets a message pass.
func (b *backend) unmasked(typ byte, p []byte, size int, out *relay.Output) (int, error) {
	whole := min(size, len(p))
	if need := min(size, backendWhole(typ)); whole < need {
		out.Need = need
		return 0, nil
	}
	e := b.due.front()
	if typ == msgDataRow && e != nil && e.hasRows() {
		e.rows, e.bytes = e.rows+1, e.bytes+int64(size)
	} else if _, err := b.message(typ, p[headerSize:whole], size); err != nil {
		return 0, err
	}
	out.Forward(p[:whole])
	b.rest = size - whole
	return whole, nil
}

// need is true when a message of size bytes, of which p has come, is to be seen whole.
func need(p []byte, size int, out *relay.Output) bool {
	if len(p) < size {
		out.Need = size
		return true
	}
	return false
}

// described is RowDescription or NoData. What the proxy asked for itself is not forwarded, and is for the Execute that follows.
func (b *backend) described(e *expected, typ byte, p []byte, size int, out *relay.Output) (int, error) {
	if size > maxDescription {
		return 0, errors.New("a RowDescription is too long")
	}
	if need(p, size, out) {
		return 0, nil
	}
	of := e.masked
	if e.own {
		if b.due.n < 2 || b.due.at(1).masked == nil {
			return 0, errors.New("a description that belongs to nothing")
		}
		of = b.due.at(1).masked
	}
	if typ == msgRowDescription && (e.own || e.kind == dueQuery) {
		var err error
		again := of.shape != nil && e.kind == dueQuery // one statement with two results: the second is a rule's
		if of.shape, err = of.trace.shape(of.statement, p[headerSize:size], again); err != nil {
			return 0, err
		}
		b.masks.tainted = b.masks.tainted || of.shape.rows != nil // whatever was foreseen
	}
	if e.own {
		b.next()
		return size, nil
	}
	return b.unmasked(typ, p, size, out)
}

// maskedRows is DataRow, and all that follow at once.
func (b *backend) maskedRows(e *expected, p []byte, size int, out *relay.Output) (int, error) {
	s := e.masked.shape
	switch {
	case s == nil:
		return 0, errors.New("a row that was not described")
	case s.rows == nil:
		return b.unmasked(msgDataRow, p, size, out)
	case size > atOnce && len(p) < size:
		e.rows, e.bytes = e.rows+1, e.bytes+int64(size)
		s.rows.Begin(size)
		b.masks.large, b.rest, b.drop = true, size, true
		return b.continued(p, out)
	case need(p, size, out):
		return 0, nil
	}
	n, from := 0, len(b.masks.room)
	for {
		room, err := s.rows.Append(b.masks.room, p[n:n+size])
		if err != nil {
			return 0, err
		}
		b.masks.room = room
		e.rows, e.bytes = e.rows+1, e.bytes+int64(size)
		n += size
		var typ byte
		var ok bool
		if len(p)-n < headerSize {
			break
		}
		if typ, size, ok = header(p[n:]); !ok || typ != msgDataRow || len(p)-n < size {
			break
		}
	}
	out.Forward(b.masks.room[from:])
	return n, nil
}

// continued takes the next piece of a row, or of data of COPY, that is too long to wait for.
func (b *backend) continued(p []byte, out *relay.Output) (int, error) {
	e := b.due.front()
	if e == nil || e.masked == nil {
		return 0, errors.New("a message that belongs to nothing")
	}
	p = p[:min(len(p), b.rest)]
	if e.masked.copying {
		b.rest -= len(p)
		b.masks.large = b.rest > 0
		return len(p), b.copyData(e, p, out)
	}
	n, done, rest, err := e.masked.shape.rows.Feed(p)
	if b.rest -= n; err == nil && done != nil {
		b.masks.large, b.drop = false, false
		out.Forward(done)
		if rest != b.rest {
			err = rewrite.ErrFormat
		}
	}
	return n, err
}

// copyBegins is CopyOutResponse.
func (b *backend) copyBegins(e *expected, p []byte, size int, out *relay.Output) (int, error) {
	if size > maxControl {
		return 0, errors.New("a CopyOutResponse is too long")
	}
	if need(p, size, out) {
		return 0, nil
	}
	a := e.masked
	if a.copying || a.statement >= len(a.formats) {
		return 0, errors.New("data of COPY from what is none")
	}
	var err error
	if a.copy, err = a.trace.copyOut(a.formats[a.statement], a.statement, p[headerSize:size]); err != nil {
		return 0, err
	}
	a.copying = true
	return b.unmasked(msgCopyOutResponse, p, size, out)
}

// maskedCopy is CopyData.
func (b *backend) maskedCopy(e *expected, p []byte, size int, out *relay.Output) (int, error) {
	large := size > atOnce
	if !large && need(p, size, out) {
		return 0, nil
	}
	e.rows, e.bytes = e.rows+1, e.bytes+int64(size)
	if large {
		b.masks.large, b.rest, b.drop = true, size-headerSize, true
		n, err := b.continued(p[headerSize:], out)
		return headerSize + n, err
	}
	return size, b.copyData(e, p[headerSize:size], out)
}

// copyData forwards what stands in the place of some data as one message, unless it is nothing yet.
func (b *backend) copyData(e *expected, data []byte, out *relay.Output) error {
	from := len(b.masks.room)
	room, err := e.masked.copy.Append(append(b.masks.room, msgCopyData, 0, 0, 0, 0), data)
	if err != nil {
		return err
	}
	b.masks.room = room
	forwardData(room[from:], out)
	return nil
}

// forwardData completes and forwards a message of data, unless it is empty.
func forwardData(message []byte, out *relay.Output) {
	if len(message) > headerSize {
		out.Forward(completed(message))
	}
}

// copyEnds is CopyDone: what was held back goes first.
func (b *backend) copyEnds(e *expected, out *relay.Output) error {
	a := e.masked
	if !a.copying {
		return errors.New("the end of a COPY that did not begin")
	}
	c := a.copy
	if a.copy, a.copying = nil, false; c == nil {
		return nil
	}
	message, err := c.End([]byte{msgCopyData, 0, 0, 0, 0})
	if err != nil {
		return fmt.Errorf("end of COPY: %w", err)
	}
	forwardData(message, out)
	return nil
}

// maskedText is ErrorResponse and NoticeResponse.
func (b *backend) maskedText(e *expected, typ byte, p []byte, size int, out *relay.Output) (int, error) {
	whole := min(size, maxControl)
	if need(p, whole, out) {
		return 0, nil
	}
	body := p[headerSize:whole]
	var t *trace
	if e != nil && e.masked != nil {
		t = e.masked.trace
	}
	hide := b.masks.tainted || t != nil && t.reach
	if e != nil && e.masked != nil && typ == msgErrorResponse {
		e.masked.copy, e.masked.copying = nil, false
	}
	denied, err := b.message(typ, body, size)
	if err != nil {
		return 0, err
	}
	b.rest, b.drop = size-whole, true
	switch {
	case denied != nil:
		out.Forward(appendDenial(nil, denied))
	case hide:
		out.Forward(b.discreet(typ, body))
	case b.masks.applied != nil && b.masks.rules.Detects():
		out.Forward(b.lookedThrough(typ, body))
	default:
		out.Forward(p[:whole])
		b.drop = false
	}
	return whole, nil
}

// maskedNotification is NotificationResponse: what another session, or a trigger, puts into a notification may be anything, so
// the payload does not pass.
func (b *backend) maskedNotification(p []byte, size int, out *relay.Output) (int, error) {
	if b.masks.applied == nil {
		return b.unmasked(msgNotification, p, size, out)
	}
	whole := min(size, maxControl)
	if need(p, whole, out) {
		return 0, nil
	}
	r := reader{p: p[headerSize:whole]}
	sender, channel := r.take(4), r.cstring()
	if r.bad {
		return 0, errors.New("malformed NotificationResponse")
	}
	b.rest, b.drop = size-whole, true
	out.Forward(appendMessage(nil, msgNotification, string(sender), string(channel), "\x00\x00"))
	return whole, nil
}

// settled is called when an answer has come, with the message's type.
func (a *answers) settled(typ byte) {
	if typ == msgCommandComplete || typ == msgEmptyQuery {
		a.statement++
		a.shape, a.copy = nil, nil
	}
}
