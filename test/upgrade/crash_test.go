package upgrade

import (
	"strings"
	"testing"
)

func TestKilledPartsNeverLetAConnectionPast(t *testing.T) {
	tests := []struct {
		name string
		// kill kills, and start brings back what does not come back by itself.
		kill, start func(n *node, capture, proxy int)
		// allowed are how connections may have gone, beside well. One that is dialled at the very moment at which new listeners
		// take the place of those that died is denied.
		allowed []string
		crashed []string
	}{
		{
			name:    "capture: sessions and new connections go on",
			kill:    func(n *node, capture, _ int) { kill(n.t, capture) },
			crashed: []string{"sallyport-capture"},
		},
		{
			name:    "the proxy: its sessions break, new connections wait",
			kill:    func(n *node, _, proxy int) { kill(n.t, proxy) },
			allowed: []string{lost},
			crashed: []string{"sallyport-proxy"},
		},
		{
			name:    "both: new connections are refused at once",
			kill:    func(n *node, capture, proxy int) { kill(n.t, capture, proxy) },
			allowed: []string{lost, refused, denied},
			crashed: []string{"sallyport-capture", "sallyport-proxy"},
		},
		{
			name:    "up, and with it both: new connections are refused at once until it is started again",
			kill:    func(n *node, _, _ int) { kill(n.t, n.up()) },
			start:   func(n *node, _, _ int) { n.wait("the end of up", n.Ended); n.start() },
			allowed: []string{lost, refused, denied},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			client := n.hammer()
			n.served(int64(*rate) / 2)
			for range 3 {
				capture, proxy := n.children()
				tt.kill(n, capture, proxy)
				if tt.start != nil {
					tt.start(n, capture, proxy)
				}
				n.wait("another process", func() bool {
					status := n.status()
					return status.Proxy.Ready && (int(status.Proxy.PID) != proxy || len(tt.allowed) == 0)
				})
				n.waitReady()
				n.served(int64(*rate) / 2)
			}
			client.stop().only(t, append(tt.allowed, fine)...)
			n.noneDirect()
			for _, program := range tt.crashed {
				want := `sallyport_process_starts_total{process="` + program + `",why="crash"} 3`
				n.wait("the metrics to tell of it", func() bool { return strings.Contains(n.Metrics(), want) })
			}
			n.sound()
		})
	}
}

func TestReadinessSaysThatTheProxyIsDead(t *testing.T) {
	n := newNode(t)
	_, proxy := n.children()
	kill(t, proxy)
	n.wait("status to say so", func() bool {
		out, err := n.Command("status", "--run-dir", n.RunDir).CombinedOutput()
		return err != nil && strings.Contains(string(out), "the proxy is not connected")
	})
	n.waitReady()
	if _, now := n.children(); now == proxy {
		t.Error("it is the same process")
	}
	n.sound()
}
