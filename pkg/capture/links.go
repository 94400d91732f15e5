package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attach makes a program run for a cgroup through a pinned link. A pinned link of an earlier process is updated in place:
// there is no moment without a program. A link of another cgroup, or of one that is gone, is replaced.
func attach(pin, dir string, id uint64, attachType ebpf.AttachType, program *ebpf.Program) (link.Link, error) {
	adopted, err := adopt(pin, id, program)
	if err != nil || adopted != nil {
		return adopted, err
	}
	made, err := link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: attachType, Program: program})
	if err != nil {
		return nil, fmt.Errorf("attach %s to %s: %w", attachType, dir, err)
	}
	if err := made.Pin(pin); err != nil {
		made.Close()
		return nil, fmt.Errorf("attach %s to %s: pin: %w", attachType, dir, err)
	}
	return made, nil
}

// adopt updates the pinned link in place. It is nil when there is none that serves, and no pin then.
func adopt(pin string, id uint64, program *ebpf.Program) (link.Link, error) {
	pinned, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("adopt %s: %w", pin, err)
	}
	info, err := pinned.Info()
	if err != nil {
		pinned.Close()
		return nil, fmt.Errorf("adopt %s: %w", pin, err)
	}
	if there := info.Cgroup(); there != nil && there.CgroupId == id {
		err := pinned.Update(program)
		if err == nil {
			return pinned, nil
		}
		// ENOLINK: the cgroup is gone, and another one has its id now.
		if !errors.Is(err, unix.ENOLINK) {
			pinned.Close()
			return nil, fmt.Errorf("update %s: %w", pin, err)
		}
	}
	pinned.Close()
	if err := os.Remove(pin); err != nil {
		return nil, fmt.Errorf("replace %s: %w", pin, err)
	}
	return nil, nil
}
