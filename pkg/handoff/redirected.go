package handoff

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How a workload is captured.
const (
	// ModeBPF is by programs at its cgroup: the kernel says of each connection who dialled it.
	ModeBPF = "ebpf"
	// ModeNFT is by rules of nftables: connection tracking says where a connection was meant to go, and the listener whose it is.
	ModeNFT = "nft"
)

// soOriginalDst is SO_ORIGINAL_DST of linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h.
const soOriginalDst = 80

// OriginOf is OriginOfSocket for a connection.
func (w Workload) OriginOf(conn syscall.Conn) (origin Origin, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Origin{}, fmt.Errorf("origin of connection: %w", err)
	}
	var asked error
	if err := raw.Control(func(fd uintptr) { origin, asked = w.OriginOfSocket(int(fd)) }); err != nil {
		return Origin{}, fmt.Errorf("origin of connection: %w", err)
	}
	return origin, asked
}

// OriginOfSocket asks the kernel for the origin of a connection, by its descriptor, that was accepted on a listener of the workload. It
// needs no privilege. The error is ErrNoOrigin when there is none.
func (w Workload) OriginOfSocket(fd int) (Origin, error) {
	if w.Mode != ModeNFT {
		return originOfSocket(fd)
	}
	origin := Origin{WorkloadID: w.ID, Generation: w.Generation, CgroupID: w.ID, ProcessUnknown: true}
	if err := origin.readRedirected(fd); err != nil {
		return Origin{}, err
	}
	return origin, nil
}

// readRedirected asks connection tracking. A connection whose destination is where it was accepted was not redirected, and one
// that is not tracked may not have been: neither has an origin.
func (o *Origin) readRedirected(fd int) error {
	own, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("origin of connection: %w", err)
	}
	var accepted netip.AddrPort
	level := unix.SOL_IP
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		accepted = netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port))
	case *unix.SockaddrInet6:
		accepted = netip.AddrPortFrom(netip.AddrFrom16(own.Addr), uint16(own.Port))
		level = unix.SOL_IPV6
	default:
		return fmt.Errorf("%w: it is no internet connection", ErrNoOrigin)
	}
	if o.NetnsCookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
		return fmt.Errorf("origin of connection: its network namespace: %w", err)
	}
	if o.Destination, err = originalDestination(fd, level); err != nil {
		return err
	}
	if o.Destination == accepted {
		return fmt.Errorf("%w: it was dialled at its listener", ErrNoOrigin)
	}
	return nil
}

// originalDestination is struct sockaddr_in or sockaddr_in6 as connection tracking gives it; ip(7).
func originalDestination(fd, level int) (netip.AddrPort, error) {
	var address [unix.SizeofSockaddrInet6]byte
	size := uint32(unix.SizeofSockaddrInet4)
	family := uint16(unix.AF_INET)
	if level == unix.SOL_IPV6 {
		size, family = unix.SizeofSockaddrInet6, unix.AF_INET6
	}
	want := size
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soOriginalDst,
		uintptr(unsafe.Pointer(&address)), uintptr(unsafe.Pointer(&size)), 0)
	switch {
	case errors.Is(errno, unix.ENOENT), errors.Is(errno, unix.ENOPROTOOPT), errors.Is(errno, unix.EOPNOTSUPP):
		return netip.AddrPort{}, fmt.Errorf("%w: it is not tracked: %w", ErrNoOrigin, errno)
	case errno != 0:
		return netip.AddrPort{}, fmt.Errorf("origin of connection: %w", errno)
	case size != want, binary.NativeEndian.Uint16(address[:]) != family:
		return netip.AddrPort{}, fmt.Errorf("%w: a malformed answer", ErrNoOrigin)
	}
	port := binary.BigEndian.Uint16(address[2:])
	if family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(address[4:8])), port), nil
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(address[8:24])).Unmap(), port), nil
}
