package proxy

import (
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// kernelCounters publishes what the BPF programs count, as the privileged half last told it.
type kernelCounters struct {
	desc *prometheus.Desc

	mu     sync.Mutex
	values map[string]uint64
}

func newKernelCounters() *kernelCounters {
	return &kernelCounters{desc: prometheus.NewDesc("sallyport_capture_events_total",
		"Connects that the kernel's part redirected or denied, by reason.", []string{"reason"}, nil)}
}

func (k *kernelCounters) set(values map[string]uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.values = maps.Clone(values)
}

// Describe implements prometheus.Collector.
func (k *kernelCounters) Describe(c chan<- *prometheus.Desc) { c <- k.desc }

// Collect implements prometheus.Collector.
func (k *kernelCounters) Collect(c chan<- prometheus.Metric) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for reason, n := range k.values {
		c <- prometheus.MustNewConstMetric(k.desc, prometheus.CounterValue, float64(n), reason)
	}
}
