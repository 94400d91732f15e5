package main

import "golang.org/x/sys/unix"

// auditArch is what the kernel calls this architecture. A call of the 32-bit ABI has another, and kills the process.
const auditArch = unix.AUDIT_ARCH_AARCH64

// plainCallsOfArch are calls whose names only this architecture has.
var plainCallsOfArch = []uint32{unix.SYS_FSTATAT, unix.SYS_GETRLIMIT}
