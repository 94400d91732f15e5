package handoff

import (
	"encoding/json"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// send writes one message with descriptors, which stay the caller's.
func send(conn *net.UnixConn, m *message, descriptors ...int) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m.Kind, err)
	}
	if len(data) > maxMessageBytes {
		return fmt.Errorf("send %s: %d bytes are more than %d", m.Kind, len(data), maxMessageBytes)
	}
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	if _, _, err := conn.WriteMsgUnix(data, rights, nil); err != nil {
		return fmt.Errorf("send %s: %w", m.Kind, err)
	}
	return nil
}

// receive reads one message; the descriptors are the caller's to close. io.EOF is the other side's close.
func receive(conn *net.UnixConn, buffer []byte) (*message, []*os.File, error) {
	rights := make([]byte, unix.CmsgSpace(maxDescriptors*4))
	n, rightsLen, flags, _, err := conn.ReadMsgUnix(buffer, rights)
	if err != nil {
		return nil, nil, err
	}
	// Descriptors first: whatever else is wrong, those that came are open.
	files, err := filesOf(rights[:rightsLen])
	if err != nil {
		return nil, nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(files)
		return nil, nil, fmt.Errorf("%w: too long", errMessage)
	}
	m, err := decode(buffer[:n], len(files))
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return m, files, nil
}

// filesOf takes the descriptors out of a control message; the runtime received them with close-on-exec.
func filesOf(rights []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	var files []*os.File
	for i := range messages {
		descriptors, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("%w: %w", errMessage, err)
		}
		for _, descriptor := range descriptors {
			files = append(files, os.NewFile(uintptr(descriptor), "handoff"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

// Peer is the user and process at the other end of a Unix socket, as the kernel knew them when the socket was connected
// (SO_PEERCRED, unix(7)).
func Peer(conn *net.UnixConn) (uid, pid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, fmt.Errorf("peer credentials: %w", err)
	}
	var (
		credentials *unix.Ucred
		failure     error
	)
	if err := raw.Control(func(fd uintptr) {
		credentials, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, 0, fmt.Errorf("peer credentials: %w", err)
	}
	if failure != nil {
		return 0, 0, fmt.Errorf("peer credentials: %w", failure)
	}
	return credentials.Uid, uint32(credentials.Pid), nil
}
