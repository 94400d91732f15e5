package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sallyport-dev/sallyport/pkg/record"
)

func newSessionsShowCommand() *cobra.Command {
	var options sessionsOptions
	command := &cobra.Command{
		Use:   "show ID",
		Short: "Show a session with its operations",
		Long: `Show a session: who, where and when, and then a line for each operation, in order, with the decision and the result. ID may
be cut short so long as it names one session. With -o json the operations have their results in them.`,
		Example: `  sallyport sessions show 01HF7YAT3B6Q
  sallyport sessions show 01HF7YAT3B6Q -o json | jq '.events[] | select(.decision == "deny") | .text'`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: options.complete,
		RunE: func(command *cobra.Command, args []string) (err error) {
			asJSON, err := options.json()
			if err != nil {
				return err
			}
			summary, err := options.find(args[0], command.ErrOrStderr())
			if err != nil {
				return err
			}
			out := bufio.NewWriter(command.OutOrStdout())
			defer func() {
				if flushed := out.Flush(); err == nil {
					err = flushed
				}
			}()
			if asJSON {
				return sessionsShowJSON(out, options.stateDir, summary)
			}
			return sessionsShow(out, options.stateDir, summary)
		},
	}
	options.addFlags(command)
	return command
}

// sessionsShowJSON prints {"session":…,"events":[…]}, event by event.
func sessionsShowJSON(w io.Writer, dir string, summary record.Summary) error {
	fmt.Fprintf(w, `{"session":%s,"events":[`, sessionsSummaryJSON(summary))
	separator := ""
	for e, err := range record.Read(dir, summary.ID) {
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s\n%s", separator, sessionsCleanJSON(e.JSON)); err != nil {
			return err
		}
		separator = ","
	}
	_, err := fmt.Fprint(w, "\n]}\n")
	return err
}

func sessionsShow(w io.Writer, dir string, s record.Summary) error {
	head := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	destination := s.Destination
	if s.Upstream != "" && s.Upstream != s.Destination {
		destination += " by way of " + s.Upstream
	}
	for _, line := range []struct{ name, value string }{
		{"session", s.ID},
		{"started", sessionsTime(s.Began)},
		{"duration", sessionsDuration(s.Duration)},
		{"workload", fmt.Sprintf("%s (cgroup %s)", s.Workload.Name, s.Workload.Cgroup)},
		{"process", sessionsProcess(s.Workload)},
		{"target", fmt.Sprintf("%s (%s) at %s", s.Target, s.Protocol, destination)},
		{"operations", fmt.Sprintf("%d, %d denied", s.Operations, s.Denied)},
		{"answers", fmt.Sprintf("%d rows, %d bytes", s.Rows, s.Bytes)},
		{"end", sessionsEnd(s)},
	} {
		fmt.Fprintf(head, "%s:\t%s\n", line.name, sessionsClean(line.value))
	}
	if s.ResultsLost > 0 {
		fmt.Fprintf(head, "lost:\t%d results that could not be written\n", s.ResultsLost)
	}
	if err := head.Flush(); err != nil {
		return err
	}
	// Lines of fixed columns: a session may be longer than what fits in memory.
	const columns = "%12s  %-13s  %-8s  %-28s  %8s  %9s  %-6s  %s\n"
	fmt.Fprintf(w, "\n"+columns, "TIME", "KIND", "DECISION", "RULE", "ROWS", "DURATION", "ERROR", "TEXT")
	for e, err := range record.Read(dir, s.ID) {
		if err != nil {
			return err
		}
		offset := "+" + strconv.FormatFloat(e.Time.Sub(s.Began).Seconds(), 'f', 6, 64)
		op := e.Operation
		if op == nil {
			if e.Type != "open" && e.Type != "close" {
				fmt.Fprintf(w, columns, offset, e.Type, "", "", "", "", "", sessionsDetail(e))
			}
			continue
		}
		rows, duration, code := "", "", ""
		if r := op.Result; r != nil {
			rows, duration, code = strconv.FormatInt(r.Rows, 10), sessionsDuration(r.Duration), r.Error
		}
		if _, err := fmt.Fprintf(w, columns, offset, sessionsClean(op.Kind), sessionsClean(op.Decision), sessionsClean(sessionsRule(op)),
			rows, duration, sessionsClean(code), sessionsText(e)); err != nil {
			return err
		}
	}
	return nil
}

// sessionsText is an operation's statement on one line.
func sessionsText(e record.Entry) string {
	if e.Incomplete {
		return "(its text was cut off when the proxy was stopped; it was not forwarded)"
	}
	text := sessionsClean(e.Operation.Text)
	for _, executed := range e.Operation.Executes {
		text += "  → " + sessionsClean(executed)
	}
	if p := e.Operation.Parameters; p != nil && !strings.HasPrefix(string(p), `{"count":`) {
		text += "  " + sessionsCleanJSON(p)
	}
	return text
}

// sessionsDetail is what an event says that is no operation.
func sessionsDetail(e record.Entry) string {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(e.JSON, &members); err != nil {
		return ""
	}
	for _, name := range []string{"seq", "time", "type"} {
		delete(members, name)
	}
	if len(members) == 0 {
		return ""
	}
	encoded, err := json.Marshal(members)
	if err != nil {
		return ""
	}
	return sessionsCleanJSON(encoded)
}

// sessionsRule names what decided.
func sessionsRule(op *record.OperationEntry) string {
	if op.Policy == "" {
		return op.Rule
	}
	return op.Policy + "/" + op.Rule
}

// sessionsProcess is who dialled.
func sessionsProcess(w record.Workload) string {
	if w.ProcessUnknown {
		return "unknown: captured by nftables"
	}
	return fmt.Sprintf("%s (pid %d, uid %d)", w.Comm, w.PID, w.UID)
}
