package main

import "golang.org/x/sys/unix"

// auditArch is what the kernel calls this architecture. A call of the 32-bit ABI has another, and kills the process; one of the x32
// ABI has a number with bit 30 set, which no list holds.
const auditArch = unix.AUDIT_ARCH_X86_64

// plainCallsOfArch are calls that only this architecture has: older names, which the Go runtime or the C library still use.
var plainCallsOfArch = []uint32{
	unix.SYS_EPOLL_WAIT, unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_NEWFSTATAT,
	unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_UNLINK, unix.SYS_RENAME, unix.SYS_GETRLIMIT,
	unix.SYS_ARCH_PRCTL, unix.SYS_TIME,
}
