package record

import (
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Refused connections cost their workload nothing, so what they may write is bounded: a workload has refusalBurst lines, and
// gets one back each refusalRefill; what goes beyond is counted, and told in one line for each workload each
// suppressedInterval. That is at most some 10,000 lines a day for one workload.
const (
	refusalBurst       = 20
	refusalRefill      = 10 * time.Second
	suppressedInterval = time.Minute
	// maxRefusers are the workloads that are told apart, and maxReasons their reasons; the rest share one count.
	maxRefusers = 1024
	maxReasons  = 32
)

// rest is whom or what the counts beyond these bounds are for.
const rest = "(others)"

type refusals struct {
	mu        sync.Mutex
	byCgroup  map[string]*refuser
	lastTold  time.Time
	errLogged time.Time
}

// A refuser is a workload whose connections were refused.
type refuser struct {
	tokens     float64
	seen       time.Time
	suppressed suppressedLine
}

// Refuse writes a line to the ledger for a connection that became no session, or counts it when its workload had too many;
// the count is written within a minute. What can not be written is logged, and not kept: nothing was forwarded.
func (s *Store) Refuse(reason string, meta Meta) {
	now := time.Now()
	if len(reason) > maxReason {
		reason = reason[:maxReason] + "…"
	}
	if !s.refusals.admit(now, reason, meta.Workload) {
		return
	}
	s.mu.Lock()
	err, usable := s.broken, s.ready && !s.closed
	s.mu.Unlock()
	if err == nil || usable {
		err = ErrClosed
	}
	if usable {
		err = s.ledger.write(now, typeRefused, refusedLine{Reason: reason, Meta: meta})
	}
	if err != nil && s.refusals.mayLog(now) {
		s.log.Error("record a refused connection", zap.String("reason", reason), zap.String("cgroup", meta.Workload.Cgroup), zap.Error(err))
	}
}

// admit is true when the workload may have another line; otherwise it counts.
func (r *refusals) admit(now time.Time, reason string, w Workload) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byCgroup == nil {
		r.byCgroup = map[string]*refuser{}
	}
	if _, ok := r.byCgroup[w.Cgroup]; !ok && len(r.byCgroup) >= maxRefusers {
		w = Workload{Name: rest, Cgroup: rest}
	}
	who, ok := r.byCgroup[w.Cgroup]
	if !ok {
		who = &refuser{tokens: refusalBurst, seen: now}
		r.byCgroup[w.Cgroup] = who
	}
	who.refill(now)
	if who.tokens >= 1 {
		who.tokens--
		return true
	}
	who.suppress(w, reason, 1)
	return false
}

// suppress counts n connections; many processes share the count, so that it names none.
func (w *refuser) suppress(who Workload, reason string, n uint64) {
	counts := &w.suppressed
	if counts.Reasons == nil {
		counts.Workload, counts.Reasons = Workload{Name: who.Name, Cgroup: who.Cgroup}, map[string]uint64{}
	}
	if _, ok := counts.Reasons[reason]; !ok && len(counts.Reasons) >= maxReasons {
		reason = rest
	}
	counts.Count += n
	counts.Reasons[reason] += n
}

func (w *refuser) refill(now time.Time) {
	w.tokens = min(refusalBurst, w.tokens+float64(now.Sub(w.seen))/float64(refusalRefill))
	w.seen = now
}

// due are the counts that are to be told now; workloads that are quiet again are forgotten.
func (r *refusals) due(now time.Time, last bool) (lines []suppressedLine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lastTold.IsZero() {
		r.lastTold = now
	}
	if !last && now.Sub(r.lastTold) < suppressedInterval {
		return nil
	}
	r.lastTold = now
	for cgroup, who := range r.byCgroup {
		who.refill(now)
		if who.suppressed.Count > 0 {
			lines = append(lines, who.suppressed)
			who.suppressed = suppressedLine{}
		} else if who.tokens >= refusalBurst {
			delete(r.byCgroup, cgroup)
		}
	}
	return lines
}

// restore takes back counts that could not be told.
func (r *refusals) restore(line suppressedLine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	who, ok := r.byCgroup[line.Workload.Cgroup]
	if !ok {
		who = &refuser{seen: time.Now()}
		r.byCgroup[line.Workload.Cgroup] = who
	}
	for reason, n := range line.Reasons {
		who.suppress(line.Workload, reason, n)
	}
}

// mayLog is true at most once a second.
func (r *refusals) mayLog(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.errLogged) < time.Second {
		return false
	}
	r.errLogged = now
	return true
}

// writeSuppressed writes the counts of refused connections without a line, when it is time.
func (s *Store) writeSuppressed(now time.Time, last bool) error {
	var errs []error
	for _, line := range s.refusals.due(now, last) {
		if err := s.ledger.write(now, typeSuppressed, line); err != nil {
			s.refusals.restore(line)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
