package nft

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// times is how often a workload that is measured does what it does.
const times = 2000

// dialAndTime is the nanoseconds of processor time that a connect(), or the sending of a datagram, takes: over loopback most of what the
// other side's kernel does is in it too, and what else the machine does is not.
func dialAndTime(how string) string {
	address, datagrams := strings.CutPrefix(how, "udp ")
	to := netip.MustParseAddrPort(address)
	sockaddr := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	measured := connectOnce
	if datagrams {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err == nil {
			err = unix.Connect(fd, sockaddr)
		}
		if err != nil {
			return err.Error()
		}
		measured = func(unix.Sockaddr) (time.Duration, error) {
			began := processorTime()
			_, err := unix.Write(fd, []byte("hello"))
			return processorTime() - began, err
		}
	}
	runtime.LockOSThread()
	var spent time.Duration
	for range times {
		one, err := measured(sockaddr)
		if err != nil {
			return err.Error()
		}
		spent += one
	}
	return strconv.FormatFloat(float64(spent.Nanoseconds())/times, 'f', 0, 64)
}

// connectOnce connects and resets, so that it does not run out of ports.
func connectOnce(to unix.Sockaddr) (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	began := processorTime()
	if err := unix.Connect(fd, to); err != nil {
		return 0, err
	}
	spent := processorTime() - began
	return spent, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// processorTime is the calling thread's.
func processorTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(err) // It exists since Linux 2.6.12.
	}
	return time.Duration(now.Nano())
}

// BenchmarkConnect is paired: each round measures all cases one after the other, so that whatever else the machine does strikes
// them alike.
func BenchmarkConnect(b *testing.B) {
	n := newNode(b)
	shop, other := n.mkdir("/shop"), n.mkdir("/other")
	server := n.database("127.9.8.7:0")
	db := "127.9.8.8:5432"
	sink, err := net.ListenPacket("udp", "127.9.8.7:0")
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	sums := map[string]float64{}
	measure := func(unit, cgroup, how string) {
		b.Helper()
		said := n.run(cgroup, nil, timeVariable+"="+how)
		value, err := strconv.ParseFloat(said, 64)
		if err != nil {
			b.Fatal(said)
		}
		sums[unit] += value
	}
	for b.Loop() {
		measure("ns/bare", shop, server)
		measure("ns/bare-datagram", shop, "udp "+sink.LocalAddr().String())
		c := n.open()
		if err := c.SetTargets(endpoints(db)); err != nil {
			b.Fatal(err)
		}
		e, err := c.Enroll(shop)
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for {
				conn, err := e.Listeners[0].Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		measure("ns/others", other, server)
		measure("ns/elsewhere", shop, server)
		measure("ns/captured", shop, db)
		measure("ns/datagram", shop, "udp "+sink.LocalAddr().String())
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		if err := Release(n.options); err != nil {
			b.Fatal(err)
		}
	}
	for unit, sum := range sums {
		b.ReportMetric(sum/float64(b.N), unit)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkEnrolment is one more workload in a namespace that has many.
func BenchmarkEnrolment(b *testing.B) {
	const many = 2000
	n := newNode(b)
	c := n.open()
	var list []handoff.Endpoint
	for i := range 100 {
		list = append(list, endpoint(fmt.Sprintf("10.1.2.%d:5432", i)))
	}
	if err := c.SetTargets(list); err != nil {
		b.Fatal(err)
	}
	for i := range many {
		if _, err := c.Enroll(n.mkdir("/w" + strconv.Itoa(i))); err != nil {
			b.Fatal(err)
		}
	}
	i := 0
	for b.Loop() {
		i++
		if _, err := c.Enroll(n.mkdir("/more" + strconv.Itoa(i))); err != nil {
			b.Fatal(err)
		}
	}
}
