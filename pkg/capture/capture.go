package capture

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// MaxWorkloads is how many can be enrolled at once: MAX_WORKLOADS of bpf/maps.h.
const MaxWorkloads = 16384

// A process that captures has a workload's two listeners open, twice while a start takes them over, and what it needs itself.
const filesEach, filesBesides = 4, 256

// OpenFiles is how many files a process must be allowed to have open to capture so many workloads.
func OpenFiles(workloads uint64) uint64 { return filesBesides + filesEach*workloads }

// Room is how many workloads so many files let be captured.
func Room(files uint64) uint64 { return (max(files, filesBesides) - filesBesides) / filesEach }

// Options say where capture lives.
type Options struct {
	// Instance names the pins; see the function Instance.
	Instance string
	// BPFFS is the mount point of the bpffs to pin in. Default: where it is mounted, and /sys/fs/bpf, mounted by Open, when it
	// is mounted nowhere.
	BPFFS string
	// Hierarchy is the cgroup hierarchy. Required by Open.
	Hierarchy *cgroup.Hierarchy
	// Log is told of what Open finds. Required by Open.
	Log *zap.Logger
	// Canary is the command that calls RunCanary with the address that it is given as its last argument. Required by Open.
	Canary []string
	// Offers are listeners of workloads of an earlier process, by workload, that a proxy still holds. Those that are what the
	// pins say are adopted. The files stay the caller's.
	Offers map[uint64]handoff.Offer

	// Tests fill the map of unfinished handshakes, and reach what one workload and all may have in it.
	pendingEntries, pendingQuota, pendingPool uint32
}

// A Capture is one instance's programs, maps, links and listeners. It is safe for concurrent use.
type Capture struct {
	hierarchy *cgroup.Hierarchy
	pins      pins
	earlier   []pins // of earlier layouts, which Open takes over
	log       *zap.Logger
	objects   bpf.CaptureObjects
	programs  map[string]*ebpf.Program
	ids       map[string]ebpf.ProgramID
	namespace inode  // the agent's network namespace
	cookie    uint64 // its cookie

	missing map[string]string // why a guard does not run, by its program; Open fills it

	proving sync.Mutex // held while the canary runs
	command []string   // that runs the canary

	mu         sync.Mutex
	root       []link.Link
	workloads  map[uint64]*workload
	stranded   map[uint64]stranded
	suspects   map[uint64]bool // workloads that dialled from another network namespace than their listeners'
	canary     *workload
	family     string // why guard_family does not run
	unproven   string // why the canary was not captured
	rootReason string // why the programs of the root are not effective
	generation uint64
	offers     map[uint64]handoff.Offer // not yet looked at
}

// stranded is a workload of an earlier process that could not be enrolled again: its connections to targets are denied.
type stranded struct{ name, reason string }

// Open loads the programs, attaches what belongs to the root of the hierarchy, and adopts what an earlier process of the
// instance left pinned: its targets stay in force, links are updated in place, workloads that live are enrolled anew, with
// new listeners, and pins of those that are gone are removed. What an earlier version left it replaces. Only one process may hold
// an instance open.
func Open(o Options) (*Capture, error) {
	p, err := findPins(o.BPFFS, o.Instance, true)
	if err != nil {
		return nil, err
	}
	if err := checkForeign(o.Hierarchy.Root, append(slices.Clone(workloadPrograms), rootPrograms...)...); err != nil {
		return nil, err
	}
	namespace, err := ownNamespace()
	if err != nil {
		return nil, err
	}
	cookie, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(p.checkVersions(), p.make()); err != nil {
		return nil, err
	}
	earlier, err := p.earlier()
	if err != nil {
		return nil, err
	}
	c := &Capture{
		hierarchy: o.Hierarchy,
		pins:      p,
		earlier:   earlier,
		log:       o.Log,
		namespace: namespace,
		cookie:    cookie,
		command:   o.Canary,
		workloads: map[uint64]*workload{},
		stranded:  map[uint64]stranded{},
		suspects:  map[uint64]bool{},
		missing:   map[string]string{},
		offers:    maps.Clone(o.Offers),
	}
	if err := c.load(o); err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		c.protectCanary, c.takeTargets, c.attachRoot, c.adoptWorkloads, c.enrollCanary, c.disownStale, c.releaseEarlier,
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	c.offers = nil
	c.Check()
	return c, nil
}

// load loads the programs and maps; pinned maps are used as they are.
func (c *Capture) load(o Options) error {
	spec, err := bpf.LoadCapture()
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	if err := spec.Variables[bpf.CaptureVarPageSize].Set(int32(os.Getpagesize())); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	if o.pendingEntries != 0 {
		spec.Maps[bpf.CaptureMapPending].MaxEntries = o.pendingEntries
	}
	for name, value := range map[string]uint32{
		bpf.CaptureVarPendingQuota: o.pendingQuota, bpf.CaptureVarPendingPool: o.pendingPool,
	} {
		if value == 0 {
			continue
		}
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("load programs: %w", err)
		}
	}
	err = spec.LoadAndAssign(&c.objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: c.pins.maps()}})
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		return fmt.Errorf("adopt the maps in %s, which another build made (end capture with \"sallyport down\"): %w", c.pins.maps(), err)
	}
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	c.programs = map[string]*ebpf.Program{
		"connect4":       c.objects.Connect4,
		"connect6":       c.objects.Connect6,
		"getpeername4":   c.objects.Getpeername4,
		"getpeername6":   c.objects.Getpeername6,
		"sock_ops":       c.objects.SockOps,
		"get_origin":     c.objects.GetOrigin,
		"guard_connect4": c.objects.GuardConnect4,
		"guard_connect6": c.objects.GuardConnect6,
		"guard_socket":   c.objects.GuardSocket,
		"guard_sendmsg4": c.objects.GuardSendmsg4,
		"guard_sendmsg6": c.objects.GuardSendmsg6,
		"guard_bind4":    c.objects.GuardBind4,
		"guard_bind6":    c.objects.GuardBind6,
		"guard_egress":   c.objects.GuardEgress,
	}
	c.ids = map[string]ebpf.ProgramID{}
	for name, program := range c.programs {
		info, err := program.Info()
		if err != nil {
			return errors.Join(fmt.Errorf("ask for the id of %s: %w", name, err), c.objects.Close())
		}
		id, ok := info.ID()
		if !ok {
			return errors.Join(fmt.Errorf("%s: the kernel gives programs no id", name), c.objects.Close())
		}
		c.ids[name] = id
	}
	// Denials that are nobody's in particular.
	return c.share(0)
}

// attachRoot attaches what carries origins, which comes before any redirection, and the guards.
func (c *Capture) attachRoot() error {
	id, err := c.hierarchy.ID("/")
	if err != nil {
		return err
	}
	for _, name := range rootPrograms {
		attached, err := attach(c.pins.root(name), c.hierarchy.Root, id, attachTypes[name], c.programs[name])
		if err != nil {
			return err
		}
		c.root = append(c.root, attached)
	}
	c.attachGuards(id)
	return nil
}

// adoptWorkloads enrols again what an earlier process enrolled.
func (c *Capture) adoptWorkloads() error {
	ids, err := c.pins.ids()
	if err != nil {
		return err
	}
	for _, e := range c.earlier {
		more, err := e.ids()
		if err != nil {
			return err
		}
		maps.Copy(ids, more)
	}
	if len(ids) == 0 {
		return nil
	}
	names, err := c.hierarchy.Names(ids)
	if err != nil {
		return err
	}
	for id := range ids {
		name, lives := names[id]
		if !lives {
			if err := errors.Join(c.forget(id), c.pins.remove(id)); err != nil {
				return err
			}
			c.log.Info("removed the pins of a cgroup that is gone", zap.Uint64("cgroup_id", id))
			continue
		}
		if name == c.canaryName() {
			continue
		}
		if _, err := c.Enroll(name); err != nil {
			c.log.Error("a workload of an earlier process can not be enrolled again; it is denied its targets",
				zap.String("cgroup", name), zap.Error(err))
			c.mu.Lock()
			err := c.strand(id, name, err)
			c.mu.Unlock()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// strand leaves a workload's pins, and denies: a port of 0 is none. The lock is held.
func (c *Capture) strand(id uint64, name string, reason error) error {
	c.stranded[id] = stranded{name: name, reason: reason.Error()}
	return c.put(handoff.Workload{ID: id, Generation: c.nextGeneration(), NetnsCookie: c.cookie}, listeners{}, false)
}

// put writes a workload's entry; the programs go by it from then on.
func (c *Capture) put(w handoff.Workload, l listeners, canary bool) error {
	if err := c.share(w.ID); err != nil {
		return err
	}
	entry := bpf.CaptureWorkload{Generation: w.Generation, NetnsCookie: w.NetnsCookie}
	entry.Port4, entry.Port6 = l.ports()
	if canary {
		entry.Canary = 1
	}
	if err := c.objects.Workloads.Put(w.ID, entry); err != nil {
		return fmt.Errorf("write workload %d: %w", w.ID, err)
	}
	return nil
}

// share gives a workload its share of what all share. One that has it keeps it: its connections go on.
func (c *Capture) share(id uint64) error {
	err := c.objects.Usages.Update(id, bpf.CaptureUsage{}, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("write the usage of workload %d: %w", id, err)
	}
	return nil
}

// forget removes a workload's entry.
func (c *Capture) forget(id uint64) error {
	if err := c.objects.Workloads.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove workload %d: %w", id, err)
	}
	if err := c.objects.Usages.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove the usage of workload %d: %w", id, err)
	}
	return nil
}

// all are the workloads and the canary; the lock is held.
func (c *Capture) all() []*workload {
	list := make([]*workload, 0, len(c.workloads)+1)
	for _, w := range c.workloads {
		list = append(list, w)
	}
	if c.canary != nil {
		list = append(list, c.canary)
	}
	return list
}

// nextGeneration grows over restarts too: it is the time since boot in nanoseconds, and pins do not outlive a boot.
func (c *Capture) nextGeneration() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(fmt.Sprintf("clock_gettime(CLOCK_BOOTTIME): %v", err)) // It exists since Linux 2.6.39.
	}
	c.generation = max(c.generation+1, uint64(now.Nano()))
	return c.generation
}

// Pins is the directory of the instance's pins.
func (c *Capture) Pins() string { return c.pins.dir }

// Close closes the listeners and leaves everything pinned: workloads stay captured, and are refused.
func (c *Capture) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, w := range c.all() {
		errs = append(errs, w.listeners.close())
	}
	clear(c.workloads)
	c.canary = nil
	errs = append(errs, closeLinks(c.root), c.objects.Close())
	c.root = nil
	return errors.Join(errs...)
}

func closeLinks(links []link.Link) error {
	var err error
	for _, l := range links {
		err = errors.Join(err, l.Close())
	}
	return err
}
