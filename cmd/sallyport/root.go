package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// defaultRunDir holds sockets, locks and trust files of the running agent.
	defaultRunDir = "/run/sallyport"
	// defaultStateDir holds what the proxy keeps: records, keys, its certificate authority.
	defaultStateDir = "/var/lib/sallyport"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "Guarded way out for a node's database connections",
		Long: `Sallyport captures the outbound database connections of enrolled workloads, injects credentials that the workloads
never see, decides on every statement by policy, and records all of it.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newUpCommand(),
		newRunCommand(),
		newStatusCommand(),
		newUpgradeCommand(),
		newDownCommand(),
		newCheckCommand(),
		newSessionsCommand(),
		newApprovalsCommand(),
	)
	return root
}

// logOptions are the flags that say how a process logs.
type logOptions struct {
	format, level string
}

func (o *logOptions) addFlags(command *cobra.Command) {
	command.Flags().StringVar(&o.format, "log-format", "console", "how log lines look: json or console")
	command.Flags().StringVar(&o.level, "log-level", "info", "least level that is logged: debug, info, warn or error")
}

// arguments are the same flags for a child process.
func (o *logOptions) arguments() []string {
	return []string{"--log-format=" + o.format, "--log-level=" + o.level}
}

// logger writes to standard error.
func (o *logOptions) logger() (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(o.level)
	if err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", o.level)
	}
	config := zap.NewProductionConfig()
	config.Level = zap.NewAtomicLevelAt(level)
	config.Sampling = nil
	config.DisableCaller, config.DisableStacktrace = true, true
	config.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	switch o.format {
	case "json":
	case "console":
		config.Encoding = "console"
		config.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	default:
		return nil, fmt.Errorf("--log-format %q: want json or console", o.format)
	}
	log, err := config.Build()
	if err != nil {
		return nil, fmt.Errorf("start the log: %w", err)
	}
	return log.Named("up"), nil
}
