package postgres

import (
	"bytes"
	"fmt"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// asyncText is the size from which a statement is parsed elsewhere, so that it does not hold up the other sessions of the loop.
const asyncText = 8 << 10

// A frontend processes what the client sends.
type frontend struct {
	*machine
	rest    int              // bytes of the current message that are still to come
	drop    bool             // … and are not forwarded
	parsed  parsed           // the current message's text, parsed elsewhere
	refused []byte           // room for what replaces denied messages
	op      record.Operation // room for what is recorded
	size    int              // of the current message, in all
	have    int              // … and how much of it has come
	flush   bool             // the server is to send the answers that it has, after what is forwarded
	since   time.Duration    // when the input was read, or its last operation was recorded
}

// A parsed is what parsing a text elsewhere gave.
type parsed struct {
	done   bool
	script *sql.Script
	err    error
}

// A step is what happens to one message.
type step int

const (
	forward step = iota // as it is
	replace             // frontend.refused goes in its place
	skip                // nothing goes in its place
	more                // it has to be seen whole (relay.Output.Need is set)
	wait                // it depends on answers that are due, or on work elsewhere
)

// Process implements relay.Half.
func (f *frontend) Process(p []byte, out *relay.Output) (int, error) {
	if f.ended {
		return len(p), nil // what follows Terminate is nobody's
	}
	f.since = sinceStart()
	off, start := 0, 0 // p[start:off] is to be forwarded
	for off < len(p) && !f.ended {
		if f.rest > 0 {
			n := min(f.rest, len(p)-off)
			if f.drop {
				out.Forward(p[start:off])
				start = off + n
			}
			off, f.rest = off+n, f.rest-n
			continue
		}
		f.drop = false
		if len(p)-off < headerSize {
			out.Need = headerSize
			break
		}
		typ, size, ok := header(p[off:])
		if !ok {
			out.Forward(p[start:off])
			return off, f.violation(out, fmt.Sprintf("message %q has an impossible length", typ))
		}
		whole := min(size, len(p)-off)
		s, err := f.message(typ, p[off:off+whole], size, out)
		if err != nil {
			out.Forward(p[start:off])
			return off, err
		}
		if s == more || s == wait {
			out.Forward(p[start:off])
			if f.flush {
				f.flush = false
				out.Forward(flushMessage)
			}
			return off, nil
		}
		f.parsed = parsed{} // whatever became of the message: it was for this one
		if f.waiting != nil {
			f.endHold("the policy has changed")
		}
		if s == replace || s == skip {
			out.Forward(p[start:off])
			if s == replace {
				out.Forward(bytes.Clone(f.refused)) // more than one may be in this output
			}
			start = off + whole
			f.drop = true
		}
		if s != skip {
			f.opens(typ)
		}
		off, f.rest = off+whole, size-whole
	}
	out.Forward(p[start:off])
	return off, nil
}

// opens notes whether a message that is forwarded begins or ends what a Sync ends.
func (f *frontend) opens(typ byte) {
	switch typ {
	case msgParse, msgBind, msgDescribe, msgExecute, msgClose:
		f.open = true
	case msgSync, msgQuery, msgFunctionCall:
		f.open = false
	}
}

// message decides on one message, of which p is as much as has come, of size bytes in all.
func (f *frontend) message(typ byte, p []byte, size int, out *relay.Output) (step, error) {
	if f.skipping && typ != msgSync && typ != msgTerminate {
		return skip, nil
	}
	if f.due.n >= maxInflight {
		out.Pause = true
		return wait, nil
	}
	limit, known := wholeUpTo(typ)
	switch {
	case !known:
		return 0, f.violation(out, fmt.Sprintf("unknown message type %q", typ))
	case f.copyIn && !duringCopy(typ): // the server would lose the thread
		return 0, f.violation(out, fmt.Sprintf("message %q in the middle of COPY", typ))
	case size > headerSize && isBare(typ): // the server's error would answer nothing that is due
		return 0, f.violation(out, fmt.Sprintf("message %q has a body", typ))
	case size > limit && tooLongIsDenied(typ):
		return f.denyStatement(typ, refusedName, f.tooLong(sql.MaxText), policy.Decision{Rule: "too-long", Message: "statement too long"}, nil), nil
	case len(p) < min(size, limit):
		out.Need = min(size, limit)
		return more, nil
	}
	f.size, f.have = size, len(p)
	body := p[headerSize:]
	switch typ {
	case msgQuery:
		return f.query(body, out)
	case msgParse:
		return f.parse(body, out)
	case msgBind:
		return f.bind(body, out)
	case msgDescribe:
		f.due.push().kind = dueDescribe
		return forward, nil
	case msgExecute:
		return f.execute(body, out)
	case msgClose:
		return f.close(body, out)
	case msgSync:
		f.skipping = false
		if f.copyIn {
			return skip, nil // the server ignores it while it reads CopyData
		}
		f.due.push().kind = dueSync
		f.batch++
		return forward, nil
	case msgFunctionCall:
		return f.functionCall(body, out)
	case msgCopyDone, msgCopyFail:
		if !f.copyIn && f.due.n > 0 {
			f.due.push().kind = dueCopyEnd
		}
		f.copyIn = false
		return forward, nil
	case msgTerminate:
		f.ended = true
		if f.keep && f.idle() && !f.madeSchema {
			f.beginReset(out)
			return skip, nil
		}
		return skip, relay.ErrDone
	}
	return forward, nil // Flush, CopyData
}

// wholeUpTo is how many bytes of a message have to be seen at once, and whether there is such a message.
func wholeUpTo(typ byte) (limit int, known bool) {
	switch typ {
	case msgQuery:
		return headerSize + sql.MaxText + 1, true
	case msgParse:
		return headerSize + sql.MaxText + maxControl, true
	case msgBind, msgExecute, msgClose:
		return maxControl, true
	case msgFunctionCall:
		return headerSize + 4, true
	case msgDescribe, msgFlush, msgSync, msgTerminate, msgCopyData, msgCopyDone, msgCopyFail:
		return headerSize, true
	}
	return 0, false
}

// duringCopy is true for what may come while the server reads CopyData.
func duringCopy(typ byte) bool {
	switch typ {
	case msgCopyData, msgCopyDone, msgCopyFail, msgFlush, msgSync, msgTerminate:
		return true
	}
	return false
}

// isBare is true for messages that have no body and no answer of their own to carry an error.
func isBare(typ byte) bool {
	switch typ {
	case msgFlush, msgSync, msgCopyDone, msgTerminate:
		return true
	}
	return false
}

func tooLongIsDenied(typ byte) bool { return typ == msgQuery || typ == msgParse }
