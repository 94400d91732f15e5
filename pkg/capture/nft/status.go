package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// Limits are what this way of capturing does not promise, a sentence each; docs/capture.md has more of them.
var Limits = []string{
	"a socket that was made outside a workload and handed in reaches targets",
	"which process dialled is not known: rules that ask for it deny",
	"a process that makes a network namespace of its own is found within a second, and not before it dials",
	"a workload with CAP_NET_ADMIN in its network namespace can work against the rules there; the device guard alone is out of its reach",
}

// Names of guards.
const (
	guardOutput  = "output"  // in each namespace: what was not redirected is refused
	guardForward = "forward" // in namespaces that are workloads' own: what comes through
	guardOwner   = "owner"   // nobody else can change the tables
	guardDevice  = "device"  // at the agent's side of a veth
)

// Status is what Check, Enroll and Prove found last.
func (c *Capture) Status() capture.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	status := capture.Status{Guards: c.guards(), Reason: c.unproven}
	byWorkload := map[uint64]string{}
	for _, p := range c.places {
		reason := p.reason
		if reason == "" && p.unwatched != "" && !p.table.owned {
			reason = p.unwatched
		}
		for id := range p.entries {
			if byWorkload[id] == "" {
				byWorkload[id] = reason
			}
		}
		if status.Reason == "" && p.id == c.namespace {
			status.Reason = reason
		}
	}
	for id, w := range c.workloads {
		reason := w.reason
		if reason == "" {
			reason = byWorkload[id]
		}
		status.Workloads = append(status.Workloads, capture.WorkloadStatus{Workload: w.facts, Reason: reason})
	}
	for id, s := range c.stranded {
		status.Workloads = append(status.Workloads, capture.WorkloadStatus{
			Workload: handoff.Workload{ID: id, Cgroup: s.name, Mode: handoff.ModeNFT}, Reason: s.reason,
		})
	}
	slices.SortFunc(status.Workloads, func(a, b capture.WorkloadStatus) int { return strings.Compare(a.Cgroup, b.Cgroup) })
	for i := range status.Workloads {
		one := &status.Workloads[i]
		one.Effective = one.Reason == ""
		if !one.Effective && status.Reason == "" {
			status.Reason = fmt.Sprintf("workload %s: %s", one.Cgroup, one.Reason)
		}
	}
	status.Effective = status.Reason == ""
	return status
}

// guards are those of this way of capturing; it is effective without those of owner and device. The lock is held.
func (c *Capture) guards() []handoff.Guard {
	missing := map[string]map[string]bool{guardOutput: {}, guardForward: {}, guardOwner: {}}
	for _, p := range c.places {
		if p.reason != "" {
			missing[guardOutput][p.reason] = true
			if p.id != c.namespace {
				missing[guardForward][p.reason] = true
			}
		}
		if p.table.now != nil && !p.table.owned {
			missing[guardOwner]["the kernel can not keep an owned table when its owner ends: changes are noticed, and put back"] = true
		}
	}
	var list []handoff.Guard
	for _, name := range []string{guardOutput, guardForward, guardOwner} {
		reason := joinSorted(missing[name])
		list = append(list, handoff.Guard{Name: name, Active: reason == "", Reason: reason})
	}
	reason := c.deviceReasons()
	return append(list, handoff.Guard{Name: guardDevice, Active: reason == "", Reason: reason})
}

// Check asks the kernel whether all rules are as they were written, and writes anew what is not.
func (c *Capture) Check() capture.Status {
	c.mu.Lock()
	for _, p := range c.places {
		if p.table.now == nil || p.reason != "" {
			// It could not be written before. What keeps it from that is in the reason.
			_ = c.apply(p)
			continue
		}
		c.verify(p)
	}
	c.checkDevices()
	for _, w := range c.all() {
		now, err := c.hierarchy.ID(w.facts.Cgroup)
		if err == nil && now != w.facts.ID {
			err = errors.New("another cgroup has its name now")
		}
		if err != nil {
			w.reason = err.Error()
		}
	}
	c.mu.Unlock()
	return c.Status()
}

// checkDevices puts back the guards of devices that somebody removed; the lock is held.
func (c *Capture) checkDevices() {
	if missing, err := c.devices.missing(); err != nil {
		c.unguarded(err)
	} else if len(missing) > 0 {
		c.kept[tampered]++
		c.log.Warn("the guards of devices were removed; they are put back")
		c.applyDevices()
	}
}

// Counters are packets by reason: those that began a captured connection, and those that were denied.
func (c *Capture) Counters() (map[string]uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := map[string]uint64{tampered: c.kept[tampered]}
	for _, reason := range counted {
		total[reason] = c.kept[reason]
	}
	tables := []*table{&c.devices.table}
	for _, p := range c.places {
		tables = append(tables, &p.table)
	}
	for _, t := range tables {
		if t.socket == nil {
			continue
		}
		counters, err := t.counters()
		if err != nil {
			return nil, err
		}
		for reason, n := range counters {
			total[reason] += n
		}
	}
	return total, nil
}

// eventInterval is how often counters are looked at for events.
const eventInterval = time.Second

// Events calls a function for what was changed and put back, and each second for each reason for which packets were denied in a
// network namespace, until ctx ends. Who sent them, and where, is not known.
func (c *Capture) Events(ctx context.Context, handle func(handoff.CaptureEvent)) error {
	ticker := time.NewTicker(eventInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-c.events:
			handle(e)
		case <-ticker.C:
			for _, e := range c.denials() {
				handle(e)
			}
		}
	}
}

// denials are events for what the counters of places have counted since the last call.
func (c *Capture) denials() []handoff.CaptureEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []handoff.CaptureEvent
	for _, p := range c.places {
		counters, err := p.table.counters()
		if err != nil {
			continue // Check says what is wrong with the table.
		}
		for _, reason := range denied {
			if grown := counters[reason] - p.told[reason]; grown > 0 && counters[reason] > p.told[reason] {
				p.told[reason] = counters[reason]
				list = append(list, c.event(p, reason, grown))
			}
		}
	}
	return list
}

// tell leaves an event for Events; when nobody takes them, they are dropped, and the counters have them. The lock is held.
func (c *Capture) tell(p *place, reason string, n uint64) {
	select {
	case c.events <- c.event(p, reason, n):
	default:
	}
}

// event is one for n happenings; the lock is held.
func (c *Capture) event(p *place, reason string, n uint64) handoff.CaptureEvent {
	e := handoff.CaptureEvent{Time: time.Now(), Reason: reason, Suppressed: n - 1}
	// Of several workloads in one namespace it is nobody's in particular.
	if len(p.entries) == 1 {
		for id := range p.entries {
			e.WorkloadID, e.CgroupID = id, id
			if w := c.workloads[id]; w != nil {
				e.Cgroup, e.NetnsCookie = w.facts.Cgroup, w.facts.NetnsCookie
			}
		}
	}
	return e
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
