package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/config"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// applyTimeout is how long the proxy may take to apply documents; after that the kernel goes on alone: it captures what the
// proxy does not know yet, and the proxy refuses that.
const applyTimeout = 5 * time.Second

// set is one whole set of documents.
type set struct {
	snapshot  *config.Snapshot
	files     []handoff.File
	endpoints []handoff.Endpoint
	revision  uint64
}

// documents are the sets that there are. The lock is for who asks; one goroutine alone writes.
type documents struct {
	mu       sync.Mutex
	read     set              // the last good one that was read
	inForce  set              // the one that proxy and kernel go by
	revision uint64           // the last one given out
	unread   []config.Problem // why what the directory holds is not the set that was read last
	refused  []config.Problem // why the set that was read last is not in force
	unknown  []string         // names without an address
}

// reload reads the directory, and puts what it finds in force. On an error the last good set stays.
func (a *agent) reload(ctx context.Context) error {
	snapshot, files, err := config.Load(a.options.config)
	if err != nil {
		a.fault(&a.documents.unread, err)
		return err
	}
	a.documents.mu.Lock()
	a.documents.read, a.documents.unread = set{snapshot: snapshot, files: files}, nil
	a.documents.mu.Unlock()
	return a.publish(ctx)
}

// fault records why the documents in the directory are not in force, and logs it once.
func (a *agent) fault(where *[]config.Problem, err error) {
	problems := []config.Problem{{File: a.options.config, Message: err.Error()}}
	var documentError *config.Error
	if errors.As(err, &documentError) {
		problems = documentError.Problems
	}
	a.documents.mu.Lock()
	same := reflect.DeepEqual(problems, *where)
	*where = problems
	a.documents.mu.Unlock()
	if !same {
		a.log.Error("the documents stay as they were", zap.Error(err))
	}
}

// publish resolves the names of the set that was read last and, where that is not in force, puts it in force: the proxy
// first, so that it knows what the kernel captures.
func (a *agent) publish(ctx context.Context) error {
	d := &a.documents
	d.mu.Lock()
	next, before := d.read, d.inForce
	d.mu.Unlock()
	var unknown []string
	next.endpoints, unknown = a.resolver.resolve(ctx, next.snapshot.Targets)
	d.mu.Lock()
	d.unknown = unknown
	d.mu.Unlock()
	if before.revision != 0 && reflect.DeepEqual(next.files, before.files) && reflect.DeepEqual(next.endpoints, before.endpoints) {
		a.settled(before)
		return nil
	}
	d.revision++
	next.revision = d.revision
	if err := a.apply(ctx, next); err != nil {
		// The earlier set goes to the proxy again, which may have come meanwhile and know none.
		if before.revision != 0 {
			a.offer(before)
		}
		a.fault(&d.refused, err)
		return err
	}
	a.log.Info("documents in force", zap.Uint64("revision", next.revision), zap.Int("targets", len(next.snapshot.Targets)),
		zap.Int("policies", len(next.snapshot.Policies)), zap.Int("endpoints", len(next.endpoints)))
	a.settled(next)
	return nil
}

// settled records that a set is in force, the one that was read last.
func (a *agent) settled(s set) {
	a.documents.mu.Lock()
	defer a.documents.mu.Unlock()
	a.documents.inForce, a.documents.refused = s, nil
}

// offer gives a set to the proxy.
func (a *agent) offer(s set) {
	a.server.Publish(handoff.Documents{Revision: s.revision, Files: s.files, Endpoints: s.endpoints}, s.snapshot.NamedFiles())
}

// apply puts a set in force: proxy, kernel, workloads. Only a proxy that refuses stops it, and not the first set: what an
// earlier process left captured is not to be without documents.
func (a *agent) apply(ctx context.Context, next set) error {
	a.offer(next)
	if next.revision > 1 {
		if err := a.awaitProxy(ctx, next.revision); err != nil {
			return err
		}
	}
	if err := a.capture.SetTargets(next.endpoints); err != nil {
		return fmt.Errorf("give the targets to the kernel: %w", err)
	}
	return a.source.Select(next.snapshot.CgroupSelectors())
}

// awaitProxy waits for the proxy to apply a revision. The error is a refusal.
func (a *agent) awaitProxy(ctx context.Context, revision uint64) error {
	waiting, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	err := a.server.AwaitDocuments(waiting, revision)
	switch {
	case err == nil, errors.Is(err, handoff.ErrNoProxy):
	case waiting.Err() != nil:
		a.log.Warn("the proxy has not applied the documents yet", zap.Uint64("revision", revision))
	default:
		return err
	}
	return nil
}
