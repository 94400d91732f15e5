package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pod is a workload as a cluster makes them: a network namespace that is joined to the agent's by a veth alone, and a cgroup.
type pod struct {
	n         *node
	cgroup    string
	namespace *os.File
	device    string // the agent's side of the veth

	own4, own6   netip.Addr // the pod's addresses
	host4, host6 netip.Addr // the agent's, at the other end
}

// pods counts those that this process made: each has a network of its own.
var pods int

// pod makes one below the node's cgroup. The caller starts its processes.
func (n *node) pod(name string) *pod {
	n.t.Helper()
	pods++
	p := &pod{
		n:      n,
		cgroup: n.mkdir(name),
		device: fmt.Sprintf("sp%d.%d", os.Getpid()%100000, pods),
		host4:  netip.AddrFrom4([4]byte{198, 18, byte(pods), 1}), // RFC 2544
		own4:   netip.AddrFrom4([4]byte{198, 18, byte(pods), 2}),
	}
	network := [16]byte{0xfd, 0x5a, byte(os.Getpid() >> 8), byte(os.Getpid()), byte(pods)}
	network[15] = 1
	p.host6 = netip.AddrFrom16(network)
	network[15] = 2
	p.own6 = netip.AddrFrom16(network)

	if err := onThread(nil, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		p.namespace, err = os.Open("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		n.t.Fatalf("make a network namespace (these tests need root): %v", err)
	}
	n.t.Cleanup(func() { p.namespace.Close() })
	holder := p.start(exec.Command("sleep", "60"), false)
	defer func() {
		holder.Process.Kill()
		holder.Wait()
	}()
	run := func(command string, arguments ...any) {
		n.t.Helper()
		fields := strings.Fields(fmt.Sprintf(command, arguments...))
		if out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput(); err != nil {
			n.t.Fatalf("%s: %v: %s", strings.Join(fields, " "), err, out)
		}
	}
	run("ip link add %s type veth peer name eth0 netns %d", p.device, holder.Process.Pid)
	n.t.Cleanup(func() { exec.Command("ip", "link", "del", p.device).Run() })
	run("ip address add %s/24 dev %s", p.host4, p.device)
	run("ip -6 address add %s/64 dev %s nodad", p.host6, p.device)
	run("ip link set %s up", p.device)
	for _, inside := range []string{
		"ip link set lo up",
		"ip address add " + p.own4.String() + "/24 dev eth0",
		"ip -6 address add " + p.own6.String() + "/64 dev eth0 nodad",
		"ip link set eth0 up",
		"ip route add default via " + p.host4.String(),
	} {
		fields := strings.Fields(inside)
		cmd := p.start(exec.Command(fields[0], fields[1:]...), false)
		if err := cmd.Wait(); err != nil {
			n.t.Fatalf("%s: %v", inside, err)
		}
	}
	return p
}

// onThread calls a function on a thread that is in a network namespace (nil: one that the function makes), and brings the
// thread back: if it ended, the processes that it started would be killed with it.
func onThread(namespace *os.File, do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	if namespace != nil {
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
	}
	err = do()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // Whatever runs on this thread next would be in the wrong place.
	}
	return err
}

// start starts a command in the pod's network namespace, and if it is a workload in its cgroup.
func (p *pod) start(cmd *exec.Cmd, workload bool) *exec.Cmd {
	p.n.t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if workload {
		dir, err := os.Open(p.n.hierarchy.Dir(p.cgroup))
		if err != nil {
			p.n.t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := onThread(p.namespace, cmd.Start); err != nil {
		p.n.t.Fatalf("start %s: %v", cmd.Path, err)
	}
	return cmd
}

// pause starts the pod's first process, which does nothing, as a cluster does. It ends with the test.
func (p *pod) pause() {
	p.n.t.Helper()
	cmd := p.start(exec.Command("sleep", "600"), true)
	p.n.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// serve is a database at the agent's end of the veth.
func (p *pod) serve() (address4, address6 netip.AddrPort) {
	p.n.t.Helper()
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	var addresses [2]netip.AddrPort
	for i, host := range []netip.Addr{p.host4, p.host6} {
		listener, err := config.Listen(p.n.t.Context(), "tcp", netip.AddrPortFrom(host, databasePort).String())
		if err != nil {
			p.n.t.Fatal(err)
		}
		p.n.t.Cleanup(func() { listener.Close() })
		addresses[i] = listener.Addr().(*net.TCPAddr).AddrPort()
		go answer(listener, "database")
	}
	return addresses[0], addresses[1]
}

// protect writes documents that protect addresses for whatever a selector names.
func (n *node) protect(selector string, endpoints ...netip.AddrPort) {
	n.t.Helper()
	var list strings.Builder
	for _, endpoint := range endpoints {
		fmt.Fprintf(&list, "  - {cidr: \"%s/%d\", port: %d}\n", endpoint.Addr(), endpoint.Addr().BitLen(), endpoint.Port())
	}
	n.write(fmt.Sprintf(`apiVersion: sallyport.dev/v1alpha1
kind: Target
metadata: {name: db}
spec:
  protocol: postgres
  endpoints:
%s  upstream: {tls: {mode: disable}}
  credential: app
---
apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata: {name: app}
spec:
  static: {username: app, password: {file: %s/password}}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec:
  workloads: [{cgroup: %q}]
  targets: [db]
  rules: [{name: rest, action: allow}]
`, list.String(), n.config, selector))
}

// databasePort is what the tests' documents protect.
const databasePort = 5432

// sniffer is the oracle: it sees each packet that comes out of a pod, and keeps those to a target's addresses.
type sniffer struct {
	mu   sync.Mutex
	seen []string
}

// sniff listens at the agent's end of the veth, outside of whatever the pod can do.
func (p *pod) sniff() *sniffer {
	p.n.t.Helper()
	device, err := net.InterfaceByName(p.device)
	if err != nil {
		p.n.t.Fatal(err)
	}
	everything := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		p.n.t.Fatal(err)
	}
	file := os.NewFile(uintptr(socket), "packets")
	p.n.t.Cleanup(func() { file.Close() })
	if err := unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: device.Index}); err != nil {
		p.n.t.Fatal(err)
	}
	s := &sniffer{}
	raw, err := file.SyscallConn()
	if err != nil {
		p.n.t.Fatal(err)
	}
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			var (
				n    int
				from unix.Sockaddr
				err  error
			)
			if raw.Read(func(fd uintptr) bool {
				n, from, err = unix.Recvfrom(int(fd), buffer, 0)
				return !errors.Is(err, unix.EAGAIN)
			}) != nil || err != nil {
				return
			}
			// What the agent's side sends goes the other way.
			if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			if what := p.toHost(buffer[:n]); what != "" {
				s.mu.Lock()
				s.seen = append(s.seen, what)
				s.mu.Unlock()
			}
		}
	}()
	return s
}

// toHost describes a frame to one of the target's addresses, of a protocol that carries data; "" for any other.
func (p *pod) toHost(frame []byte) string {
	const ethernet = 14
	if len(frame) < ethernet {
		return ""
	}
	packet := frame[ethernet:]
	var (
		destination netip.Addr
		protocol    byte
	)
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		if len(packet) < 20 {
			return ""
		}
		destination, protocol = netip.AddrFrom4([4]byte(packet[16:20])), packet[9]
	case unix.ETH_P_IPV6:
		if len(packet) < 40 {
			return ""
		}
		destination, protocol = netip.AddrFrom16([16]byte(packet[24:40])), packet[6]
	default:
		return ""
	}
	if destination != p.host4 && destination != p.host6 || protocol == unix.IPPROTO_ICMP || protocol == unix.IPPROTO_ICMPV6 {
		return ""
	}
	return fmt.Sprintf("protocol %d to %s: %x", protocol, destination, packet[:min(len(packet), 64)])
}

// count is how many packets were seen. The pod sends a marker, so that those before it have arrived.
func (s *sniffer) count(p *pod) int {
	p.n.t.Helper()
	marker := strconv.Itoa(os.Getpid()) + "-" + p.device
	socket, err := net.ListenPacket("udp", netip.AddrPortFrom(p.host4, 0).String())
	if err != nil {
		p.n.t.Fatal(err)
	}
	defer socket.Close()
	// From the pod's namespace and the test's cgroup, which is not enrolled.
	if err := onThread(p.namespace, func() error {
		conn, err := net.Dial("udp", socket.LocalAddr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte(marker))
		return err
	}); err != nil {
		p.n.t.Fatal(err)
	}
	hex := fmt.Sprintf("%x", marker)
	counted := 0
	p.n.wait("the marker on the wire", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, what := range s.seen {
			if strings.Contains(what, hex) {
				counted = i
				s.seen = append(s.seen[:i:i], s.seen[i+1:]...)
				return true
			}
		}
		return false
	})
	return counted
}

// none fails the test when the workload sent a packet to a target.
func (s *sniffer) none(t *testing.T, p *pod) {
	t.Helper()
	if n := s.count(p); n != 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		t.Errorf("%d packets from the workload to the target, the first: %s", n, s.seen[0])
		s.seen = nil
	}
}
