package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// workload is what is held for an enrolled workload.
type workload struct {
	facts       handoff.Workload // ID and Cgroup never change
	listeners   capture.Listeners
	reset, left int
	// empty is true while it has had no process to go by.
	empty  bool
	canary bool
	reason string // why it is not effective, beside what its places say
}

func (w *workload) enrolled() capture.Enrolled {
	return capture.Enrolled{Workload: w.facts, Listeners: w.listeners.All(), Reset: w.reset, Left: w.left}
}

// entry is the workload where its listeners are; elsewhere it has none.
func (w *workload) entry(here bool) entry {
	e := entry{id: w.facts.ID, level: uint32(cgroup.Depth(w.facts.Cgroup)), canary: w.canary}
	if here {
		e.port4, e.port6 = w.listeners.Ports()
	}
	return e
}

// Enroll captures a cgroup and all below it: it opens listeners in the network namespace of the workload's oldest process, ends
// the connections that the workload has to targets, and redirects. In other namespaces that its processes are in, it is denied
// its targets. A cgroup that is enrolled stays as it is. The error is capture.ErrAgent for a cgroup that contains the agent,
// fs.ErrNotExist when there is no such cgroup.
func (c *Capture) Enroll(name string) (capture.Enrolled, error) {
	name, err := cgroup.Clean(name)
	if err != nil {
		return capture.Enrolled{}, err
	}
	id, err := c.hierarchy.ID(name)
	if err != nil {
		return capture.Enrolled{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.workloads[id]; ok {
		return w.enrolled(), nil
	}
	w, err := c.enroll(name, id)
	if err != nil {
		return capture.Enrolled{}, fmt.Errorf("enrol %s: %w", name, err)
	}
	c.workloads[id] = w
	delete(c.stranded, id)
	return w.enrolled(), nil
}

// admit says why a cgroup can not be enrolled.
func (c *Capture) admit(name string) error {
	own, err := c.hierarchy.Own()
	if err != nil {
		return err
	}
	if cgroup.Contains(name, own) {
		return capture.ErrAgent
	}
	if depth := cgroup.Depth(name); depth > cgroup.MaxDepth {
		return fmt.Errorf("it lies %d levels deep: at most %d are looked at", depth, cgroup.MaxDepth)
	}
	return nil
}

// enroll does it; what it made it undoes on failure. The lock is held.
func (c *Capture) enroll(name string, id uint64) (*workload, error) {
	if err := c.admit(name); err != nil {
		return nil, err
	}
	opened, err := capture.OpenListeners(c.hierarchy, name, c.namespace)
	if err != nil {
		return nil, err
	}
	w := c.newWorkload(name, id, opened, c.nextGeneration())
	if err := c.activate(w); err != nil {
		return nil, errors.Join(err, c.deactivate(w))
	}
	return w, nil
}

func (c *Capture) newWorkload(name string, id uint64, opened capture.Listeners, generation uint64) *workload {
	return &workload{
		facts: handoff.Workload{
			ID: id, Generation: generation, Cgroup: name, Name: path.Base(name), NetnsCookie: opened.NetnsCookie, Mode: handoff.ModeNFT,
		},
		listeners: opened,
		empty:     true,
	}
}

// activate keeps the workload's facts, ends connections that are older, and writes the rules. The workload is captured when it
// returns nil; the lock is held.
func (c *Capture) activate(w *workload) error {
	if port4, port6 := w.listeners.Ports(); !w.canary {
		if err := c.files.put(w.facts, port4, port6); err != nil {
			return err
		}
	}
	if err := c.reset(w, nil); err != nil {
		return err
	}
	p, err := c.placeOf(w.listeners)
	if err != nil {
		return err
	}
	if err := c.put(p, w.entry(true)); err != nil {
		return err
	}
	// A process that comes to the agent's namespace is the workload's there too.
	if err := c.put(c.places[c.namespace], w.entry(p.id == c.namespace)); err != nil {
		return err
	}
	c.guardDevices(p)
	// Another cgroup may have taken the name since the id was read.
	if id, err := c.hierarchy.ID(w.facts.Cgroup); err != nil || id != w.facts.ID {
		return fmt.Errorf("the cgroup was replaced meanwhile: %w", errors.Join(err, os.ErrNotExist))
	}
	return c.settle(w)
}

// placeOf is where listeners are; the lock is held.
func (c *Capture) placeOf(l capture.Listeners) (*place, error) {
	if p, ok := c.places[l.Namespace]; ok {
		return p, nil
	}
	file, err := capture.NamespaceOf(l.V4)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return c.place(l.Namespace, file)
}

// reset ends connections of a workload that are older than its capture, to targets that were not so before; the lock is held.
func (c *Capture) reset(w *workload, before targets) error {
	namespace, err := capture.NamespaceOf(w.listeners.V4)
	if err != nil {
		return err
	}
	defer namespace.Close()
	dir := c.hierarchy.Dir(w.facts.Cgroup)
	if w.listeners.Namespace != c.namespace {
		dir = "" // All that is there is the workload's.
	}
	reset, left, err := capture.Reset(namespace, dir, func(to netip.AddrPort) (bool, error) {
		return c.targets.contain(to) && !before.contain(to), nil
	})
	w.reset += reset
	w.left += left
	return err
}

// deactivate undoes activate; the lock is held.
func (c *Capture) deactivate(w *workload) error {
	errs := []error{w.listeners.Close()}
	for _, p := range slices.Collect(maps.Values(c.places)) {
		errs = append(errs, c.take(p, w.facts.ID))
	}
	return errors.Join(append(errs, c.files.remove(w.facts.ID))...)
}

// settle looks where the workload's processes are: in the namespaces without its listeners it is denied its targets. The lock is held.
func (c *Capture) settle(w *workload) error {
	entered, err := capture.Namespaces(c.hierarchy, w.facts.Cgroup)
	if err != nil {
		return err
	}
	defer capture.CloseEntered(entered)
	w.empty = len(entered) == 0
	lives := map[capture.Namespace]bool{w.listeners.Namespace: true}
	for _, one := range entered {
		lives[one.Namespace] = true
		if one.Namespace == w.listeners.Namespace {
			continue
		}
		p, err := c.place(one.Namespace, one.File)
		if err != nil {
			return err
		}
		if _, known := p.entries[w.facts.ID]; known || p.id == c.namespace {
			continue
		}
		c.log.Warn("a workload has processes in another network namespace than its listeners; there it is denied its targets",
			zap.String("cgroup", w.facts.Cgroup))
		if err := c.put(p, w.entry(false)); err != nil {
			return err
		}
		c.guardDevices(p)
	}
	return c.depart(w, lives)
}

// depart takes the workload from where it has neither listeners nor processes; the lock is held.
func (c *Capture) depart(w *workload, lives map[capture.Namespace]bool) error {
	if w.empty {
		return nil
	}
	var errs []error
	for _, p := range slices.Collect(maps.Values(c.places)) {
		if !lives[p.id] && p.id != c.namespace {
			errs = append(errs, c.take(p, w.facts.ID))
		}
	}
	return errors.Join(errs...)
}

// Withdraw ends the capture of a workload, by its cgroup's id; the cgroup may be gone.
func (c *Capture) Withdraw(id uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, p := range slices.Collect(maps.Values(c.places)) {
		errs = append(errs, c.take(p, id))
	}
	if w, ok := c.workloads[id]; ok {
		errs = append(errs, w.listeners.Close())
	}
	errs = append(errs, c.files.remove(id))
	delete(c.workloads, id)
	delete(c.stranded, id)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("withdraw workload %d: %w", id, err)
	}
	return nil
}

// Workloads are the enrolled workloads, by the names of their cgroups.
func (c *Capture) Workloads() []capture.Enrolled {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]capture.Enrolled, 0, len(c.workloads))
	for _, w := range c.workloads {
		list = append(list, w.enrolled())
	}
	slices.SortFunc(list, func(a, b capture.Enrolled) int { return strings.Compare(a.Cgroup, b.Cgroup) })
	return list
}

// IDs are the cgroups that are enrolled or could not be enrolled again: whatever Withdraw must be called for.
func (c *Capture) IDs() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := slices.Collect(maps.Keys(c.workloads))
	return slices.AppendSeq(ids, maps.Keys(c.stranded))
}
