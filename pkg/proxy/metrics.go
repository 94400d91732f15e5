package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// Metrics are the node agent's metrics, those of the privileged half included.
type Metrics struct {
	// FromClient and FromServer count relayed bytes.
	FromClient, FromServer prometheus.Counter

	captured, refused, decisions, leases, leaseErrors *prometheus.CounterVec
	masked                                            *prometheus.CounterVec
	recordErrors, documentErrors, panics              prometheus.Counter
	sessions, mode                                    *prometheus.GaugeVec
	revision, effective                               prometheus.Gauge
	added, setup                                      prometheus.Histogram
	kernel                                            *kernelCounters
	supervision                                       *supervision
	approvalMetrics
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sallyport", Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "sallyport", Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		v := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "sallyport", Name: name, Help: help, Buckets: buckets})
		r.MustRegister(v)
		return v
	}
	bytes := counter("relayed_bytes_total", "Bytes received for relaying, by the side that sent them.", "from")
	m := &Metrics{
		FromClient:     bytes.WithLabelValues("client"),
		FromServer:     bytes.WithLabelValues("server"),
		captured:       counter("connections_captured_total", "Captured connections whose workload and target are certain.", "target"),
		refused:        counter("connections_refused_total", "Connections that became no session.", "reason"),
		decisions:      counter("decisions_total", "Decisions on operations.", "target", "policy", "rule", "action"),
		leases:         counter("leases_total", "Credentials issued.", "source"),
		leaseErrors:    counter("lease_errors_total", "Credentials that could not be issued or given back.", "source"),
		masked:         counter("masked_values_total", "Values of results that were masked.", "target", "policy", "mask"),
		recordErrors:   counter("record_errors_total", "Events that could not be recorded; the operation was refused.").WithLabelValues(),
		documentErrors: counter("document_errors_total", "Documents that the proxy could not put in force.").WithLabelValues(),
		panics:         counter("panics_total", "Sessions that ended by a panic.").WithLabelValues(),
		sessions:       gauge("sessions", "Sessions that are open.", "target"),
		revision:       gauge("documents_revision", "Revision of the documents in force.").WithLabelValues(),
		effective:      gauge("capture_effective", "1 when the kernel's part was found in place on every enrolled workload.").WithLabelValues(),
		mode:           gauge("capture_mode", "1 for the way in which workloads are captured: ebpf, or nft, which promises less.", "mode"),
		added:          histogram("operation_added_seconds", "Time from reading an operation to having it decided and recorded.", prometheus.ExponentialBuckets(1e-6, 2, 20)),
		setup:          histogram("session_setup_seconds", "Time from accepting a connection to its being ready for operations.", prometheus.ExponentialBuckets(1e-4, 2, 18)),
		kernel:         newKernelCounters(),
		supervision:    newSupervision(),

		approvalMetrics: newApprovalMetrics(counter, gauge),
	}
	r.MustRegister(m.kernel, m.supervision)
	return m
}

func (m *Metrics) capture(s handoff.CaptureStatus) {
	m.effective.Set(0)
	if s.Effective {
		m.effective.Set(1)
	}
	for _, mode := range []string{handoff.ModeBPF, handoff.ModeNFT} {
		m.mode.WithLabelValues(mode).Set(0)
	}
	if s.Mode != "" {
		m.mode.WithLabelValues(s.Mode).Set(1)
	}
	m.kernel.set(s.Counters)
	m.supervision.set(s.Supervision)
}
