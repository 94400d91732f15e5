package nft

import (
	"cmp"
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/capture"
)

// turnSize is how many workloads Relocate looks at in their turn, beside those that it must look at: nothing tells capture that
// a process has made a network namespace.
const turnSize = 64

// Relocate opens listeners anew for workloads of which no process is where their listeners are: the cgroup was empty when it
// was enrolled, or its namespace was replaced. It looks at those that had no process yet, and at some others in their turn, or
// at all. It returns the workloads that have new listeners.
func (c *Capture) Relocate(all bool) []capture.Enrolled {
	c.mu.Lock()
	defer c.mu.Unlock()
	var moved []capture.Enrolled
	for _, w := range c.due(all) {
		changed, err := c.relocate(w)
		w.reason = words(err)
		if err != nil {
			c.log.Warn("a workload's network namespaces can not be looked at", zap.String("cgroup", w.facts.Cgroup), zap.Error(err))
		}
		if changed {
			moved = append(moved, w.enrolled())
		}
	}
	return moved
}

// due are the workloads to look at; the lock is held.
func (c *Capture) due(all bool) []*workload {
	list := make([]*workload, 0, len(c.workloads))
	for _, w := range c.workloads {
		list = append(list, w)
	}
	if all || len(list) <= turnSize {
		return list
	}
	slices.SortFunc(list, func(a, b *workload) int { return cmp.Compare(a.facts.ID, b.facts.ID) })
	first, _ := slices.BinarySearchFunc(list, c.turn+1, func(w *workload, id uint64) int { return cmp.Compare(w.facts.ID, id) })
	due := make([]*workload, 0, 2*turnSize)
	for i := range list {
		w := list[(first+i)%len(list)]
		if i < turnSize {
			c.turn = w.facts.ID
		}
		if i < turnSize || w.empty {
			due = append(due, w)
		}
	}
	return due
}

// relocate does it for one, and is true when it has new listeners. A workload of which one process at least is where the
// listeners are stays; the lock is held.
func (c *Capture) relocate(w *workload) (bool, error) {
	entered, err := capture.Namespaces(c.hierarchy, w.facts.Cgroup)
	if err != nil {
		return false, err
	}
	defer capture.CloseEntered(entered)
	if len(entered) == 0 {
		// The first process decides.
		return false, nil
	}
	if slices.ContainsFunc(entered, func(e capture.Entered) bool { return e.Namespace == w.listeners.Namespace }) {
		if p := c.places[w.listeners.Namespace]; p != nil {
			// A device may have come meanwhile.
			c.guardDevices(p)
		}
		return false, c.settle(w)
	}
	opened, err := capture.OpenListeners(c.hierarchy, w.facts.Cgroup, c.namespace)
	if err != nil {
		return false, err
	}
	before := *w
	w.listeners, w.facts.NetnsCookie, w.facts.Generation = opened, opened.NetnsCookie, c.nextGeneration()
	if err := c.activate(w); err != nil {
		*w = before
		return false, errors.Join(err, opened.Close())
	}
	return true, before.listeners.Close()
}
