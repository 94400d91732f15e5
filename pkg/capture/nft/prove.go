package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// enrollCanary makes the canary's cgroup, and captures it as any other, in the agent's network namespace.
func (c *Capture) enrollCanary() error {
	name := capture.CanaryName(c.options.Instance)
	id, err := capture.MakeCanary(c.hierarchy, name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	opened, err := capture.OpenListeners(c.hierarchy, name, c.namespace)
	if err != nil {
		return fmt.Errorf("enrol the canary: %w", err)
	}
	w := c.newWorkload(name, id, opened, c.nextGeneration())
	w.canary = true
	if err := c.activate(w); err != nil {
		return errors.Join(fmt.Errorf("enrol the canary: %w", err), c.deactivate(w))
	}
	c.canary = w
	return nil
}

// KeepProving is capture.KeepProving.
func (c *Capture) KeepProving(ctx context.Context, after func()) {
	capture.KeepProving(ctx, c, c.log, after)
}

// Prove starts processes in the canary's cgroup that dial reserved targets, and checks that they reach capture's own listeners
// with their exact origins. What it finds is part of Status from then on.
func (c *Capture) Prove(ctx context.Context) error {
	c.proving.Lock()
	defer c.proving.Unlock()
	c.mu.Lock()
	canary := c.canary
	c.mu.Unlock()
	if canary == nil {
		return errors.New("capture is closed")
	}
	var err error
	for _, one := range []struct {
		listener *net.TCPListener
		to       netip.AddrPort
	}{{canary.listeners.V4, canary4}, {canary.listeners.V6, canary6}} {
		if one.listener == nil {
			continue
		}
		if failure := c.prove(ctx, canary.facts, one.listener, one.to); failure != nil {
			err = errors.Join(err, fmt.Errorf("the canary's dial of %s: %w", one.to, failure))
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unproven = words(err)
	return err
}

func (c *Capture) prove(ctx context.Context, canary handoff.Workload, listener *net.TCPListener, to netip.AddrPort) error {
	origin, _, _, err := capture.DialCanary(ctx, c.hierarchy, c.options.Canary, canary, listener, to)
	if err != nil {
		return err
	}
	want := handoff.Origin{
		Destination: to, WorkloadID: canary.ID, Generation: canary.Generation, CgroupID: canary.ID, NetnsCookie: canary.NetnsCookie,
		ProcessUnknown: true,
	}
	if origin != want {
		return fmt.Errorf("its origin is %+v, not %+v", origin, want)
	}
	return nil
}
