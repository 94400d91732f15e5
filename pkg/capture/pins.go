package capture

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// abi names the version of the pinned maps' layout; it is part of every pin's path.
const abi = "v3"

// defaultBPFFS is where bpffs is mounted when it is mounted nowhere.
const defaultBPFFS = "/sys/fs/bpf"

// Instance names the pins of the agent with a run directory: 12 hexadecimal digits of the hash of its absolute path, so that
// several agents can live side by side.
func Instance(runDir string) (string, error) {
	absolute, err := filepath.Abs(runDir)
	if err != nil {
		return "", fmt.Errorf("instance of %s: %w", runDir, err)
	}
	sum := sha256.Sum256([]byte(absolute))
	return hex.EncodeToString(sum[:6]), nil
}

// pins are the paths of one instance's pins.
type pins struct{ dir string }

func (p pins) maps() string            { return filepath.Join(p.dir, "maps") }
func (p pins) roots() string           { return filepath.Join(p.dir, "root") }
func (p pins) root(name string) string { return filepath.Join(p.roots(), name) }
func (p pins) workloads() string       { return filepath.Join(p.dir, "workloads") }
func (p pins) workload(id uint64) string {
	return filepath.Join(p.workloads(), strconv.FormatUint(id, 10))
}
func (p pins) link(id uint64, name string) string { return filepath.Join(p.workload(id), name) }

// make makes the directories.
func (p pins) make() error {
	for _, dir := range []string{p.maps(), p.roots(), p.workloads()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make a directory for pins: %w", err)
		}
	}
	return nil
}

// ids are the cgroups that have pins.
func (p pins) ids() (map[uint64]bool, error) {
	entries, err := os.ReadDir(p.workloads())
	if err != nil {
		return nil, fmt.Errorf("list pinned workloads: %w", err)
	}
	ids := map[uint64]bool{}
	for _, entry := range entries {
		id, err := strconv.ParseUint(entry.Name(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("list pinned workloads: %s is no cgroup id", filepath.Join(p.workloads(), entry.Name()))
		}
		ids[id] = true
	}
	return ids, nil
}

// remove removes a workload's pins, and detaches its links.
func (p pins) remove(id uint64) error {
	return removeLinks(p.workload(id))
}

// removeLinks detaches the links that are pinned in a directory, and removes it. With the last reference a link would go by
// itself, but some time later.
func removeLinks(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	for _, entry := range entries {
		pin := filepath.Join(dir, entry.Name())
		pinned, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			return fmt.Errorf("remove pin %s: %w", pin, err)
		}
		// A link of a kind that can not be detached goes with its pin.
		err = pinned.Detach()
		if closed := pinned.Close(); closed != nil || err != nil && !errors.Is(err, link.ErrNotSupported) {
			return fmt.Errorf("remove pin %s: %w", pin, errors.Join(err, closed))
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}

// findPins finds bpffs, mounting it if asked to, and yields the pins of an instance.
func findPins(bpffs, instance string, mount bool) (pins, error) {
	if bpffs == "" {
		var err error
		if bpffs, err = findBPFFS(mount); err != nil {
			return pins{}, err
		}
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(bpffs, &stat); err != nil {
		return pins{}, fmt.Errorf("bpffs at %s: %w", bpffs, err)
	}
	if uint32(stat.Type) != unix.BPF_FS_MAGIC {
		return pins{}, fmt.Errorf("%s is no bpffs", bpffs)
	}
	return pins{dir: filepath.Join(bpffs, "sallyport", abi, instance)}, nil
}

// versions are the directories of an instance's pins, of whatever layout.
func (p pins) versions() ([]string, error) {
	versions, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(p.dir)), "*", filepath.Base(p.dir)))
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	return versions, nil
}

// errNoBPFFS says that bpffs is mounted nowhere.
var errNoBPFFS = errors.New("no bpffs is mounted")

// findBPFFS prefers the usual place to others, and mounts there when there is no other.
func findBPFFS(mount bool) (string, error) {
	var stat unix.Statfs_t
	if unix.Statfs(defaultBPFFS, &stat) == nil && uint32(stat.Type) == unix.BPF_FS_MAGIC {
		return defaultBPFFS, nil
	}
	found, err := cgroup.FindMount("bpf")
	if err != nil || found != "" {
		return found, err
	}
	if !mount {
		return "", errNoBPFFS
	}
	if err := unix.Mount("bpffs", defaultBPFFS, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return "", fmt.Errorf("mount bpffs at %s: %w", defaultBPFFS, err)
	}
	return defaultBPFFS, nil
}

// Release ends capture for an instance: it removes all its pins, so that its workloads connect directly from then on. No
// agent of the instance may run. It is no error when there is nothing to remove.
func Release(o Options) error {
	p, err := findPins(o.BPFFS, o.Instance, false)
	if errors.Is(err, errNoBPFFS) {
		return nil
	}
	if err != nil {
		return err
	}
	versions, err := p.versions()
	if err != nil {
		return err
	}
	for _, dir := range versions {
		if err := (pins{dir: dir}).release(); err != nil {
			return err
		}
	}
	return RemoveCanary(o.Instance)
}

// release removes all pins.
func (p pins) release() error {
	ids, err := p.ids()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Workloads first: a redirection without the rest would be refused.
	for id := range ids {
		if err := p.remove(id); err != nil {
			return fmt.Errorf("release capture: %w", err)
		}
	}
	if err := removeLinks(p.roots()); err != nil {
		return fmt.Errorf("release capture: %w", err)
	}
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("release capture: %w", err)
	}
	return nil
}
