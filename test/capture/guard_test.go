package capture

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// told are the events of a reason that the proxy was told of.
func (c *captured) told(reason string) []handoff.CaptureEvent {
	return get(c.proxied, func() []handoff.CaptureEvent {
		var found []handoff.CaptureEvent
		for _, e := range c.proxied.events {
			if e.Reason == reason {
				found = append(found, e)
			}
		}
		return found
	})
}

func TestProxyIsToldWhoWasDeniedWhat(t *testing.T) {
	c := newCaptured(t)
	for _, test := range []struct {
		how  string
		want handoff.CaptureEvent
	}{
		{"udp", handoff.CaptureEvent{Reason: "denied_udp", Destination: c.db4, Protocol: "udp"}},
		{"nested-connect", handoff.CaptureEvent{Reason: "denied_netns", Destination: c.db6, Protocol: "tcp"}},
		{"raw", handoff.CaptureEvent{Reason: "denied_socket", Protocol: "raw"}},
		{"bind", handoff.CaptureEvent{Reason: "denied_bind", Destination: c.listener(), Protocol: "tcp"}},
	} {
		t.Run(test.want.Reason, func(t *testing.T) {
			to := test.want.Destination
			if !to.IsValid() {
				to = c.db4
			}
			h := c.hostile(c.workload, nil, test.how, to)
			if got := h.line(t); got != "EPERM" {
				t.Errorf("got %s", got)
			}
			c.node.wait("the event", func() bool { return len(c.told(test.want.Reason)) > 0 })
			events := c.told(test.want.Reason)
			got, want := events[0], test.want
			if got.Time.IsZero() || got.NetnsCookie == 0 || len(events) != 1 {
				t.Errorf("got %+v", events)
			}
			want.Time, want.NetnsCookie = got.Time, got.NetnsCookie
			want.WorkloadID, want.CgroupID, want.Cgroup = c.id, c.id, c.pod.cgroup
			want.PID, want.Comm = uint32(h.Process.Pid), "exe"
			if got != want {
				t.Errorf("got %+v: want %+v", got, want)
			}
		})
	}
}

func TestFloodOfDenialsIsCountedAndDrownsNobody(t *testing.T) {
	c := newCaptured(t)
	quiet := c.node.pod("/named/quiet")
	quiet.pause()
	c.node.wait("the second pod", func() bool { return len(c.status().Workloads) == 2 })
	before := c.counter(t, "denied_udp")
	if got := c.probe(t, "flood", c.db4); got != "EPERM" {
		t.Errorf("got %s", got)
	}
	if got := c.counter(t, "denied_udp") - before; got != floodSize {
		t.Errorf("%d denials were counted: want %d", got, floodSize)
	}
	if got := quiet.probe(t, "udp", c.db4); got != "EPERM" {
		t.Errorf("the quiet one: %s", got)
	}
	c.node.wait("the quiet one's event", func() bool {
		for _, e := range c.told("denied_udp") {
			if e.Cgroup == quiet.cgroup {
				return e.Suppressed == 0
			}
		}
		return false
	})
	if got := len(c.told("denied_udp")); got > floodSize/10 {
		t.Errorf("%d events of %d denials", got, floodSize)
	}
	if got := c.counter(t, "lost_event"); got != 0 {
		t.Errorf("%d events were lost", got)
	}
	c.none(t, c.pod)
}

func TestListenersFollowTheWorkloadsNetworkNamespace(t *testing.T) {
	n := newNode(t)
	n.mkdir("/named")
	c := &captured{node: n, pod: n.pod("/named/shop")}
	c.db4, c.db6 = c.serve()
	n.protect(n.base+"/named/*", c.db4, c.db6)
	n.start()
	c.proxied = n.proxy()
	c.await(t) // Nobody is in the cgroup yet.
	c.sniffer = c.sniff()
	first := c.sleeper()
	c.node.wait("listeners where the first process is", func() bool {
		got := c.probe(t, "connect", c.db4)
		if got != "proxy" && got != "EPERM" {
			t.Errorf("meanwhile: %s", got)
		}
		return got == "proxy"
	})
	c.none(t, c.pod)

	// As when a pod's sandbox is made again: another namespace, the same cgroup.
	again := n.pod("/again")
	again.cgroup = c.pod.cgroup
	if got := again.probe(t, "connect", c.db4); got != "EPERM" {
		t.Errorf("beside the first: %s", got)
	}
	second := again.sleeper()
	first.Process.Kill()
	first.Wait()
	defer func() {
		second.Process.Kill()
		second.Wait()
	}()
	c.node.wait("listeners where the second process is", func() bool {
		got := again.probe(t, "connect", c.db6)
		if got != "proxy" && got != "EPERM" {
			t.Errorf("meanwhile: %s", got)
		}
		return got == "proxy"
	})
	if status := c.status(); !status.Effective {
		t.Error(status.Reason)
	}
}

// sleeper starts a process of the workload that the caller may end.
func (p *pod) sleeper() *exec.Cmd {
	cmd := p.start(exec.Command("sleep", "600"), true)
	p.n.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return cmd
}

func TestWorkloadThatCanHaveNoListenerIsDeniedAndReported(t *testing.T) {
	n := newNode(t)
	n.mkdir("/named")
	c := &captured{node: n, pod: n.pod("/named/shop")}
	c.pause()
	c.db4, c.db6 = c.serve()
	loopback := func(what string) {
		t.Helper()
		if err := c.pod.start(exec.Command("ip", "address", what, "127.0.0.1/8", "dev", "lo"), false).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	loopback("del")
	n.protect(n.base+"/named/*", c.db4, c.db6)
	n.start()
	c.proxied = n.proxy()
	n.wait("the fault to be reported", func() bool {
		status := n.status()
		return !status.Effective && len(status.Workloads) == 1 && strings.Contains(status.Reason, "open a listener")
	})
	c.sniffer = c.sniff()
	if got := c.probe(t, "connect", c.db4); got != "EPERM" {
		t.Errorf("got %s", got)
	}
	c.none(t, c.pod)
	loopback("add")
	c.await(t)
	if got := c.probe(t, "connect", c.db4); got != "proxy" {
		t.Errorf("afterwards: %s", got)
	}
	c.none(t, c.pod)
}
