package workload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// interval is how often the set is looked at when no event comes: inotify queues can overflow, and a watch dies with its
// directory.
const interval = time.Second

// A Source yields the cgroups that are to be enrolled: those that selectors name ∪ those asked for. It is safe for
// concurrent use.
type Source struct {
	hierarchy *cgroup.Hierarchy
	agents    func() []string
	log       *zap.Logger
	wake      chan struct{}

	mu        sync.Mutex
	selectors []string
	asked     map[string]uint64
}

// NewSource returns a source that yields nothing yet. agents names the cgroups that the agent's own processes are in now: a
// "*" does not stand for those that contain one.
func NewSource(hierarchy *cgroup.Hierarchy, agents func() []string, log *zap.Logger) *Source {
	return &Source{hierarchy: hierarchy, agents: agents, log: log, wake: make(chan struct{}, 1), asked: map[string]uint64{}}
}

// Select replaces the selectors: names of cgroups, where a last element "*" is every cgroup directly below.
func (s *Source) Select(selectors []string) error {
	cleaned := make([]string, 0, len(selectors))
	for _, selector := range selectors {
		name, err := cgroup.Clean(selector)
		if err != nil {
			return err
		}
		cleaned = append(cleaned, name)
	}
	s.mu.Lock()
	s.selectors = cleaned
	s.mu.Unlock()
	s.poke()
	return nil
}

// Ask adds a cgroup for as long as it lives: another one of the same name is not meant.
func (s *Source) Ask(name string, id uint64) {
	s.mu.Lock()
	s.asked[name] = id
	s.mu.Unlock()
	s.poke()
}

// Forget undoes Ask.
func (s *Source) Forget(name string) {
	s.mu.Lock()
	delete(s.asked, name)
	s.mu.Unlock()
	s.poke()
}

// Names is whether a selector names the cgroup.
func (s *Source) Names(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.selectors, func(selector string) bool { return matches(selector, name) })
}

func matches(selector, name string) bool {
	if parent, ok := strings.CutSuffix(selector, "/*"); ok {
		return name != "/" && path.Dir(name) == path.Clean("/"+parent)
	}
	return selector == name
}

// Current is the set now: ids by name. It forgets what was asked for and is gone.
func (s *Source) Current() (map[string]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := map[string]uint64{}
	for name, asked := range s.asked {
		id, err := s.hierarchy.ID(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err != nil || id != asked {
			delete(s.asked, name)
			continue
		}
		set[name] = id
	}
	for _, selector := range s.selectors {
		names, err := s.expand(selector)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			id, err := s.hierarchy.ID(name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return nil, err
			default:
				set[name] = id
			}
		}
	}
	return set, nil
}

// expand yields the names that a selector may stand for.
func (s *Source) expand(selector string) ([]string, error) {
	parent, all := strings.CutSuffix(selector, "/*")
	if !all {
		return []string{selector}, nil
	}
	entries, err := os.ReadDir(s.hierarchy.Dir(parent))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the cgroups of %s: %w", selector, err)
	}
	agents := s.agents()
	var names []string
	for _, entry := range entries {
		name := parent + "/" + entry.Name()
		isAgents := slices.ContainsFunc(agents, func(agent string) bool { return cgroup.Contains(name, agent) })
		if entry.IsDir() && !isAgents {
			names = append(names, name)
		}
	}
	return names, nil
}

// Run calls changed at once, whenever the set may have changed, and each second, until ctx ends; calls do not overlap.
// changed asks for Current itself, so that what it does and what it knows can share a lock.
func (s *Source) Run(ctx context.Context, changed func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch cgroups: %w", err)
	}
	defer watcher.Close()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		s.watch(watcher)
		changed()
		if !s.wait(ctx, watcher, ticker.C) {
			return nil
		}
	}
}

// wait returns when the set may have changed; false when ctx ended.
func (s *Source) wait(ctx context.Context, watcher *fsnotify.Watcher, tick <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
			return true
		case <-s.wake:
			return true
		case event := <-watcher.Events:
			// The kernel reports writes to a cgroup's files too, and those are many.
			if event.Has(fsnotify.Create) || event.Has(fsnotify.Remove) {
				return true
			}
		case err := <-watcher.Errors:
			s.log.Warn("watch cgroups", zap.Error(err))
			return true
		}
	}
}

// watch points the watcher at the parents of what the selectors name; where one is missing, at its nearest ancestor.
func (s *Source) watch(watcher *fsnotify.Watcher) {
	s.mu.Lock()
	want := map[string]bool{}
	for _, selector := range s.selectors {
		name := path.Dir(selector)
		for ; name != "/"; name = path.Dir(name) {
			if _, err := os.Stat(s.hierarchy.Dir(name)); err == nil {
				break
			}
		}
		want[s.hierarchy.Dir(name)] = true
	}
	s.mu.Unlock()

	for _, dir := range watcher.WatchList() {
		if want[dir] {
			delete(want, dir)
		} else if err := watcher.Remove(dir); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
			s.log.Warn("stop to watch a cgroup", zap.String("directory", dir), zap.Error(err))
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(want)) {
		if err := watcher.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("watch a cgroup", zap.String("directory", dir), zap.Error(err))
		}
	}
}

// poke makes Run look again.
func (s *Source) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
