package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/sallyport-dev/sallyport/test/env"
)

func TestMetricsMoveAndFollowTheRules(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	for _, gone := range []string{"sallyport_decisions_total{", "sallyport_sessions{"} {
		if n := w.metric(gone); n != 0 {
			t.Errorf("%s is %v before anything happens", gone, n)
		}
	}
	open := w.wire()
	open.query("SELECT 1")
	w.psql("SELECT 1", "SELECT 2", "DROP TABLE t", "hello")
	want := map[string]float64{
		`sallyport_capture_effective`:                                                               1,
		`sallyport_documents_revision`:                                                              1,
		`sallyport_connections_captured_total{target="orders-db"}`:                                  2,
		`sallyport_sessions{target="orders-db"}`:                                                    1,
		`sallyport_leases_total{source="orders-app"}`:                                               2,
		`sallyport_decisions_total{action="allow",policy="orders",rule="rest",target="orders-db"}`:  3,
		`sallyport_decisions_total{action="deny",policy="orders",rule="no-ddl",target="orders-db"}`: 1,
		`sallyport_decisions_total{action="deny",policy="",rule="unparsable",target="orders-db"}`:   1,
		`sallyport_session_setup_seconds_count`:                                                     2,
		`sallyport_operation_added_seconds_count`:                                                   5,
		`sallyport_capture_events_total{reason="captured"}`:                                         2,
		`sallyport_record_errors_total`:                                                             0,
		`sallyport_document_errors_total`:                                                           0,
		`sallyport_panics_total`:                                                                    0,
	}
	for series, value := range want {
		t.Run(series, func(t *testing.T) {
			got := -1.0
			defer func() {
				if t.Failed() {
					t.Errorf("it is %v, want %v", got, value)
				}
			}()
			await(t, "the value", func() bool {
				got = w.metric(series)
				return got == value
			})
		})
	}
	for _, from := range []string{"client", "server"} {
		if n := w.metric(`sallyport_relayed_bytes_total{from="` + from + `"}`); n < 50 {
			t.Errorf("%v bytes from the %s are counted", n, from)
		}
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(w.Metrics())
	if got := env.Execute(t, check); got.Status != 0 || got.Stderr != "" {
		t.Errorf("promtool ended with %d and said\n%s%s", got.Status, got.Stdout, got.Stderr)
	}
}
