package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-dev/sallyport/pkg/capture/control"
)

// statusTimeout is how long status waits for an answer.
const statusTimeout = 10 * time.Second

// A statusReport is what -o json prints.
type statusReport struct {
	// Ready is true when capture is effective, the documents are in force, and the proxy has applied them.
	Ready bool `json:"ready"`
	// Faults are why not.
	Faults []string `json:"faults"`
	// Agent is what capture says of itself; null when nothing answers.
	Agent *control.Status `json:"agent"`
}

func newStatusCommand() *cobra.Command {
	var runDir, output string
	command := &cobra.Command{
		Use:   "status",
		Short: "Say whether the agent does what it promises",
		Long: `Say whether the agent does what it promises. The exit status is 0 only when capture is effective for every workload, the
documents in the directory are those in force, and the proxy is connected and has applied them. Otherwise, and when no agent
runs, it is 1, and the faults are listed. It needs root, as the agent's socket does.`,
		Example: `  sallyport status
  sallyport status -o json | jq .faults`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(command *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("-o %q: want table or json", output)
			}
			dir, err := filepath.Abs(runDir)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(command.Context(), statusTimeout)
			defer cancel()
			report := askStatus(ctx, dir)
			print := report.printTable
			if output == "json" {
				print = report.printJSON
			}
			if err := print(command.OutOrStdout()); err != nil {
				return err
			}
			if !report.Ready {
				return &exitError{status: 1}
			}
			return nil
		},
	}
	command.Flags().StringVar(&runDir, "run-dir", defaultRunDir, "run directory of the agent")
	command.Flags().StringVarP(&output, "output", "o", "table", "how to print: table or json")
	must(command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	return command
}

func askStatus(ctx context.Context, runDir string) statusReport {
	status, err := control.GetStatus(ctx, runDir)
	report := statusReport{Faults: statusFaults(status, err)}
	report.Ready = len(report.Faults) == 0
	if err == nil {
		report.Agent = &status
	}
	return report
}

// statusFaults are the reasons why an agent is not ready; none when it is.
func statusFaults(status control.Status, err error) []string {
	faults := []string{}
	switch {
	case errors.Is(err, os.ErrPermission):
		return append(faults, err.Error()+" (status needs root)")
	case err != nil:
		return append(faults, err.Error())
	}
	if !status.Effective {
		faults = append(faults, "capture is not effective: "+status.Reason)
	}
	for _, problem := range status.Problems {
		faults = append(faults, problem.String())
	}
	switch proxy := status.Proxy; {
	case !proxy.Connected:
		faults = append(faults, "the proxy is not connected")
	case proxy.Error != "":
		faults = append(faults, fmt.Sprintf("the proxy does not apply the documents: %s", proxy.Error))
	case proxy.Pending > 0:
		faults = append(faults, fmt.Sprintf("the proxy has not taken over the listeners of %d workloads yet", proxy.Pending))
	case proxy.Revision != status.Revision:
		faults = append(faults, fmt.Sprintf("the proxy has not applied the documents yet: it is at revision %d of %d", proxy.Revision, status.Revision))
	}
	return faults
}

func (r statusReport) printJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

func (r statusReport) printTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "ready\t%s\n", yesNo(r.Ready))
	for _, fault := range r.Faults {
		fmt.Fprintf(table, "fault\t%s\n", fault)
	}
	if r.Agent != nil {
		fmt.Fprintf(table, "version\t%s\n", r.Agent.Version)
		fmt.Fprintf(table, "capture\t%s\n", captureWords(r.Agent))
		for _, limit := range r.Agent.Limits {
			fmt.Fprintf(table, "limit\t%s\n", limit)
		}
		for _, guard := range r.Agent.Guards {
			if guard.Active {
				fmt.Fprintf(table, "guard\t%s\n", guard.Name)
			} else {
				fmt.Fprintf(table, "no guard\t%s: %s\n", guard.Name, guard.Reason)
			}
		}
		fmt.Fprintf(table, "documents\trevision %d\n", r.Agent.Revision)
		if r.Agent.Proxy.Connected {
			fmt.Fprintf(table, "proxy\tprocess %d, revision %d\n", r.Agent.Proxy.PID, r.Agent.Proxy.Revision)
		}
		for _, other := range r.Agent.Proxies {
			switch {
			case other.PID == r.Agent.Proxy.PID:
			case other.Leaving:
				fmt.Fprintf(table, "proxy\tprocess %d, drains\n", other.PID)
			default:
				fmt.Fprintf(table, "proxy\tprocess %d, does not serve yet\n", other.PID)
			}
		}
		fmt.Fprintf(table, "pins\t%s\n", r.Agent.Pins)
		for _, workload := range r.Agent.Workloads {
			state := "captured"
			if !workload.Effective {
				state = "not captured: " + workload.Reason
			}
			fmt.Fprintf(table, "workload\t%s %s\n", workload.Cgroup, state)
		}
	}
	return table.Flush()
}

// captureWords is how workloads are captured, and why.
func captureWords(status *control.Status) string {
	if status.ModeReason == "" {
		return status.Mode
	}
	return fmt.Sprintf("%s, because: %s", status.Mode, status.ModeReason)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
