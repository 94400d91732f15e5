package capture

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path"
	"slices"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// ErrAgent says that a cgroup can not be enrolled because it contains the agent, whose own connections must not be captured.
var ErrAgent = errors.New("it contains the agent itself")

// An Enrolled is a workload and its listeners, which stay capture's.
type Enrolled struct {
	handoff.Workload
	Listeners []*net.TCPListener
	// Reset and Left are the connections to targets that the workload had before it was enrolled: those that were destroyed,
	// and those that the kernel can not destroy, whose packets guard_egress drops.
	Reset, Left int
}

// workload is what is held for an enrolled workload.
type workload struct {
	facts     handoff.Workload // ID and Cgroup never change
	listeners listeners
	canary    bool
	unguarded error // why guard_egress is not attached
	// deviceReason is why guard_device does not cover it.
	deviceReason string
	reset, left  int
	reason       string // why it is not effective, as the last check found
}

func (w *workload) enrolled() Enrolled {
	return Enrolled{Workload: w.facts, Listeners: w.listeners.all(), Reset: w.reset, Left: w.left}
}

// Enroll captures a cgroup and all below it: it opens listeners in the network namespace of the workload's oldest process,
// attaches the programs, ends the connections that the workload has to targets, and makes sure that the programs are effective.
// A cgroup that is enrolled stays as it is. One whose listeners can not be opened is denied its targets. The error is ErrAgent for a cgroup that contains the agent, ErrForeign where
// somebody's program stands in the way, fs.ErrNotExist when there is no such cgroup.
func (c *Capture) Enroll(name string) (Enrolled, error) {
	name, err := cgroup.Clean(name)
	if err != nil {
		return Enrolled{}, err
	}
	id, err := c.hierarchy.ID(name)
	if err != nil {
		return Enrolled{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.workloads[id]; ok {
		return w.enrolled(), nil
	}
	if err := c.admit(name); err != nil {
		return Enrolled{}, fmt.Errorf("enrol %s: %w", name, err)
	}
	w, err := c.enroll(name, id, false)
	if err != nil {
		return Enrolled{}, fmt.Errorf("enrol %s: %w", name, err)
	}
	c.workloads[id] = w
	delete(c.stranded, id)
	// It may have had no process to go by.
	c.suspects[id] = true
	return w.enrolled(), nil
}

// admit says why a cgroup can not be enrolled.
func (c *Capture) admit(name string) error {
	own, err := c.hierarchy.Own()
	if err != nil {
		return err
	}
	if cgroup.Contains(name, own) {
		return ErrAgent
	}
	if depth := cgroup.Depth(name); depth > cgroup.MaxDepth {
		return fmt.Errorf("it lies %d levels deep: at most %d are looked at", depth, cgroup.MaxDepth)
	}
	for above := name; ; above = path.Dir(above) {
		if err := checkForeign(c.hierarchy.Dir(above), workloadPrograms...); err != nil {
			return err
		}
		if above == "/" {
			return nil
		}
	}
}

// enroll does it; what it made it undoes on failure, and what was pinned before stays. The lock is held.
func (c *Capture) enroll(name string, id uint64, canary bool) (*workload, error) {
	_, err := os.Stat(c.pins.workload(id))
	pinned := err == nil
	w := &workload{
		facts: handoff.Workload{
			ID:          id,
			Cgroup:      name,
			Name:        path.Base(name),
			NetnsCookie: c.cookie,
		},
		canary: canary,
	}
	opened, generation, failure := c.adoptOrOpen(name, id)
	w.facts.Generation = generation
	if failure == nil {
		w.listeners, w.facts.NetnsCookie = opened, opened.cookie
	}
	if err := c.activate(w, !pinned); err != nil {
		errs := []error{failure, err, w.listeners.close()}
		if !pinned {
			errs = append(errs, c.forget(id), c.pins.remove(id), c.disown(w.listeners.keys()))
		}
		return nil, errors.Join(errs...)
	}
	if failure != nil {
		// The workload may have seen to it that there can be no listener. The pins keep denying.
		return nil, errors.Join(failure, c.strand(id, name, failure))
	}
	return w, nil
}

// activate writes the entry, attaches the programs, and ends connections that are older. The workload is captured when it
// returns.
func (c *Capture) activate(w *workload, reset bool) error {
	if err := os.MkdirAll(c.pins.workload(w.facts.ID), 0o700); err != nil {
		return fmt.Errorf("make a directory for pins: %w", err)
	}
	if err := c.put(w.facts, w.listeners, w.canary); err != nil {
		return err
	}
	for _, name := range workloadPrograms {
		if err := c.attach(w, name); err != nil {
			return err
		}
	}
	// The programs deny until then.
	if err := c.objects.Attached.Put(w.facts.ID, w.facts.ID); err != nil {
		return fmt.Errorf("tell the programs of cgroup %d whose they are: %w", w.facts.ID, err)
	}
	// Before guard_egress, so that the servers hear of it.
	if reset {
		if err := c.reset(w); err != nil {
			return err
		}
	}
	for _, name := range workloadGuards {
		if err := c.attach(w, name); err != nil {
			w.unguarded, w.reason = err, err.Error()
			c.log.Error("a workload is captured without a guard", zap.String("cgroup", w.facts.Cgroup), zap.Error(err))
		}
	}
	c.guardDevices(w)
	// Another cgroup may have taken the name since the id was read; the links are on that one then.
	if id, err := c.hierarchy.ID(w.facts.Cgroup); err != nil || id != w.facts.ID {
		return fmt.Errorf("the cgroup was replaced meanwhile: %w", errors.Join(err, os.ErrNotExist))
	}
	return c.effective(w)
}

// attach attaches a program to a workload's cgroup. The pin alone holds the link: there are many. Should it be removed, the guards of
// the root, whose links stay open, deny what is not redirected any more.
func (c *Capture) attach(w *workload, name string) error {
	attached, err := attach(c.pins.link(w.facts.ID, name), c.hierarchy.Dir(w.facts.Cgroup), w.facts.ID, attachTypes[name], c.programs[name])
	if err != nil {
		return err
	}
	return attached.Close()
}

// Relocate opens listeners anew for workloads that live in another network namespace than their listeners: the cgroup was
// empty when it was enrolled, or its namespace was replaced. Until then such a workload is denied its targets. It looks at
// those that were denied for it, at those that had no process yet, or at all. It returns the workloads that have new listeners.
func (c *Capture) Relocate(all bool) []Enrolled {
	c.mu.Lock()
	defer c.mu.Unlock()
	var moved []Enrolled
	for id, w := range c.workloads {
		if !all && !c.suspects[id] {
			continue
		}
		delete(c.suspects, id)
		changed, err := c.relocate(w)
		if err != nil {
			c.suspects[id] = true
			w.reason = err.Error()
			c.log.Warn("a workload's network namespace can not be entered; it is denied its targets",
				zap.String("cgroup", w.facts.Cgroup), zap.Error(err))
		}
		if changed {
			moved = append(moved, w.enrolled())
		}
	}
	return moved
}

// relocate does it for one, and is true when it has new listeners. A workload of which one process at least is where the
// listeners are stays: the others made namespaces of their own, and are denied their targets.
func (c *Capture) relocate(w *workload) (bool, error) {
	running, err := tasks(c.hierarchy, w.facts.Cgroup)
	if err != nil {
		return false, err
	}
	defer closeTasks(running)
	if len(running) == 0 {
		// The first process decides.
		c.suspects[w.facts.ID] = true
		return false, nil
	}
	for _, one := range running {
		if one.namespace == w.listeners.namespace {
			// A device may have come meanwhile.
			c.guardDevices(w)
			return false, nil
		}
	}
	opened, err := c.open(w.facts.Cgroup, w.facts.ID)
	if err != nil {
		return false, err
	}
	facts := w.facts
	facts.Generation, facts.NetnsCookie = c.nextGeneration(), opened.cookie
	if err := c.put(facts, opened, w.canary); err != nil {
		return false, errors.Join(err, opened.close(), c.disown(opened.keys()))
	}
	before := w.listeners
	w.facts.Generation, w.facts.NetnsCookie = facts.Generation, facts.NetnsCookie
	w.listeners, w.reason = opened, ""
	c.guardDevices(w)
	return true, errors.Join(before.close(), c.disown(before.keys()), c.reset(w))
}

// Withdraw ends the capture of a workload, by its cgroup's id; the cgroup may be gone. Until the links are detached its
// connections to targets are denied.
func (c *Capture) Withdraw(id uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	errs := []error{c.forget(id)}
	if w, ok := c.workloads[id]; ok {
		errs = append(errs, w.listeners.close(), c.disown(w.listeners.keys()))
	}
	errs = append(errs, c.pins.remove(id), c.forgetDevices(id))
	delete(c.workloads, id)
	delete(c.stranded, id)
	delete(c.suspects, id)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("withdraw workload %d: %w", id, err)
	}
	return nil
}

// Workloads are the enrolled workloads, by the names of their cgroups.
func (c *Capture) Workloads() []Enrolled {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Enrolled, 0, len(c.workloads))
	for _, w := range c.workloads {
		list = append(list, w.enrolled())
	}
	slices.SortFunc(list, func(a, b Enrolled) int {
		return compareNames(a.Cgroup, b.Cgroup)
	})
	return list
}

// IDs are the cgroups that are enrolled or could not be enrolled again: whatever Withdraw must be called for.
func (c *Capture) IDs() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := slices.Collect(maps.Keys(c.workloads))
	return slices.AppendSeq(ids, maps.Keys(c.stranded))
}
