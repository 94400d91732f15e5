package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// deviceGuard is attached to the agent's side of the network devices that lead out of a workload's own network namespace. It
// alone sees what packet sockets send, and what a namespace inside the workload forwards.
const deviceGuard = "guard_device"

// errNoDevice says that nothing leads from a workload's network namespace into the agent's.
var errNoDevice = errors.New("no veth pair joins its network namespace to the agent's")

// guardDevices attaches guard_device for a workload with a network namespace of its own, to the devices that there are now.
// Capture does without where it can not: Status says so.
func (c *Capture) guardDevices(w *workload) {
	w.deviceReason = ""
	if w.listeners.namespace == c.namespace {
		w.deviceReason = "it shares the agent's network namespace"
		return
	}
	if err := c.attachDevices(w); err != nil {
		w.deviceReason = err.Error()
	}
}

func (c *Capture) attachDevices(w *workload) error {
	all := w.listeners.all()
	if len(all) == 0 {
		return errNoDevice
	}
	namespace, err := namespaceOf(all[0])
	if err != nil {
		return err
	}
	defer namespace.Close()
	indexes, err := devicesTo(namespace)
	if err != nil {
		return err
	}
	if len(indexes) == 0 {
		return errNoDevice
	}
	for _, index := range indexes {
		if err := c.attachDevice(w, index); err != nil {
			return err
		}
	}
	return nil
}

// attachDevice attaches guard_device to one device; a pinned link of an earlier process is updated in place.
func (c *Capture) attachDevice(w *workload, index int) error {
	if err := c.objects.Devices.Put(uint32(index), w.facts.ID); err != nil {
		return fmt.Errorf("write device %d: %w", index, err)
	}
	pin := c.pins.device(w.facts.ID, index)
	pinned, err := link.LoadPinnedLink(pin, nil)
	if err == nil {
		defer pinned.Close()
		if err = pinned.Update(c.objects.GuardDevice); err == nil {
			return nil
		}
		// ENOLINK: that device is gone, and another one has its index.
		if !errors.Is(err, unix.ENOLINK) {
			return fmt.Errorf("update %s: %w", pin, err)
		}
		err = os.Remove(pin)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("adopt %s: %w", pin, err)
	}
	attached, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: c.objects.GuardDevice, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return fmt.Errorf("attach %s to device %d: %w", deviceGuard, index, err)
	}
	defer attached.Close()
	if err := attached.Pin(pin); err != nil {
		return fmt.Errorf("attach %s to device %d: pin: %w", deviceGuard, index, err)
	}
	return nil
}

// forgetDevices removes what guardDevices wrote of a workload.
func (c *Capture) forgetDevices(id uint64) error {
	var (
		index uint32
		owner uint64
		own   []uint32
	)
	entries := c.objects.Devices.Iterate()
	for entries.Next(&index, &owner) {
		if owner == id {
			own = append(own, index)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	for _, index := range own {
		if err := c.objects.Devices.Delete(index); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove device %d: %w", index, err)
		}
	}
	return nil
}

// deviceReasons is why guard_device does not cover every workload; "" when it does. The lock is held.
func (c *Capture) deviceReasons() string {
	var reasons []string
	for _, w := range c.workloads {
		if w.deviceReason != "" {
			reasons = append(reasons, fmt.Sprintf("%s: %s", w.facts.Cgroup, w.deviceReason))
		}
	}
	const most = 3
	if len(reasons) > most {
		reasons = append(reasons[:most], fmt.Sprintf("and %d more", len(reasons)-most))
	}
	return strings.Join(reasons, "; ")
}

func (p pins) device(id uint64, index int) string {
	return filepath.Join(p.workload(id), fmt.Sprintf("%s-%d", deviceGuard, index))
}

// Messages of rtnetlink(7), and attributes of linux/if_link.h and linux/net_namespace.h.
const (
	netnsaNSID         = 1
	netnsaFD           = 3
	iflaLinkNetnsID    = 37
	interfaceInfoBytes = unix.SizeofIfInfomsg
)

// devicesTo are the devices of the agent's network namespace whose other ends are in another one.
func devicesTo(namespace *os.File) ([]int, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", os.NewSyscallError("socket", err))
	}
	defer unix.Close(socket)
	// The kernel numbers a namespace when it first has to name it, as in this list.
	ends := map[int]int32{}
	if err := talk(socket, unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, interfaceInfoBytes), func(body []byte) error {
		if len(body) < interfaceInfoBytes {
			return errors.New("a short answer")
		}
		if number, ok := attribute(body[interfaceInfoBytes:], iflaLinkNetnsID); ok {
			ends[int(binary.NativeEndian.Uint32(body[4:]))] = number
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	// struct rtgenmsg, padded, then the attribute.
	question := binary.NativeEndian.AppendUint16(make([]byte, 4), unix.SizeofRtAttr+4)
	question = binary.NativeEndian.AppendUint16(question, netnsaFD)
	question = binary.NativeEndian.AppendUint32(question, uint32(namespace.Fd()))
	number, known := int32(0), false
	if err := talk(socket, unix.RTM_GETNSID, unix.NLM_F_ACK, question, func(body []byte) error {
		if len(body) >= 4 {
			number, known = attribute(body[4:], netnsaNSID)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("number of a network namespace: %w", err)
	}
	var indexes []int
	for index, end := range ends {
		if known && number >= 0 && end == number {
			indexes = append(indexes, index)
		}
	}
	return indexes, nil
}

// talk sends one netlink message, and calls a function for the body of each message of the answer.
func talk(socket int, kind, flags uint16, body []byte, handle func([]byte) error) error {
	if err := sendNetlink(socket, kind, flags, body); err != nil {
		return err
	}
	return answers(socket, handle)
}

// attribute is a number of four bytes among attributes.
func attribute(attributes []byte, kind uint16) (int32, bool) {
	value, ok := find(attributes, kind)
	if !ok || len(value) < 4 {
		return 0, false
	}
	return int32(binary.NativeEndian.Uint32(value)), true
}
