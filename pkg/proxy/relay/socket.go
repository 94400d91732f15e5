package relay

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A socket is a TCP connection that a loop has given back. It is a net.Conn, and becomes one of the runtime's poller only when it
// is read from, or when a write would block: most are closed, or relayed again, without that.
type socket struct {
	fd       int      // -1 once it is conn's, another link's, or closed
	conn     net.Conn // nil until it is needed
	deadline time.Time
}

// net is the connection, known to the runtime's poller.
func (s *socket) net() (net.Conn, error) {
	if s.conn == nil {
		if s.fd < 0 {
			return nil, net.ErrClosed
		}
		conn, err := fileConn(s.fd) // closes fd
		s.fd = -1
		if err != nil {
			return nil, err
		}
		s.conn = conn
		_ = conn.SetDeadline(s.deadline)
	}
	return s.conn, nil
}

// release gives the descriptor to the caller.
func (s *socket) release() (int, error) {
	if s.conn != nil {
		return take(s.conn.(*net.TCPConn))
	}
	fd := s.fd
	if s.fd = -1; fd < 0 {
		return -1, net.ErrClosed
	}
	return fd, nil
}

// SyscallConn implements syscall.Conn.
func (s *socket) SyscallConn() (syscall.RawConn, error) {
	conn, err := s.net()
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn).SyscallConn()
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	conn, err := s.net()
	if err != nil {
		return 0, err
	}
	return conn.Read(p)
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (n int, err error) {
	if s.conn == nil && s.fd >= 0 {
		n, errno := write(s.fd, p)
		if errno == 0 && n == len(p) {
			return n, nil
		}
		if errno != 0 {
			n = 0 // blocked or broken: the poller will tell
		}
		conn, err := s.net()
		if err != nil {
			return n, err
		}
		rest, err := conn.Write(p[n:])
		return n + rest, err
	}
	conn, err := s.net()
	if err != nil {
		return 0, err
	}
	return conn.Write(p)
}

// Close implements net.Conn.
func (s *socket) Close() error {
	if s.conn != nil {
		return s.conn.Close()
	}
	fd := s.fd
	if s.fd = -1; fd < 0 {
		return net.ErrClosed
	}
	return unix.Close(fd)
}

// LocalAddr implements net.Conn.
func (s *socket) LocalAddr() net.Addr {
	if conn, err := s.net(); err == nil {
		return conn.LocalAddr()
	}
	return &net.TCPAddr{}
}

// RemoteAddr implements net.Conn.
func (s *socket) RemoteAddr() net.Addr {
	if conn, err := s.net(); err == nil {
		return conn.RemoteAddr()
	}
	return &net.TCPAddr{}
}

// SetDeadline implements net.Conn.
func (s *socket) SetDeadline(t time.Time) error {
	if s.deadline = t; s.conn != nil {
		return s.conn.SetDeadline(t)
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (s *socket) SetReadDeadline(t time.Time) error {
	conn, err := s.net()
	if err != nil {
		return err
	}
	return conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(t time.Time) error {
	conn, err := s.net()
	if err != nil {
		return err
	}
	return conn.SetWriteDeadline(t)
}

// Quiet is true when the server at the other end of an idle connection has sent nothing, not even its end. conn is plain TCP; the
// connection below TLS is what to ask of.
func Quiet(conn net.Conn) bool {
	quiet := false
	look := func(fd uintptr) {
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(err, unix.EAGAIN)
	}
	if s, ok := conn.(*socket); ok {
		if s.conn == nil {
			if s.fd >= 0 {
				look(uintptr(s.fd))
			}
			return quiet
		}
		conn = s.conn
	}
	asker, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := asker.SyscallConn()
	if err != nil || raw.Control(look) != nil {
		return false
	}
	return quiet
}

// CloseWrite ends what the other side reads.
func (s *socket) CloseWrite() error {
	if s.conn != nil {
		return s.conn.(*net.TCPConn).CloseWrite()
	}
	if s.fd < 0 {
		return net.ErrClosed
	}
	return unix.Shutdown(s.fd, unix.SHUT_WR)
}
