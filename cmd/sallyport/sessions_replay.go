package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-dev/sallyport/pkg/record"
)

// sessionsPace says how long a replay waits.
type sessionsPace struct {
	speed   float64       // 0: not at all
	maxWait time.Duration // 0: as long as it was
}

func newSessionsReplayCommand() *cobra.Command {
	var options sessionsOptions
	var pace sessionsPace
	command := &cobra.Command{
		Use:   "replay ID",
		Short: "Print a session's statements with their timing",
		Long: `Print a session's statements as they came, with the time between them, each with the decision and the result. Nothing is run.
ID may be cut short so long as it names one session. With -o json each event is a line of its own.`,
		Example: `  sallyport sessions replay 01HF7YAT3B6Q
  sallyport sessions replay 01HF7YAT3B6Q --speed 10 --max-wait 2s
  sallyport sessions replay 01HF7YAT3B6Q --speed 0 | less`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: options.complete,
		RunE: func(command *cobra.Command, args []string) error {
			asJSON, err := options.json()
			if err != nil {
				return err
			}
			// Not a comparison with < alone: it is false for NaN.
			if !(pace.speed >= 0 && pace.speed <= 1e6) {
				return fmt.Errorf("--speed %v: want 0, for no waiting, to 1000000", pace.speed)
			}
			if pace.maxWait < 0 {
				return fmt.Errorf("--max-wait %v: want 0, for no limit, or more", pace.maxWait)
			}
			summary, err := options.find(args[0], command.ErrOrStderr())
			if err != nil {
				return err
			}
			return sessionsReplay(command.Context(), command.OutOrStdout(), options.stateDir, summary.ID, pace, asJSON)
		},
	}
	options.addFlags(command)
	command.Flags().Float64Var(&pace.speed, "speed", 1, "how many times as fast; 0 prints everything at once")
	command.Flags().DurationVar(&pace.maxWait, "max-wait", 0, "longest pause; 0 for no limit")
	return command
}

func sessionsReplay(ctx context.Context, w io.Writer, dir, id string, pace sessionsPace, asJSON bool) error {
	var began, before time.Time
	for e, err := range record.Read(dir, id) {
		if err != nil {
			return err
		}
		if began.IsZero() {
			began, before = e.Time, e.Time
		}
		if err := pace.wait(ctx, e.Time.Sub(before)); err != nil {
			return err
		}
		before = e.Time
		text := sessionsCleanJSON(e.JSON) + "\n"
		if !asJSON {
			text = sessionsScene(e, e.Time.Sub(began))
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for as long as it was, at the pace. A clock that was set back makes no wait.
func (p sessionsPace) wait(ctx context.Context, d time.Duration) error {
	if p.speed == 0 {
		return nil
	}
	d = time.Duration(float64(d) / p.speed)
	if p.maxWait > 0 {
		d = min(d, p.maxWait)
	}
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sessionsScene is what a replay prints of an event: a line with the time, and an operation's statement, indented, line by line,
// so that no statement can look like a line of the replay.
func sessionsScene(e record.Entry, offset time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[+%.3fs] ", offset.Seconds())
	op := e.Operation
	if op == nil {
		fmt.Fprintf(&b, "%s %s\n", e.Type, sessionsDetail(e))
		return b.String()
	}
	fmt.Fprintf(&b, "%s: %s by %s", sessionsClean(op.Kind), sessionsClean(op.Decision), sessionsClean(sessionsRule(op)))
	if r := op.Result; r != nil {
		fmt.Fprintf(&b, ", %d rows in %s", r.Rows, sessionsDuration(r.Duration))
		if r.Error != "" {
			fmt.Fprintf(&b, ", error %s", sessionsClean(r.Error))
		}
	}
	b.WriteByte('\n')
	if e.Incomplete {
		b.WriteString("    " + sessionsText(e) + "\n")
		return b.String()
	}
	for line := range strings.Lines(op.Text) {
		b.WriteString("    " + sessionsClean(strings.TrimRight(line, "\r\n")) + "\n")
	}
	return b.String()
}
