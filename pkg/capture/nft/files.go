package nft

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// files are what the next process is told: the targets, and a file for each workload. Only root writes to the directory, so they
// are believed.
type files struct{ dir string }

// kept is what the next process is told of a workload.
type kept struct {
	handoff.Workload
	Port4 uint16 `json:"port4,omitempty"`
	Port6 uint16 `json:"port6,omitempty"`
}

const (
	targetsFile = "targets.json"
	extension   = ".json"
)

func (f files) make() error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("make a directory for workloads: %w", err)
	}
	return nil
}

func (f files) of(id uint64) string {
	return filepath.Join(f.dir, strconv.FormatUint(id, 10)+extension)
}

func (f files) put(w handoff.Workload, port4, port6 uint16) error {
	return write(f.of(w.ID), kept{Workload: w, Port4: port4, Port6: port6})
}

func (f files) remove(id uint64) error {
	if err := os.Remove(f.of(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget workload %d: %w", id, err)
	}
	return nil
}

// workloads are those that an earlier process left, by their ids; none where there is no directory.
func (f files) workloads() (map[uint64]kept, error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list workloads: %w", err)
	}
	found := map[uint64]kept{}
	for _, entry := range entries {
		name, isJSON := strings.CutSuffix(entry.Name(), extension)
		id, err := strconv.ParseUint(name, 10, 64)
		if !isJSON || err != nil {
			continue
		}
		var one kept
		if err := read(filepath.Join(f.dir, entry.Name()), &one); err != nil {
			return nil, err
		}
		if one.ID != id {
			return nil, fmt.Errorf("%s is about workload %d", filepath.Join(f.dir, entry.Name()), one.ID)
		}
		found[id] = one
	}
	return found, nil
}

func (f files) putTargets(endpoints []handoff.Endpoint) error {
	return write(filepath.Join(f.dir, targetsFile), endpoints)
}

// targets are those that an earlier process had; none where there was none.
func (f files) targets() ([]handoff.Endpoint, error) {
	var endpoints []handoff.Endpoint
	err := read(filepath.Join(f.dir, targetsFile), &endpoints)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return endpoints, err
}

// write replaces a file in one step. It need not outlive a crash of the machine, which ends the tables too.
func write(path string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func read(path string, value any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, value); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
