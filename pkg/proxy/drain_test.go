package proxy

import (
	"context"
	"slices"
	"testing"
	"time"
)

// asked is a session that notes when it is asked to end.
func asked(p *Proxy, operations uint64) (*Session, <-chan time.Time) {
	s := &Session{}
	s.operations.Store(operations)
	when := make(chan time.Time, 2)
	s.OnDrain(func() { when <- time.Now() })
	p.sessions[s] = struct{}{}
	return s, when
}

func TestSessionsAreSentAwayOneAfterTheOtherAndTheBusyOnesLast(t *testing.T) {
	p := &Proxy{sessions: map[*Session]struct{}{}}
	const window = 2 * time.Second
	var quiet []<-chan time.Time
	for range 30 {
		_, when := asked(p, 7)
		quiet = append(quiet, when)
	}
	_, unused := asked(p, 0)
	busy, busyAsked := asked(p, 7)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				busy.operations.Add(1)
			}
		}
	}()
	defer close(stop)

	start := time.Now()
	ctx, cancel := context.WithDeadline(t.Context(), start.Add(window))
	defer cancel()
	p.sendAway(ctx, nil)
	var times []time.Duration
	for _, when := range quiet {
		times = append(times, (<-when).Sub(start))
	}
	slices.Sort(times)
	if first, last := times[0], times[len(times)-1]; first < quietAge || last > window || last-first < window/8 {
		t.Errorf("the quiet ones were asked between %s and %s", first, last)
	}
	for name, when := range map[string]<-chan time.Time{"busy": busyAsked, "unused": unused} {
		if after := (<-when).Sub(start); after < window*3/4 {
			t.Errorf("the %s one was asked after %s", name, after)
		}
	}
	for _, when := range append(quiet, unused, busyAsked) {
		if len(when) > 0 {
			t.Error("one was asked twice")
		}
	}
}

func TestSendingAwayEndsWithTheLastSession(t *testing.T) {
	p := &Proxy{sessions: map[*Session]struct{}{}}
	done := make(chan struct{})
	close(done)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	p.sendAway(ctx, done)
}
