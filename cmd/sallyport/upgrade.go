package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/capture/control"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

const (
	// upgradeTimeout is how long each of the two programs may take until it works.
	upgradeTimeout = 30 * time.Second
	// versionTimeout is how long a program may take to say its version.
	versionTimeout = 5 * time.Second
	// upgradePoll is how often an upgrade looks whether a program works.
	upgradePoll = 20 * time.Millisecond
)

// errUpgrading says that an upgrade is under way.
var errUpgrading = errors.New("an upgrade is under way")

// An upgraded is what an upgrade has done.
type upgraded struct {
	Capture int64 `json:"capture"` // process ids
	Proxy   int64 `json:"proxy"`
	Before  int64 `json:"before"` // the proxy that drains now
}

// upgrade starts both programs anew, as they are on disk, without a moment in which a connection is refused. On an error the
// proxy before goes on. It logs how it went.
func (a *agent) upgrade(ctx context.Context) (upgraded, error) {
	if !a.upgrading.TryLock() {
		a.log.Warn("no upgrade", zap.Error(errUpgrading))
		return upgraded{}, errUpgrading
	}
	defer a.upgrading.Unlock()
	a.log.Info("upgrading")
	done, err := a.replace(ctx)
	a.supervision.upgraded(err)
	if err != nil {
		a.log.Error("the upgrade is not complete", zap.Error(err))
		return done, err
	}
	a.log.Info("upgraded", zap.Int64("capture", done.Capture), zap.Int64("proxy", done.Proxy), zap.Int64("draining", done.Before))
	return done, nil
}

// replace does it: capture first, which takes over what is pinned and the listeners that the proxy holds; then the proxy, which is
// stopped when another one has taken over everything.
func (a *agent) replace(ctx context.Context) (done upgraded, err error) {
	before := a.serving()
	if before == nil || !before.settled.Load() {
		return done, errors.New("the agent has not been ready yet")
	}
	done.Capture, done.Proxy = a.capture.pid.Load(), before.pid.Load()
	for _, program := range []string{a.capture.program, before.program} {
		if err := checkProgram(ctx, program); err != nil {
			return done, err
		}
	}
	if err := a.restartCapture(ctx); err != nil {
		return done, err
	}
	done.Capture = a.capture.pid.Load()
	next, err := a.replaceProxy(ctx)
	if err != nil {
		return done, err
	}
	done.Before, done.Proxy = done.Proxy, next.pid.Load()
	return done, nil
}

// checkProgram makes sure that a program can be executed, before the one that runs is given up for it.
func checkProgram(ctx context.Context, program string) error {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, program, "--version").CombinedOutput(); err != nil {
		return fmt.Errorf("%s --version: %w: %s", program, err, out)
	}
	return nil
}

// restartCapture returns when capture is another process, and the proxy has found it.
func (a *agent) restartCapture(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	before := a.capture.pid.Load()
	a.capture.restart()
	for {
		if a.capture.pid.Load() != before {
			status, err := a.status(ctx)
			if err == nil && status.Proxy.Connected {
				return nil
			}
		}
		if pause(ctx, upgradePoll) != nil {
			return fmt.Errorf("%s does not work within %s after its restart; it is started again until it does", captureProgram, upgradeTimeout)
		}
	}
}

// replaceProxy starts a proxy beside the one that serves, and lets that drain when the new one has taken over everything.
func (a *agent) replaceProxy(ctx context.Context) (*child, error) {
	next := a.newProxy(startUpgrade)
	failed := make(chan error, 1)
	stop := a.startProxy(next, func(err error) {
		if next.settled.Load() {
			a.fail(err)
		}
		failed <- err
	})
	if err := a.awaitProxy(ctx, next, failed); err != nil {
		// It may have accepted connections, and drains.
		a.retire(next, stop)
		return nil, err
	}
	next.settled.Store(true)
	a.retire(a.serving(), a.serveWith(next, stop))
	return next, nil
}

// awaitProxy returns when a proxy has applied the documents and taken over the listeners of all workloads.
func (a *agent) awaitProxy(ctx context.Context, proxy *child, failed <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	for {
		status, err := a.status(ctx)
		state := stateOf(status, proxy.pid.Load())
		switch {
		case err != nil:
		case state.Ready:
			return nil
		case state.Error != "":
			return fmt.Errorf("the new %s does not apply the documents: %s", proxyProgram, state.Error)
		}
		select {
		case err := <-failed:
			return fmt.Errorf("the new %w", err)
		case <-ctx.Done():
			return fmt.Errorf("the new %s is not ready within %s", proxyProgram, upgradeTimeout)
		case <-time.After(upgradePoll):
		}
	}
}

func stateOf(status control.Status, pid int64) handoff.ProxyState {
	for _, state := range status.Proxies {
		if int64(state.PID) == pid {
			return state
		}
	}
	return handoff.ProxyState{}
}

// retire stops a proxy and does not wait: its sessions get the drain time.
func (a *agent) retire(proxy *child, stop func()) {
	a.log.Info("draining", zap.Int64("pid", proxy.pid.Load()), zap.Duration("at_most", a.drain))
	a.retiring.Go(stop)
}

// A supervision counts starts and upgrades.
type supervision struct {
	mu    sync.Mutex
	count handoff.Supervision
}

func (s *supervision) started(name, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count.Starts == nil {
		s.count.Starts = map[string]map[string]uint64{}
	}
	if s.count.Starts[name] == nil {
		s.count.Starts[name] = map[string]uint64{}
	}
	s.count.Starts[name][why]++
}

func (s *supervision) upgraded(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.count.FailedUpgrades++
		return
	}
	s.count.Upgrades++
}

// counts is a copy.
func (s *supervision) counts() handoff.Supervision {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := s.count
	count.Starts = map[string]map[string]uint64{}
	for name, starts := range s.count.Starts {
		count.Starts[name] = maps.Clone(starts)
	}
	return count
}
