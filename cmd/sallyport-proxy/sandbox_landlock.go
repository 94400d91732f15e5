package main

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights below a path; landlock(7). All others, such as making devices and sockets, are held back everywhere.
const (
	rightsRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	rightsWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
	rightsExecute = unix.LANDLOCK_ACCESS_FS_EXECUTE
	rightsOther   = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM

	// rightsOfFiles are those that a rule on a file, not a directory, may name.
	rightsOfFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_EXECUTE
)

// readablePaths are what a Go program that links C reads: the loader and the resolver's modules, the resolver's files, certificates
// and time zones, and what the runtime asks about processors and memory. A path that does not exist is no matter.
var readablePaths = []struct {
	path   string
	rights uint64
}{
	// The program itself, and the loader that execve starts it with. The seccomp filter forbids any further execve.
	{"/proc/self/exe", rightsRead | rightsExecute},
	{"/lib", rightsRead | rightsExecute},
	{"/lib64", rightsRead | rightsExecute},
	{"/usr/lib", rightsRead | rightsExecute},
	{"/usr/lib64", rightsRead | rightsExecute},
	{"/usr/local/share/ca-certificates", rightsRead},
	{"/usr/share/ca-certificates", rightsRead},
	{"/usr/share/zoneinfo", rightsRead},
	{"/etc", rightsRead},
	{"/run/systemd/resolve", rightsRead},
	{"/run/resolvconf", rightsRead},
	{"/run/NetworkManager", rightsRead},
	{"/proc", rightsRead},
	{"/sys/devices/system/cpu", rightsRead},
	{"/sys/fs/cgroup", rightsRead},
	{"/sys/kernel/mm/transparent_hugepage", rightsRead},
	{"/dev/urandom", rightsRead},
	{"/dev/null", rightsRead | rightsWrite},
}

// restrictFiles lets the calling thread, and what it executes, read only readablePaths and write only below writable.
// It returns the kernel's Landlock ABI; 0, and no error, where the kernel has none (before 5.13, or not switched on).
// It needs no_new_privs. Before ABI 2 (Linux 5.19) Landlock also forbids to rename between directories.
func restrictFiles(writable []string) (abi int, err error) {
	version, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == unix.ENOSYS || errno == unix.EOPNOTSUPP {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("ask for the landlock version: %w", errno)
	}
	abi = int(version)

	handled := uint64(rightsRead | rightsWrite | rightsExecute | rightsOther)
	if abi < 2 {
		handled &^= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi < 3 {
		handled &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	attributes := unix.LandlockRulesetAttr{Handled_access_fs: handled}
	if abi >= 6 {
		attributes.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	ruleset, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET,
		uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes), 0)
	if errno != 0 {
		return 0, fmt.Errorf("create landlock ruleset: %w", errno)
	}
	defer unix.Close(int(ruleset))

	for _, readable := range readablePaths {
		err := allowBeneath(int(ruleset), readable.path, readable.rights&handled)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return 0, err
		}
	}
	for _, path := range writable {
		if err := allowBeneath(int(ruleset), path, (rightsRead|rightsWrite)&handled); err != nil {
			return 0, err
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); errno != 0 {
		return 0, fmt.Errorf("enter landlock ruleset: %w", errno)
	}
	return abi, nil
}

func allowBeneath(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s for a landlock rule: %w", path, err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= rightsOfFiles
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock rule for %s: %w", path, errno)
	}
	return nil
}
