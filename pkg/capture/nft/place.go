package nft

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/capture"
)

// A place is a network namespace that workloads live in.
type place struct {
	id      capture.Namespace
	file    *os.File // nil for the agent's
	table   table
	monitor *monitor
	entries map[uint64]entry
	told    map[string]uint64 // its counters when an event told of them
	// unwatched is why changes are not heard of, reason why the table is not as it should be; "" when all is well.
	unwatched, reason string
	// devices lead out of it, by their indexes in the agent's namespace; deviceReason is why nothing guards them.
	devices      []int
	deviceReason string
}

// place opens a network namespace, nil being the agent's; the lock is held. A place that is there already is returned as it is.
func (c *Capture) place(id capture.Namespace, file *os.File) (*place, error) {
	if p, ok := c.places[id]; ok {
		return p, nil
	}
	p := &place{id: id, entries: map[uint64]entry{}, told: map[string]uint64{}}
	if id != c.namespace {
		// The caller closes his.
		var err error
		if p.file, err = duplicate(file); err != nil {
			return nil, err
		}
	}
	socket, err := dial(p.file)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.table = c.newTable(socket, familyInet)
	p.monitor, err = listenFor(p.file, p.table.prefix, socket.port, func() { c.restore(p) }, func(err error) { c.unwatched(p, err) })
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	c.places[id] = p
	return p, nil
}

func duplicate(file *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keep a network namespace open: %w", err)
	}
	return os.NewFile(uintptr(fd), "net"), nil
}

// close leaves the table where it is.
func (p *place) close() error {
	var errs []error
	if p.monitor != nil {
		errs = append(errs, p.monitor.close())
	}
	if p.table.socket != nil {
		errs = append(errs, p.table.socket.close())
	}
	if p.file != nil {
		errs = append(errs, p.file.Close())
	}
	return errors.Join(errs...)
}

// plan is what the place's table is to say; the lock is held.
func (c *Capture) plan(p *place) plan {
	entries := slices.SortedFunc(maps.Values(p.entries), func(a, b entry) int { return cmp.Compare(a.id, b.id) })
	return plan{targets: c.targets, entries: entries, whole: p.id != c.namespace}
}

// apply puts in force what the place's entries are; the lock is held.
func (c *Capture) apply(p *place) error {
	err := p.table.apply(c.plan(p))
	p.reason = words(err)
	if err == nil && len(p.table.foreign) > 0 {
		p.reason = fmt.Sprintf("another process owns the tables %v", p.table.foreign)
	}
	return err
}

// put makes an entry that of a workload at a place. What was there comes back when the table can not be changed. The lock is held.
func (c *Capture) put(p *place, e entry) error {
	before, had := p.entries[e.id]
	if had && before == e && p.table.now != nil {
		return nil
	}
	p.entries[e.id] = e
	err := c.apply(p)
	if err != nil {
		if delete(p.entries, e.id); had {
			p.entries[e.id] = before
		}
	}
	return err
}

// take removes a workload's entry from a place, and the place where that was the last; the lock is held.
func (c *Capture) take(p *place, id uint64) error {
	if _, ok := p.entries[id]; !ok {
		return nil
	}
	delete(p.entries, id)
	if len(p.entries) > 0 || p.id == c.namespace {
		return c.apply(p)
	}
	return errors.Join(c.keepCounters(p), p.table.remove(), c.leave(p))
}

// leave forgets a place; the lock is held, so what the monitor calls must not wait for it.
func (c *Capture) leave(p *place) error {
	delete(c.places, p.id)
	c.closing.Go(func() {
		if err := p.close(); err != nil {
			c.log.Warn("leave a network namespace", zap.Error(err))
		}
	})
	c.applyDevices()
	return nil
}

// keepCounters adds what a table has counted to what the process remembers; the lock is held.
func (c *Capture) keepCounters(p *place) error {
	counters, err := p.table.counters()
	for reason, n := range counters {
		c.kept[reason] += n
	}
	return err
}

// restore puts back what somebody changed.
func (c *Capture) restore(p *place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.places[p.id] != p || p.table.now == nil {
		return
	}
	c.verify(p)
}

// verify looks whether the place's table is as it was written, and writes it anew if not; the lock is held.
func (c *Capture) verify(p *place) {
	intact, err := p.table.intact()
	if err != nil {
		p.reason = err.Error()
		return
	}
	if intact {
		return
	}
	c.kept[tampered]++
	if err := p.table.rewrite(c.plan(p)); err != nil {
		p.reason = fmt.Sprintf("somebody changed the table, and it can not be written anew: %v", err)
		c.log.Error("the rules of a workload's network namespace were changed and can not be put back", zap.Error(err))
	} else {
		p.reason = ""
		c.log.Warn("the rules of a workload's network namespace were changed; they are back", zap.Int("workloads", len(p.entries)))
	}
	c.tell(p, tampered, 1)
}

// unwatched notes that changes are not heard of any more; Check still finds them.
func (c *Capture) unwatched(p *place, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.unwatched = err.Error()
	c.log.Error("changes of a workload's network namespace are not heard of", zap.Error(err))
}
