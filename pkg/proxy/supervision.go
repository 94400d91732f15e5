package proxy

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// supervision publishes what the supervisor of both halves counts, as the privileged half last told it.
type supervision struct {
	starts, upgrades *prometheus.Desc

	counts atomic.Pointer[handoff.Supervision]
}

func newSupervision() *supervision {
	return &supervision{
		starts: prometheus.NewDesc("sallyport_process_starts_total",
			"Starts of the agent's processes, by why: start, crash or upgrade.", []string{"process", "why"}, nil),
		upgrades: prometheus.NewDesc("sallyport_upgrades_total", "Upgrades, by result: done or failed.", []string{"result"}, nil),
	}
}

// set keeps what is known when nothing is told: a capture that was just started has not heard of it.
func (s *supervision) set(counts *handoff.Supervision) {
	if counts != nil {
		s.counts.Store(counts)
	}
}

// Describe implements prometheus.Collector.
func (s *supervision) Describe(c chan<- *prometheus.Desc) {
	c <- s.starts
	c <- s.upgrades
}

// Collect implements prometheus.Collector.
func (s *supervision) Collect(c chan<- prometheus.Metric) {
	counts := s.counts.Load()
	if counts == nil {
		return
	}
	for process, starts := range counts.Starts {
		for why, n := range starts {
			c <- prometheus.MustNewConstMetric(s.starts, prometheus.CounterValue, float64(n), process, why)
		}
	}
	c <- prometheus.MustNewConstMetric(s.upgrades, prometheus.CounterValue, float64(counts.Upgrades), "done")
	c <- prometheus.MustNewConstMetric(s.upgrades, prometheus.CounterValue, float64(counts.FailedUpgrades), "failed")
}
