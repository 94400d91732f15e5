package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/account"
	"github.com/sallyport-dev/sallyport/pkg/capture/control"
)

const (
	captureProgram = "sallyport-capture"
	proxyProgram   = "sallyport-proxy"
	// captureGrace is how long sallyport-capture may take to stop.
	captureGrace = 5 * time.Second
	// drainSlack is what the proxy gets beyond the drain to seal its records.
	drainSlack = 5 * time.Second
)

// captureModes are those of sallyport-capture, its default first.
var captureModes = []string{"auto", "ebpf", "nft"}

type upOptions struct {
	config, stateDir, runDir, metrics, proxyUser, libexecDir, capture string
	drain                                                             time.Duration
	sessions                                                          int
	log                                                               logOptions
}

func newUpCommand() *cobra.Command {
	var o upOptions
	command := &cobra.Command{
		Use:   "up --config DIR",
		Short: "Run the agent in the foreground",
		Long: `Run the agent in the foreground: sallyport-capture, which holds the kernel's part, and sallyport-proxy, which has no
privilege and speaks with workloads and targets. Both are started again when they die, and end with this process.

SIGTERM and SIGINT stop the agent: sessions get the drain time to end. The kernel's part stays, so that enrolled workloads
get "connection refused" and never a direct connection; "sallyport down" takes it away. SIGHUP reads the documents again.
SIGUSR2 starts both programs anew, as they are on disk by then, without a refused connection; see "sallyport upgrade".

The proxy runs as the user "sallyport" where there is one, else as uid 64817, which needs no entry in /etc/passwd.
Several agents can run side by side, each with its own --run-dir, --state-dir and --metrics.`,
		Example: `  sallyport up --config /etc/sallyport
  sallyport up --config ./docs --run-dir /run/sallyport-2 --state-dir /var/lib/sallyport-2 --metrics 127.0.0.1:9465`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return up(o) },
	}
	flags := command.Flags()
	flags.StringVar(&o.config, "config", "", "directory of the documents (required)")
	flags.StringVar(&o.stateDir, "state-dir", defaultStateDir, "directory for records and keys")
	flags.StringVar(&o.runDir, "run-dir", defaultRunDir, "directory for sockets, locks and trust files")
	flags.StringVar(&o.metrics, "metrics", "127.0.0.1:9464", "address that serves Prometheus metrics on /metrics")
	flags.StringVar(&o.proxyUser, "proxy-user", "", `user of the proxy, a name or a uid (default "sallyport" if it exists, else 64817)`)
	flags.StringVar(&o.libexecDir, "libexec-dir", "", "directory of sallyport-capture and sallyport-proxy (default: that of this program)")
	flags.StringVar(&o.capture, "capture", captureModes[0], "how to capture: ebpf, nft, or auto, which is nft only where ebpf can not be effective")
	flags.DurationVar(&o.drain, "drain", 10*time.Second, "how long sessions may go on after SIGTERM, and after an upgrade")
	flags.IntVar(&o.sessions, "sessions-per-workload", 10_000, "how many sessions one workload may have open")
	o.log.addFlags(command)
	must(command.MarkFlagRequired("config"))
	must(command.MarkFlagDirname("config"))
	must(command.RegisterFlagCompletionFunc("capture", cobra.FixedCompletions(captureModes, cobra.ShellCompDirectiveNoFileComp)))
	return command
}

// must is for mistakes of this program, such as a flag that is marked and not there.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func up(o upOptions) error {
	if os.Geteuid() != 0 {
		return errors.New("up needs root: it loads programs into the kernel and gives the proxy a user of its own")
	}
	if !slices.Contains(captureModes, o.capture) {
		return fmt.Errorf("--capture %q: want %s", o.capture, strings.Join(captureModes, ", "))
	}
	log, err := o.log.logger()
	if err != nil {
		return err
	}
	proxy, err := proxyAccount(o.proxyUser)
	if err != nil {
		return err
	}
	for _, dir := range []*string{&o.config, &o.stateDir, &o.runDir, &o.libexecDir} {
		if *dir == "" {
			continue
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	if o.libexecDir, err = findPrograms(o.libexecDir); err != nil {
		return err
	}
	if err := prepareRunDir(o.runDir); err != nil {
		return err
	}
	lock, err := lockRunDir(o.runDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := prepareTrustDir(o.runDir, proxy); err != nil {
		return err
	}
	if err := prepareStateDir(o.stateDir, proxy); err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return newAgent(o, proxy, log).run(ctx)
}

// proxyAccount is whom the proxy runs as; never root.
func proxyAccount(name string) (account.Account, error) {
	who, err := account.Default()
	if name != "" {
		who, err = account.Lookup(name)
	}
	if err != nil {
		return account.Account{}, fmt.Errorf("--proxy-user: %w", err)
	}
	if who.UID == 0 || who.GID == 0 {
		return account.Account{}, fmt.Errorf("--proxy-user %s: the proxy must not be root or of its group", name)
	}
	return who, nil
}

// findPrograms returns the directory of both children's programs: dir, or that of this program when dir is "".
func findPrograms(dir string) (string, error) {
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find this program's directory: %w", err)
		}
		dir = filepath.Dir(self)
	}
	for _, program := range []string{captureProgram, proxyProgram} {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return "", fmt.Errorf("%w (--libexec-dir says where it is)", err)
		}
	}
	return dir, nil
}

// An agent is both children and what is known of their readiness.
type agent struct {
	runDir      string
	log         *zap.Logger
	drain       time.Duration
	capture     *child
	newProxy    func(why string) *child
	supervision supervision
	fail        context.CancelCauseFunc // ends the agent

	upgrading sync.Mutex   // held by an upgrade
	proxies   atomic.Int64 // that are supervised
	retiring  sync.WaitGroup

	mu        sync.Mutex
	proxy     *child // the one that serves
	stopProxy func()
}

func newAgent(o upOptions, proxy account.Account, log *zap.Logger) *agent {
	a := &agent{runDir: o.runDir, log: log, drain: o.drain}
	a.capture = &child{
		name:    captureProgram,
		program: filepath.Join(o.libexecDir, captureProgram),
		arguments: func() []string {
			arguments := append([]string{"--config=" + o.config, "--run-dir=" + o.runDir, "--proxy-uid=" + strconv.Itoa(proxy.UID)},
				o.log.arguments()...)
			// An earlier sallyport-capture, which may be put back, does not know the flag.
			if o.capture != captureModes[0] {
				arguments = append(arguments, "--capture="+o.capture)
			}
			return arguments
		},
		first:    startFirst,
		started:  a.supervision.started,
		grace:    captureGrace,
		log:      log,
		restarts: make(chan struct{}, 1),
	}
	a.newProxy = func(why string) *child {
		return &child{
			name:    proxyProgram,
			program: filepath.Join(o.libexecDir, proxyProgram),
			arguments: func() []string {
				arguments := append([]string{"--user=" + strconv.Itoa(proxy.UID), "--run-dir=" + o.runDir, "--state-dir=" + o.stateDir,
					"--metrics=" + o.metrics, "--drain=" + o.drain.String(),
					"--sessions-per-workload=" + strconv.Itoa(o.sessions)}, o.log.arguments()...)
				if a.proxies.Load() > 1 {
					arguments = append(arguments, "--replaces")
				}
				return arguments
			},
			first:    why,
			started:  a.supervision.started,
			grace:    o.drain + drainSlack,
			log:      log,
			restarts: make(chan struct{}, 1),
		}
	}
	return a
}

// run is the agent's life: capture first, so that the proxy finds its sockets; at the end the proxy first, so that its
// sessions can drain. It returns nil when asked ended it.
func (a *agent) run(asked context.Context) error {
	ctx, cancel := context.WithCancelCause(asked)
	defer cancel(nil)
	a.fail = cancel
	stopCapture := a.start(a.capture, cancel)
	defer func() {
		stopCapture()
		a.log.Info("stopped; the kernel's part stays: enrolled workloads get connection refused until the agent is up again, " +
			"or until sallyport down takes it away")
	}()
	if err := a.awaitControl(ctx); err != nil {
		return reason(asked, ctx)
	}
	a.capture.settled.Store(true)

	first := a.newProxy(startFirst)
	a.serveWith(first, a.startProxy(first, cancel))
	defer a.stopProxies()
	stopUpgrades, err := a.serveUpgrades(ctx)
	if err != nil {
		return err
	}
	defer stopUpgrades()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	a.watch(ctx, signals)
	return reason(asked, ctx)
}

// reason is why ctx ended: nil when somebody asked for it, else the child that could not work.
func reason(asked, ctx context.Context) error {
	if asked.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// start supervises a child; its failure cancels all. The function that it returns stops the child and waits for its end.
func (a *agent) start(c *child, failed func(error)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.supervise(ctx); err != nil {
			failed(err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// startProxy is start for a proxy.
func (a *agent) startProxy(c *child, failed func(error)) (stop func()) {
	a.proxies.Add(1)
	end := a.start(c, failed)
	return func() {
		end()
		a.proxies.Add(-1)
	}
}

// serveWith makes a proxy the one that serves, and returns what stops the one before.
func (a *agent) serveWith(proxy *child, stop func()) (stopBefore func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	stopBefore = a.stopProxy
	a.proxy, a.stopProxy = proxy, stop
	return stopBefore
}

// serving is the proxy that serves.
func (a *agent) serving() *child {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.proxy
}

// stopProxies stops the proxy that serves, and waits for those that it has replaced.
func (a *agent) stopProxies() {
	stop := a.serveWith(nil, nil)
	stop()
	a.retiring.Wait()
}

// awaitControl returns when sallyport-capture answers on its control socket, or when ctx ends.
func (a *agent) awaitControl(ctx context.Context) error {
	for {
		if _, err := a.status(ctx); err == nil {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// status asks capture, which must answer in time.
func (a *agent) status(ctx context.Context) (control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return control.GetStatus(ctx, a.runDir)
}

// watch logs each change between ready and not ready, tells capture of starts and upgrades, and does what signals ask for, until
// ctx ends.
func (a *agent) watch(ctx context.Context, signals <-chan os.Signal) {
	ready, faults := false, ""
	interval := 50 * time.Millisecond
	for {
		status, err := a.status(ctx)
		if err == nil {
			if err := control.ReportSupervision(ctx, a.runDir, a.supervision.counts()); err != nil && ctx.Err() == nil {
				a.log.Debug("tell capture of starts and upgrades", zap.Error(err))
			}
		}
		now := statusFaults(status, err)
		switch {
		case ctx.Err() != nil:
			return
		case len(now) == 0 && !ready:
			ready, faults, interval = true, "", time.Second
			a.serving().settled.Store(true)
			a.log.Info("ready", zap.Uint64("revision", status.Revision))
			notifySystemd(a.log, "READY=1")
		case len(now) > 0 && (ready || strings.Join(now, "; ") != faults):
			ready, faults = false, strings.Join(now, "; ")
			if a.serving().settled.Load() {
				a.log.Warn("not ready", zap.Strings("because", now))
			}
		}
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			if s == syscall.SIGUSR2 {
				go a.upgrade(ctx) //nolint:errcheck // It has logged how it went.
				continue
			}
			if err := control.Reload(ctx, a.runDir); err != nil {
				a.log.Error("read the documents again", zap.Error(err))
			}
		case <-time.After(interval):
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// notifySystemd tells the service manager the agent's state, where it asked for that; sd_notify(3).
func notifySystemd(log *zap.Logger, state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	// A leading @ is the abstract namespace, which package net spells in the same way.
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		log.Warn("tell the service manager", zap.Error(err))
		return
	}
	defer connection.Close()
	if _, err := connection.Write([]byte(state)); err != nil {
		log.Warn("tell the service manager", zap.Error(err))
	}
}
