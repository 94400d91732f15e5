package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// What is here is for package nft, which captures by other means: both open the same listeners, in the same places, and end the
// same connections.

// A Namespace identifies a network namespace for as long as something holds it.
type Namespace = inode

// OwnNamespace is the calling process's.
func OwnNamespace() (Namespace, error) { return ownNamespace() }

// NamespaceOf opens the network namespace of a listener.
func NamespaceOf(listener *net.TCPListener) (*os.File, error) { return namespaceOf(listener) }

// DevicesTo are the devices of the agent's network namespace whose other ends are in another one; by their indexes.
func DevicesTo(namespace *os.File) ([]int, error) { return devicesTo(namespace) }

// Canonical is a prefix with a v4-mapped range as IPv4, and no bits beyond its length.
func Canonical(prefix netip.Prefix) (netip.Prefix, error) { return canonical(prefix) }

// A Place is what an earlier process redirected a workload to: ports on loopback, 0 for none, in a network namespace.
type Place struct {
	Generation, NetnsCookie uint64
	Port4, Port6            uint16
}

// Listeners are a workload's, on loopback in one network namespace.
type Listeners struct {
	V4, V6      *net.TCPListener // V6 is nil where the namespace has no IPv6
	Namespace   Namespace
	NetnsCookie uint64
}

// OpenListeners opens listeners in the network namespace of the oldest process of a cgroup, or in the own one while it has none.
func OpenListeners(h *cgroup.Hierarchy, name string, own Namespace) (Listeners, error) {
	opened, err := openWhere(h, name, own)
	if err != nil {
		return Listeners{}, errors.Join(err, opened.close())
	}
	return Listeners{V4: opened.v4, V6: opened.v6, Namespace: opened.namespace, NetnsCookie: opened.cookie}, nil
}

// MatchOffer takes duplicates of the listeners that a proxy offers, which must be those of the place, all of them.
func MatchOffer(offer handoff.Offer, place Place) (Listeners, error) {
	adopted, err := matchOffer(offer, place)
	if err != nil {
		return Listeners{}, err
	}
	return Listeners{V4: adopted.v4, V6: adopted.v6, Namespace: adopted.namespace, NetnsCookie: adopted.cookie}, nil
}

// All are those that there are.
func (l Listeners) All() []*net.TCPListener { return listeners{v4: l.V4, v6: l.V6}.all() }

// Ports are those of both address families, 0 for none.
func (l Listeners) Ports() (port4, port6 uint16) { return listeners{v4: l.V4, v6: l.V6}.ports() }

// Close closes those that are still open.
func (l Listeners) Close() error { return listeners{v4: l.V4, v6: l.V6}.close() }

// An Entered is a network namespace that processes of a workload are in, and an open file for it.
type Entered struct {
	Namespace
	File *os.File
}

// Namespaces are the network namespaces of the processes in a cgroup and below it, that of the oldest process first. The
// caller closes the files.
func Namespaces(h *cgroup.Hierarchy, name string) ([]Entered, error) {
	running, err := tasks(h, name)
	if err != nil {
		return nil, err
	}
	defer closeTasks(running)
	var entered []Entered
	known := map[Namespace]bool{}
	for _, one := range running {
		if known[one.namespace] {
			continue
		}
		file, err := one.openNamespace(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			// Another process may still be there.
			continue
		}
		if err != nil {
			CloseEntered(entered)
			return nil, fmt.Errorf("network namespaces of %s: %w", name, err)
		}
		known[one.namespace] = true
		entered = append(entered, Entered{Namespace: one.namespace, File: file})
	}
	return entered, nil
}

// CloseEntered closes the files.
func CloseEntered(list []Entered) {
	for _, one := range list {
		one.File.Close()
	}
}

// EveryNamespace are the network namespaces of all processes that there are and that may be looked at. The caller closes the files.
func EveryNamespace() ([]Entered, error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var entered []Entered
	known := map[Namespace]bool{}
	for _, process := range processes {
		if _, err := strconv.ParseUint(process.Name(), 10, 32); err != nil {
			continue
		}
		// One that has ended has none; one that can not be looked at could not be captured.
		file, err := os.Open(filepath.Join("/proc", process.Name(), "ns/net"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrPermission) {
			continue
		}
		if err != nil {
			CloseEntered(entered)
			return nil, fmt.Errorf("list network namespaces: %w", err)
		}
		var stat unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
			CloseEntered(append(entered, Entered{File: file}))
			return nil, fmt.Errorf("list network namespaces: %w", err)
		}
		id := Namespace{device: stat.Dev, number: stat.Ino}
		if known[id] {
			file.Close()
			continue
		}
		known[id] = true
		entered = append(entered, Entered{Namespace: id, File: file})
	}
	return entered, nil
}
