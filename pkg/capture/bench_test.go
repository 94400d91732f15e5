package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/openfiles"
)

// enrolments is how many workloads BenchmarkEnrolment enrols before it measures.
const enrolments = 10_000

// dials connects so many times, one after the other, and prints the nanoseconds of processor time that one took from
// socket() to close(): the thread's, the kernel's work for both ends of loopback included, and nobody else's. It resets what it
// opened, so that it does not run out of ports.
func dials(to netip.AddrPort, count int) {
	runtime.LockOSThread()
	began := threadTime()
	for range count {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP)
		if err == nil {
			err = unix.Connect(fd, sockaddr(to))
		}
		if err == nil {
			err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		unix.Close(fd)
	}
	fmt.Println(float64((threadTime() - began).Nanoseconds()) / float64(count))
}

// threadTime is the processor time of the calling thread.
func threadTime() time.Duration {
	var spent unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &spent); err != nil {
		panic(err)
	}
	return time.Duration(spent.Nano())
}

// sends sends so many datagrams over a connected socket, and prints the nanoseconds that one took.
func sends(to netip.AddrPort, count int) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	runtime.LockOSThread()
	began := threadTime()
	for range count {
		if _, err := unix.Write(fd, []byte(payload)); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(float64((threadTime() - began).Nanoseconds()) / float64(count))
}

// measure runs a role so many times in a cgroup, and is the nanoseconds that one took.
func measure(b *testing.B, dir, role, to string, count int) float64 {
	b.Helper()
	client := start(b, dir, role, nil, to, strconv.Itoa(count))
	said := client.line(b)
	value, err := strconv.ParseFloat(said, 64)
	if err != nil {
		b.Fatal(said)
	}
	return value
}

// accepts takes connections and drops them.
func accepts(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// unguard leaves nothing but the redirection.
func unguard(b *testing.B, c *Capture, id uint64) {
	b.Helper()
	pinned := []string{c.pins.link(id, "guard_egress")}
	for _, name := range rootGuards {
		pinned = append(pinned, c.pins.root(name))
	}
	for _, pin := range pinned {
		attached, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(attached.Detach(), attached.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

// paired are measurements of several cases, taken in turn, so that whatever else the machine does strikes them alike.
type paired map[string][]float64

func (p paired) add(name string, value float64) { p[name] = append(p[name], value) }

// report reports each case's median, and the median of what it is more than the first in the same round.
func (p paired) report(b *testing.B, first string) {
	b.Helper()
	for name, values := range p {
		more := make([]float64, len(values))
		for i, value := range values {
			more[i] = value - p[first][i]
		}
		b.ReportMetric(median(values), "ns/"+name)
		if name != first {
			b.ReportMetric(median(more), "ns/"+name+"-more")
		}
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// BenchmarkConnect is what capture adds to a connection, on the client's side and the kernel's part of the server's.
func BenchmarkConnect(b *testing.B) {
	const each = 1000
	n := newNode(b)
	name, dir := n.cgroup("shop")
	_, other := n.cgroup("other")
	// As plain as a workload's listener.
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	server, err := config.Listen(b.Context(), "tcp4", "127.9.8.7:0")
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	go accepts(server)
	cases := paired{}
	for b.Loop() {
		cases.add("bare", measure(b, dir, "dials", server.Addr().String(), each))
		c := n.open()
		targets(b, c, db4)
		e := n.enroll(c, name)
		go accepts(e.Listeners[0])
		cases.add("others", measure(b, other, "dials", server.Addr().String(), each))
		cases.add("elsewhere", measure(b, dir, "dials", server.Addr().String(), each))
		cases.add("captured", measure(b, dir, "dials", db4, each))
		unguard(b, c, e.ID)
		cases.add("unguarded", measure(b, dir, "dials", db4, each))
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		if err := Release(n.options); err != nil {
			b.Fatal(err)
		}
	}
	cases.report(b, "bare")
}

// BenchmarkDatagram is what guard_egress adds to a packet of a workload, beside a program that does nothing: what the kernel
// itself takes to run one.
func BenchmarkDatagram(b *testing.B) {
	const each = 50_000
	n := newNode(b)
	name, dir := n.cgroup("shop")
	_, other := n.cgroup("other")
	_, nothing := n.cgroup("nothing")
	server, err := net.ListenPacket("udp4", "127.9.8.7:0")
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	c := n.open()
	targets(b, c, db4)
	n.enroll(c, name)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer program.Close()
	attached, err := link.AttachCgroup(link.CgroupOptions{Path: nothing, Attach: ebpf.AttachCGroupInetEgress, Program: program})
	if err != nil {
		b.Fatal(err)
	}
	defer attached.Close()
	cases := paired{}
	for b.Loop() {
		cases.add("others", measure(b, other, "sends", server.LocalAddr().String(), each))
		cases.add("nothing", measure(b, nothing, "sends", server.LocalAddr().String(), each))
		cases.add("workload", measure(b, dir, "sends", server.LocalAddr().String(), each))
	}
	cases.report(b, "others")
}

// BenchmarkPrograms is the time that each program takes for one run, as the kernel counts it, and the counting costs.
func BenchmarkPrograms(b *testing.B) {
	const each = 5000
	n := newNode(b)
	name, dir := n.cgroup("shop")
	server, err := net.ListenPacket("udp4", "127.9.8.7:0")
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	c := n.open()
	targets(b, c, db4)
	go accepts(n.enroll(c, name).Listeners[0])
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	for b.Loop() {
		measure(b, dir, "dials", db4, each)
		measure(b, dir, "sends", server.LocalAddr().String(), each)
	}
	for name, program := range c.programs {
		stats, err := program.Stats()
		if err != nil {
			b.Fatal(err)
		}
		if stats.RunCount > 0 {
			b.ReportMetric(float64(stats.Runtime.Nanoseconds())/float64(stats.RunCount), "ns/"+name)
		}
	}
}

// BenchmarkEnrolment is the enrolment of one more workload where there are many.
func BenchmarkEnrolment(b *testing.B) {
	n := newNode(b)
	c := n.open()
	targets(b, c, db4, db6)
	limit, err := openfiles.Raise(OpenFiles(enrolments))
	if err != nil {
		b.Fatal(err)
	}
	room := (int(limit) - 500) / 2 // Workloads whose listeners this process can hold.
	keep := startKeeper(b)
	before := openFiles(b)
	for i := range enrolments {
		name, _ := n.cgroup("w" + strconv.Itoa(i))
		e := n.enroll(c, name)
		if i >= room {
			// Another process holds them, as a proxy does.
			keep(b, e.Listeners)
			if err := c.workloads[e.ID].listeners.close(); err != nil {
				b.Fatal(err)
			}
		}
	}
	files := float64(openFiles(b)-before) / float64(min(enrolments, room))
	memory := uint64(0)
	for _, m := range []*ebpf.Map{
		c.objects.Targets4, c.objects.Targets6, c.objects.Workloads, c.objects.Usages, c.objects.ListenerPorts, c.objects.Pending,
		c.objects.Events, c.objects.Counters, c.objects.Dials, c.objects.Slots, c.objects.Origins, c.objects.TargetPorts, c.objects.Attached,
	} {
		info, err := m.Info()
		if err != nil {
			b.Fatal(err)
		}
		bytes, ok := info.Memlock()
		if !ok {
			b.Fatal("the kernel does not say what a map takes")
		}
		memory += bytes
	}
	name, _ := n.cgroup("one-more")
	for b.Loop() {
		e := n.enroll(c, name)
		b.StopTimer()
		if err := c.Withdraw(e.ID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	began := time.Now()
	if status := c.Check(); !status.Effective {
		b.Error(status.Reason)
	}
	b.ReportMetric(time.Since(began).Seconds()*1000, "ms/check")
	b.ReportMetric(float64(memory)/(1<<20), "MiB")
	b.ReportMetric(files, "files/workload")
}

// openFiles is how many this process has open.
func openFiles(b *testing.B) int {
	b.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		b.Fatal(err)
	}
	return len(entries)
}

// startKeeper starts a process that holds listeners that are passed to it.
func startKeeper(b *testing.B) func(*testing.B, []*net.TCPListener) {
	b.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	far := os.NewFile(uintptr(pair[1]), "far")
	defer far.Close()
	start(b, "", "keeper", func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{far} })
	b.Cleanup(func() { unix.Close(pair[0]) })
	return func(b *testing.B, listeners []*net.TCPListener) {
		b.Helper()
		for _, listener := range listeners {
			file, err := listener.File()
			if err != nil {
				b.Fatal(err)
			}
			if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(int(file.Fd())), nil, 0); err != nil {
				b.Fatal(err)
			}
			file.Close()
		}
	}
}

// keeper receives descriptors until nobody sends any more.
func keeper() {
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		if n, _, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0); err != nil || n == 0 {
			return
		}
	}
}
