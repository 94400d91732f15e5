// Command sallyport-capture is the privileged half of the node agent: it loads the BPF programs, enrols workloads, opens
// their listeners, reads the documents, and hands all that to sallyport-proxy. It parses nothing that a workload sends.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/capture/nft"
	"github.com/sallyport-dev/sallyport/pkg/openfiles"
)

// version is set by the linker.
var version = "development"

const defaultRunDir = "/run/sallyport"

type options struct {
	config, runDir, capture, logFormat, logLevel string
	proxyUID                                     uint32
}

func main() {
	if err := newCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport-capture:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	var o options
	command := &cobra.Command{
		Use:   "sallyport-capture",
		Short: "Capture workloads and hand them to the proxy: the privileged half of the node agent",
		Long: `Capture workloads and hand them to the proxy: the privileged half of the node agent.

It is started by "sallyport up", or by a service manager beside sallyport-proxy. SIGHUP reads the documents again. When it
stops, workloads stay captured and get connection refused; "release" ends that.`,
		Example:       "  sallyport-capture --config /etc/sallyport --proxy-uid 990",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(*cobra.Command, []string) error { return up(o) },
	}
	flags := command.Flags()
	flags.StringVar(&o.config, "config", "/etc/sallyport", "directory of documents")
	flags.StringVar(&o.runDir, "run-dir", defaultRunDir, "directory of the sockets that both halves share")
	flags.StringVar(&o.capture, "capture", modeAuto, "how to capture: ebpf, nft, or auto, which is nft only where ebpf can not be effective")
	flags.Uint32Var(&o.proxyUID, "proxy-uid", 0, "user id of sallyport-proxy, which alone may have the listeners")
	flags.StringVar(&o.logFormat, "log-format", "console", "json or console")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	if err := command.MarkFlagRequired("proxy-uid"); err != nil {
		panic(err) // The flag is defined above.
	}
	command.AddCommand(newReleaseCommand(), newCanaryCommand())
	return command
}

func newReleaseCommand() *cobra.Command {
	var runDir string
	command := &cobra.Command{
		Use:     "release",
		Short:   "End capture: remove the kernel's part of a stopped agent",
		Long:    `End capture: remove the kernel's part of a stopped agent. Its workloads connect directly from then on.`,
		Example: "  sallyport-capture release --run-dir /run/sallyport",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return release(runDir) },
	}
	command.Flags().StringVar(&runDir, "run-dir", defaultRunDir, "run directory of the agent")
	return command
}

// canaryCommand is what the agent starts in a cgroup of its own to see that it is captured.
const canaryCommand = "canary"

func newCanaryCommand() *cobra.Command {
	return &cobra.Command{
		Use:    canaryCommand + " ADDRESS",
		Short:  "Dial an address, for the agent to see that it is captured",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return capture.RunCanary(args[0]) },
	}
}

// up runs until SIGTERM or SIGINT.
func up(o options) error {
	if os.Geteuid() != 0 {
		return errors.New("capture needs root: it loads programs into the kernel")
	}
	// Password files pass through: no core dump, see PR_SET_DUMPABLE(2const).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	log, err := newLogger(o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	defer log.Sync() //nolint:errcheck // Standard error can not always be synced.
	files, err := openfiles.Raise(capture.OpenFiles(capture.MaxWorkloads))
	if err != nil {
		return err
	}
	if files < capture.OpenFiles(capture.MaxWorkloads) {
		log.Info("the limit of open files (RLIMIT_NOFILE) lets fewer workloads be enrolled than the kernel's part can hold",
			zap.Uint64("limit", files), zap.Uint64("workloads", capture.Room(files)), zap.Int("kernel", capture.MaxWorkloads))
	}
	if o.runDir, err = filepath.Abs(o.runDir); err != nil {
		return err
	}
	if o.config, err = filepath.Abs(o.config); err != nil {
		return err
	}
	// The proxy must reach its socket in it.
	if err := os.MkdirAll(o.runDir, 0o755); err != nil {
		return err
	}
	lock, err := lockRunDir(o.runDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	a, err := newAgent(o, log)
	if err != nil {
		return err
	}
	err = a.run(ctx, hangups)
	log.Info("capture stopped; workloads stay captured, and the proxy goes on with the listeners that it has")
	return errors.Join(err, a.close())
}

func release(runDir string) error {
	if os.Geteuid() != 0 {
		return errors.New("release needs root: it removes programs from the kernel")
	}
	lock, err := lockRunDir(runDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if lock != nil {
		defer lock.Close()
	}
	instance, err := capture.Instance(runDir)
	if err != nil {
		return err
	}
	return errors.Join(
		capture.Release(capture.Options{Instance: instance}),
		nft.Release(nft.Options{Instance: instance, Dir: nftDir(runDir)}),
	)
}

// lockPatience is how long to wait for a predecessor that is about to end: one that dies with its supervisor has not let go yet.
const lockPatience = 5 * time.Second

// lockRunDir makes sure that one sallyport-capture alone uses a run directory, until the file is closed; flock(2).
func lockRunDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "capture.lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 250) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return file, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		case time.Now().After(deadline):
			file.Close()
			return nil, fmt.Errorf("another sallyport-capture runs on %s", dir)
		}
	}
}

func newLogger(format, level string) (*zap.Logger, error) {
	config := zap.NewProductionConfig()
	parsed, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	config.Level = zap.NewAtomicLevelAt(parsed)
	config.Sampling = nil
	config.DisableCaller, config.DisableStacktrace = true, true
	config.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	switch format {
	case "json":
	case "console":
		config.Encoding = "console"
		config.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	default:
		return nil, fmt.Errorf("--log-format %q: want json or console", format)
	}
	log, err := config.Build()
	if err != nil {
		return nil, fmt.Errorf("make the logger: %w", err)
	}
	return log.Named("capture"), nil
}
