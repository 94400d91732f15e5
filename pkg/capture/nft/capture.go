package nft

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/google/nftables"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// Options say where capture lives.
type Options struct {
	// Instance is part of the names of tables; see capture.Instance.
	Instance string
	// Dir holds what is known of workloads; it is made, and nobody but root may write to its parents. Required by Open and Left.
	Dir string
	// Hierarchy is the cgroup hierarchy. Required by Open and Left.
	Hierarchy *cgroup.Hierarchy
	// Log is told of what Open finds. Required by Open.
	Log *zap.Logger
	// Canary is the command that calls capture.RunCanary with the address that it is given as its last argument. Required by Open.
	Canary []string
	// Offers are listeners of workloads of an earlier process, by workload, that a proxy still holds. Those that fit are adopted.
	// The files stay the caller's.
	Offers map[uint64]handoff.Offer

	// unowned makes tables that anybody may change, as older kernels do.
	unowned bool
}

// A Capture is one instance's tables and listeners. It is safe for concurrent use.
type Capture struct {
	options   Options
	hierarchy *cgroup.Hierarchy
	log       *zap.Logger
	files     files
	namespace capture.Namespace // the agent's network namespace

	proving sync.Mutex     // held while the canary runs
	closing sync.WaitGroup // places that are being left
	events  chan handoff.CaptureEvent

	mu         sync.Mutex
	targets    targets
	places     map[capture.Namespace]*place
	workloads  map[uint64]*workload
	stranded   map[uint64]stranded
	canary     *workload
	devices    devices
	unproven   string // why the canary was not captured
	kept       map[string]uint64
	generation uint64
	turn       uint64 // the last workload that Relocate looked at in its turn
}

// stranded is a workload of an earlier process that could not be enrolled again: its connections to targets are denied.
type stranded struct{ name, reason string }

const (
	familyInet   = nftables.TableFamilyINet
	familyDevice = nftables.TableFamilyNetdev
)

// eventsKept is how many events wait for Events at most; more are counted.
const eventsKept = 256

// Open makes the agent's table, and adopts what an earlier process of the instance left: its targets stay in force, workloads
// that live are enrolled anew. Only one process may hold an instance open.
func Open(o Options) (*Capture, error) {
	own, err := capture.OwnNamespace()
	if err != nil {
		return nil, err
	}
	c := &Capture{
		options:   o,
		hierarchy: o.Hierarchy,
		log:       o.Log,
		files:     files{o.Dir},
		namespace: own,
		events:    make(chan handoff.CaptureEvent, eventsKept),
		places:    map[capture.Namespace]*place{},
		workloads: map[uint64]*workload{},
		stranded:  map[uint64]stranded{},
		kept:      map[string]uint64{},
	}
	if err := c.files.make(); err != nil {
		return nil, err
	}
	for _, step := range []func() error{c.open, c.adopt, c.enrollCanary} {
		if err := step(); err != nil {
			return nil, errors.Join(fmt.Errorf("capture by nftables: %w", explain(err)), c.Close())
		}
	}
	c.Check()
	return c, nil
}

// ErrUnsupported says that the kernel lacks something.
var ErrUnsupported = errors.New("the kernel lacks something of nftables (it needs Linux 5.13 and NF_TABLES_INET, NF_CONNTRACK, NFT_NAT, NFT_REDIR, " +
	"NFT_SOCKET with SOCK_CGROUP_DATA, NFT_REJECT_INET)")

// explain makes what the kernel says when it lacks something say that.
func explain(err error) error {
	for _, errno := range []error{unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.ENOENT} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	return err
}

// open reads the targets of an earlier process and opens the agent's own network namespace.
func (c *Capture) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	endpoints, err := c.files.targets()
	if err != nil {
		return err
	}
	if c.targets, err = newTargets(endpoints); err != nil {
		return err
	}
	_, err = c.place(c.namespace, nil)
	return err
}

// newTable is one that is not in the kernel yet; the lock is held.
func (c *Capture) newTable(s *socket, family nftables.TableFamily) table {
	return table{socket: s, family: family, prefix: tablePrefix(c.options.Instance), serial: c.nextGeneration, unowned: c.options.unowned}
}

// SetTargets makes the endpoints the ones that are captured. In each network namespace the new set replaces the old one at once;
// on an error some may have the new one and the others the old one, and Status says so. Connections that workloads have to new
// targets are ended.
func (c *Capture) SetTargets(endpoints []handoff.Endpoint) error {
	next, err := newTargets(endpoints)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.files.putTargets(endpoints); err != nil {
		return err
	}
	before := c.targets
	c.targets = next
	var errs []error
	// Before they are targets, so that the servers hear of it, and no captured connection is taken for an older one.
	for _, w := range c.workloads {
		errs = append(errs, c.reset(w, before))
	}
	for _, p := range c.places {
		errs = append(errs, c.apply(p))
	}
	errs = append(errs, c.retarget())
	return errors.Join(errs...)
}

// nextGeneration grows over restarts too: it is the time since boot in nanoseconds, and tables do not outlive a boot. The lock
// is held.
func (c *Capture) nextGeneration() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(fmt.Sprintf("clock_gettime(CLOCK_BOOTTIME): %v", err)) // It exists since Linux 2.6.39.
	}
	c.generation = max(c.generation+1, uint64(now.Nano()))
	return c.generation
}

// Pins is the directory of what is known of workloads.
func (c *Capture) Pins() string { return c.files.dir }

// Close closes the listeners and leaves all tables in force: workloads stay captured, and are refused.
func (c *Capture) Close() error {
	c.mu.Lock()
	var errs []error
	for _, w := range c.all() {
		errs = append(errs, w.listeners.Close())
	}
	places := c.places
	c.places = map[capture.Namespace]*place{}
	clear(c.workloads)
	c.canary = nil
	errs = append(errs, c.devices.close())
	c.mu.Unlock()
	// Without the lock, which their monitors may wait for.
	for _, p := range places {
		errs = append(errs, p.close())
	}
	c.closing.Wait()
	return errors.Join(errs...)
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

// Release ends capture for an instance: it removes its tables in every network namespace that a process is in, and the files.
// No agent of the instance may run. It is no error when there is nothing to remove.
func Release(o Options) error {
	namespaces, err := capture.EveryNamespace()
	if err != nil {
		return err
	}
	defer capture.CloseEntered(namespaces)
	var errs []error
	for _, one := range namespaces {
		errs = append(errs, release(o.Instance, one.File))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release capture: %w", err)
	}
	if err := os.RemoveAll(o.Dir); err != nil {
		return fmt.Errorf("release capture: %w", err)
	}
	return capture.RemoveCanary(o.Instance)
}

func release(instance string, namespace *os.File) error {
	s, err := dial(namespace)
	// A kernel without nftables has no tables.
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, family := range []nftables.TableFamily{familyInet, familyDevice} {
		t := table{socket: s, family: family, prefix: tablePrefix(instance)}
		errs = append(errs, t.remove())
	}
	return errors.Join(errors.Join(errs...), s.close())
}
