package capture

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path"
	"slices"

	"github.com/cilium/ebpf/link"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// ErrAgent says that a cgroup can not be enrolled because it contains the agent, whose own connections must not be captured.
var ErrAgent = errors.New("it contains the agent itself")

// An Enrolled is a workload and its listeners, which stay capture's.
type Enrolled struct {
	handoff.Workload
	Listeners []*net.TCPListener
}

// workload is what is held for an enrolled workload.
type workload struct {
	facts     handoff.Workload
	listeners listeners
	links     []link.Link
}

func (w *workload) enrolled() Enrolled {
	return Enrolled{Workload: w.facts, Listeners: w.listeners.all()}
}

// Enroll captures a cgroup and all below it: it opens listeners, attaches the programs, and makes sure that they are effective.
// A cgroup that is enrolled stays as it is. The error is ErrAgent for a cgroup that contains the agent, ErrForeign where
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
	w, err := c.enroll(name, id)
	if err != nil {
		return Enrolled{}, fmt.Errorf("enrol %s: %w", name, err)
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

// enroll does it; what it made it undoes on failure, and what was pinned before stays.
func (c *Capture) enroll(name string, id uint64) (*workload, error) {
	_, err := os.Stat(c.pins.workload(id))
	pinned := err == nil
	opened, err := listen()
	if err != nil {
		return nil, err
	}
	w := &workload{
		facts: handoff.Workload{
			ID:          id,
			Generation:  c.nextGeneration(),
			Cgroup:      name,
			Name:        path.Base(name),
			NetnsCookie: c.cookie,
		},
		listeners: opened,
	}
	if err := c.activate(w); err != nil {
		errs := []error{err, opened.close(), closeLinks(w.links)}
		if !pinned {
			errs = append(errs, c.forget(id), c.pins.remove(id))
		}
		return nil, errors.Join(errs...)
	}
	return w, nil
}

// activate writes the entry and attaches the programs. The workload is captured when it returns.
func (c *Capture) activate(w *workload) error {
	if err := os.MkdirAll(c.pins.workload(w.facts.ID), 0o700); err != nil {
		return fmt.Errorf("make a directory for pins: %w", err)
	}
	port4, port6 := w.listeners.ports()
	if err := c.put(w.facts.ID, w.facts.Generation, port4, port6); err != nil {
		return err
	}
	dir := c.hierarchy.Dir(w.facts.Cgroup)
	for _, name := range workloadPrograms {
		attached, err := attach(c.pins.link(w.facts.ID, name), dir, w.facts.ID, attachTypes[name], c.programs[name])
		if err != nil {
			return err
		}
		w.links = append(w.links, attached)
	}
	// Another cgroup may have taken the name since the id was read; the links are on that one then.
	if id, err := c.hierarchy.ID(w.facts.Cgroup); err != nil || id != w.facts.ID {
		return fmt.Errorf("the cgroup was replaced meanwhile: %w", errors.Join(err, os.ErrNotExist))
	}
	return c.effective(w.facts.Cgroup)
}

// Withdraw ends the capture of a workload, by its cgroup's id; the cgroup may be gone. Until the links are detached its
// connections to targets are denied.
func (c *Capture) Withdraw(id uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	errs := []error{c.forget(id)}
	if w, ok := c.workloads[id]; ok {
		errs = append(errs, closeLinks(w.links), w.listeners.close())
	}
	errs = append(errs, c.pins.remove(id))
	delete(c.workloads, id)
	delete(c.stranded, id)
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
