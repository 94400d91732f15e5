package capture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// roleVariable makes the test binary another process: a workload's client, or the proxy's half that reads origins.
const roleVariable = "SALLYPORT_TEST_ROLE"

// canaryArgument makes the test binary the canary's process.
const canaryArgument = "canary"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == canaryArgument {
		if err := RunCanary(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "canary:", err)
			os.Exit(1)
		}
		return
	}
	switch os.Getenv(roleVariable) {
	case "":
		os.Setenv("GORACE", "atexit_sleep_ms=0") // For the processes that tests start.
		os.Exit(m.Run())
	case "dial":
		fmt.Println(outcome(dialOnce(os.Args[1], netip.MustParseAddrPort(os.Args[2]))))
	case "moved":
		moved(netip.MustParseAddrPort(os.Args[1]))
	case "hammer":
		hammer(netip.MustParseAddrPort(os.Args[1]))
	case "reader":
		reader()
	case "packets":
		sendPackets()
	case "fill":
		fill(netip.MustParseAddrPort(os.Args[1]))
	case "hold":
		hold(netip.MustParseAddrPort(os.Args[1]))
	case "peers":
		peers(netip.MustParseAddrPort(os.Args[1]), atoi(os.Args[2]))
	case "keeper":
		keeper()
	case "dials":
		dials(netip.MustParseAddrPort(os.Args[1]), atoi(os.Args[2]))
	case "sends":
		sends(netip.MustParseAddrPort(os.Args[1]), atoi(os.Args[2]))
	}
}

func atoi(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

func outcome(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "connected"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// payload is what every client sends.
const payload = "hello"

// dialOnce connects in one of the ways in which a program can, and sends the payload.
func dialOnce(how string, to netip.AddrPort) error {
	family, protocol := unix.AF_INET, unix.IPPROTO_TCP
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if how == "mptcp" {
		protocol = unix.IPPROTO_MPTCP
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return dialOn(fd, how, to)
}

func dialOn(fd int, how string, to netip.AddrPort) error {
	switch how {
	case "fastopen":
		if err := unix.Sendto(fd, []byte(payload), unix.MSG_FASTOPEN, sockaddr(to)); err != nil {
			return err
		}
		return drained(fd)
	case "fastopen-connect":
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
			return err
		}
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte(payload)); err != nil {
		return err
	}
	return drained(fd)
}

// drained waits for the server's end.
func drained(fd int) error {
	var buffer [16]byte
	for {
		n, err := unix.Read(fd, buffer[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
	}
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

// moved makes a socket, lets its parent move it to another cgroup, and connects then.
func moved(to netip.AddrPort) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		fmt.Println(outcome(err))
		return
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Println(outcome(dialOn(fd, "connect", to)))
}

// peers connects so many times without waiting, asks for the peer as soon as there is one, and prints "all" when it was always what
// was dialled.
func peers(to netip.AddrPort, count int) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	for i := range count {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		if err == nil {
			err = unix.Connect(fd, sockaddr(to))
		}
		if err != nil && err != unix.EINPROGRESS {
			fmt.Println(outcome(err))
			return
		}
		for {
			peer, err := unix.Getpeername(fd)
			if err == unix.ENOTCONN {
				continue
			}
			if err != nil {
				fmt.Println(outcome(err))
				return
			}
			if got := addressOf(peer); got != to {
				fmt.Printf("%d of %d: %s\n", i, count, got)
				return
			}
			break
		}
		unix.Close(fd)
	}
	fmt.Println("all")
}

func addressOf(address unix.Sockaddr) netip.AddrPort {
	switch address := address.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(address.Addr), uint16(address.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(address.Addr), uint16(address.Port))
	}
	return netip.AddrPort{}
}

// hammer connects until its input ends, and prints how often each outcome came.
func hammer(to netip.AddrPort) {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	outcomes := map[string]int{}
	fmt.Println("ready")
	for {
		select {
		case <-ended:
			json.NewEncoder(os.Stdout).Encode(outcomes)
			return
		default:
			outcomes[outcome(dialOnce("connect", to))]++
		}
	}
}

// report is what a reader says of one accepted connection.
type report struct {
	Origin  handoff.Origin
	Error   string
	Payload string
	UID     int
	CapEff  string
}

// reader accepts from an inherited listener and prints a report of each connection, as the proxy would see it.
func reader() {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		panic(err)
	}
	capEff := "unknown"
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.SplitSeq(string(status), "\n") {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			capEff = strings.TrimSpace(value)
		}
	}
	fmt.Println("ready")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		origin, err := handoff.Workload{}.OriginOf(conn.(*net.TCPConn))
		r := report{Origin: origin, UID: os.Getuid(), CapEff: capEff}
		if err != nil {
			r.Error = err.Error()
		}
		buffer := make([]byte, len(payload))
		n, _ := io.ReadFull(conn, buffer)
		r.Payload = string(buffer[:n])
		conn.Close()
		json.NewEncoder(os.Stdout).Encode(r)
	}
}

// process is a running role.
type process struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start starts a role in a cgroup's directory ("" for the test's own).
func start(t testing.TB, dir, role string, prepare func(*exec.Cmd), args ...string) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if dir != "" {
		cgroup, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer cgroup.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(cgroup.Fd())
	}
	if prepare != nil {
		prepare(cmd)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s (these tests need root): %v", role, err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &process{Cmd: cmd, in: in, out: bufio.NewReader(out)}
}

func (p *process) line(t testing.TB) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("output of process %d: %q: %v", p.Process.Pid, line, err)
	}
	return strings.TrimSpace(line)
}

// dial runs a client in a cgroup to its end: "connected", or the name of an error.
func dial(t testing.TB, dir, how, to string) string {
	t.Helper()
	return start(t, dir, "dial", nil, how, to).line(t)
}

// startReader starts an unprivileged reader on a listener.
func startReader(t testing.TB, listener *net.TCPListener) *process {
	t.Helper()
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := start(t, "", "reader", func(cmd *exec.Cmd) {
		cmd.ExtraFiles = []*os.File{file}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	})
	if got := p.line(t); got != "ready" {
		t.Fatalf("reader says %q", got)
	}
	return p
}

func (p *process) report(t testing.TB) report {
	t.Helper()
	var r report
	if err := json.Unmarshal([]byte(p.line(t)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}
