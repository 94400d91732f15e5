package capture

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// node is a place to capture in: a bpffs and a part of the cgroup hierarchy of its own.
type node struct {
	t       testing.TB
	options Options
	base    string // the cgroup that holds the test's
}

// newNode needs root.
func newNode(t testing.TB) *node {
	t.Helper()
	hierarchy, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, base: "/sallyport-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)}
	bpffs := filepath.Join(t.TempDir(), "bpf")
	if err := os.Mkdir(bpffs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpffs", bpffs, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs (these tests need root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(bpffs, 0); err != nil {
			t.Error(err)
		}
	})
	n.options = Options{Instance: "0123456789ab", BPFFS: bpffs, Hierarchy: hierarchy, Log: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
		Canary: []string{"/proc/self/exe", canaryArgument}}
	t.Cleanup(func() {
		if err := Release(n.options); err != nil {
			t.Error(err)
		}
	})
	n.mkdir(n.base)
	return n
}

// mkdir makes a cgroup that goes away with the test.
func (n *node) mkdir(name string) {
	n.t.Helper()
	dir := n.options.Hierarchy.Dir(name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		wait(n.t, "the cgroup to be empty", func() bool {
			err := os.Remove(dir)
			return err == nil || errors.Is(err, os.ErrNotExist)
		})
	})
}

// cgroup makes a cgroup below the node's: its name and directory.
func (n *node) cgroup(name string) (string, string) {
	n.t.Helper()
	full := n.base + "/" + name
	n.mkdir(full)
	return full, n.options.Hierarchy.Dir(full)
}

// open opens capture; it is closed with the test at the latest.
func (n *node) open() *Capture {
	n.t.Helper()
	c, err := Open(n.options)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

func (n *node) enroll(c *Capture, name string) Enrolled {
	n.t.Helper()
	e, err := c.Enroll(name)
	if err != nil {
		n.t.Fatal(err)
	}
	return e
}

// wait waits for a condition.
func wait(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func targets(t testing.TB, c *Capture, endpoints ...string) {
	t.Helper()
	var list []handoff.Endpoint
	for _, text := range endpoints {
		to := netip.MustParseAddrPort(text)
		list = append(list, handoff.Endpoint{
			Target: "db",
			Prefix: netip.PrefixFrom(to.Addr(), to.Addr().BitLen()),
			Port:   to.Port(),
		})
	}
	if err := c.SetTargets(list); err != nil {
		t.Fatal(err)
	}
}

func pendingEntries(t testing.TB, c *Capture) int {
	t.Helper()
	var (
		key   bpf.CaptureFlow
		value bpf.CaptureOrigin
		n     int
	)
	entries := c.objects.Pending.Iterate()
	for entries.Next(&key, &value) {
		n++
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// occupySlots gives all slots to sockets that are nobody's, and took them so long ago.
func occupySlots(t testing.TB, c *Capture, age time.Duration) {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	for i := range c.objects.Slots.MaxEntries() {
		if err := c.objects.Slots.Put(i, bpf.CaptureSlot{Cookie: 1 << 63, Since: uint64(now.Nano() - int64(age))}); err != nil {
			t.Fatal(err)
		}
	}
}

func counter(t testing.TB, c *Capture, reason string) uint64 {
	t.Helper()
	counters, err := c.Counters()
	if err != nil {
		t.Fatal(err)
	}
	value, ok := counters[reason]
	if !ok {
		t.Fatalf("no counter %q", reason)
	}
	return value
}

// database is a real server that counts who reaches it directly.
type database struct {
	address string
	reached atomic.Int64
}

func newDatabase(t testing.TB, address string) *database {
	t.Helper()
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	d := &database{address: listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			d.reached.Add(1)
			discard(conn)
		}
	}()
	return d
}

// discard reads what a client sends and closes.
func discard(conn net.Conn) {
	buffer := make([]byte, len(payload))
	conn.Read(buffer)
	conn.Close()
}

// drain serves a listener until it closes.
func drain(listener *net.TCPListener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		discard(conn)
	}
}

// newHolder is a server that keeps its connections open.
func newHolder(t testing.TB, address string) string {
	t.Helper()
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	listener, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
		}
	}()
	return listener.Addr().String()
}

// usage is what a workload uses of pending.
func (c *Capture) usage(id uint64) (uint32, error) {
	var u bpf.CaptureUsage
	err := c.objects.Usages.Lookup(id, &u)
	return u.Own + u.Pooled, err
}
