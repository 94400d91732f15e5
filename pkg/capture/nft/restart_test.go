package nft

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// offer is what a proxy gives back of a workload.
func offer(t *testing.T, e capture.Enrolled) handoff.Offer {
	t.Helper()
	o := handoff.Offer{Generation: e.Generation}
	for _, l := range e.Listeners {
		file, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		o.Listeners = append(o.Listeners, file)
	}
	return o
}

func TestStartAdoptsWhatAnEarlierProcessLeft(t *testing.T) {
	n := newNode(t)
	shop, gone := n.pod("/shop"), n.mkdir("/gone")
	host := n.mkdir("/host")
	db := n.database(shop.host4.String() + ":5432")
	c := n.open()
	if err := c.SetTargets(endpoints(db)); err != nil {
		t.Fatal(err)
	}
	first := map[uint64]capture.Enrolled{}
	offers := map[uint64]handoff.Offer{}
	for _, name := range []string{shop.cgroup, host, gone} {
		e, err := c.Enroll(name)
		if err != nil {
			t.Fatal(err)
		}
		first[e.ID] = e
		offers[e.ID] = offer(t, e)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	// The offered files still listen, and nobody accepts; without them there is nobody.
	if err := os.Remove(n.options.Hierarchy.Dir(gone)); err != nil {
		t.Fatal(err)
	}
	left, err := Left(n.options)
	if err != nil || len(left) != 2 {
		t.Errorf("left are %v, %v: want two", left, err)
	}
	n.options.Offers = offers
	c = n.open()
	for _, e := range c.Workloads() {
		if before := first[e.ID]; before.Workload != e.Workload {
			t.Errorf("got %+v: want %+v", e.Workload, before.Workload)
		}
		n.proxy(e)
	}
	if got := shop.dial("tcp", db); got != "proxy for "+db {
		t.Errorf("the pod: %q", got)
	}
	if got := n.dial(host, "tcp", db); got != "proxy for "+db {
		t.Errorf("on the host: %q", got)
	}
	if status := c.Status(); !status.Effective || len(status.Workloads) != 2 {
		t.Errorf("got %+v", status)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	// Without the proxy's listeners.
	for _, o := range offers {
		o.Close()
	}
	if got := shop.dial("tcp", db); got != "ECONNREFUSED" {
		t.Errorf("nobody listens: %q", got)
	}
	if got := n.dial(host, "tcp", db); got != "ECONNREFUSED" {
		t.Errorf("nobody listens on the host: %q", got)
	}
	n.options.Offers = nil
	c = n.open()
	for _, e := range c.Workloads() {
		if before := first[e.ID]; e.Generation <= before.Generation {
			t.Errorf("generation %d is not newer than %d", e.Generation, before.Generation)
		}
		n.proxy(e)
	}
	if got := shop.dial("tcp", db); got != "proxy for "+db {
		t.Errorf("the pod, again: %q", got)
	}
}

func TestOffersThatDoNotFitAreNotAdopted(t *testing.T) {
	n := newNode(t)
	shop := n.mkdir("/shop")
	c := n.open()
	e, err := c.Enroll(shop)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	file, err := stranger.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n.options.Offers = map[uint64]handoff.Offer{e.ID: {Generation: e.Generation, Listeners: []*os.File{file}}}
	c = n.open()
	got := c.Workloads()
	if len(got) != 1 || got[0].Generation <= e.Generation || got[0].Listeners[0].Addr().String() == stranger.Addr().String() {
		t.Errorf("got %+v", got)
	}
}

func TestOlderConnectionsEnd(t *testing.T) {
	n := newNode(t)
	shop := n.mkdir("/shop")
	listener, err := net.Listen("tcp", "127.9.8.7:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	db := listener.Addr().String()
	dial := exec.Command("/proc/self/exe")
	dial.Env = append(os.Environ(), dialVariable+"=tcp "+db)
	older := n.start(dial, shop, nil)
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := n.open()
	e, err := c.Enroll(shop)
	if err != nil || e.Reset+e.Left != 0 {
		t.Fatalf("got %+v, %v", e, err)
	}
	// It becomes one that is to be captured with the target.
	if err := c.SetTargets(endpoints(db)); err != nil {
		t.Fatal(err)
	}
	if got, err := older.output(); got != "" || err != nil {
		t.Errorf("the workload read %q, %v", got, err)
	}
	if got := c.Workloads()[0]; got.Reset+got.Left != 1 {
		t.Errorf("got %+v", got)
	}
	n.proxy(c.Workloads()[0])
	if got := n.dial(shop, "tcp", db); got != "proxy for "+db {
		t.Errorf("a new one: %q", got)
	}
}

func TestInnerWorkloadIsTheWorkload(t *testing.T) {
	n := newNode(t)
	outer, inner := n.mkdir("/outer"), n.mkdir("/outer/inner")
	db := n.database("127.9.8.7:0")
	c := n.open()
	if err := c.SetTargets(endpoints(db)); err != nil {
		t.Fatal(err)
	}
	n.enrolled(c, outer)
	if got := n.dial(inner, "tcp", db); got != "proxy for "+db {
		t.Errorf("below the outer: %q", got)
	}
	e, err := c.Enroll(inner)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range e.Listeners {
		l.Close()
	}
	if got := n.dial(inner, "tcp", db); got != "ECONNREFUSED" {
		t.Errorf("the inner one's listener is dead: %q", got)
	}
	if got := n.dial(outer, "tcp", db); got != "proxy for "+db {
		t.Errorf("the outer: %q", got)
	}
	if err := c.Withdraw(e.ID); err != nil {
		t.Fatal(err)
	}
	if got := n.dial(inner, "tcp", db); got != "proxy for "+db {
		t.Errorf("after the inner one was withdrawn: %q", got)
	}
}
