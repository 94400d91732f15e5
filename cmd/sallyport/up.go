package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
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

type upOptions struct {
	config, stateDir, runDir, metrics, proxyUser, libexecDir string
	drain                                                    time.Duration
	log                                                      logOptions
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
	flags.DurationVar(&o.drain, "drain", 10*time.Second, "how long sessions may go on after SIGTERM")
	o.log.addFlags(command)
	must(command.MarkFlagRequired("config"))
	must(command.MarkFlagDirname("config"))
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
	runDir         string
	capture, proxy *child
	log            *zap.Logger
}

func newAgent(o upOptions, proxy account.Account, log *zap.Logger) *agent {
	return &agent{
		runDir: o.runDir,
		log:    log,
		capture: &child{
			name:    captureProgram,
			program: filepath.Join(o.libexecDir, captureProgram),
			arguments: append([]string{"--config=" + o.config, "--run-dir=" + o.runDir,
				"--proxy-uid=" + strconv.Itoa(proxy.UID)}, o.log.arguments()...),
			grace: captureGrace,
			log:   log,
		},
		proxy: &child{
			name:    proxyProgram,
			program: filepath.Join(o.libexecDir, proxyProgram),
			arguments: append([]string{"--user=" + strconv.Itoa(proxy.UID), "--run-dir=" + o.runDir, "--state-dir=" + o.stateDir,
				"--metrics=" + o.metrics, "--drain=" + o.drain.String()}, o.log.arguments()...),
			grace: o.drain + drainSlack,
			log:   log,
		},
	}
}

// run is the agent's life: capture first, so that the proxy finds its sockets; at the end the proxy first, so that its
// sessions can drain. It returns nil when asked ended it.
func (a *agent) run(asked context.Context) error {
	ctx, cancel := context.WithCancelCause(asked)
	defer cancel(nil)
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

	stopProxy := a.start(a.proxy, cancel)
	defer stopProxy()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	a.watch(ctx, hangups)
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
func (a *agent) start(c *child, failed context.CancelCauseFunc) (stop func()) {
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

// watch logs each change between ready and not ready, and passes on requests to read the documents again, until ctx ends.
func (a *agent) watch(ctx context.Context, hangups <-chan os.Signal) {
	ready, faults := false, ""
	interval := 50 * time.Millisecond
	for {
		status, err := a.status(ctx)
		now := statusFaults(status, err)
		switch {
		case ctx.Err() != nil:
			return
		case len(now) == 0 && !ready:
			ready, faults, interval = true, "", time.Second
			a.proxy.settled.Store(true)
			a.log.Info("ready", zap.Uint64("revision", status.Revision))
			notifySystemd(a.log, "READY=1")
		case len(now) > 0 && (ready || strings.Join(now, "; ") != faults):
			ready, faults = false, strings.Join(now, "; ")
			if a.proxy.settled.Load() {
				a.log.Warn("not ready", zap.Strings("because", now))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-hangups:
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
