package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// Events calls a function for each denial that the kernel tells of, until ctx ends. The kernel counts all and tells of some:
// so many a second for each workload.
func (c *Capture) Events(ctx context.Context, handle func(handoff.CaptureEvent)) error {
	reader, err := ringbuf.NewReader(c.objects.Events)
	if err != nil {
		return fmt.Errorf("read denials: %w", err)
	}
	defer reader.Close()
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer stop()
	var record ringbuf.Record
	for {
		err := reader.ReadInto(&record)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read denials: %w", err)
		}
		var e bpf.CaptureEvent
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &e); err != nil {
			c.log.Error("a denial can not be read", zap.Error(err))
			continue
		}
		if bpf.CaptureReason(e.Reason) == bpf.CaptureReasonREASON_DENIED_NETNS {
			c.suspect(e.WorkloadId)
		}
		handle(c.event(e))
	}
}

// suspect makes Relocate look at a workload.
func (c *Capture) suspect(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.workloads[id]; ok {
		c.suspects[id] = true
	}
}

// event says in words what the kernel says in numbers.
func (c *Capture) event(e bpf.CaptureEvent) handoff.CaptureEvent {
	reason, ok := reasons[bpf.CaptureReason(e.Reason)]
	if !ok {
		reason = strconv.FormatUint(uint64(e.Reason), 10)
	}
	told := handoff.CaptureEvent{
		Time:        time.Now(),
		Reason:      reason,
		WorkloadID:  e.WorkloadId,
		CgroupID:    e.CgroupId,
		NetnsCookie: e.NetnsCookie,
		Protocol:    protocolName(reason, e.Protocol),
		PID:         e.Pid,
		UID:         e.Uid,
		Comm:        comm(e.Comm),
		Suppressed:  e.Suppressed,
	}
	if e.Port != 0 || e.Addr != ([4]uint32{}) {
		var address [16]byte
		for i, word := range e.Addr {
			binary.NativeEndian.PutUint32(address[4*i:], word)
		}
		told.Destination = netip.AddrPortFrom(netip.AddrFrom16(address).Unmap(), uint16(e.Port))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range []*workload{c.workloads[e.WorkloadId], c.canary} {
		if w != nil && w.facts.ID == e.WorkloadId {
			told.Cgroup = w.facts.Cgroup
		}
	}
	if s, ok := c.stranded[e.WorkloadId]; ok {
		told.Cgroup = s.name
	}
	return told
}

// protocolNames are those that a workload may try; see /etc/protocols.
var protocolNames = map[uint32]string{
	unix.IPPROTO_ICMP:    "icmp",
	unix.IPPROTO_TCP:     "tcp",
	unix.IPPROTO_UDP:     "udp",
	unix.IPPROTO_ICMPV6:  "icmpv6",
	unix.IPPROTO_SCTP:    "sctp",
	unix.IPPROTO_UDPLITE: "udplite",
	unix.IPPROTO_RAW:     "raw",
	unix.IPPROTO_MPTCP:   "mptcp",
}

// protocolName is a protocol's name, or its number; "family 17" for a denied address family.
func protocolName(reason string, number uint32) string {
	text := strconv.FormatUint(uint64(number), 10)
	if reason == reasons[bpf.CaptureReasonREASON_DENIED_FAMILY] {
		return "family " + text
	}
	if name, ok := protocolNames[number]; ok {
		return name
	}
	return text
}

// comm is the name of a command as the kernel keeps it.
func comm(name [16]int8) string {
	text := make([]byte, 0, len(name))
	for _, letter := range name {
		text = append(text, byte(letter))
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	return string(text)
}
