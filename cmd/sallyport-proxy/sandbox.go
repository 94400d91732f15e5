package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/account"
)

const (
	// sandboxVariable marks the process that enterSandbox started in its own place; it holds the Landlock ABI in force, 0 for none.
	sandboxVariable = "SALLYPORT_SANDBOX"
	// supervisorVariable holds the process id of a supervisor without which the proxy must not live.
	supervisorVariable = "SALLYPORT_SUPERVISOR"
)

// enterSandbox takes all power from the process, for good, and returns only inside the sandbox. It is the first thing that main does.
//
// The first time it does not return at all: on one locked thread it gives up every capability, turns into user (when it is
// root), sets no_new_privs and the Landlock rules, and executes the same program with the same arguments and environment.
// execve ends all other threads, so the credentials of that one thread become those of the whole process; changing them
// on each thread by itself is not possible in a program that links C.
// The second time it verifies what the first did, and adds what execve would undo or what would forbid execve: not dumpable, no core
// file, and the seccomp filter on every thread.
//
// Only the directories in writable can be written. A process that is not root when it starts keeps its user, must have no
// capability, and may have a bounding set: only a capability could empty that, and no_new_privs makes it unreachable.
// An error means that the process must end.
func enterSandbox(user string, writable ...string) error {
	// Never unlocked: where a step went wrong, this thread must not serve anything else.
	runtime.LockOSThread()
	if _, inside := os.LookupEnv(sandboxVariable); !inside {
		return replaceProcess(user, writable)
	}
	if err := confirmSandbox(); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}

// replaceProcess does the first half. On success it does not return.
func replaceProcess(user string, writable []string) error {
	if os.Geteuid() == 0 {
		who, err := account.Lookup(user)
		if err != nil {
			return fmt.Errorf("sandbox: %w", err)
		}
		if who.UID == 0 || who.GID == 0 {
			return fmt.Errorf("sandbox: user %s is root or of its group", user)
		}
		if err := dropPrivileges(who); err != nil {
			return fmt.Errorf("sandbox: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("sandbox: set no_new_privs: %w", err)
	}
	abi, err := restrictFiles(writable)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	environment := append(os.Environ(), sandboxVariable+"="+strconv.Itoa(abi))
	// The magic link works where the new user can not reach the program by its path.
	err = syscall.Exec("/proc/self/exe", os.Args, environment)
	return fmt.Errorf("sandbox: execute the program again: %w", err)
}

// dropPrivileges turns the calling thread, and no other, into who without any capability; capabilities(7).
func dropPrivileges(who account.Account) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("clear keep_caps: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && capability > unix.CAP_SYS_ADMIN {
			break // One more than this kernel knows.
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", capability, err)
		}
	}
	// Raw calls: those of package syscall would change all threads, and can not in a program that links C.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return fmt.Errorf("drop supplementary groups: %w", errno)
	}
	gid, uid := uintptr(who.GID), uintptr(who.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("become group %d: %w", who.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("become user %d: %w", who.UID, errno)
	}
	// Leaving uid 0 clears the permitted and the effective set, not the inheritable one.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("clear capability sets: %w", err)
	}
	return nil
}

// confirmSandbox does the second half.
func confirmSandbox() error {
	if err := dieWithSupervisor(); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	// Not dumpable also means that no process of the same user can trace this one or read its memory; prctl(2).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid dumps: %w", err)
	}
	if err := nameThread("sallyport-proxy"); err != nil {
		return err
	}
	if err := installFilter(); err != nil {
		return err
	}
	facts, err := readStatus()
	if err != nil {
		return err
	}
	return facts.check()
}

// nameThread gives the first thread, and so the process, the name that ps shows: execve of /proc/self/exe left it as "exe".
func nameThread(name string) error {
	terminated, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(terminated)), 0, 0, 0); err != nil {
		return fmt.Errorf("name the process: %w", err)
	}
	return nil
}

// dieWithSupervisor has the kernel kill this process when the one that supervises it ends, however it ends. The parent's own
// request for that was lost with the change of user; prctl(2), PR_SET_PDEATHSIG.
func dieWithSupervisor() error {
	text := os.Getenv(supervisorVariable)
	if text == "" {
		return nil
	}
	supervisor, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%s: %w", supervisorVariable, err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask for the supervisor's death: %w", err)
	}
	if os.Getppid() != supervisor {
		return fmt.Errorf("supervisor %d has ended", supervisor)
	}
	return nil
}

// processStatus is what /proc/self/status says of a process's power; proc_pid_status(5).
type processStatus struct {
	uids, gids                                         []string // real, effective, saved, file system
	permitted, effective, inheritable, ambient, bounds string   // capability sets, hexadecimal
	noNewPrivs, seccomp                                string
}

func readStatus() (processStatus, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return processStatus{}, fmt.Errorf("read own status: %w", err)
	}
	return parseStatus(string(text)), nil
}

func parseStatus(text string) processStatus {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return processStatus{
		uids: strings.Fields(fields["Uid"]), gids: strings.Fields(fields["Gid"]),
		permitted: fields["CapPrm"], effective: fields["CapEff"], inheritable: fields["CapInh"],
		ambient: fields["CapAmb"], bounds: fields["CapBnd"],
		noNewPrivs: fields["NoNewPrivs"], seccomp: fields["Seccomp"],
	}
}

// check says what of the sandbox is missing. A field that is not there counts as power.
func (s processStatus) check() error {
	if len(s.uids) != 4 {
		return fmt.Errorf("uid is not known")
	}
	for _, uid := range s.uids {
		if uid == "0" {
			return fmt.Errorf("a uid is 0: %s", strings.Join(s.uids, " "))
		}
	}
	for _, set := range []struct{ name, value string }{
		{"permitted", s.permitted}, {"effective", s.effective}, {"inheritable", s.inheritable}, {"ambient", s.ambient},
	} {
		if set.value == "" || strings.Trim(set.value, "0") != "" {
			return fmt.Errorf("the %s capability set is %q, not empty", set.name, set.value)
		}
	}
	if s.noNewPrivs != "1" {
		return fmt.Errorf("no_new_privs is %q", s.noNewPrivs)
	}
	// 2 is SECCOMP_MODE_FILTER.
	if s.seccomp != "2" {
		return fmt.Errorf("seccomp mode is %q", s.seccomp)
	}
	return nil
}

// sandboxSummary is one line for the log: what the process may no longer do, and what this kernel could not take from it.
func sandboxSummary() string {
	text := fmt.Sprintf("uid %d, no capability, no_new_privs, seccomp filter", os.Getuid())
	if abi := os.Getenv(sandboxVariable); abi != "" && abi != "0" {
		return text + ", file system restricted by landlock " + abi
	}
	return text + "; this kernel has no landlock, so file permissions alone protect the file system"
}
