package proxy

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"
)

const (
	// drainTick is how often a draining proxy looks at its sessions; it asks at least one of them each time.
	drainTick = 50 * time.Millisecond
	// quietAge is for how long a session must have asked for nothing before it is asked to end: a busy one may end by itself.
	quietAge = time.Second
	// unusedAge is the same for one that never asked for anything: its client must not be sent away before it has said what
	// it came for.
	unusedAge = 4 * time.Second
)

// Drain stops accepting, and asks one session after the other to end when nothing is lost by it. What is left when ctx ends is cut
// off. It returns when no session is left.
func (p *Proxy) Drain(ctx context.Context) {
	p.mu.Lock()
	p.draining = true
	// The listening sockets live on: these are duplicates of capture's.
	workloads := slices.Collect(maps.Values(p.workloads))
	sessions := len(p.sessions)
	p.mu.Unlock()
	for _, s := range workloads {
		s.close()
	}
	// What was accepted is served: from here on nobody else adds a connection.
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

// sendAway asks sessions to end, spread over the time that there is, until done or ctx ends. Quiet ones come first; in the last
// quarter it is every session's turn.
func (p *Proxy) sendAway(ctx context.Context, done <-chan struct{}) {
	start := time.Now()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = start.Add(time.Hour)
	}
	all := start.Add(deadline.Sub(start) * 3 / 4)
	// What is left is for what sessions are doing when they are asked.
	end := start.Add(deadline.Sub(start) * 9 / 10)
	watched := map[*Session]*watch{}
	for {
		now := time.Now()
		quiet, left := p.look(watched, now, now.After(all))
		// Of those that are left as many as bring the last one's turn before the end.
		share := len(quiet)
		if ticks := int(end.Sub(now) / drainTick); ticks > 0 {
			share = min(share, left/ticks+1)
		}
		pause := drainTick / time.Duration(max(share, 1))
		for _, s := range quiet[:share] {
			watched[s].asked = true
			s.drain()
			if !wait(ctx, done, rand.N(pause)*2) {
				return
			}
		}
		if share == 0 && !wait(ctx, done, drainTick) {
			return
		}
	}
}

// A watch is what a draining proxy knows of a session.
type watch struct {
	operations uint64 // when they were last counted
	since      time.Time
	asked      bool
}

// look finds the sessions whose turn it is, in no order, and counts those that were not asked yet.
func (p *Proxy) look(watched map[*Session]*watch, now time.Time, all bool) (turn []*Session, left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		operations := s.operations.Load()
		w := watched[s]
		if w == nil {
			w = &watch{operations: operations, since: now}
			watched[s] = w
		}
		if w.operations != operations {
			w.operations, w.since = operations, now
		}
		if w.asked {
			continue
		}
		left++
		age := quietAge
		if operations == 0 {
			age = unusedAge
		}
		if all || now.Sub(w.since) >= age {
			turn = append(turn, s)
		}
	}
	return turn, left
}

// wait is false when done or ctx ended first.
func wait(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	select {
	case <-done:
		return false
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
