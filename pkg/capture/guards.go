package capture

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// Programs by where they are attached. What redirects must run, else there is no capture; a guard that can not run is reported.
var (
	rootPrograms     = []string{"sock_ops", "get_origin"}
	rootGuards       = []string{"guard_connect4", "guard_connect6", "guard_socket", "guard_sendmsg4", "guard_sendmsg6", "guard_bind4", "guard_bind6"}
	workloadPrograms = []string{"connect4", "connect6", "getpeername4", "getpeername6"}
	workloadGuards   = []string{"guard_egress"}
)

// familyGuard hangs on the LSM, and belongs to no cgroup.
const familyGuard = "guard_family"

// guards are the names that people see, and the programs behind them.
var guards = []struct {
	name     string
	programs []string
}{
	{"connect", []string{"guard_connect4", "guard_connect6"}},
	{"socket", []string{"guard_socket"}},
	{"udp", []string{"guard_sendmsg4", "guard_sendmsg6"}},
	{"bind", []string{"guard_bind4", "guard_bind6"}},
	{"egress", []string{"guard_egress"}},
	{"device", []string{deviceGuard}},
	{"family", []string{familyGuard}},
}

// optional are the guards without which capture is effective: few kernels run BPF as an LSM, and not every workload has a
// network namespace of its own. Where both are missing, packet sockets are not stopped.
var optional = map[string]bool{"device": true, "family": true}

// attachGuards attaches the guards of the root. One that can not be attached is missing from then on, and logged.
func (c *Capture) attachGuards(root uint64) {
	for _, name := range rootGuards {
		err := checkForeign(c.hierarchy.Root, name)
		if err == nil {
			var attached link.Link
			if attached, err = attach(c.pins.root(name), c.hierarchy.Root, root, attachTypes[name], c.programs[name]); err == nil {
				c.root = append(c.root, attached)
			}
		}
		if err != nil {
			c.missing[name] = err.Error()
			c.log.Error("a guard is not active", zap.String("program", name), zap.Error(err))
		}
	}
	if err := c.attachFamilyGuard(); err != nil {
		c.family = err.Error()
		c.log.Info("an optional guard is not active", zap.String("program", familyGuard), zap.Error(err))
	}
}

// attachFamilyGuard attaches guard_family, if the kernel has such programs. The canary finds out whether the kernel runs them
// too: without "bpf" in its list of LSMs it does not.
func (c *Capture) attachFamilyGuard() error {
	switch err := features.HaveProgramType(ebpf.LSM); {
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("the kernel has no BPF LSM: %w", err)
	case err != nil:
		return fmt.Errorf("whether the kernel has BPF LSM can not be told: %w", err)
	}
	spec, err := bpf.LoadPacket()
	if err != nil {
		return fmt.Errorf("load %s: %w", familyGuard, err)
	}
	var objects bpf.PacketObjects
	if err := spec.LoadAndAssign(&objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: c.pins.maps()}}); err != nil {
		return fmt.Errorf("load %s: %w", familyGuard, err)
	}
	defer objects.Close()
	attached, err := link.AttachLSM(link.LSMOptions{Program: objects.GuardFamily})
	if err != nil {
		return fmt.Errorf("attach %s: %w", familyGuard, err)
	}
	// Such a link can not be updated. The new one runs already when the old one goes.
	pin := c.pins.root(familyGuard)
	if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(fmt.Errorf("replace %s: %w", pin, err), attached.Close())
	}
	if err := attached.Pin(pin); err != nil {
		return errors.Join(fmt.Errorf("attach %s: pin: %w", familyGuard, err), attached.Close())
	}
	c.root = append(c.root, attached)
	return nil
}

// guardStatus is all guards, by what is missing; the lock is held.
func (c *Capture) guardStatus() []handoff.Guard {
	list := make([]handoff.Guard, 0, len(guards))
	for _, g := range guards {
		var reasons []string
		for _, program := range g.programs {
			if reason := c.missing[program]; reason != "" {
				reasons = append(reasons, reason)
			}
		}
		if g.name == "family" && c.family != "" {
			reasons = append(reasons, c.family)
		}
		if reason := c.deviceReasons(); g.name == "device" && reason != "" {
			reasons = append(reasons, reason)
		}
		if g.name == "egress" {
			for _, w := range c.all() {
				if w.unguarded != nil {
					reasons = append(reasons, w.unguarded.Error())
				}
			}
		}
		list = append(list, handoff.Guard{Name: g.name, Active: len(reasons) == 0, Reason: strings.Join(reasons, "; ")})
	}
	return list
}

// unguarded is why a guard that capture does not do without is missing; "" when all are there. The lock is held.
func (c *Capture) unguarded() string {
	for _, g := range c.guardStatus() {
		if !g.Active && !optional[g.Name] {
			return fmt.Sprintf("the %s guard is not active: %s", g.Name, g.Reason)
		}
	}
	return ""
}
