package nft

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A monitor hears of every change of nftables in one network namespace.
type monitor struct {
	raw    *netlink.Conn
	closed atomic.Bool
	done   chan struct{}
}

// listenFor calls a function when somebody else than a socket may have changed a table whose name begins with a prefix, until the
// monitor is closed. lost is called when nothing more will be heard.
func listenFor(namespace *os.File, prefix string, but uint32, changed func(), lost func(error)) (*monitor, error) {
	config := &netlink.Config{}
	if namespace != nil {
		config.NetNS = int(namespace.Fd())
	}
	raw, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	if err := errors.Join(raw.SetReadBuffer(netlinkBuffer), raw.JoinGroup(unix.NFNLGRP_NFTABLES)); err != nil {
		return nil, errors.Join(fmt.Errorf("watch nftables: %w", err), raw.Close())
	}
	m := &monitor{raw: raw, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for {
			messages, err := raw.Receive()
			switch {
			case err != nil && m.closed.Load():
				return
			case errors.Is(err, unix.ENOBUFS):
				// More than the buffer holds: something of it may have been ours.
				changed()
				continue
			case err != nil:
				lost(fmt.Errorf("watch nftables: %w", err))
				return
			}
			if concerns(messages, prefix, but) {
				changed()
			}
		}
	}()
	return m, nil
}

// concerns is whether one of the messages is about a table with a prefix, and not a socket's own doing. The first attribute of
// every kind of object is its table's name; linux/netfilter/nf_tables.h.
func concerns(messages []netlink.Message, prefix string, but uint32) bool {
	for _, m := range messages {
		if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Header.PID == but || len(m.Data) < nfgenBytes {
			continue
		}
		if strings.HasPrefix(text(m.Data[nfgenBytes:], unix.NFTA_TABLE_NAME), prefix) {
			return true
		}
	}
	return false
}

// close ends it; no function is called after it returns.
func (m *monitor) close() error {
	m.closed.Store(true)
	err := m.raw.Close()
	<-m.done
	return err
}
