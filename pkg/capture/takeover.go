package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/bpf"
)

// takenOver are earlier layouts of pins whose capture Open takes over. Its programs run until this version's do, on the same
// workloads, and its targets stay in force; there is no moment without a redirection. Listeners and generations are new.
var takenOver = []string{"v2"}

// earlier are the instance's pins of layouts that are taken over.
func (p pins) earlier() ([]pins, error) {
	var found []pins
	for _, version := range takenOver {
		dir := filepath.Join(filepath.Dir(filepath.Dir(p.dir)), version, filepath.Base(p.dir))
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("list pins: %w", err)
		}
		found = append(found, pins{dir: dir})
	}
	return found, nil
}

// takeTargets puts the targets of earlier layouts in force, beside those that are.
func (c *Capture) takeTargets() error {
	want4, want6 := map[bpf.CaptureTarget4]bool{}, map[bpf.CaptureTarget6]bool{}
	for _, e := range c.earlier {
		if err := keysOf(filepath.Join(e.maps(), bpf.CaptureMapTargets4), want4); err != nil {
			return err
		}
		if err := keysOf(filepath.Join(e.maps(), bpf.CaptureMapTargets6), want6); err != nil {
			return err
		}
	}
	if err := c.protectPorts(portsOf(want4, want6), true); err != nil {
		return err
	}
	_, _, err4 := add(c.objects.Targets4, want4)
	_, _, err6 := add(c.objects.Targets6, want6)
	return errors.Join(err4, err6)
}

// keysOf adds the keys of a pinned map of targets.
func keysOf[K comparable](pin string, keys map[K]bool) error {
	m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("take over %s: %w", pin, err)
	}
	defer m.Close()
	var (
		key   K
		value uint32
	)
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		keys[key] = true
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("take over %s: %w", pin, err)
	}
	return nil
}

// releaseEarlier removes what earlier layouts left, workload by workload: from then on this version's programs redirect. Where one
// could not be enrolled again, the earlier programs go on denying.
func (c *Capture) releaseEarlier() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.earlier {
		ids, err := e.ids()
		if err != nil {
			return err
		}
		left := 0
		for id := range ids {
			if _, ok := c.stranded[id]; ok {
				left++
				continue
			}
			if err := e.remove(id); err != nil {
				return err
			}
		}
		if left > 0 {
			c.log.Error("capture of an earlier version stays beside this one's: not every workload could be taken over",
				zap.String("pins", e.dir), zap.Int("workloads", left))
			continue
		}
		if err := e.release(); err != nil {
			return err
		}
		c.log.Info("took over the capture of an earlier version", zap.String("pins", e.dir), zap.Int("workloads", len(ids)))
	}
	return nil
}

// checkVersions is an error when the programs of a layout are there that can not be taken over: they would redirect to listeners
// that are gone.
func (p pins) checkVersions() error {
	versions, err := p.versions()
	if err != nil {
		return err
	}
	for _, dir := range versions {
		if dir != p.dir && !slices.Contains(takenOver, filepath.Base(filepath.Dir(dir))) {
			return fmt.Errorf("%s was pinned by another version of sallyport (end its capture with \"sallyport down\")", dir)
		}
	}
	return nil
}
