package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// packets are made by hand and sent over raw sockets to an address on loopback; reason is the counter of those that are dropped.
var packets = []struct {
	name   string
	v6     bool
	bytes  []byte
	reason string
}{
	{"TCP to a target", false, packet4(unix.IPPROTO_TCP, 5432, 0, nil), "denied_packet"},
	{"UDP to a target", false, packet4(unix.IPPROTO_UDP, 5432, 0, nil), "denied_packet"},
	{"SCTP to a target", false, packet4(unix.IPPROTO_SCTP, 5432, 0, nil), "denied_packet"},
	{"TCP to another port", false, packet4(unix.IPPROTO_TCP, 5433, 0, nil), ""},
	{"ICMP", false, packet4(unix.IPPROTO_ICMP, 5432, 0, nil), ""},
	{"a first fragment", false, packet4(unix.IPPROTO_TCP, 5432, 0x2000, nil), "denied_header"},
	{"a later fragment", false, packet4(unix.IPPROTO_TCP, 5433, 3, nil), "denied_header"},
	{"a packet that must not be fragmented", false, packet4(unix.IPPROTO_TCP, 5433, 0x4000, nil), ""},
	{"source routing", false, packet4(unix.IPPROTO_TCP, 5433, 0, []byte{131, 7, 4, 127, 9, 8, 7, 0}), "denied_header"},
	{"TCP over IPv6 to a target", true, packet6(5432, unix.IPPROTO_TCP), "denied_packet"},
	{"UDP over IPv6 to a target", true, packet6(5432, unix.IPPROTO_UDP), "denied_packet"},
	{"TCP over IPv6 to another port", true, packet6(5433, unix.IPPROTO_TCP), ""},
	{"TCP behind hop-by-hop options", true, packet6(5432, unix.IPPROTO_HOPOPTS, unix.IPPROTO_TCP), "denied_packet"},
	{"TCP behind several extension headers", true, packet6(5432, unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_TCP), "denied_packet"},
	{"TCP to another port behind extension headers", true, packet6(5433, unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_TCP), ""},
	{"a routing header", true, packet6(5433, unix.IPPROTO_ROUTING, unix.IPPROTO_TCP), "denied_header"},
	{"a fragment header", true, packet6(5433, unix.IPPROTO_FRAGMENT, unix.IPPROTO_TCP), "denied_header"},
	{"a fragment header behind another", true, packet6(5433, unix.IPPROTO_DSTOPTS, unix.IPPROTO_FRAGMENT, unix.IPPROTO_TCP), "denied_header"},
	{"more extension headers than anybody sends", true, packet6(5433, unix.IPPROTO_DSTOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_DSTOPTS,
		unix.IPPROTO_DSTOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_TCP), "denied_header"},
}

// ports is a TCP header, or what of it other protocols take for theirs.
func ports(to uint16) []byte {
	header := make([]byte, 20)
	binary.BigEndian.PutUint16(header, 5555)
	binary.BigEndian.PutUint16(header[2:], to)
	header[12], header[13] = 0x50, 2
	return header
}

func packet4(protocol byte, port, fragment uint16, options []byte) []byte {
	header := make([]byte, 20, 60)
	header[0] = 0x45 + byte(len(options)/4)
	header[8], header[9] = 64, protocol
	binary.BigEndian.PutUint16(header[6:], fragment)
	copy(header[12:], []byte{127, 0, 0, 1})
	copy(header[16:], []byte{127, 9, 8, 7})
	packet := append(append(header, options...), ports(port)...)
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	return packet
}

// packet6 has a header for each number; the last is the protocol's.
func packet6(port uint16, numbers ...byte) []byte {
	header := make([]byte, 40, 200)
	header[0], header[6], header[7] = 0x60, numbers[0], 64
	header[23], header[39] = 1, 1
	var body []byte
	for _, next := range numbers[1:] {
		body = append(body, next, 0, 0, 0, 0, 0, 0, 0)
	}
	body = append(body, ports(port)...)
	binary.BigEndian.PutUint16(header[4:], uint16(len(body)))
	return append(header, body...)
}

// sendPackets makes raw sockets in a network namespace where nobody puts fragments together, as conntrack does, waits for its input to end, and sends them all.
func sendPackets() {
	if err := raiseLoopback(); err != nil {
		fmt.Println(err)
		return
	}
	raw4, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		fmt.Println(outcome(err))
		return
	}
	raw6, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		fmt.Println(outcome(err))
		return
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	for _, p := range packets {
		socket, to := raw4, netip.MustParseAddrPort("127.9.8.7:0")
		if p.v6 {
			socket, to = raw6, netip.MustParseAddrPort("[::1]:0")
		}
		said := outcome(unix.Sendto(socket, p.bytes, 0, sockaddr(to)))
		if said == "connected" {
			said = "sent"
		}
		fmt.Println(said)
	}
}

// raiseLoopback brings a new network namespace's only device up.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	device, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	device.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, device)
}

// fill connects without waiting until it is denied, and holds what it has until its input ends.
func fill(to netip.AddrPort) {
	for {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		if err == nil {
			err = unix.Connect(fd, sockaddr(to))
		}
		if err != nil && err != unix.EINPROGRESS {
			fmt.Println(outcome(err))
			io.Copy(io.Discard, os.Stdin)
			return
		}
	}
}

// hold connects, waits for its input to end, and writes.
func hold(to netip.AddrPort) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err != nil {
		fmt.Println(outcome(err))
		return
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	if _, err := unix.Write(fd, []byte(payload)); err != nil {
		fmt.Println(outcome(err))
		return
	}
	fmt.Println("written")
}
