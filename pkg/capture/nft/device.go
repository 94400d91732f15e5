package nft

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strings"

	"github.com/google/nftables"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/capture"
)

// errNoDevice says that nothing leads from a network namespace into the agent's.
var errNoDevice = errors.New("no veth pair joins its network namespace to the agent's")

// devices guard the agent's side of the network devices that lead out of workloads' own network namespaces, from the agent's,
// where no workload changes anything. They alone see what packet sockets send.
type devices struct {
	table   table
	guarded map[int]string // names of devices by index
	targets targets
}

// guardDevices guards the devices that lead out of a place now. Capture does without where it can not: Status says so. The lock
// is held.
func (c *Capture) guardDevices(p *place) {
	if p.id == c.namespace {
		return
	}
	c.findDevices(p)
	c.applyDevices()
}

func (c *Capture) findDevices(p *place) {
	if p.id == c.namespace {
		return
	}
	indexes, err := capture.DevicesTo(p.file)
	if err == nil && len(indexes) == 0 {
		err = errNoDevice
	}
	p.devices, p.deviceReason = indexes, words(err)
}

// applyDevices guards the devices of all places, and no others; the lock is held.
func (c *Capture) applyDevices() {
	var want []int
	for _, p := range c.places {
		want = append(want, p.devices...)
	}
	if c.devices.table.socket == nil {
		socket, err := dial(nil)
		if err != nil {
			c.unguarded(err)
			return
		}
		c.devices.table = c.newTable(socket, familyDevice)
	}
	if err := c.devices.guard(want, c.targets); err != nil {
		c.unguarded(err)
	}
}

// retarget gives the guarded devices the targets; the lock is held.
func (c *Capture) retarget() error {
	if len(c.devices.guarded) == 0 {
		return nil
	}
	return c.devices.guard(slices.Collect(maps.Keys(c.devices.guarded)), c.targets)
}

// unguarded notes why devices are not guarded; the lock is held.
func (c *Capture) unguarded(err error) {
	c.log.Warn("an optional guard is not active", zap.String("guard", "device"), zap.Error(err))
	for _, p := range c.places {
		if p.id != c.namespace {
			p.deviceReason = err.Error()
		}
	}
}

// guard makes the kernel's table guard just these devices. Those that are gone are left out, and those that are back are added.
func (d *devices) guard(want []int, t targets) error {
	named := map[int]string{}
	for _, index := range want {
		if device, err := net.InterfaceByIndex(index); err == nil {
			named[index] = device.Name
		}
	}
	if len(named) == 0 {
		d.guarded = nil
		return d.table.remove()
	}
	chains, err := d.chains()
	if err != nil {
		return err
	}
	if d.table.now == nil || !slices.Contains(chains, setsChain) {
		return d.replace(named, t)
	}
	b := &builder{socket: d.table.socket, table: d.table.now}
	if !slices.Equal(d.targets, t) {
		b.refill(t)
	}
	for _, name := range chains {
		if name != setsChain && !slices.ContainsFunc(want, func(index int) bool { return named[index] != "" && deviceChain(index) == name }) {
			chain := &nftables.Chain{Table: b.table, Name: name}
			b.FlushChain(chain)
			b.DelChain(chain)
		}
	}
	for index, device := range named {
		if !slices.Contains(chains, deviceChain(index)) {
			b.device(index, device)
		}
	}
	if b.err != nil {
		return b.err
	}
	if err := d.table.socket.commit(); err != nil {
		// A device went away under the transaction, or somebody changed the table: a whole new one does not mind.
		return d.replace(named, t)
	}
	d.guarded, d.targets = named, t
	return nil
}

// replace makes a new table, in one transaction with the end of those before.
func (d *devices) replace(named map[int]string, t targets) error {
	err := d.table.replaceBy(func(b *builder, counters map[string]uint64) error {
		b.sets(plan{targets: t, whole: true, entries: make([]entry, 1)})
		b.counters(counters)
		b.chain(setsChain)
		for index, device := range named {
			b.device(index, device)
		}
		return b.err
	})
	if err == nil {
		d.guarded, d.targets = named, t
	}
	return err
}

// setsChain has no rules: that it is there shows that the table is.
const setsChain = "guard"

func deviceChain(index int) string { return fmt.Sprintf("device-%d", index) }

// device prepares the guard of one device.
func (b *builder) device(index int, name string) {
	chain := b.AddChain(&nftables.Chain{
		Table: b.table, Name: deviceChain(index), Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress,
		Priority: nftables.ChainPriorityRef(math.MinInt32), Device: name,
	})
	for _, one := range judged(b.table) {
		b.rule(chain, one.match, count(one.reason), drop)
	}
}

// chains are the names of the table's chains; a device takes its own with it.
func (d *devices) chains() ([]string, error) {
	if d.table.now == nil {
		return nil, nil
	}
	bodies, err := d.table.socket.dump(unix.NFT_MSG_GETCHAIN, familyDevice)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var names []string
	for _, body := range bodies {
		if text(body, unix.NFTA_CHAIN_TABLE) == d.table.now.Name {
			names = append(names, text(body, unix.NFTA_CHAIN_NAME))
		}
	}
	return names, nil
}

// missing are guarded devices that are there, and whose guards are not.
func (d *devices) missing() ([]string, error) {
	chains, err := d.chains()
	if err != nil {
		return nil, err
	}
	var missing []string
	for index, name := range d.guarded {
		if _, err := net.InterfaceByIndex(index); err == nil && !slices.Contains(chains, deviceChain(index)) {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

func (d *devices) close() error {
	if d.table.socket == nil {
		return nil
	}
	return d.table.socket.close()
}

// deviceReasons is why the devices of some workloads are not guarded; "" when all are. The lock is held.
func (c *Capture) deviceReasons() string {
	reasons := map[string]bool{}
	for _, w := range c.workloads {
		if w.listeners.Namespace == c.namespace {
			reasons["workloads share the agent's network namespace"] = true
		}
	}
	for _, p := range c.places {
		if p.deviceReason != "" {
			reasons[p.deviceReason] = true
		}
	}
	return joinSorted(reasons)
}

func joinSorted(set map[string]bool) string {
	list := make([]string, 0, len(set))
	for one := range set {
		list = append(list, one)
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}
