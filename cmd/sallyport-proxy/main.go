// Command sallyport-proxy is the unprivileged half of the node agent: it terminates protocols, decides and records. It is
// started as root only to give everything up before it reads its first byte, and gets listeners, documents and the files that
// documents name from sallyport-capture.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/pki"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/postgres"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// version is set by the linker.
var version = "development"

type options struct {
	user, runDir, stateDir, metrics string
	logFormat, logLevel             string
	drain                           time.Duration
	threads                         int
}

func main() {
	var o options
	cmd := &cobra.Command{
		Use:   "sallyport-proxy",
		Short: "Terminate protocols, decide and record: the unprivileged half of the node agent",
		Long: `Terminate protocols, decide and record: the unprivileged half of the node agent.

It is started by "sallyport up", or by a service manager beside sallyport-capture. Started as root it becomes --user first
and gives up every capability; it refuses to run with any.`,
		Example:       "  sallyport-proxy --user sallyport --run-dir /run/sallyport --state-dir /var/lib/sallyport",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(*cobra.Command, []string) error { return run(o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.user, "user", "sallyport", "user name or numeric user id to run as, when started as root")
	f.StringVar(&o.runDir, "run-dir", "/run/sallyport", "directory of the sockets that both halves share")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/sallyport", "directory of records, keys and certificates")
	f.StringVar(&o.metrics, "metrics", "127.0.0.1:9464", "address that serves /metrics, /healthz and /readyz; empty for none")
	f.DurationVar(&o.drain, "drain", 10*time.Second, "how long sessions may go on after SIGTERM")
	f.IntVar(&o.threads, "threads", 0, "relay threads; 0 for one each processor")
	f.StringVar(&o.logFormat, "log-format", "console", "json or console")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	if err := cmd.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport-proxy:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if err := enterSandbox(o.user, o.stateDir, filepath.Join(o.runDir, "trust")); err != nil {
		return err
	}
	log, err := newLogger(o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	records, err := record.OpenStore(o.stateDir, log)
	if err != nil {
		return err
	}
	defer records.Close()
	ca, err := pki.Open(filepath.Join(o.stateDir, "pki"))
	if err != nil {
		return err
	}
	if err := ca.WriteTrust(filepath.Join(o.runDir, "trust")); err != nil {
		return err
	}
	if o.threads == 0 {
		o.threads = runtime.GOMAXPROCS(0)
	}
	// A relay thread sleeps in the kernel. While there are idle Ps the runtime leaves it its own, so that it does not have to
	// find another one at each wake-up.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + o.threads)
	engine, err := relay.NewEngine(o.threads)
	if err != nil {
		return err
	}
	defer engine.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	seam := &seam{path: filepath.Join(o.runDir, "handoff.sock"), log: log}
	p := proxy.New(proxy.Options{
		Protocols:    map[string]proxy.Protocol{postgres.Name: postgres.New(engine, sql.NewCache(), log)},
		Records:      records,
		Certificates: ca,
		Files:        seam,
		Metrics:      proxy.NewMetrics(registry),
		Log:          log,
	})
	if o.metrics != "" {
		closeMetrics, err := serveMetrics(o.metrics, registry, p.Ready, log)
		if err != nil {
			return err
		}
		defer closeMetrics()
	}
	log.Info("proxy started", zap.String("version", version), zap.Int("uid", os.Getuid()), zap.Int("threads", o.threads), zap.String("sandbox", sandboxSummary()))
	seam.run(ctx, p)
	draining, cancel := context.WithTimeout(context.Background(), o.drain)
	defer cancel()
	p.Drain(draining)
	log.Info("proxy stopped")
	return nil
}

// serveMetrics serves on an address until the returned function is called.
func serveMetrics(address string, registry *prometheus.Registry, ready func() error, log *zap.Logger) (func(), error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics", zap.Error(err))
		}
	}()
	return func() { _ = server.Close() }, nil
}

func newLogger(format, level string) (*zap.Logger, error) {
	c := zap.NewProductionConfig()
	if format == "console" {
		c.EncoderConfig = zap.NewDevelopmentEncoderConfig()
	}
	c.Encoding = format
	c.DisableStacktrace = true
	c.OutputPaths, c.ErrorOutputPaths = []string{"stderr"}, []string{"stderr"}
	if err := c.Level.UnmarshalText([]byte(level)); err != nil {
		return nil, err
	}
	log, err := c.Build()
	if err != nil {
		return nil, err
	}
	return log.Named("proxy"), nil
}

var _ handoff.Handler = (*proxy.Proxy)(nil)
