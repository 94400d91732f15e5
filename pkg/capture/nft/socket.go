package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// netlinkTimeout bounds one exchange with the kernel, which may load modules first.
	netlinkTimeout = time.Minute
	// netlinkBuffer holds a transaction and its acknowledgements, with tens of thousands of elements.
	netlinkBuffer = 8 << 20
	// drainTimeout is how long to wait for what the kernel still has to say about a transaction that failed.
	drainTimeout = 50 * time.Millisecond
)

// Flags of a table, linux/netfilter/nf_tables.h.
const (
	tableOwner   = 0x2 // only its maker's socket may change it, Linux 5.12
	tablePersist = 0x4 // it stays when that socket is closed, Linux 6.9
)

// NFNL_MSG_BATCH_BEGIN and its end, linux/netfilter/nfnetlink.h.
const (
	batchBegin = unix.NFNL_MSG_BATCH_BEGIN
	batchEnd   = unix.NFNL_MSG_BATCH_END
)

// A socket speaks of nftables with the kernel, in one network namespace. What it makes, it owns.
type socket struct {
	*nftables.Conn
	raw  *netlink.Conn
	port uint32 // by which the kernel knows it
}

// dial opens a socket in a network namespace; nil is the process's own.
func dial(namespace *os.File) (*socket, error) {
	s := &socket{}
	options := []nftables.ConnOption{nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		s.raw = c
		return errors.Join(c.SetReadBuffer(netlinkBuffer), c.SetWriteBuffer(netlinkBuffer))
	})}
	if namespace != nil {
		options = append(options, nftables.WithNetNSFd(int(namespace.Fd())))
	}
	var err error
	if s.Conn, err = nftables.New(options...); err != nil {
		return nil, fmt.Errorf("speak with nftables: %w", err)
	}
	if s.port, err = portOf(s.raw); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// portOf is the number by which the kernel knows a netlink socket; netlink(7).
func portOf(c *netlink.Conn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var (
		address unix.Sockaddr
		failure error
	)
	if err := raw.Control(func(fd uintptr) { address, failure = unix.Getsockname(int(fd)) }); err != nil {
		return 0, err
	}
	if failure != nil {
		return 0, os.NewSyscallError("getsockname", failure)
	}
	own, ok := address.(*unix.SockaddrNetlink)
	if !ok {
		return 0, errors.New("a netlink socket without an address of its own")
	}
	return own.Pid, nil
}

func (s *socket) close() error { return s.CloseLasting() }

func (s *socket) arm() error { return s.raw.SetDeadline(time.Now().Add(netlinkTimeout)) }

// commit sends what was prepared, in one transaction: all of it is in force when it returns nil, and nothing otherwise.
func (s *socket) commit() error {
	if err := s.arm(); err != nil {
		return err
	}
	if err := s.Flush(); err != nil {
		s.drain()
		return err
	}
	return nil
}

// drain reads answers that nobody waits for any more.
func (s *socket) drain() {
	for s.raw.SetReadDeadline(time.Now().Add(drainTimeout)) == nil {
		// The errors of messages that were refused are as expected as that there are no more.
		if _, err := s.raw.Receive(); errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// nfgenBytes is the size of struct nfgenmsg.
const nfgenBytes = 4

// header is struct nfgenmsg.
func header(family nftables.TableFamily, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{byte(family), unix.NFNETLINK_V0}, resource)
}

func messageType(of uint16) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | of)
}

// makeTable makes an empty table, which this socket owns if that is asked for and the kernel keeps such a table when its owner
// is gone: without that, the death of the process would open what it closed.
func (s *socket) makeTable(table *nftables.Table, own bool) (owned bool, err error) {
	if own {
		err := s.makeTableWith(table, tableOwner|tablePersist)
		if err == nil {
			return true, nil
		}
		// A kernel that does not know a flag says one of these.
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			return false, fmt.Errorf("make table %s: %w", table.Name, err)
		}
	}
	if err := s.makeTableWith(table, 0); err != nil {
		return false, fmt.Errorf("make table %s: %w", table.Name, err)
	}
	return false, nil
}

// makeTableWith does it with flags, which package nftables does not send.
func (s *socket) makeTableWith(table *nftables.Table, flags uint32) error {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(table.Name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, flags)},
	})
	if err != nil {
		return err
	}
	if err := s.arm(); err != nil {
		return err
	}
	if _, err := s.raw.SendMessages([]netlink.Message{
		{Header: netlink.Header{Type: batchBegin, Flags: netlink.Request}, Data: header(0, unix.NFNL_SUBSYS_NFTABLES)},
		{
			Header: netlink.Header{
				Type: messageType(unix.NFT_MSG_NEWTABLE), Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl,
			},
			Data: append(header(table.Family, 0), attributes...),
		},
		{Header: netlink.Header{Type: batchEnd, Flags: netlink.Request}, Data: header(0, unix.NFNL_SUBSYS_NFTABLES)},
	}); err != nil {
		return err
	}
	_, err = s.raw.Receive()
	return err
}

// dumpAttempts are how often a dump is begun anew that another transaction interrupted.
const dumpAttempts = 10

// dump is all objects of a kind, each a message without its header; filter is what the kernel selects by.
func (s *socket) dump(kind uint16, family nftables.TableFamily, filter ...netlink.Attribute) ([][]byte, error) {
	attributes, err := netlink.MarshalAttributes(filter)
	if err != nil {
		return nil, err
	}
	for range dumpAttempts {
		if err := s.arm(); err != nil {
			return nil, err
		}
		answers, err := s.raw.Execute(netlink.Message{
			Header: netlink.Header{Type: messageType(kind), Flags: netlink.Request | netlink.Dump},
			Data:   append(header(family, 0), attributes...),
		})
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		bodies, whole := make([][]byte, 0, len(answers)), true
		for _, answer := range answers {
			if len(answer.Data) < nfgenBytes {
				return nil, errors.New("a short answer of nftables")
			}
			whole = whole && answer.Header.Flags&unix.NLM_F_DUMP_INTR == 0
			bodies = append(bodies, answer.Data[nfgenBytes:])
		}
		if whole {
			return bodies, nil
		}
	}
	return nil, errors.New("nftables changes faster than it can be read")
}

// attribute is the value of an attribute of a message; nil when it has none.
func attribute(body []byte, kind uint16) []byte {
	decoder, err := netlink.NewAttributeDecoder(body)
	if err != nil {
		return nil
	}
	for decoder.Next() {
		if decoder.Type() == kind {
			return decoder.Bytes()
		}
	}
	return nil
}

// text is an attribute that is a string.
func text(body []byte, kind uint16) string {
	value := attribute(body, kind)
	for i, letter := range value {
		if letter == 0 {
			return string(value[:i])
		}
	}
	return string(value)
}

// number is an attribute of 4 bytes; 0 when there is none.
func number(body []byte, kind uint16) uint32 {
	value := attribute(body, kind)
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}
