package record

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// An event is what appendEvent writes: one line, or, when it has too much to say for one, a line and the text events that
// continue it.
type event struct {
	typ  string
	kind string // written as "kind" when it is not ""
	head Fragment
	// body and more go into text events when they are too long.
	body, more Fragment
}

var errFragment = errors.New("a fragment holds a newline")

func (e *event) check() error {
	if size := len(e.kind) + len(e.head); size > maxInline {
		return fmt.Errorf("the members of a %s event have %d bytes, more than %d", e.typ, size, maxInline)
	}
	if bytes.IndexByte(e.head, '\n') >= 0 || bytes.IndexByte(e.body, '\n') >= 0 || bytes.IndexByte(e.more, '\n') >= 0 {
		return errFragment
	}
	return nil
}

// appendEvent appends the event's lines, and moves the chain to the last. It allocates nothing but the buffer.
func appendEvent(buf []byte, c *chain, now time.Time, e *event) []byte {
	start, number := len(buf), c.seq+1
	buf = c.begin(buf, now, e.typ)
	if e.kind != "" {
		buf = appendString(append(buf, `,"kind":`...), e.kind)
	}
	buf = appendMembers(buf, e.head)
	if len(e.kind)+len(e.head)+len(e.body)+len(e.more) <= maxInline {
		buf = appendMembers(buf, e.body)
		buf = appendMembers(buf, e.more)
		return c.end(buf, start)
	}
	parts := countPieces(e.body) + countPieces(e.more)
	buf = strconv.AppendInt(append(buf, `,"parts":`...), int64(parts), 10)
	buf = c.end(buf, start)
	part := 0
	for _, f := range [...]Fragment{e.body, e.more} {
		for first := true; len(f) > 0; first = false {
			n := pieceLength(f)
			part++
			start = len(buf)
			buf = c.begin(buf, now, typeText)
			buf = strconv.AppendUint(append(buf, `,"event":`...), number, 10)
			buf = strconv.AppendInt(append(buf, `,"part":`...), int64(part), 10)
			buf = append(buf, `,"data":`...)
			data := len(buf)
			buf = appendString(buf, f[:n])
			if first && part > 1 {
				// The second fragment begins: a comma between its members and the first one's.
				buf = append(buf, 0)
				copy(buf[data+2:], buf[data+1:])
				buf[data+1] = ','
			}
			buf = c.end(buf, start)
			f = f[n:]
		}
	}
	return buf
}

func appendMembers(buf []byte, f Fragment) []byte {
	if len(f) == 0 {
		return buf
	}
	return append(append(buf, ','), f...)
}

// pieceLength is how much of f the next text event holds: it ends between characters.
func pieceLength(f Fragment) int {
	if len(f) <= pieceSize {
		return len(f)
	}
	n := pieceSize
	for n > pieceSize-utf8.UTFMax && !utf8.RuneStart(f[n]) {
		n--
	}
	return n
}

func countPieces(f Fragment) (n int) {
	for len(f) > 0 {
		f = f[pieceLength(f):]
		n++
	}
	return n
}

// appendResult appends a result's line.
func appendResult(buf []byte, c *chain, now time.Time, r *Result) []byte {
	start := len(buf)
	buf = c.begin(buf, now, typeResult)
	buf = strconv.AppendUint(append(buf, `,"operation":`...), r.Operation, 10)
	buf = strconv.AppendInt(append(buf, `,"rows":`...), r.Rows, 10)
	buf = strconv.AppendInt(append(buf, `,"bytes":`...), r.Bytes, 10)
	buf = strconv.AppendInt(append(buf, `,"nanoseconds":`...), int64(r.Duration), 10)
	if r.Error != "" {
		buf = appendString(append(buf, `,"error":`...), r.Error)
	}
	buf = appendMembers(buf, r.Masked)
	return c.end(buf, start)
}

// appendSeal appends the line that ends a session's file. No member of it is free: the form, the chain and the signature fix
// every byte.
func appendSeal(buf []byte, c *chain, now time.Time, signature []byte) []byte {
	start, events, last := len(buf), c.seq, c.hash
	buf = c.begin(buf, now, typeSeal)
	buf = append(buf, ',')
	seal := sealEvent{Events: events, Last: last.String(), Signature: signature}
	buf = append(buf, seal.fragment()...)
	return c.end(buf, start)
}

// sealEvent is what a seal says: how many events there are before it, the last one's hash, and a signature over sealText. In a
// shared file it has none: the ledger's is over the lines of many sessions.
type sealEvent struct {
	Events    uint64 `json:"events"`
	Last      string `json:"last"`
	Signature []byte `json:"signature,omitempty"`
}

// openEvent is what a session's first event says. In a shared file every line names the session first.
type openEvent struct {
	Version int    `json:"version"`
	Session string `json:"session,omitempty"`
	Meta
}

// recoveredEvent says that a start found the session unsealed, and how much of an incomplete last event it cut off.
type recoveredEvent struct {
	DroppedBytes int64 `json:"droppedBytes"`
}
