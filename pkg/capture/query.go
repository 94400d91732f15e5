package capture

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrForeign says that somebody's program is attached in the old way, with PROG_ATTACH and no flag, which lets nobody else
// attach below or beside it.
var ErrForeign = errors.New("a foreign BPF program is attached exclusively")

// attachTypes are what capture attaches, with its programs' names.
var attachTypes = map[string]ebpf.AttachType{
	"connect4":       ebpf.AttachCGroupInet4Connect,
	"connect6":       ebpf.AttachCGroupInet6Connect,
	"getpeername4":   ebpf.AttachCgroupInet4GetPeername,
	"getpeername6":   ebpf.AttachCgroupInet6GetPeername,
	"sock_ops":       ebpf.AttachCGroupSockOps,
	"get_origin":     ebpf.AttachCGroupGetsockopt,
	"guard_connect4": ebpf.AttachCGroupInet4Connect,
	"guard_connect6": ebpf.AttachCGroupInet6Connect,
	"guard_socket":   ebpf.AttachCGroupInetSockCreate,
	"guard_sendmsg4": ebpf.AttachCGroupUDP4Sendmsg,
	"guard_sendmsg6": ebpf.AttachCGroupUDP6Sendmsg,
	"guard_bind4":    ebpf.AttachCGroupInet4Bind,
	"guard_bind6":    ebpf.AttachCGroupInet6Bind,
	"guard_egress":   ebpf.AttachCGroupInetEgress,
}

// attached is what BPF_PROG_QUERY says of a cgroup and an attach type.
type attached struct {
	programs []ebpf.ProgramID
	// flags are how programs were attached; 0 is exclusively. Not filled in by an effective query.
	flags uint32
}

// queryAttr is the query member of union bpf_attr, see bpf(2) and include/uapi/linux/bpf.h; later members are zero.
type queryAttr struct {
	targetFD   uint32
	attachType uint32
	queryFlags uint32
	flags      uint32
	programs   uint64
	count      uint32
	_          uint32
}

// query asks for the programs of a cgroup: those attached to it, or with effective those that run for its members. Package
// link asks too, but drops the flags.
func query(cgroup *os.File, attach ebpf.AttachType, effective bool) (attached, error) {
	// The kernel allows 64 programs for each of an ancestor's levels; more than this is not ours to judge.
	ids := make([]ebpf.ProgramID, 1024)
	attr := queryAttr{
		targetFD:   uint32(cgroup.Fd()),
		attachType: uint32(attach),
		programs:   uint64(uintptr(unsafe.Pointer(unsafe.SliceData(ids)))),
		count:      uint32(len(ids)),
	}
	if effective {
		attr.queryFlags = unix.BPF_F_QUERY_EFFECTIVE
	}
	var pinner runtime.Pinner
	pinner.Pin(unsafe.SliceData(ids))
	defer pinner.Unpin()
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return attached{}, fmt.Errorf("query %s of %s: %w", attach, cgroup.Name(), errno)
	}
	return attached{programs: ids[:attr.count], flags: attr.flags}, nil
}

// checkForeign is ErrForeign when one of the programs can not be attached to a cgroup because of what is there.
func checkForeign(dir string, names ...string) error {
	cgroup, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("query %s: %w", dir, err)
	}
	defer cgroup.Close()
	for _, name := range names {
		there, err := query(cgroup, attachTypes[name], false)
		if err != nil {
			return err
		}
		if len(there.programs) > 0 && there.flags == 0 {
			return fmt.Errorf("attach %s to %s: %w: program %d; re-attach it with BPF_F_ALLOW_MULTI or as a link",
				name, dir, ErrForeign, there.programs[0])
		}
	}
	return nil
}
