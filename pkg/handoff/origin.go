package handoff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The socket option that capture's getsockopt program answers on an accepted socket.
const (
	solSallyport = 0x5a11
	soOrigin     = 1
)

// originBytes is the size of struct origin in bpf/maps.h.
const originBytes = 80

// ErrNoOrigin says that the kernel remembers no origin of a connection: it was not captured, but dialled directly, or its
// origin was lost. It must be closed.
var ErrNoOrigin = errors.New("connection has no origin")

// originOfSocket asks the kernel for the origin of an accepted connection, by its descriptor.
func originOfSocket(fd int) (Origin, error) {
	var (
		value [originBytes]byte
		size  = uint32(len(value))
	)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), solSallyport, soOrigin,
		uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size)), 0)
	switch {
	case errno == unix.ENOPROTOOPT || errno == unix.EOPNOTSUPP:
		return Origin{}, ErrNoOrigin
	case errno != 0:
		return Origin{}, fmt.Errorf("origin of connection: %w", errno)
	}
	return DecodeOrigin(value[:min(int(size), len(value))])
}

// DecodeOrigin reads struct origin of bpf/maps.h. The error is ErrNoOrigin for what is not one.
func DecodeOrigin(value []byte) (Origin, error) {
	if len(value) != originBytes {
		return Origin{}, fmt.Errorf("%w: %d bytes, not %d", ErrNoOrigin, len(value), originBytes)
	}
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(value[at:]) }
	long := func(at int) uint64 { return binary.NativeEndian.Uint64(value[at:]) }
	comm, _, _ := bytes.Cut(value[64:80], []byte{0})
	return Origin{
		Destination: netip.AddrPortFrom(netip.AddrFrom16([16]byte(value[0:16])).Unmap(), uint16(word(16))),
		PID:         word(20),
		UID:         word(24),
		WorkloadID:  long(32),
		Generation:  long(40),
		CgroupID:    long(48),
		NetnsCookie: long(56),
		Comm:        string(comm),
	}, nil
}
