package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// Left are the workloads that an earlier process of the instance left captured and that still live: those whose listeners a
// proxy may hold, to be given to Open.
func Left(o Options) ([]uint64, error) {
	p, err := findPins(o.BPFFS, o.Instance, false)
	if errors.Is(err, errNoBPFFS) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pinned, err := p.ids()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil || len(pinned) == 0 {
		return nil, err
	}
	names, err := o.Hierarchy.Names(pinned)
	if err != nil {
		return nil, err
	}
	var left []uint64
	for id, name := range names {
		if cgroup.Contains(canaryParent, name) {
			continue
		}
		left = append(left, id)
	}
	return left, nil
}

// adoptOrOpen gives a workload the listeners that an earlier process opened for it, if a proxy has offered just these; then
// its generation stays as well, so that connections under way stay valid. Else the workload gets new ones and a new generation.
func (c *Capture) adoptOrOpen(name string, id uint64) (listeners, uint64, error) {
	if offer, ok := c.offers[id]; ok {
		delete(c.offers, id)
		adopted, generation, err := c.adoptListeners(id, offer)
		if err == nil {
			return adopted, generation, nil
		}
		c.log.Warn("a workload's listeners are opened anew: those that were offered do not fit",
			zap.String("cgroup", name), zap.Error(err))
	}
	opened, err := c.open(name, id)
	return opened, c.nextGeneration(), err
}

// adoptListeners takes duplicates of the listeners that were offered for a workload. They must be those that the workload's
// pinned entry names, all of them.
func (c *Capture) adoptListeners(id uint64, offer handoff.Offer) (adopted listeners, generation uint64, err error) {
	var entry bpf.CaptureWorkload
	if err := c.objects.Workloads.Lookup(id, &entry); errors.Is(err, ebpf.ErrKeyNotExist) {
		return listeners{}, 0, errors.New("no earlier process enrolled the workload")
	} else if err != nil {
		return listeners{}, 0, fmt.Errorf("read workload %d: %w", id, err)
	}
	adopted, err = matchOffer(offer, Place{entry.Generation, entry.NetnsCookie, entry.Port4, entry.Port6})
	if err != nil {
		return listeners{}, 0, err
	}
	if err := c.own(adopted, id); err != nil {
		return listeners{}, 0, errors.Join(err, adopted.close())
	}
	return adopted, entry.Generation, nil
}

// matchOffer takes duplicates of listeners that were offered. They must be those of the place, all of them.
func matchOffer(offer handoff.Offer, place Place) (adopted listeners, err error) {
	if offer.Generation != place.Generation {
		return listeners{}, fmt.Errorf("they are of generation %d, not %d", offer.Generation, place.Generation)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, adopted.close())
			adopted = listeners{}
		}
	}()
	adopted.cookie = place.NetnsCookie
	wanted := map[netip.AddrPort]**net.TCPListener{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), place.Port4): &adopted.v4,
		netip.AddrPortFrom(netip.IPv6Loopback(), place.Port6):                   &adopted.v6,
	}
	for _, file := range offer.Listeners {
		address, err := checkListener(int(file.Fd()), place.NetnsCookie)
		if err != nil {
			return adopted, err
		}
		wants, ok := wanted[address]
		if !ok || address.Port() == 0 || *wants != nil {
			return adopted, fmt.Errorf("the workload is redirected to 127.0.0.1:%d and [::1]:%d, not to %s", place.Port4, place.Port6, address)
		}
		listener, err := net.FileListener(file)
		if err != nil {
			return adopted, fmt.Errorf("duplicate a listener: %w", err)
		}
		*wants = listener.(*net.TCPListener) // checkListener knows that it is one.
		if adopted.namespace, err = inodeOf(*wants); err != nil {
			return adopted, err
		}
	}
	if (place.Port4 != 0) != (adopted.v4 != nil) || (place.Port6 != 0) != (adopted.v6 != nil) || adopted.v4 == nil {
		return adopted, errors.New("one is missing")
	}
	return adopted, nil
}

// checkListener makes sure that a descriptor is a plain TCP listener of a network namespace, beside which nobody can bind its
// port, and returns its address.
func checkListener(fd int, cookie uint64) (netip.AddrPort, error) {
	for _, option := range []struct {
		name   string
		option int
		want   int
	}{
		{"SO_TYPE", unix.SO_TYPE, unix.SOCK_STREAM},
		{"SO_PROTOCOL", unix.SO_PROTOCOL, unix.IPPROTO_TCP},
		{"SO_ACCEPTCONN", unix.SO_ACCEPTCONN, 1},
		{"SO_REUSEPORT", unix.SO_REUSEPORT, 0},
	} {
		have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option.option)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("ask a listener for %s: %w", option.name, err)
		}
		if have != option.want {
			return netip.AddrPort{}, fmt.Errorf("a listener's %s is %d, not %d", option.name, have, option.want)
		}
	}
	have, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask a listener for its network namespace: %w", err)
	}
	if have != cookie {
		return netip.AddrPort{}, fmt.Errorf("a listener is in network namespace %d, not %d", have, cookie)
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask a listener for its address: %w", err)
	}
	switch address := address.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(address.Addr), uint16(address.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(address.Addr), uint16(address.Port)), nil
	}
	return netip.AddrPort{}, errors.New("a listener has no internet address")
}

// inodeOf identifies the network namespace of a listener.
func inodeOf(listener *net.TCPListener) (inode, error) {
	namespace, err := namespaceOf(listener)
	if err != nil {
		return inode{}, err
	}
	defer namespace.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(namespace.Fd()), &stat); err != nil {
		return inode{}, fmt.Errorf("network namespace of a listener: %w", err)
	}
	return inode{device: stat.Dev, number: stat.Ino}, nil
}
