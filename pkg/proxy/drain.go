package proxy

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
)

const (
	// drainAge is how old a session must be before it is asked to end: a short one ends by itself, and a client must not be
	// sent away before it has said what it came for.
	drainAge = time.Second
	// drainPace is the pause between two sessions that are asked to end, so that not all clients come back at once. It is
	// shorter when there are more sessions than the time allows.
	drainPace = 50 * time.Millisecond
)

// Drain stops accepting and asks one session after the other to end when nothing is lost by it. When ctx ends, or is about to,
// it asks all; what is left then is cut off. It returns when no session is left.
func (p *Proxy) Drain(ctx context.Context) {
	p.mu.Lock()
	p.draining = true
	// The listening sockets live on: these are duplicates of capture's.
	for _, s := range p.workloads {
		s.close()
	}
	sessions := len(p.sessions)
	p.mu.Unlock()
	// What was accepted is served: from here on nobody else adds a connection.
	p.acceptors.Wait()
	p.Log.Info("draining", zap.Int("sessions", sessions))
	done := make(chan struct{})
	go func() { p.conns.Wait(); close(done) }()
	p.sendAway(ctx, done)
	select {
	case <-done:
	case <-ctx.Done():
		p.mu.Lock()
		left := len(p.sessions)
		p.mu.Unlock()
		p.Log.Warn("cutting off the sessions that are left", zap.Int("sessions", left))
		p.stop()
		<-done
	}
	p.stop()
}

// sendAway asks sessions to end, one at a time, until done or ctx ends.
func (p *Proxy) sendAway(ctx context.Context, done <-chan struct{}) {
	// The last fifth of the time is for what sessions were doing when they were asked.
	var end time.Time
	if deadline, ok := ctx.Deadline(); ok {
		end = deadline.Add(-time.Until(deadline) / 5)
	}
	asked := map[*Session]bool{}
	for {
		next, left := p.choose(asked, !end.IsZero() && time.Now().After(end))
		pause := drainPace
		if next != nil {
			asked[next] = true
			next.drain()
			if !end.IsZero() {
				pause = max(0, min(pause, time.Until(end)/time.Duration(left+1)))
			}
			// Half of it to one and a half.
			pause = pause/2 + rand.N(pause+1)
		}
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// choose is a session that was not asked yet and is old enough, or of any age; nil when there is none. left is how many more were
// not asked.
func (p *Proxy) choose(asked map[*Session]bool, anyAge bool) (chosen *Session, left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		switch {
		case asked[s]:
		case chosen == nil && (anyAge || time.Since(s.Accepted) >= drainAge):
			chosen = s
		default:
			left++
		}
	}
	return chosen, left
}
