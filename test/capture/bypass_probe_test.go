package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probeVariable makes the test binary a hostile workload: how it goes about it, and the address.
const probeVariable = "SALLYPORT_TEST_PROBE"

// probe prints what a workload got in one of its ways: what the other side said, "sent", or the name of an error.
func probe(how string) {
	how, address, _ := strings.Cut(how, " ")
	to := netip.MustParseAddrPort(address)
	if nested, ok := strings.CutPrefix(how, "nested-"); ok {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			fmt.Println(outcome("", err))
			return
		}
		how = nested
	}
	fmt.Println(outcome(attempt(how, to)))
}

func outcome(said string, err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return said
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func attempt(how string, to netip.AddrPort) (string, error) {
	switch how {
	case "raw":
		return sendRaw(to)
	case "packet":
		return sendFrame(to)
	case "udp", "udp-connect":
		return sendDatagram(how, to)
	case "flood":
		return flood(to)
	case "bind", "listen":
		return takePort(how, to)
	case "held":
		return dialHeld(to)
	case "open":
		return keepOpen(to)
	case "pass":
		return passOn(to)
	case "passed":
		return dialPassed(to)
	case "make":
		return "made", handOut(familyOf(to), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	case "make-udp":
		return "made", handOut(familyOf(to), unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	}
	kind, protocol := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch how {
	case "mptcp", "mptcp-fastopen":
		protocol = unix.IPPROTO_MPTCP
	case "sctp":
		protocol = unix.IPPROTO_SCTP
	case "seqpacket":
		kind, protocol = unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP
	case "dccp":
		kind, protocol = unix.SOCK_DCCP, unix.IPPROTO_DCCP
	case "udplite":
		kind, protocol = unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE
	case "smc":
		protocol = ipprotoSMC
	}
	fd, err := unix.Socket(familyOf(to), kind, protocol)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if how == "sctp" || how == "seqpacket" || how == "dccp" {
		// Dropped and not denied, an attempt goes on for minutes.
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1}); err != nil {
			return "", err
		}
	}
	return dialOn(fd, how, to)
}

// ipprotoSMC is linux/in.h's IPPROTO_SMC, Linux 6.11.
const ipprotoSMC = 256

func familyOf(to netip.AddrPort) int {
	if to.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddrOf(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

const greeting = "hello"

// dialOn connects a stream socket, and reads what the other side says.
func dialOn(fd int, how string, to netip.AddrPort) (string, error) {
	var err error
	switch how {
	case "fastopen", "mptcp-fastopen":
		err = unix.Sendto(fd, []byte(greeting), unix.MSG_FASTOPEN, sockaddrOf(to))
	case "fastopen-connect":
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
			return "", err
		}
		if err = unix.Connect(fd, sockaddrOf(to)); err == nil {
			_, err = unix.Write(fd, []byte(greeting))
		}
	case "udplite":
		// Nothing is sent before.
		if err = unix.Connect(fd, sockaddrOf(to)); err == nil {
			_, err = unix.Write(fd, []byte(greeting))
		}
	case "mark":
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x539); err != nil {
			return "", err
		}
		err = unix.Connect(fd, sockaddrOf(to))
	case "repair":
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return "", err
		}
		if err := unix.Connect(fd, sockaddrOf(to)); err != nil {
			return "", err
		}
		// The socket takes itself for connected and has sent nothing yet.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 0); err != nil {
			return "", err
		}
		_, err = unix.Write(fd, []byte(greeting))
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
		}
	case "uring", "uring-async", "uring-sqpoll":
		err = connectByRing(fd, how, to)
	default:
		err = unix.Connect(fd, sockaddrOf(to))
	}
	if err != nil {
		return "", err
	}
	return readAnswer(fd)
}

func readAnswer(fd int) (string, error) {
	buffer := make([]byte, 64)
	for {
		n, err := unix.Read(fd, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", err
		}
		return string(buffer[:n]), nil
	}
}

// connectByRing connects by io_uring(7), with rings of one entry.
func connectByRing(fd int, how string, to netip.AddrPort) error {
	// struct io_uring_params: sq_entries, cq_entries, flags, … then the offsets of both rings.
	var params [30]uint32
	const (
		setupSQPoll       = 1 << 1
		enterGetEvents    = 1
		enterSQWakeup     = 1 << 1
		opConnect         = 16
		flagAsync         = 1 << 4
		offsetSQ          = 0
		offsetCQ          = 0x8000000
		offsetSQEs        = 0x10000000
		sqTail, sqArray   = 10 + 1, 10 + 6
		cqEvents          = 20 + 5
		sqeBytes, cqeSize = 64, 16
	)
	if how == "uring-sqpoll" {
		params[2] = setupSQPoll
	}
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(ring))
	var rings [3][]byte
	for i, part := range []struct{ offset, length int }{
		{offsetSQ, int(params[sqArray] + params[0]*4)},
		{offsetCQ, int(params[cqEvents] + params[1]*cqeSize)},
		{offsetSQEs, int(params[0] * sqeBytes)},
	} {
		mapped, err := unix.Mmap(int(ring), int64(part.offset), part.length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			return err
		}
		defer unix.Munmap(mapped)
		rings[i] = mapped
	}
	address := rawSockaddr(to)
	entry := rings[2]
	entry[0] = opConnect
	if how == "uring-async" {
		entry[1] = flagAsync
	}
	binary.NativeEndian.PutUint32(entry[4:], uint32(fd))
	binary.NativeEndian.PutUint64(entry[8:], uint64(len(address))) // off: the address's length
	binary.NativeEndian.PutUint64(entry[16:], uint64(uintptr(unsafe.Pointer(&address[0]))))
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&rings[0][params[sqTail]])), 1)
	for {
		_, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, enterGetEvents|enterSQWakeup, 0, 0)
		if errno != unix.EINTR {
			break
		}
	}
	runtime.KeepAlive(address)
	if errno != 0 {
		return errno
	}
	if result := int32(binary.NativeEndian.Uint32(rings[1][params[cqEvents]+8:])); result < 0 {
		return syscall.Errno(-result)
	}
	return nil
}

// rawSockaddr is struct sockaddr_in or sockaddr_in6.
func rawSockaddr(to netip.AddrPort) []byte {
	address := binary.NativeEndian.AppendUint16(nil, uint16(familyOf(to)))
	address = binary.BigEndian.AppendUint16(address, to.Port())
	if to.Addr().Is4() {
		return append(append(address, to.Addr().AsSlice()...), make([]byte, 8)...)
	}
	return append(append(append(address, 0, 0, 0, 0), to.Addr().AsSlice()...), 0, 0, 0, 0)
}

// syn is an IPv4 packet that opens a connection.
func syn(from netip.Addr, to netip.AddrPort) []byte {
	packet := make([]byte, 40)
	packet[0], packet[3], packet[8], packet[9] = 0x45, 40, 64, unix.IPPROTO_TCP
	if from.IsValid() {
		copy(packet[12:], from.AsSlice())
	}
	copy(packet[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(packet[20:], 5555)
	binary.BigEndian.PutUint16(packet[22:], to.Port())
	packet[32], packet[33] = 0x50, 2
	return packet
}

func sendRaw(to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return "sent", unix.Sendto(fd, syn(netip.Addr{}, to), 0, sockaddrOf(to))
}

func sendFrame(to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		return "", err
	}
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0}, syn(netip.MustParseAddr("198.18.0.9"), to)...)
	return "sent", unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: device.Index, Halen: 6})
}

func sendDatagram(how string, to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(familyOf(to), unix.SOCK_DGRAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if how == "udp" {
		return "sent", unix.Sendto(fd, []byte(greeting), 0, sockaddrOf(to))
	}
	if err := unix.Connect(fd, sockaddrOf(to)); err != nil {
		return "", err
	}
	_, err = unix.Write(fd, []byte(greeting))
	return "sent", err
}

// floodSize is how often flood tries.
const floodSize = 2000

// flood sends datagrams as fast as it can, and is the outcome of the last.
func flood(to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(familyOf(to), unix.SOCK_DGRAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	for range floodSize {
		err = unix.Sendto(fd, []byte(greeting), 0, sockaddrOf(to))
	}
	return "sent", err
}

// takePort binds a port, or lets it be chosen for a listener until it is the one: nobody else wants it now.
func takePort(how string, to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(familyOf(to), unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return "", err
		}
	}
	if how == "bind" {
		return "bound", unix.Bind(fd, sockaddrOf(to))
	}
	// The range of ports that the kernel chooses from for this socket is that one port; IP_LOCAL_PORT_RANGE, Linux 6.3.
	const localPortRange = 51
	one := int(to.Port())<<16 | int(to.Port())
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, localPortRange, one); err != nil {
		return "", err
	}
	if err := unix.Listen(fd, 8); err != nil {
		return "", err
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	if in, ok := bound.(*unix.SockaddrInet4); !ok || in.Port != int(to.Port()) {
		return "another port", nil
	}
	fmt.Println("listening")
	awaitWord()
	return "done", nil
}

// awaitWord waits until the test says something.
func awaitWord() {
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// dialHeld makes a socket, lets itself be enrolled or moved, and connects then.
func dialHeld(to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(familyOf(to), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return "", err
	}
	fmt.Println("ready")
	awaitWord()
	return dialOn(fd, "connect", to)
}

// keepOpen connects, lets itself be enrolled, and sends then.
func keepOpen(to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(familyOf(to), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return "", err
	}
	if err := unix.Connect(fd, sockaddrOf(to)); err != nil {
		return "", err
	}
	fmt.Println("ready")
	awaitWord()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000}); err != nil {
		return "", err
	}
	if _, err := unix.Write(fd, []byte(greeting)); err != nil {
		return "", err
	}
	return readAnswer(fd)
}

// The descriptor over which sockets are passed.
const passage = 3

// handOut makes a socket and passes it on.
func handOut(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err != nil {
		return err
	}
	return unix.Sendmsg(passage, []byte{0}, unix.UnixRights(fd), nil, 0)
}

// passOn connects a socket, passes it on, and waits.
func passOn(to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(familyOf(to), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return "", err
	}
	if err := unix.Connect(fd, sockaddrOf(to)); err != nil {
		return "", err
	}
	return "passed", unix.Sendmsg(passage, []byte{0}, unix.UnixRights(fd), nil, 0)
}

// dialPassed connects a socket that it is given; one that is connected it reads from.
func dialPassed(to netip.AddrPort) (string, error) {
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(passage, make([]byte, 1), rights, 0)
	if err != nil {
		return "", err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return "", fmt.Errorf("no descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return "", err
	}
	if _, err := unix.Getpeername(fds[0]); err == nil {
		return readAnswer(fds[0])
	}
	if kind, err := unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_TYPE); err == nil && kind == unix.SOCK_DGRAM {
		return "sent", unix.Sendto(fds[0], []byte(greeting), 0, sockaddrOf(to))
	}
	return dialOn(fds[0], "connect", to)
}

// prober is the command of a probe.
func prober(how string, to netip.AddrPort) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), probeVariable+"="+how+" "+to.String())
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}
