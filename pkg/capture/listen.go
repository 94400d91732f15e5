package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// listeners are what a workload's connections are redirected to.
type listeners struct {
	v4, v6    *net.TCPListener // v6 is nil where the namespace has no IPv6
	namespace inode
	cookie    uint64
}

// open opens a workload's listeners where its oldest process is, or in the agent's own network namespace while it has none.
func (c *Capture) open(name string, id uint64) (listeners, error) {
	opened, err := openWhere(c.hierarchy, name, c.namespace)
	if err == nil {
		err = c.own(opened, id)
	}
	if err != nil {
		return listeners{}, errors.Join(err, opened.close())
	}
	return opened, nil
}

// openWhere opens listeners in the network namespace of the oldest process of a cgroup, or in the own one while it has none.
func openWhere(h *cgroup.Hierarchy, name string, own inode) (listeners, error) {
	running, err := tasks(h, name)
	if err != nil {
		return listeners{}, err
	}
	defer closeTasks(running)
	where := own
	var entered *os.File
	if len(running) > 0 && running[0].namespace != own {
		where = running[0].namespace
		if entered, err = running[0].openNamespace(name); err != nil {
			return listeners{}, err
		}
		defer entered.Close()
	}
	var opened listeners
	err = inNamespace(entered, func() error {
		cookie, err := netnsCookie()
		if err != nil {
			return err
		}
		opened, err = listen()
		opened.namespace, opened.cookie = where, cookie
		return err
	})
	return opened, err
}

// own marks listeners as a workload's, for the redirecting programs, and their ports as nobody else's, for guard_bind.
func (c *Capture) own(l listeners, id uint64) error {
	for _, listener := range l.all() {
		raw, err := listener.SyscallConn()
		if err != nil {
			return err
		}
		var marked error
		if err := raw.Control(func(fd uintptr) { marked = c.objects.Origins.Put(int32(fd), bpf.CaptureOrigin{WorkloadId: id}) }); err != nil {
			return err
		}
		if marked != nil {
			return fmt.Errorf("mark a listener: %w", marked)
		}
	}
	for _, key := range l.keys() {
		if err := c.objects.ListenerPorts.Put(key, id); err != nil {
			return fmt.Errorf("keep the port of a listener: %w", err)
		}
	}
	return nil
}

// disown gives ports free that are not a workload's any more.
func (c *Capture) disown(keys []bpf.CaptureListenerPort) error {
	for _, key := range keys {
		if err := c.objects.ListenerPorts.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("give the port of a listener free: %w", err)
		}
	}
	return nil
}

// disownStale gives the ports free that an earlier process kept: no workload is redirected to them any more.
func (c *Capture) disownStale() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	inUse := map[bpf.CaptureListenerPort]bool{}
	for _, w := range c.all() {
		for _, key := range w.listeners.keys() {
			inUse[key] = true
		}
	}
	var (
		key   bpf.CaptureListenerPort
		id    uint64
		stale []bpf.CaptureListenerPort
	)
	entries := c.objects.ListenerPorts.Iterate()
	for entries.Next(&key, &id) {
		if !inUse[key] {
			stale = append(stale, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read the ports of listeners: %w", err)
	}
	return c.disown(stale)
}

// keys are the listeners' keys in the map of ports.
func (l listeners) keys() []bpf.CaptureListenerPort {
	var keys []bpf.CaptureListenerPort
	for _, listener := range l.all() {
		address := listener.Addr().(*net.TCPAddr).AddrPort()
		key := bpf.CaptureListenerPort{NetnsCookie: l.cookie, Port: uint32(address.Port())}
		if address.Addr().Is6() && !address.Addr().Is4In6() {
			key.V6 = 1
		}
		keys = append(keys, key)
	}
	return keys
}

// listen opens a workload's listeners on loopback, at ports of the kernel's choice. They are plain TCP: an accepted MPTCP
// socket is not the subflow that carries the origin. Nobody can bind the same port beside them: SO_REUSEPORT is not set.
func listen() (listeners, error) {
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	v4, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return listeners{}, fmt.Errorf("open a listener: %w", err)
	}
	v6, err := config.Listen(context.Background(), "tcp6", "[::1]:0")
	if err == nil {
		return listeners{v4: v4.(*net.TCPListener), v6: v6.(*net.TCPListener)}, nil
	}
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		// No IPv6, or none on loopback: IPv6 dials of targets are denied.
		return listeners{v4: v4.(*net.TCPListener)}, nil
	}
	v4.Close()
	return listeners{}, fmt.Errorf("open a listener: %w", err)
}

// all are those that there are.
func (l listeners) all() []*net.TCPListener {
	var all []*net.TCPListener
	for _, listener := range []*net.TCPListener{l.v4, l.v6} {
		if listener != nil {
			all = append(all, listener)
		}
	}
	return all
}

func (l listeners) ports() (port4, port6 uint16) {
	if l.v4 != nil {
		port4 = uint16(l.v4.Addr().(*net.TCPAddr).Port)
	}
	if l.v6 != nil {
		port6 = uint16(l.v6.Addr().(*net.TCPAddr).Port)
	}
	return port4, port6
}

// close closes those that are still open.
func (l listeners) close() error {
	var errs []error
	for _, listener := range l.all() {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
