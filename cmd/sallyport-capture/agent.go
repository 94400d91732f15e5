package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/capture/control"
	"github.com/sallyport-dev/sallyport/pkg/capture/people"
	"github.com/sallyport-dev/sallyport/pkg/config"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

const (
	// enrolTimeout is how long POST /workloads waits for the proxy.
	enrolTimeout = 10 * time.Second
	// offerTimeout is how long a start waits for a proxy to give listeners back.
	offerTimeout = time.Second
	// statusInterval is how often the proxy is told how capture is.
	statusInterval = time.Second
)

// An agent is the privileged half: it ties documents, workloads, the kernel and the proxy together.
type agent struct {
	options options
	log     *zap.Logger

	hierarchy *cgroup.Hierarchy
	way       way
	capture   capturer
	server    *handoff.Server
	control   *control.Server
	people    *people.Server
	source    *workload.Source
	resolver  *resolver
	documents documents
	reloads   chan chan error
	// supervision is what the supervisor of both halves told last; nil where there is none.
	supervision atomic.Pointer[handoff.Supervision]

	mu     sync.Mutex        // held while workloads are enrolled and withdrawn
	failed map[string]string // what kept a cgroup from being enrolled, by its name
}

// newAgent reads the documents, which must be good the first time, and makes the socket for proxies.
func newAgent(o options, log *zap.Logger) (*agent, error) {
	snapshot, files, err := config.Load(o.config)
	if err != nil {
		return nil, err
	}
	hierarchy, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	a := &agent{
		options:   o,
		log:       log,
		hierarchy: hierarchy,
		resolver:  newResolver(net.DefaultResolver.LookupNetIP),
		reloads:   make(chan chan error),
		failed:    map[string]string{},
	}
	a.source = workload.NewSource(hierarchy, a.cgroups, log)
	a.documents.read = set{snapshot: snapshot, files: files}
	if a.server, err = handoff.Listen(filepath.Join(o.runDir, "handoff.sock"), o.proxyUID, log); err != nil {
		return nil, err
	}
	a.server.Allow(snapshot.NamedFiles())
	return a, nil
}

// open opens capture and the control socket, and puts the documents in force. Proxies may connect already. Workloads of an
// earlier process are captured when it returns, with the listeners that they had if a proxy still holds them.
func (a *agent) open(ctx context.Context) error {
	instance, err := capture.Instance(a.options.runDir)
	if err != nil {
		return err
	}
	if a.way, err = a.chooseWay(instance); err != nil {
		return err
	}
	offers := a.awaitOffers(ctx)
	err = a.openWay(instance, offers)
	for _, offer := range offers {
		offer.Close()
	}
	if err != nil {
		return err
	}
	if a.control, err = control.Listen(a.options.runDir, a.log); err != nil {
		return err
	}
	if a.people, err = people.Listen(a.options.runDir, a.log); err != nil {
		return err
	}
	if err := a.publish(ctx); err != nil {
		return err
	}
	for _, warning := range a.documents.read.snapshot.Warnings() {
		a.log.Warn(warning)
	}
	for _, one := range a.capture.Status().Workloads {
		// Somebody asked an earlier process for what no policy names.
		if !a.source.Names(one.Cgroup) {
			a.source.Ask(one.Cgroup, one.ID)
		}
	}
	for _, e := range a.capture.Workloads() {
		a.server.Enroll(e.Workload, e.Listeners)
		offer, offered := offers[e.ID]
		a.log.Info("workload enrolled again", zap.String("cgroup", e.Cgroup), zap.Uint64("id", e.ID),
			zap.Bool("same_listeners", offered && offer.Generation == e.Generation))
	}
	a.reconcile()
	a.log.Info("capture started", zap.String("version", version), zap.String("mode", a.way.mode), zap.String("pins", a.capture.Pins()), zap.String("config", a.options.config))
	return nil
}

// awaitOffers waits for a proxy to give back the listeners of the workloads that an earlier process left captured, for a
// moment: where no proxy lives, there are none.
func (a *agent) awaitOffers(ctx context.Context) map[uint64]handoff.Offer {
	ctx, cancel := context.WithTimeout(ctx, offerTimeout)
	defer cancel()
	offers := a.server.AwaitOffers(ctx, a.way.left)
	if len(a.way.left) > 0 {
		a.log.Info("workloads of an earlier process", zap.Int("workloads", len(a.way.left)), zap.Int("listeners_offered_for", len(offers)))
	}
	return offers
}

// close leaves everything pinned.
func (a *agent) close() error {
	if a.capture == nil {
		return nil
	}
	return a.capture.Close()
}

// run opens everything and serves until ctx ends or a part fails.
func (a *agent) run(ctx context.Context, hangups <-chan os.Signal) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.server.Serve(ctx) })
	group.Go(func() error {
		if err := a.open(ctx); err != nil {
			return err
		}
		a.serve(ctx, group, hangups)
		return nil
	})
	return group.Wait()
}

// serve starts what needs capture to be open.
func (a *agent) serve(ctx context.Context, group *errgroup.Group, hangups <-chan os.Signal) {
	group.Go(func() error { return a.control.Serve(ctx, a) })
	group.Go(func() error { return a.people.Serve(ctx, a) })
	group.Go(func() error { return a.watchDocuments(ctx, hangups) })
	group.Go(func() error { return a.source.Run(ctx, a.reconcile) })
	group.Go(func() error { return a.capture.Events(ctx, a.denied) })
	group.Go(func() error {
		a.capture.KeepProving(ctx, func() {
			a.relocate(true)
			a.tell()
		})
		return nil
	})
	group.Go(func() error {
		ticker := time.NewTicker(statusInterval)
		defer ticker.Stop()
		for {
			a.tell()
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
}

// denied logs a denial by the kernel, and tells the proxy.
func (a *agent) denied(e handoff.CaptureEvent) {
	var destination string
	if e.Destination.IsValid() {
		destination = e.Destination.String()
	}
	a.log.Warn("denied by the kernel", zap.String("reason", e.Reason), zap.String("cgroup", e.Cgroup), zap.Uint64("workload", e.WorkloadID),
		zap.String("destination", destination), zap.String("protocol", e.Protocol), zap.Uint32("pid", e.PID),
		zap.Uint32("uid", e.UID), zap.String("comm", e.Comm), zap.Uint64("suppressed", e.Suppressed))
	a.server.Event(e)
}

// relocate hands over the listeners of workloads that live in another network namespace than was known.
func (a *agent) relocate(all bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.capture.Relocate(all) {
		a.server.Enroll(e.Workload, e.Listeners)
		a.log.Info("workload has listeners in its own network namespace", zap.String("cgroup", e.Cgroup), zap.Uint64("netns", e.NetnsCookie))
	}
}

// reconcile makes what is enrolled what should be. What fails is tried again at the next call.
func (a *agent) reconcile() {
	changed := a.reconcileWorkloads()
	a.relocate(false)
	if changed {
		a.tell()
	}
}

// reconcileWorkloads does it, and is true when something changed.
func (a *agent) reconcileWorkloads() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	want, err := a.source.Current()
	if err != nil {
		a.log.Warn("the workloads stay as they are", zap.Error(err))
		return false
	}
	ids := make(map[uint64]bool, len(want))
	for _, id := range want {
		ids[id] = true
	}
	changed := false
	for _, id := range a.capture.IDs() {
		if !ids[id] {
			changed = true
			a.server.Withdraw(id)
			if err := a.capture.Withdraw(id); err != nil {
				a.log.Error("withdraw a workload", zap.Error(err))
				continue
			}
			a.log.Info("workload withdrawn", zap.Uint64("id", id))
		}
	}
	enrolled := map[uint64]bool{}
	for _, e := range a.capture.Workloads() {
		enrolled[e.ID] = true
	}
	for name, id := range want {
		if enrolled[id] {
			continue
		}
		changed = true
		if _, err := a.enroll(name); err != nil && a.failed[name] != err.Error() {
			a.failed[name] = err.Error()
			a.log.Error("a workload is not captured", zap.Error(err))
		}
	}
	for name := range a.failed {
		if _, wanted := want[name]; !wanted {
			delete(a.failed, name)
		}
	}
	return changed
}

// cgroups are those that the agent's processes are in: what is dialled from there must not be captured.
func (a *agent) cgroups() []string {
	var names []string
	if own, err := a.hierarchy.Own(); err == nil {
		names = append(names, own)
	}
	for _, proxy := range a.server.Proxies() {
		if name, err := a.hierarchy.OfProcess(strconv.FormatUint(uint64(proxy.PID), 10)); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// enroll captures a cgroup and hands it to the proxy; the lock is held.
func (a *agent) enroll(name string) (capture.Enrolled, error) {
	for _, agent := range a.cgroups() {
		if cgroup.Contains(name, agent) {
			return capture.Enrolled{}, fmt.Errorf("enrol %s: %w", name, capture.ErrAgent)
		}
	}
	e, err := a.capture.Enroll(name)
	if err != nil {
		return capture.Enrolled{}, err
	}
	delete(a.failed, name)
	a.server.Enroll(e.Workload, e.Listeners)
	a.log.Info("workload enrolled", zap.String("cgroup", e.Cgroup), zap.Uint64("id", e.ID), zap.Uint64("netns", e.NetnsCookie),
		zap.Int("connections_reset", e.Reset), zap.Int("connections_left", e.Left))
	return e, nil
}

// Enroll implements control.Backend.
func (a *agent) Enroll(ctx context.Context, name string) error {
	name, err := cgroup.Clean(name)
	if err != nil {
		return err
	}
	id, err := a.hierarchy.ID(name)
	if err != nil {
		return err
	}
	// Under one lock, so that reconcile neither takes it for one that nobody wants nor for one that it should try again.
	a.mu.Lock()
	a.source.Ask(name, id)
	e, err := a.enroll(name)
	if err != nil {
		a.source.Forget(name)
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	a.tell()
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	if err := a.server.AwaitEnrolled(ctx, e.ID, e.Generation); err != nil {
		return fmt.Errorf("enrol %s: %w", name, err)
	}
	for _, one := range a.capture.Status().Workloads {
		if one.ID == e.ID && !one.Effective {
			return fmt.Errorf("enrol %s: %s", name, one.Reason)
		}
	}
	return nil
}

// Supervised implements control.Backend.
func (a *agent) Supervised(counts handoff.Supervision) { a.supervision.Store(&counts) }

// Reload implements control.Backend.
func (a *agent) Reload(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case a.reloads <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status implements control.Backend: it asks the kernel.
func (a *agent) Status() control.Status {
	return a.status(a.capture.Check())
}

// status joins what is known of the kernel's part with the rest.
func (a *agent) status(kernel capture.Status) control.Status {
	status := control.Status{
		Version:   version,
		Mode:      a.way.mode,
		Limits:    a.way.limits(),
		Guards:    kernel.Guards,
		Workloads: []control.Workload{},
		Proxy:     a.server.Proxy(),
		Proxies:   a.server.Proxies(),
		Pins:      a.capture.Pins(),
	}
	status.ModeReason = a.way.reason
	for _, one := range kernel.Workloads {
		status.Workloads = append(status.Workloads, control.Workload{Workload: one.Workload, Effective: one.Effective, Reason: one.Reason})
	}
	counters, err := a.capture.Counters()
	status.Counters = counters
	a.documents.mu.Lock()
	status.Revision = a.documents.inForce.revision
	status.Problems = slices.Concat(a.documents.unread, a.documents.refused)
	reasons := append([]string(nil), a.documents.unknown...)
	a.documents.mu.Unlock()
	if !kernel.Effective {
		reasons = append(reasons, kernel.Reason)
	}
	if err != nil {
		reasons = append(reasons, err.Error())
	}
	a.mu.Lock()
	for _, reason := range a.failed {
		reasons = append(reasons, reason)
	}
	a.mu.Unlock()
	status.Effective, status.Reason = len(reasons) == 0, strings.Join(reasons, "; ")
	return status
}

// tell tells the proxy how capture is.
func (a *agent) tell() {
	kernel := a.capture.Status()
	status := a.status(kernel)
	a.server.Status(handoff.CaptureStatus{
		Effective: status.Effective, Reason: status.Reason, Counters: status.Counters, Guards: kernel.Guards,
		Mode: a.way.mode, ModeReason: a.way.reason,
		Supervision: a.supervision.Load(),
	})
}
