package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// probeVariable makes this test binary play the proxy: it holds the directory that the sandbox may write.
const probeVariable = "SALLYPORT_TEST_PROBE"

// TestProbe is not a test of its own: the tests below run it in a process that enters the sandbox.
func TestProbe(t *testing.T) {
	dir := os.Getenv(probeVariable)
	if dir == "" {
		return
	}
	if err := enterSandbox("64817", dir); err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	report, err := json.Marshal(probe(dir))
	if err != nil {
		fmt.Println(err)
		os.Exit(4)
	}
	fmt.Printf("%s\n", report)
	// Stay until the parent has looked at /proc and closes the pipe.
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// probe tries what must work and what must not, and says how each attempt ended.
func probe(dir string) map[string]string {
	result := map[string]string{}
	try := func(name string, err error) {
		result[name] = "works"
		var errno syscall.Errno
		switch {
		case errors.As(err, &errno):
			result[name] = unix.ErrnoName(errno)
		case err != nil:
			result[name] = err.Error()
		}
	}
	call := func(name string, number uintptr, arguments ...uintptr) {
		var a [6]uintptr
		copy(a[:], arguments)
		_, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			try(name, errno)
			return
		}
		try(name, nil)
	}

	try("execve", unix.Exec("/bin/true", []string{"true"}, nil))
	_, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	try("start a process", err)
	call("fork", unix.SYS_CLONE, uintptr(unix.SIGCHLD))
	call("ptrace", unix.SYS_PTRACE, unix.PTRACE_TRACEME)
	call("mount", unix.SYS_MOUNT)
	call("bpf", unix.SYS_BPF)
	call("setns", unix.SYS_SETNS)
	call("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	call("io_uring", unix.SYS_IO_URING_SETUP, 1)
	call("keyctl", unix.SYS_KEYCTL)
	call("process_vm_readv", unix.SYS_PROCESS_VM_READV, 1)
	call("signal to another process", unix.SYS_KILL, uintptr(os.Getppid()), 0)
	call("ioctl TIOCSTI", unix.SYS_IOCTL, 0, unix.TIOCSTI, 0)
	call("become dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)
	call("raw socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	call("packet socket", unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW)
	call("netlink socket", unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW)
	call("vsock socket", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM)

	try("write below the state directory", os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
	try("rename below the state directory", os.Rename(filepath.Join(dir, "file"), filepath.Join(dir, "renamed")))
	try("write elsewhere", os.WriteFile("/var/tmp/sallyport-sandbox-probe", nil, 0o600))
	_, err = os.ReadDir("/var")
	try("read elsewhere", err)
	_, err = os.ReadFile("/etc/hosts")
	try("read the resolver's files", err)
	_, err = os.ReadFile("/proc/self/status")
	try("read its own status", err)
	try("talk over loopback", talk("tcp", "127.0.0.1:0"))
	try("talk over a unix socket", talkPair())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = (&net.Resolver{PreferGo: true}).LookupHost(ctx, "localhost")
	try("resolve in Go", err)
	_, err = (&net.Resolver{}).LookupHost(ctx, "localhost")
	try("resolve as the system does", err)
	return result
}

func talk(network, address string) error {
	listener, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	defer listener.Close()
	client, err := net.Dial(network, listener.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		return err
	}
	defer server.Close()
	if _, err := client.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(server, make([]byte, 1))
	return err
}

// talkPair passes a descriptor over a pair of sockets, as the seam does.
func talkPair() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(0), nil, 0); err != nil {
		return err
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	return unix.Close(fds[0])
}

// startProbe runs TestProbe in a process of its own and returns it, its report and what ends it.
func startProbe(t *testing.T, environment ...string) (*exec.Cmd, map[string]string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root")
	}
	dir := t.TempDir()
	for parent := dir; parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, 64817, 64817); err != nil {
		t.Fatal(err)
	}
	probe := exec.Command(os.Args[0], "-test.run=^TestProbe$")
	probe.Env = append(append(os.Environ(), probeVariable+"="+dir), environment...)
	probe.Stderr = os.Stderr
	stdin, err := probe.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := probe.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := probe.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := probe.Wait(); err != nil {
			t.Errorf("probe: %v", err)
		}
	})
	var report map[string]string
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("no report: %v", err)
	}
	if err := json.Unmarshal(line, &report); err != nil {
		t.Fatalf("report %q: %v", line, err)
	}
	return probe, report
}

func TestSandboxedProcessHoldsNoPower(t *testing.T) {
	process, report := startProbe(t)

	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	const none = "0000000000000000"
	id := []string{"64817", "64817", "64817", "64817"}
	want := processStatus{
		uids: id, gids: id, permitted: none, effective: none, inheritable: none, ambient: none, bounds: none,
		noNewPrivs: "1", seccomp: "2",
	}
	if diff := cmp.Diff(want, parseStatus(string(text)), cmp.AllowUnexported(processStatus{})); diff != "" {
		t.Errorf("/proc/PID/status (-want +got):\n%s", diff)
	}
	if !strings.Contains(string(text), "\nGroups:\t \n") && !strings.Contains(string(text), "\nGroups:\t\n") {
		t.Error("supplementary groups are left")
	}
	// The memory and the environment of a process that is not dumpable belong to root; proc(5).
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("/proc/PID/environ belongs to %d: the process is dumpable", owner)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok && strings.Join(strings.Fields(rest)[:2], " ") != "0 0" {
			t.Errorf("core files are possible: %s", line)
		}
	}

	wantReport := map[string]string{
		"execve": "EPERM", "start a process": "EPERM", "fork": "EPERM", "ptrace": "EPERM", "mount": "EPERM", "bpf": "EPERM",
		"setns": "EPERM", "unshare": "EPERM", "io_uring": "EPERM", "keyctl": "EPERM", "process_vm_readv": "EPERM",
		"signal to another process": "EPERM", "ioctl TIOCSTI": "EPERM", "become dumpable": "EPERM",
		"raw socket": "EPERM", "packet socket": "EPERM", "netlink socket": "EPERM", "vsock socket": "EPERM",
		"write below the state directory": "works", "rename below the state directory": "works",
		"write elsewhere": "EACCES", "read elsewhere": "EACCES", "read the resolver's files": "works", "read its own status": "works",
		"talk over loopback": "works", "talk over a unix socket": "works",
		"resolve in Go": "works", "resolve as the system does": "works",
	}
	if version, _, _ := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); int(version) <= 0 {
		// Without Landlock file permissions decide, and both places are open to everybody.
		wantReport["write elsewhere"], wantReport["read elsewhere"] = "works", "works"
		t.Cleanup(func() { os.Remove("/var/tmp/sallyport-sandbox-probe") })
	}
	if diff := cmp.Diff(wantReport, report); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
}

func TestSandboxKeepsTheEnvironment(t *testing.T) {
	process, _ := startProbe(t, "PGPASSWORD_OF_TEST=kept")
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(environment), "PGPASSWORD_OF_TEST=kept\x00") {
		t.Error("a variable of the start is lost")
	}
}

func TestSandboxRefusesAProcessThatKeepsPower(t *testing.T) {
	tests := []struct {
		name        string
		environment []string
		user        *syscall.Credential
		want        string
	}{
		{name: "root that only claims to be inside", environment: []string{sandboxVariable + "=6"}, want: "sandbox: "},
		{name: "a supervisor that has ended", environment: []string{supervisorVariable + "=1"}, want: "sandbox: supervisor 1 has ended"},
		{name: "a user without the marked steps", environment: []string{sandboxVariable + "=6"},
			user: &syscall.Credential{Uid: 64817, Gid: 64817}, want: "sandbox: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Fatal("this test needs root")
			}
			program := filepath.Join(t.TempDir(), "probe")
			copyProgram(t, program)
			probe := exec.Command(program, "-test.run=^TestProbe$")
			probe.Env = append(append(os.Environ(), probeVariable+"="+os.TempDir()), tt.environment...)
			probe.SysProcAttr = &syscall.SysProcAttr{Credential: tt.user}
			out, err := probe.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 3 {
				t.Errorf("ended with %v, want exit status 3", err)
			}
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("said %q, want %q", out, tt.want)
			}
		})
	}
}

// copyProgram puts the running test program where every user can execute it.
func copyProgram(t *testing.T, path string) {
	t.Helper()
	for parent := filepath.Dir(path); parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestUnprivilegedStartIsConfinedToo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test needs root")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "probe")
	copyProgram(t, program)
	if err := os.Chown(dir, 64817, 64817); err != nil {
		t.Fatal(err)
	}
	probe := exec.Command(program, "-test.run=^TestProbe$")
	probe.Env = append(os.Environ(), probeVariable+"="+dir)
	probe.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64817, Gid: 64817}}
	out, err := probe.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), `"execve":"EPERM"`) {
		t.Errorf("report %s", out)
	}
}

func TestStatusThatShowsPowerIsRefused(t *testing.T) {
	const none = "0000000000000000"
	sound := processStatus{
		uids: strings.Fields("7 7 7 7"), permitted: none, effective: none, inheritable: none, ambient: none, noNewPrivs: "1", seccomp: "2",
	}
	tests := []struct {
		name   string
		change func(*processStatus)
		want   string
	}{
		{"a sound process", func(*processStatus) {}, ""},
		{"no field at all", func(s *processStatus) { *s = processStatus{} }, "uid is not known"},
		{"a saved uid of root", func(s *processStatus) { s.uids[2] = "0" }, "a uid is 0: 7 7 0 7"},
		{"a permitted capability", func(s *processStatus) { s.permitted = "0000000000000400" }, `the permitted capability set is "0000000000000400", not empty`},
		{"an ambient set that is not shown", func(s *processStatus) { s.ambient = "" }, `the ambient capability set is "", not empty`},
		{"no no_new_privs", func(s *processStatus) { s.noNewPrivs = "0" }, `no_new_privs is "0"`},
		{"no filter", func(s *processStatus) { s.seccomp = "0" }, `seccomp mode is "0"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status := sound
			status.uids = append([]string(nil), sound.uids...)
			tt.change(&status)
			got := ""
			if err := status.check(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFilterAnswersByCallAndArgument(t *testing.T) {
	var instructions []bpf.Instruction
	for _, i := range buildFilter(42) {
		instructions = append(instructions, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K}.Disassemble())
	}
	machine, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	const pid = 42
	tests := []struct {
		name      string
		arch      uint32
		call      uint32
		arguments [2]uint64
		want      uint32
	}{
		{"a plain call", auditArch, unix.SYS_READ, [2]uint64{}, answerAllow},
		{"a call of another architecture", 0x40000003, unix.SYS_READ, [2]uint64{}, answerKill},
		{"a call of the x32 ABI", auditArch, 0x40000000 | unix.SYS_READ, [2]uint64{}, answerRefuse},
		{"execve", auditArch, unix.SYS_EXECVE, [2]uint64{}, answerRefuse},
		{"execveat", auditArch, unix.SYS_EXECVEAT, [2]uint64{}, answerRefuse},
		{"clone3 is said to be missing", auditArch, unix.SYS_CLONE3, [2]uint64{}, answerMissing},
		{"a new thread", auditArch, unix.SYS_CLONE, [2]uint64{unix.CLONE_VM | unix.CLONE_THREAD}, answerAllow},
		{"a new process", auditArch, unix.SYS_CLONE, [2]uint64{uint64(unix.SIGCHLD)}, answerRefuse},
		{"a thread in a namespace", auditArch, unix.SYS_CLONE, [2]uint64{unix.CLONE_THREAD | unix.CLONE_NEWNS}, answerRefuse},
		{"an internet socket", auditArch, unix.SYS_SOCKET, [2]uint64{unix.AF_INET6}, answerAllow},
		{"a netlink socket", auditArch, unix.SYS_SOCKET, [2]uint64{unix.AF_NETLINK}, answerRefuse},
		{"an allowed family with a high half", auditArch, unix.SYS_SOCKET, [2]uint64{1<<32 | unix.AF_INET}, answerRefuse},
		{"a family that has the number of a plain call", auditArch, unix.SYS_SOCKET, [2]uint64{unix.SYS_WRITEV}, answerRefuse},
		{"a family that has the number of a checked call", auditArch, unix.SYS_SOCKET, [2]uint64{unix.SYS_IOCTL, unix.TCGETS}, answerRefuse},
		{"its own pid", auditArch, unix.SYS_TGKILL, [2]uint64{pid}, answerAllow},
		{"another pid", auditArch, unix.SYS_TGKILL, [2]uint64{pid + 1}, answerRefuse},
		{"an ioctl on a terminal's settings", auditArch, unix.SYS_IOCTL, [2]uint64{9, unix.TCGETS}, answerAllow},
		{"an ioctl that types", auditArch, unix.SYS_IOCTL, [2]uint64{unix.TCGETS, unix.TIOCSTI}, answerRefuse},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The kernel's loads are in the machine's order, those of the test's interpreter in the network's.
			data := make([]byte, 64)
			put := func(offset int, value uint32) {
				data[offset], data[offset+1], data[offset+2], data[offset+3] = byte(value>>24), byte(value>>16), byte(value>>8), byte(value)
			}
			put(offsetCall, tt.call)
			put(offsetArch, tt.arch)
			for i, argument := range tt.arguments {
				put(offsetArguments+8*i, uint32(argument))
				put(offsetArguments+8*i+4, uint32(argument>>32))
			}
			got, err := machine.Run(data)
			if err != nil {
				t.Fatal(err)
			}
			if uint32(got) != tt.want {
				t.Errorf("got %#x, want %#x", got, tt.want)
			}
		})
	}
}
