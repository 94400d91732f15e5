package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// plainCalls are the system calls that the proxy may make with any argument; sandbox_seccomp_ARCH.go has those that only one
// architecture knows. What is not listed here or in checkedCalls answers EPERM: no execve, ptrace, mount, bpf, setns, io_uring.
var plainCalls = []uint32{
	// Reading and writing sockets and files.
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_CLOSE,
	unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG,
	unix.SYS_SPLICE, unix.SYS_TEE, unix.SYS_SENDFILE, unix.SYS_COPY_FILE_RANGE,
	// Waiting.
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_EVENTFD2, unix.SYS_PPOLL,
	unix.SYS_PSELECT6, unix.SYS_PIPE2, unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME,
	// Sockets; making one is a checked call.
	unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
	unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT, unix.SYS_SHUTDOWN,
	// Files: Landlock and file permissions say which.
	unix.SYS_OPENAT, unix.SYS_FSTAT, unix.SYS_STATX, unix.SYS_LSEEK, unix.SYS_GETDENTS64, unix.SYS_READLINKAT, unix.SYS_FACCESSAT,
	unix.SYS_FACCESSAT2, unix.SYS_GETCWD, unix.SYS_STATFS, unix.SYS_FSTATFS, unix.SYS_FCNTL, unix.SYS_DUP, unix.SYS_DUP3,
	unix.SYS_FLOCK, unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_FTRUNCATE,
	unix.SYS_FALLOCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_FCHMOD, unix.SYS_FCHMODAT,
	unix.SYS_FCHMODAT2, unix.SYS_UTIMENSAT, unix.SYS_UMASK, unix.SYS_FADVISE64,
	// Memory.
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
	unix.SYS_MEMBARRIER,
	// Threads, signals and time.
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SET_TID_ADDRESS,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_GETTIMEOFDAY,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	// Facts about itself and the machine.
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
	unix.SYS_GETRUSAGE, unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_GETRANDOM, unix.SYS_GETCPU,
}

// A checkedCall may be made only when one argument, its low 32 bits masked, is one of the allowed values. The argument's high half
// must be 0.
type checkedCall struct {
	call     uint32
	argument uint32 // 0 to 5
	mask     uint32
	allowed  []uint32
}

// namespaceFlags make clone(2) start a namespace.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// checkedCalls are the system calls whose first argument decides.
func checkedCalls(pid int) []checkedCall {
	const whole = ^uint32(0)
	return []checkedCall{
		// No netlink, packet, vsock or other family.
		{unix.SYS_SOCKET, 0, whole, []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6}},
		{unix.SYS_SOCKETPAIR, 0, whole, []uint32{unix.AF_UNIX}},
		// Threads, no processes and no namespaces.
		{unix.SYS_CLONE, 0, unix.CLONE_THREAD | namespaceFlags, []uint32{unix.CLONE_THREAD}},
		// Signals to itself only.
		{unix.SYS_TGKILL, 0, whole, []uint32{uint32(pid)}},
		{unix.SYS_KILL, 0, whole, []uint32{uint32(pid)}},
		// Names of threads and of anonymous memory.
		{unix.SYS_PRCTL, 0, whole, []uint32{unix.PR_SET_NAME, unix.PR_SET_VMA}},
		// Is it a terminal, how many bytes wait. Not TIOCSTI, which types into the operator's terminal.
		{unix.SYS_IOCTL, 1, whole, []uint32{unix.TCGETS, unix.TIOCGWINSZ, unix.TIOCINQ, unix.TIOCOUTQ}},
		// Its own limits.
		{unix.SYS_PRLIMIT64, 0, whole, []uint32{0, uint32(pid)}},
	}
}

// Offsets in struct seccomp_data; seccomp(2). Arguments are 64 bits, and all architectures here are little-endian.
const (
	offsetCall      = 0
	offsetArch      = 4
	offsetArguments = 16
)

// Answers of the filter.
const (
	answerAllow   = unix.SECCOMP_RET_ALLOW
	answerRefuse  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	answerMissing = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	answerKill    = unix.SECCOMP_RET_KILL_PROCESS
)

// buildFilter makes the program that the kernel runs at each system call. Every branch ends in its own answer, and jumps go no
// further than the branch, so that no comparison can see a value loaded for another.
func buildFilter(pid int) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	answer := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
	}
	// unlessEqual skips the next n instructions when the value is not k.
	unlessEqual := func(k uint32, n int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: uint8(n)}
	}

	program := []unix.SockFilter{
		load(offsetArch), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jt: 1}, answer(answerKill),
		load(offsetCall),
	}
	for _, calls := range [][]uint32{plainCalls, plainCallsOfArch} {
		for _, call := range calls {
			program = append(program, unlessEqual(call, 1), answer(answerAllow))
		}
	}
	// The C library asks for clone3 first, whose flags lie in memory and can not be checked, and then for clone.
	program = append(program, unlessEqual(unix.SYS_CLONE3, 1), answer(answerMissing))
	for _, checked := range checkedCalls(pid) {
		argument := offsetArguments + 8*checked.argument
		branch := []unix.SockFilter{load(argument + 4), unlessEqual(0, 2+2*len(checked.allowed)),
			load(argument), {Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: checked.mask}}
		for _, value := range checked.allowed {
			branch = append(branch, unlessEqual(value, 1), answer(answerAllow))
		}
		branch = append(branch, answer(answerRefuse))
		program = append(program, unlessEqual(checked.call, len(branch)))
		program = append(program, branch...)
	}
	return append(program, answer(answerRefuse))
}

// installFilter puts the filter on every thread. It can not be taken off again, and needs no_new_privs.
func installFilter() error {
	filter := buildFilter(os.Getpid())
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("install seccomp filter: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("install seccomp filter: thread %d does not take it", thread)
	}
	return nil
}
