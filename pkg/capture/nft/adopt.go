package nft

import (
	"errors"
	"os"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/capture"
)

// Left are the workloads that an earlier process of the instance left captured and that still live: those whose listeners a
// proxy may hold, to be given to Open.
func Left(o Options) ([]uint64, error) {
	left, names, err := living(o)
	if err != nil {
		return nil, err
	}
	var ids []uint64
	for id := range left {
		if names[id] != "" {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// living are the workloads that files tell of, and the names of those that still live.
func living(o Options) (map[uint64]kept, map[uint64]string, error) {
	left, err := files{o.Dir}.workloads()
	if err != nil || len(left) == 0 {
		return nil, nil, err
	}
	ids := map[uint64]bool{}
	for id := range left {
		ids[id] = true
	}
	names, err := o.Hierarchy.Names(ids)
	return left, names, err
}

// adopt enrols again what an earlier process enrolled. Its tables stay in force until new ones take their places.
func (c *Capture) adopt() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	left, names, err := living(c.options)
	if err != nil {
		return err
	}
	var adopted []*workload
	for id, one := range left {
		name := names[id]
		if name == "" {
			if err := c.files.remove(id); err != nil {
				return err
			}
			c.log.Info("forgot a cgroup that is gone", zap.Uint64("cgroup_id", id), zap.String("cgroup", one.Cgroup))
			continue
		}
		w, err := c.readmit(name, one)
		if err != nil {
			c.log.Error("a workload of an earlier process can not be enrolled again; it is denied its targets",
				zap.String("cgroup", name), zap.Error(err))
			c.stranded[id] = stranded{name: name, reason: err.Error()}
			w = &workload{facts: one.Workload}
		}
		adopted = append(adopted, w)
		if err := c.lodge(w); err != nil {
			return err
		}
	}
	// All of a namespace's at once: its table is replaced by one that has them all.
	for _, p := range c.places {
		if err := c.apply(p); err != nil {
			return err
		}
		c.findDevices(p)
	}
	c.applyDevices()
	for _, w := range adopted {
		if _, isStranded := c.stranded[w.facts.ID]; isStranded {
			continue
		}
		c.workloads[w.facts.ID] = w
		if err := c.settle(w); err != nil {
			w.reason = err.Error()
		}
	}
	return nil
}

// readmit gives a workload the listeners that an earlier process opened for it, if a proxy has offered just these; then its
// generation stays as well, so that connections under way stay valid. Else it gets new ones and a new generation. The lock is held.
func (c *Capture) readmit(name string, one kept) (*workload, error) {
	if err := c.admit(name); err != nil {
		return nil, err
	}
	if offer, ok := c.options.Offers[one.ID]; ok {
		l, err := capture.MatchOffer(offer, capture.Place{
			Generation: one.Generation, NetnsCookie: one.NetnsCookie, Port4: one.Port4, Port6: one.Port6,
		})
		if err == nil {
			return c.newWorkload(name, one.ID, l, one.Generation), nil
		}
		c.log.Warn("a workload's listeners are opened anew: those that were offered do not fit", zap.String("cgroup", name), zap.Error(err))
	}
	l, err := capture.OpenListeners(c.hierarchy, name, c.namespace)
	if err != nil {
		return nil, err
	}
	return c.newWorkload(name, one.ID, l, c.nextGeneration()), nil
}

// lodge gives a workload its entry, without changing a table: where its listeners are, or, without them, wherever it has
// processes. The lock is held.
func (c *Capture) lodge(w *workload) error {
	c.places[c.namespace].entries[w.facts.ID] = w.entry(false)
	if w.listeners.V4 != nil {
		port4, port6 := w.listeners.Ports()
		p, err := c.placeOf(w.listeners)
		if err != nil {
			return err
		}
		p.entries[w.facts.ID] = w.entry(true)
		return c.files.put(w.facts, port4, port6)
	}
	entered, err := capture.Namespaces(c.hierarchy, w.facts.Cgroup)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer capture.CloseEntered(entered)
	for _, one := range entered {
		p, err := c.place(one.Namespace, one.File)
		if err != nil {
			return err
		}
		p.entries[w.facts.ID] = w.entry(false)
	}
	return nil
}
