package proxy

import (
	"fmt"
	"sync"
)

// DefaultSessionsPerWorkload is how many sessions one workload may have open unless Limits say otherwise.
const DefaultSessionsPerWorkload = 10_000

const (
	// filesPerSession: the client's connection and the target's.
	filesPerSession = 2
	// startups is how many connections beyond its quota a workload may have, for as long as it takes to tell the client so, or to
	// cancel a statement. What comes beyond these is closed at once.
	startups = 256
	// fewSessions is how many a workload may have when the proxy is nearly full: the last eighth of its room is for those with few.
	fewSessions = 32
)

// Limits bound what workloads take of the proxy.
type Limits struct {
	// PerWorkload is how many sessions one workload may have open; 0 for DefaultSessionsPerWorkload. Whatever it says, one
	// workload gets three quarters of the proxy's room at most.
	PerWorkload int
	// OpenFiles is the process's limit of open files, which gives the proxy's room; 0 for no limit.
	OpenFiles uint64
}

// quota counts the connections of workloads.
type quota struct {
	limits Limits

	mu   sync.Mutex
	used int
	by   map[uint64]int // by workload
}

func newQuota(limits Limits) *quota {
	if limits.PerWorkload == 0 {
		limits.PerWorkload = DefaultSessionsPerWorkload
	}
	return &quota{limits: limits, by: map[uint64]int{}}
}

// room is how many sessions the proxy serves beside the listeners of so many workloads. An eighth of the files is for all else:
// connections that are kept for later, records, metrics.
func (l Limits) room(workloads int) int {
	if l.OpenFiles == 0 {
		return int(^uint(0) >> 1)
	}
	return max(1, (int(l.OpenFiles)*7/8-filesPerSession*workloads)/filesPerSession)
}

// enter counts a connection of a workload; leave must be called at its end. full says, for the client, why it can not become a
// session; "" when it can. A hopeless one is to be closed without a word.
func (q *quota) enter(workload uint64, workloads int) (full string, hopeless bool, leave func()) {
	room := q.limits.room(workloads)
	own := min(q.limits.PerWorkload, max(1, room*3/4))
	q.mu.Lock()
	defer q.mu.Unlock()
	has := q.by[workload]
	switch {
	case has >= own:
		full = fmt.Sprintf("the workload has %d sessions open, as many as it may have", own)
	case q.used >= room, has >= fewSessions && q.used >= room-room/8:
		full = "the proxy has as many sessions open as it can serve"
	}
	q.used++
	q.by[workload] = has + 1
	return full, has >= own+startups, func() { q.leave(workload) }
}

func (q *quota) leave(workload uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used--
	if q.by[workload]--; q.by[workload] == 0 {
		delete(q.by, workload)
	}
}

// enter counts a connection until its end, and is false when it was refused.
func (p *Proxy) enter(c *Connection) bool {
	p.mu.Lock()
	workloads := len(p.workloads)
	p.mu.Unlock()
	var hopeless bool
	if c.full, hopeless, c.leave = p.quota.enter(c.Workload.ID, workloads); hopeless {
		c.Refuse(ReasonQuota, c.full)
	}
	return !hopeless
}
