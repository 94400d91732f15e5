package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Layouts and numbers of linux/sock_diag.h and linux/inet_diag.h; see sock_diag(7).
const (
	sockDestroy     = 21
	diagIDBytes     = 48
	diagMessage     = 72 // struct inet_diag_msg
	diagCgroupID    = 21 // INET_DIAG_CGROUP_ID, Linux 5.8
	familyOffset    = 0
	idOffset        = 4 // of struct inet_diag_sockid in struct inet_diag_msg
	dportOffset     = 2 // in struct inet_diag_sockid
	destination     = 20
	netlinkReceives = 64 << 10
)

// connected are the states of sockets that have a peer: all but TIME_WAIT, CLOSE, LISTEN and NEW_SYN_RECV; tcp_states.h.
const connected = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11

// diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	family, protocol, extensions, _ uint8
	states                          uint32
	id                              [diagIDBytes]byte
}

// reset destroys the connections to targets that a workload's sockets have in the network namespace of its listeners, and
// counts in the workload what it did. Those in other namespaces guard_egress stops.
func (c *Capture) reset(w *workload) error {
	all := w.listeners.all()
	if len(all) == 0 {
		return nil
	}
	namespace, err := namespaceOf(all[0])
	if err != nil {
		return err
	}
	defer namespace.Close()
	reset, left, err := Reset(namespace, c.hierarchy.Dir(w.facts.Cgroup), c.protects)
	w.reset += reset
	w.left += left
	return err
}

// Reset destroys the connections in a network namespace whose destination is protected, of the sockets that were made in a
// cgroup, which is given by its directory, or below it; of all sockets when dir is "". It returns the number of those that
// are destroyed, and of those that are left because the kernel can not destroy any.
func Reset(namespace *os.File, dir string, protects func(netip.AddrPort) (bool, error)) (reset, left int, err error) {
	member := func(uint64) bool { return true }
	if dir != "" {
		members, err := below(dir)
		if err != nil {
			return 0, 0, err
		}
		member = func(cgroup uint64) bool { return members[cgroup] }
	}
	err = inNamespace(namespace, func() error {
		socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return fmt.Errorf("end older connections: %w", os.NewSyscallError("socket", err))
		}
		defer unix.Close(socket)
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			ids, err := connections(socket, family, member, protects)
			if err != nil {
				return fmt.Errorf("list older connections: %w", err)
			}
			for _, id := range ids {
				switch err := destroy(socket, family, id); {
				case err == nil, errors.Is(err, unix.ENOENT):
					reset++
				case errors.Is(err, unix.EOPNOTSUPP):
					// No CONFIG_INET_DIAG_DESTROY.
					left++
				default:
					return fmt.Errorf("end an older connection: %w", err)
				}
			}
		}
		return nil
	})
	return reset, left, err
}

// below are the ids of a cgroup and those below it.
func below(dir string) (map[uint64]bool, error) {
	ids := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(dir string, entry fs.DirEntry, err error) error {
		var stat unix.Stat_t
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir() && unix.Lstat(dir, &stat) == nil:
			ids[stat.Ino] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	return ids, nil
}

// namespaceOf opens the network namespace of a socket; SIOCGSKNS, Linux 4.10.
func namespaceOf(listener *net.TCPListener) (*os.File, error) {
	raw, err := listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	var (
		fd    uintptr
		errno unix.Errno
	)
	if err := raw.Control(func(socket uintptr) {
		fd, _, errno = unix.Syscall(unix.SYS_IOCTL, socket, unix.SIOCGSKNS, 0)
	}); err != nil {
		return nil, err
	}
	if errno != 0 {
		return nil, fmt.Errorf("network namespace of a listener: %w", errno)
	}
	return os.NewFile(fd, "net"), nil
}

// connections are the ids of the sockets of some cgroups that are connected to targets.
func connections(socket int, family uint8, member func(uint64) bool, protects func(netip.AddrPort) (bool, error)) ([][diagIDBytes]byte, error) {
	request := diagRequest{family: family, protocol: unix.IPPROTO_TCP, states: connected}
	if err := ask(socket, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, request); err != nil {
		return nil, err
	}
	var ids [][diagIDBytes]byte
	err := answers(socket, func(body []byte) error {
		if len(body) < diagMessage {
			return errors.New("a short answer")
		}
		id := [diagIDBytes]byte(body[idOffset : idOffset+diagIDBytes])
		if !member(cgroupOf(body[diagMessage:])) {
			return nil
		}
		protected, err := protects(peer(body[familyOffset], id))
		if protected {
			ids = append(ids, id)
		}
		return err
	})
	return ids, err
}

// destroy ends one connection, by its addresses and its socket's cookie.
func destroy(socket int, family uint8, id [diagIDBytes]byte) error {
	request := diagRequest{family: family, protocol: unix.IPPROTO_TCP, id: id}
	if err := ask(socket, sockDestroy, unix.NLM_F_ACK, request); err != nil {
		return err
	}
	return answers(socket, func([]byte) error { return nil })
}

func ask(socket int, kind, flags uint16, request diagRequest) error {
	return sendNetlink(socket, kind, flags, unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request)))
}

// sendNetlink sends one message to the kernel; netlink(7).
func sendNetlink(socket int, kind, flags uint16, body []byte) error {
	message := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	message = append(message, body...)
	binary.NativeEndian.PutUint32(message[0:], uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], kind)
	binary.NativeEndian.PutUint16(message[6:], flags|unix.NLM_F_REQUEST)
	return os.NewSyscallError("sendto", unix.Sendto(socket, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
}

// answers calls a function for the body of each message of an answer, and is the error that the kernel answers.
func answers(socket int, handle func(body []byte) error) error {
	buffer := make([]byte, netlinkReceives)
	for {
		n, _, err := unix.Recvfrom(socket, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		for rest := buffer[:n]; len(rest) >= unix.NLMSG_HDRLEN; {
			length := int(binary.NativeEndian.Uint32(rest))
			if length < unix.NLMSG_HDRLEN || length > len(rest) {
				return errors.New("malformed netlink message")
			}
			body := rest[unix.NLMSG_HDRLEN:length]
			switch binary.NativeEndian.Uint16(rest[4:]) {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(body) < 4 {
					return errors.New("malformed netlink message")
				}
				if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
					return unix.Errno(errno)
				}
				return nil
			default:
				if err := handle(body); err != nil {
					return err
				}
			}
			rest = rest[min(len(rest), (length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
}

// cgroupOf is the cgroup of a socket, from the attributes of its message; 0 when it does not say.
func cgroupOf(attributes []byte) uint64 {
	value, ok := find(attributes, diagCgroupID)
	if !ok || len(value) < 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(value)
}

// find is the value of an attribute; rtnetlink(7).
func find(attributes []byte, kind uint16) ([]byte, bool) {
	for len(attributes) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(attributes))
		if length < unix.SizeofRtAttr || length > len(attributes) {
			return nil, false
		}
		if binary.NativeEndian.Uint16(attributes[2:]) == kind {
			return attributes[unix.SizeofRtAttr:length], true
		}
		attributes = attributes[min(len(attributes), (length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
	return nil, false
}

// peer is where a socket is connected to.
func peer(family uint8, id [diagIDBytes]byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(id[dportOffset:])
	if family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(id[destination:])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(id[destination:])).Unmap(), port)
}

// protects is whether an address is a target's, as the programs see it.
func (c *Capture) protects(to netip.AddrPort) (bool, error) {
	var (
		value uint32
		err   error
	)
	if prefix := netip.PrefixFrom(to.Addr(), to.Addr().BitLen()); to.Addr().Is4() {
		err = c.objects.Targets4.Lookup(key4(prefix, to.Port()), &value)
	} else {
		err = c.objects.Targets6.Lookup(key6(prefix, to.Port()), &value)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up target %s: %w", to, err)
	}
	return true, nil
}
