package relay

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

const pairReadSize = 16 << 10 // bytes; a TLS record

// A pair relays one link with a goroutine for each direction.
type pair struct {
	client, server net.Conn
	times          times
	running        sync.WaitGroup // both directions, and what Inject writes

	mu       sync.Mutex    // held while a half runs
	progress *sync.Cond    // a half ran, or the pair ends
	ran      [2]uint64     // how often each half ran
	seen     [2]uint64     // what ran[other] was when each half last ran
	cause    error         // why the pair ends
	done     chan struct{} // closed when there is a cause; nil until somebody waits for it
	lost     bool          // bytes of the server's were read and not processed

	toClient sync.Mutex // held while the client is written to
}

func startPair(client, server Leg, times times, ended func(client, server net.Conn, cause error)) Link {
	p := &pair{client: client.Conn, server: server.Conn, times: times}
	p.progress = sync.NewCond(&p.mu)
	p.running.Go(func() { p.pump(0, client, server.Conn, ErrClientGone) })
	p.running.Go(func() { p.lost = p.pump(1, server, client.Conn, ErrServerGone) > 0 })
	go func() {
		p.running.Wait()
		if p.lost {
			p.server.Close()
		}
		for _, c := range []net.Conn{p.client, p.server} {
			_ = c.SetDeadline(time.Time{})
		}
		ended(p.client, p.server, p.cause)
	}()
	return p
}

// end notes why, once, and wakes both directions; what is being written gets flushTimeout.
func (p *pair) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(err)
}

func (p *pair) endLocked(err error) {
	if p.cause != nil {
		return
	}
	p.cause = err
	if p.done != nil {
		close(p.done)
	}
	p.progress.Broadcast()
	for _, c := range []net.Conn{p.client, p.server} {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		_ = c.SetWriteDeadline(time.Now().Add(p.times.flush))
	}
}

// pump relays one direction; in the end it gives the number of bytes that it read and did not process.
func (p *pair) pump(me int, from Leg, to net.Conn, gone error) int {
	buf := make([]byte, max(pairReadSize, len(from.Pending)))
	n := copy(buf, from.Pending)
	var out Output
	var since time.Time // when what is in buf began to wait for more
	for {
		if n > 0 {
			consumed, err := p.step(me, from, to, buf[:n], &out)
			n = copy(buf, buf[consumed:n])
			if err != nil {
				p.end(err)
				return n
			}
			if out.Deaf {
				timer := time.AfterFunc(p.times.flush, func() { p.end(ErrStalled) })
				p.awaitEnd()
				timer.Stop()
				return 0
			}
			if out.Await != nil {
				if !p.watch(from.Conn, gone, out.Await) {
					return n
				}
				since = time.Time{}
				continue
			}
			if out.Pause || out.Async != nil {
				if !p.await(me, out.Async) {
					return n
				}
				since = time.Time{}
				continue
			}
			if consumed > 0 {
				since = time.Time{}
			}
		}
		switch {
		case n == 0 && len(buf) > 4*pairReadSize:
			buf = make([]byte, pairReadSize)
		case n > len(buf)-pairReadSize/2: // it grows with what has come: what a peer announces costs nothing
			buf = append(buf[:n], make([]byte, min(max(out.Need-n, pairReadSize), n+pairReadSize))...)
		}
		var deadline time.Time
		if n > 0 {
			if since.IsZero() {
				since = time.Now()
			}
			deadline = since.Add(p.times.stall)
		}
		if !p.setReadDeadline(from.Conn, deadline) {
			return n
		}
		m, err := from.Conn.Read(buf[n:])
		n += m
		switch {
		case m > 0:
			from.Received.Add(float64(m))
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.end(ErrStalled) // or the pair has ended, and this changes nothing
			return n
		case err != nil:
			p.end(gone)
			return n
		}
	}
}

// step runs the half and writes its output, which is in order for each receiver because the receiver's lock is taken before the halves'
// is given up.
func (p *pair) step(me int, from Leg, to net.Conn, data []byte, out *Output) (int, error) {
	p.mu.Lock()
	if p.cause != nil {
		p.mu.Unlock()
		return 0, p.cause
	}
	out.Reset()
	n, err := protect(from.Half, data, out)
	if failed := settle(from.Half); failed != nil { // at once: the other half may run while this one's output is written
		err = failed
	}
	if n > 0 {
		p.ran[me]++
	}
	p.seen[me] = p.ran[1-me]
	p.progress.Broadcast()
	if err != nil {
		p.endLocked(err) // first, so that a client that reads nothing does not hold up the end
	}
	writesClient := me == 1 || len(out.reply) > 0
	if writesClient {
		p.toClient.Lock()
		defer p.toClient.Unlock()
	}
	p.mu.Unlock()
	for _, b := range out.forward {
		if _, werr := to.Write(b); werr != nil {
			return n, cause(err, werr)
		}
	}
	for _, b := range out.reply {
		if _, werr := from.Conn.Write(b); werr != nil {
			return n, cause(err, werr)
		}
	}
	return n, err
}

// await does the work, or waits until the other half has run. It is false when the pair ends.
func (p *pair) await(me int, work func()) bool {
	if work != nil {
		work()
		return !p.ended()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.seen[me] == p.ran[1-me] && p.cause == nil {
		p.progress.Wait()
	}
	return p.cause == nil
}

// setReadDeadline is false when the pair has ended, whose own deadline then stays.
func (p *pair) setReadDeadline(c net.Conn, t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cause != nil {
		return false
	}
	_ = c.SetReadDeadline(t)
	return true
}

func (p *pair) awaitEnd() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.cause == nil {
		p.progress.Wait()
	}
}

func (p *pair) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause != nil
}

// Inject implements Link.
func (p *pair) Inject(f func(out *Output) error) {
	go func() {
		var out Output
		p.mu.Lock()
		if p.cause != nil {
			p.mu.Unlock()
			return
		}
		p.running.Add(1) // not from 0: both directions run until there is a cause
		defer p.running.Done()
		err := f(&out)
		if err != nil {
			p.endLocked(err)
		}
		if len(out.forward) > 0 {
			p.toClient.Lock()
			defer p.toClient.Unlock()
		}
		p.mu.Unlock()
		for _, b := range out.forward {
			_, _ = p.client.Write(b) // the link ends next, or its own write will tell
		}
	}()
}
