package capture

import (
	"syscall"
	"testing"
)

func TestPortOfADeadListenerIsNoUseToASquatter(t *testing.T) {
	n := newNode(t)
	n.mkdir("/named")
	c := &captured{node: n, pod: n.pod("/named/shop")}
	c.pause()
	c.db4, c.db6 = c.serve()
	n.protect(n.base+"/named/*", c.db4, c.db6)
	agent := n.start()
	c.proxied = n.proxy()
	c.await(t)
	port := c.listener()
	c.sniffer = c.sniff()
	stop(agent, syscall.SIGKILL)
	c.proxied.stop()
	if got := c.probe(t, "connect", c.db4); got != "ECONNREFUSED" {
		t.Errorf("with nobody there: %s", got)
	}
	if got := c.hostile(c.workload, nil, "bind", port).line(t); got != "EPERM" {
		t.Errorf("bound by name: %s", got)
	}
	// The kernel may choose the port for somebody, and no program is asked. A connection that is redirected there is denied.
	squatter := c.hostile(c.beside, nil, "listen", port)
	switch got := squatter.line(t); got {
	case "listening":
		if got := c.probe(t, "connect", c.db4); got != "EPERM" {
			t.Errorf("with a squatter: %s", got)
		}
	case "ENOPROTOOPT":
		// Before Linux 6.3 one would have to be lucky.
	default:
		t.Errorf("the squatter says %s", got)
	}
	c.none(t, c.pod)
}
