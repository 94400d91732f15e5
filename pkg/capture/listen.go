package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// listeners are what a workload's connections are redirected to.
type listeners struct {
	v4, v6 *net.TCPListener // v6 is nil where the host has no IPv6
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
	if l.v6 == nil {
		return []*net.TCPListener{l.v4}
	}
	return []*net.TCPListener{l.v4, l.v6}
}

func (l listeners) ports() (port4, port6 uint16) {
	if l.v6 != nil {
		port6 = uint16(l.v6.Addr().(*net.TCPAddr).Port)
	}
	return uint16(l.v4.Addr().(*net.TCPAddr).Port), port6
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

// netnsCookie is the cookie of the network namespace that the calling thread makes sockets in; SO_NETNS_COOKIE, socket(7),
// Linux 5.14.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("network namespace's cookie: %w", os.NewSyscallError("getsockopt", err))
	}
	return cookie, nil
}
