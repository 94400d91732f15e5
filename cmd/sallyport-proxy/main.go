// Command sallyport-proxy is the unprivileged half of the node agent: it terminates protocols, decides and records. It is
// started as root only to give everything up before it reads its first byte, and gets listeners, documents and the files that
// documents name from sallyport-capture.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/openfiles"
	"github.com/sallyport-dev/sallyport/pkg/pki"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/postgres"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// version is set by the linker.
var version = "development"

// openFiles is how many files a proxy wants to be able to open.
const openFiles = 1 << 20

type options struct {
	user, runDir, stateDir, metrics string
	logFormat, logLevel             string
	drain                           time.Duration
	threads, sessions               int
	replaces                        bool
}

func main() {
	var o options
	cmd := &cobra.Command{
		Use:   "sallyport-proxy",
		Short: "Terminate protocols, decide and record: the unprivileged half of the node agent",
		Long: `Terminate protocols, decide and record: the unprivileged half of the node agent.

It is started by "sallyport up", or by a service manager beside sallyport-capture. Started as root it becomes --user first
and gives up every capability; it refuses to run with any.

SIGTERM has it accept no more connections: sessions that are idle, outside a transaction, are told to go, one after the other,
the others when they are; what is left after --drain is cut off.`,
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
	f.BoolVar(&o.replaces, "replaces", false, "another proxy may run on these directories, and will end: write the record beside it, and serve metrics after it")
	f.IntVar(&o.threads, "threads", 0, "relay threads; 0 for one each processor")
	f.IntVar(&o.sessions, "sessions-per-workload", proxy.DefaultSessionsPerWorkload, "how many sessions one workload may have open")
	f.StringVar(&o.logFormat, "log-format", "console", "json or console")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	if err := cmd.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport-proxy:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.sessions < 1 {
		return errors.New("--sessions-per-workload must be positive")
	}
	// Root may go beyond the hard limit: this runs before and after it is given up.
	files, err := openfiles.Raise(openFiles)
	if err != nil {
		return err
	}
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

	records, err := openRecord(o, log)
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
	// A relay thread keeps its P while it waits in the kernel, so that it does not have to find another one at each wake-up; the
	// rest of the proxy has those of the processors.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + o.threads)
	// What lives is small, and short sessions leave much: the collector would run for each hundred of them. It counts this as
	// alive, and runs less often until what lives is large. Nobody touches it, so it takes no memory.
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	engine, err := relay.NewEngine(o.threads)
	if err != nil {
		return err
	}
	defer engine.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	seam := newSeam(filepath.Join(o.runDir, "handoff.sock"), log)
	p := proxy.New(proxy.Options{
		Engine:       engine,
		Protocols:    map[string]proxy.Protocol{postgres.Name: postgres.New(engine, sql.NewCache(), log)},
		Records:      records,
		Certificates: ca,
		Files:        seam,
		Metrics:      proxy.NewMetrics(registry),
		Log:          log,
		Limits:       proxy.Limits{PerWorkload: o.sessions, OpenFiles: files},
	})
	closeApprovals, err := p.OpenApprovals(filepath.Join(o.stateDir, "approvals"))
	if err != nil {
		return err
	}
	defer func() {
		if err := closeApprovals(); err != nil {
			log.Error("approvals", zap.Error(err))
		}
	}()
	closeMetrics := func() {}
	if o.metrics != "" {
		if closeMetrics, err = serveMetrics(o.metrics, o.replaces, registry, p.Ready, log); err != nil {
			return err
		}
	}
	log.Info("proxy started", zap.String("version", version), zap.Int("uid", os.Getuid()), zap.Int("threads", o.threads), zap.Uint64("open_files", files), zap.String("sandbox", sandboxSummary()))
	seamContext, hangUp := context.WithCancel(context.Background())
	defer hangUp()
	var connected sync.WaitGroup
	connected.Go(func() { seam.run(seamContext, p) })
	<-ctx.Done()
	// In this order: another proxy may serve by now, and waits for the address of the metrics.
	seam.leave()
	closeMetrics()
	draining, cancel := context.WithTimeout(context.Background(), o.drain)
	defer cancel()
	p.Drain(draining)
	hangUp()
	connected.Wait()
	log.Info("proxy stopped")
	return nil
}

// ballastBytes is as much garbage as there may always be, in addition to as much as there is alive.
const ballastBytes = 16 << 20

// lockTimeout is how long to wait for a proxy that is about to end: it dies a moment after its supervisor.
const lockTimeout = 2 * time.Second

func openRecord(o options, log *zap.Logger) (*record.Store, error) {
	if o.replaces {
		return record.JoinStore(o.stateDir, log)
	}
	deadline := time.Now().Add(lockTimeout)
	for {
		records, err := record.OpenStore(o.stateDir, log)
		if !errors.Is(err, record.ErrLocked) || time.Now().After(deadline) {
			return records, err
		}
		time.Sleep(10 * time.Millisecond)
	}
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
