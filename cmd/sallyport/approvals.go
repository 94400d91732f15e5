package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/approval/api"
	"github.com/sallyport-dev/sallyport/pkg/localhttp"
)

// approvalsTimeout is how long the commands wait for an answer.
const approvalsTimeout = 10 * time.Second

// approvalsOptions are the flags that all commands about approvals have.
type approvalsOptions struct {
	runDir, output string
}

func newApprovalsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "approvals",
		Short: "List, show, approve and deny held statements",
		Long: `List, show, approve and deny statements that a rule with action "approve" holds. Who you are the agent knows from the kernel: the
rule says which users and groups of this host decide. Whoever runs the workload does not, and neither does a process of any workload.
Root sees everything, and decides where the rule names it.

What a workload sent is shown with its control characters escaped, so that it can not take over the terminal.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newApprovalsListCommand(), newApprovalsShowCommand(), newApprovalsDecideCommand(true), newApprovalsDecideCommand(false))
	return command
}

func (o *approvalsOptions) addFlags(command *cobra.Command) {
	command.Flags().StringVar(&o.runDir, "run-dir", defaultRunDir, "run directory of the agent")
	command.Flags().StringVarP(&o.output, "output", "o", "table", "how to print: table or json")
	must(command.MarkFlagDirname("run-dir"))
	must(command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
}

// json is whether to print JSON.
func (o *approvalsOptions) json() (bool, error) {
	if o.output != "table" && o.output != "json" {
		return false, fmt.Errorf("-o %q: want table or json", o.output)
	}
	return o.output == "json", nil
}

// complete offers the ids of requests that are pending.
func (o *approvalsOptions) complete(command *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(command.Context(), approvalsTimeout)
	defer cancel()
	list, _ := api.List(ctx, o.runDir, false) // what can not be asked is not offered
	var ids []string
	for _, r := range list {
		if strings.HasPrefix(r.ID, prefix) {
			ids = append(ids, r.ID+"\t"+sessionsClean(approvalsText(r, 60)))
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// approvalsError says what to do about an answer.
func approvalsError(err error) error {
	switch {
	case errors.Is(err, localhttp.ErrNobody):
		return fmt.Errorf("sallyport-capture is not running: %w", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (the run directory must be one that you may enter)", err)
	}
	return err
}

func newApprovalsListCommand() *cobra.Command {
	var options approvalsOptions
	var all bool
	command := &cobra.Command{
		Use:   "list",
		Short: "List held statements that you may see",
		Long:  `List held statements that you may see, the oldest first: those that wait for a decision, or with --all those of the last weeks too.`,
		Example: `  sallyport approvals list
  sallyport approvals list --all -o json | jq '.[] | select(.state == "denied") | .decision.reason'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(command *cobra.Command, _ []string) error {
			asJSON, err := options.json()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(command.Context(), approvalsTimeout)
			defer cancel()
			list, err := api.List(ctx, options.runDir, all)
			if err != nil {
				return approvalsError(err)
			}
			if asJSON {
				return approvalsJSON(command.OutOrStdout(), list)
			}
			return approvalsTable(command.OutOrStdout(), list, time.Now())
		},
	}
	options.addFlags(command)
	command.Flags().BoolVar(&all, "all", false, "also those that were decided, have expired or were withdrawn")
	return command
}

func newApprovalsShowCommand() *cobra.Command {
	var options approvalsOptions
	command := &cobra.Command{
		Use:   "show ID",
		Short: "Show a held statement whole",
		Long: `Show a held statement whole: who asks, where, by which rule, and what. Values of parameters are there where the policy records them
(record: {parameters: full}).`,
		Example:           `  sallyport approvals show 7f3kq2xa`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: options.complete,
		RunE: func(command *cobra.Command, args []string) error {
			asJSON, err := options.json()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(command.Context(), approvalsTimeout)
			defer cancel()
			r, err := api.Get(ctx, options.runDir, args[0])
			if err != nil {
				return approvalsError(err)
			}
			return options.print(command.OutOrStdout(), r, asJSON)
		},
	}
	options.addFlags(command)
	return command
}

func newApprovalsDecideCommand(approve bool) *cobra.Command {
	var options approvalsOptions
	var reason string
	command := &cobra.Command{
		Use:   "approve ID",
		Short: "Approve a held statement, which then runs",
		Long: `Approve a held statement, which then runs: this very statement with these parameters, once, or for as long as the rule's window
says. The first decision counts.`,
		Example: `  sallyport approvals approve 7f3kq2xa
  sallyport approvals approve 7f3kq2xa --reason "change 4711"`,
	}
	if !approve {
		command.Use, command.Short = "deny ID", "Deny a held statement"
		command.Long = `Deny a held statement. Its client gets an error with the reason, and its session goes on. The first decision counts.`
		command.Example = `  sallyport approvals deny 7f3kq2xa --reason "give it a WHERE clause"`
	}
	command.Args = cobra.ExactArgs(1)
	command.ValidArgsFunction = options.complete
	command.RunE = func(command *cobra.Command, args []string) error {
		asJSON, err := options.json()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(command.Context(), approvalsTimeout)
		defer cancel()
		r, err := api.Decide(ctx, options.runDir, args[0], approve, reason)
		if err != nil {
			return approvalsError(err)
		}
		if asJSON {
			return options.print(command.OutOrStdout(), r, true)
		}
		_, err = fmt.Fprintf(command.OutOrStdout(), "%s %s: %s\n", r.ID, r.State, sessionsClean(approvalsText(r, 100)))
		return err
	}
	options.addFlags(command)
	command.Flags().StringVar(&reason, "reason", "", "why; it is recorded, and shown to the client with a denial")
	return command
}

// print prints one request.
func (o *approvalsOptions) print(w io.Writer, r api.View, asJSON bool) error {
	if asJSON {
		return approvalsJSON(w, r)
	}
	return approvalsShow(w, r, time.Now())
}

// approvalsJSON prints a value with what is not printable in its strings escaped.
func approvalsJSON(w io.Writer, v any) error {
	encoded, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(encoded)) {
		if _, err := fmt.Fprintln(w, sessionsCleanJSON([]byte(strings.TrimRight(line, "\n")))); err != nil {
			return err
		}
	}
	return nil
}

func approvalsTable(w io.Writer, list []api.View, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tSTATE\tLEFT\tWORKLOAD\tTARGET\tRULE\tYOURS\tTEXT")
	for _, r := range list {
		left := "-"
		if r.State == approval.Pending {
			left = sessionsDuration(max(0, r.Expires.Sub(now)).Round(time.Second))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.State, left, sessionsClean(r.Workload.Name), sessionsClean(r.Target),
			sessionsClean(r.Policy+"/"+r.Rule), yesNo(r.MayDecide), sessionsClean(approvalsText(r, 60)))
	}
	return table.Flush()
}

// approvalsText is a statement cut to a number of characters.
func approvalsText(r api.View, limit int) string {
	text := []rune(strings.Join(strings.Fields(r.Text), " "))
	if len(text) > limit {
		return string(text[:limit]) + "…"
	}
	return string(text)
}

func approvalsShow(w io.Writer, r api.View, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s:\t%s\n", name, sessionsClean(fmt.Sprintf(format, args...)))
	}
	line("request", "%s", r.ID)
	line("state", "%s", r.State)
	line("asked", "%s", sessionsTime(r.Created))
	if r.State == approval.Pending {
		line("until", "%s, %s from now", sessionsTime(r.Expires), sessionsDuration(max(0, r.Expires.Sub(now)).Round(time.Second)))
	}
	line("workload", "%s (cgroup %s)", r.Workload.Name, r.Workload.Cgroup)
	line("process", "%s (pid %d, uid %d)", r.Workload.Comm, r.Workload.PID, r.Workload.UID)
	line("target", "%s, database %s", r.Target, r.Database)
	line("session", "%s", r.Session)
	line("rule", "%s of policy %s", r.Rule, r.Policy)
	if r.Message != "" {
		line("message", "%s", r.Message)
	}
	line("approvers", "%s", strings.Join(r.Approvers, ", "))
	serves := "once"
	if r.Window > 0 {
		serves = "for the same statement again within " + (time.Duration(r.Window) * time.Second).String()
	}
	line("serves", "%s", serves)
	if d := r.Decision; d != nil {
		line("ended", "%s", sessionsTime(d.Time))
		if d.By != nil {
			line("by", "%s (uid %d)", d.By, d.By.UID)
		}
		if d.Reason != "" {
			line("reason", "%s", d.Reason)
		}
	}
	line("hash", "%s", r.Hash)
	if len(r.Parameters) > 0 {
		line("parameters", "%s", r.Parameters)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for i, text := range append([]string{r.Text}, r.Executes...) {
		heading := r.Kind
		if i > 0 {
			heading = "which executes"
		}
		fmt.Fprintf(w, "\n%s:\n", heading)
		for line := range strings.Lines(text) {
			fmt.Fprintln(w, "    "+sessionsClean(strings.TrimRight(line, "\r\n")))
		}
	}
	if r.Cut {
		fmt.Fprintln(w, "\n(of a request that has ended no more is kept than the beginning of what the policy has recorded; the session's record has it whole)")
	}
	return nil
}
