package capture

import (
	"net"
	"strconv"
	"testing"
)

func TestCapturedSocketSaysWhereItsWorkloadMeantToGo(t *testing.T) {
	const each = 500
	for name, prepare := range map[string]func(*Capture){
		"while slots are free":  func(*Capture) {},
		"while slots are taken": func(c *Capture) { occupySlots(t, c, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			workload, dir := n.cgroup("shop")
			elsewhere := newHolder(t, "127.0.0.1:0")
			c := n.open()
			targets(t, c, db4, db6)
			prepare(c)
			for _, listener := range n.enroll(c, workload).Listeners {
				go hoard(t, listener)
			}
			for _, to := range []string{db4, db6, "[::ffff:192.0.2.10]:5432", elsewhere} {
				// Each socket is asked at the very moment at which it is connected, when the other end may not be.
				client := start(t, dir, "peers", nil, to, strconv.Itoa(each))
				if got := client.line(t); got != "all" {
					t.Errorf("%s: %s", to, got)
				}
			}
		})
	}
}

// hoard takes connections and keeps them until the test ends.
func hoard(t *testing.T, listener *net.TCPListener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
	}
}
