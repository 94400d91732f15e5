package relay

import (
	"errors"
	"runtime/debug"
)

// A Half is one direction of a session: it is offered what one side sent and says what to write. Both halves of a link are
// never called at the same time.
type Half interface {
	// Process consumes a prefix of p, which begins where the last call's consumption ended, and puts into out what is to be
	// written. An error ends the link after what is in out has been written; ErrDone is the clean one.
	Process(p []byte, out *Output) (consumed int, err error)
}

// A Settler is a Half with work that nobody waits for: Settle is called after each Process, and where that is possible only when what it
// put out has been written. It must not keep other links waiting.
type Settler interface {
	Half
	Settle()
}

// settle lets a half that is a Settler do its work.
func settle(h Half) (err error) {
	s, ok := h.(Settler)
	if !ok {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	s.Settle()
	return nil
}

// ErrDone ends a link cleanly.
var ErrDone = errors.New("relay: done")

// Causes that the package itself gives to a link's end.
var (
	ErrClientGone = errors.New("client closed the connection")
	ErrServerGone = errors.New("server closed the connection")
	ErrStalled    = errors.New("message not completed in time")
	ErrShutdown   = errors.New("relay: engine closed")
)

// Output collects what a Process call wants written. The slices are only referenced until the call's output has been written, so they may
// point into the input.
type Output struct {
	forward [][]byte
	reply   [][]byte

	// Need, when not 0, is how many bytes a Half must see at once before it can consume anything.
	Need int
	// Pause asks not to be called again before the other half has been.
	Pause bool
	// Deaf asks for no more input from this side, whose end is not noticed either. The other half has to end the link soon (within 5 s).
	Deaf bool
	// Async is work that takes long; it runs elsewhere, and the half is called again, with the same input, when it is done.
	Async func()
	// Await is like Async for what may take hours: meanwhile the end of this side is noticed, behind input that is not read yet,
	// and ends the link. done is closed when the link has ended, however it did; the work has to end soon then.
	Await func(done <-chan struct{})
}

// Forward adds b to what the other side gets.
func (o *Output) Forward(b []byte) {
	if len(b) > 0 {
		o.forward = append(o.forward, b)
	}
}

// Reply adds b to what the side that sent the input gets.
func (o *Output) Reply(b []byte) {
	if len(b) > 0 {
		o.reply = append(o.reply, b)
	}
}

// Forwarded is what was added by Forward; for tests of a Half.
func (o *Output) Forwarded() []byte { return join(o.forward) }

// Replied is what was added by Reply; for tests of a Half.
func (o *Output) Replied() []byte { return join(o.reply) }

func join(segments [][]byte) []byte {
	var b []byte
	for _, s := range segments {
		b = append(b, s...)
	}
	return b
}

// Reset makes the Output empty, keeping its memory.
func (o *Output) Reset() {
	clear(o.forward)
	clear(o.reply)
	o.forward, o.reply = o.forward[:0], o.reply[:0]
	o.Need, o.Pause, o.Deaf, o.Async, o.Await = 0, false, false, nil, nil
}
