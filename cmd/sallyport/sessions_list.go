package main

import (
	"fmt"
	"io"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-dev/sallyport/pkg/record"
)

// sessionsFilter says which sessions are listed; zero values ask for nothing.
type sessionsFilter struct {
	workload, target string
	since            time.Time
	denied, open     bool
}

func newSessionsListCommand() *cobra.Command {
	var options sessionsOptions
	var filter sessionsFilter
	var since string
	command := &cobra.Command{
		Use:   "list",
		Short: "List sessions",
		Long: `List sessions in the order in which they began, with their totals. Sessions that are open have the totals so far. Filters
add up: a session is listed when it fits all of them.`,
		Example: `  sallyport sessions list
  sallyport sessions list --workload /system.slice/shop.service --since 2h --denied
  sallyport sessions list --since 2026-01-31 -o json | jq '.[] | select(.rows > 1000) | .id'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(command *cobra.Command, _ []string) error {
			asJSON, err := options.json()
			if err != nil {
				return err
			}
			if since != "" {
				if filter.since, err = sessionsSince(since, time.Now()); err != nil {
					return err
				}
			}
			if _, err := path.Match(filter.workload, ""); err != nil {
				return fmt.Errorf("--workload %q: %w", filter.workload, err)
			}
			list, damaged, err := options.list(command.ErrOrStderr())
			if err != nil {
				return err
			}
			var chosen []record.Summary
			for _, s := range list {
				if filter.fits(s) {
					chosen = append(chosen, s)
				}
			}
			print := sessionsTable
			if asJSON {
				print = sessionsListJSON
			}
			if err := print(command.OutOrStdout(), chosen); err != nil {
				return err
			}
			if damaged {
				return &exitError{status: 1} // which has been said
			}
			return nil
		},
	}
	options.addFlags(command)
	flags := command.Flags()
	flags.StringVar(&filter.workload, "workload", "", "only this workload: its name, or its cgroup, where * stands for anything but /")
	flags.StringVar(&filter.target, "target", "", "only this target")
	flags.StringVar(&since, "since", "", "only sessions that began since: a duration (2h30m), a time (RFC 3339) or a date")
	flags.BoolVar(&filter.denied, "denied", false, "only sessions in which an operation was denied")
	flags.BoolVar(&filter.open, "open", false, "only sessions that are open")
	return command
}

// sessionsSince reads a duration before now, a time, or a date, which begins at midnight here.
func sessionsSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, text, now.Location()); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("--since %q: want a duration like 2h30m, a time like 2026-01-31T08:00:00Z, or a date like 2026-01-31", text)
}

func (f *sessionsFilter) fits(s record.Summary) bool {
	if f.workload != "" && f.workload != s.Workload.Name {
		if ok, err := path.Match(f.workload, s.Workload.Cgroup); !ok || err != nil {
			return false
		}
	}
	switch {
	case f.target != "" && f.target != s.Target,
		s.Began.Before(f.since),
		f.denied && s.Denied == 0,
		f.open && !s.Open:
		return false
	}
	return true
}

func sessionsTable(w io.Writer, list []record.Summary) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tSTARTED\tDURATION\tWORKLOAD\tTARGET\tOPERATIONS\tDENIED\tROWS\tEND")
	for _, s := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", sessionsClean(s.ID), sessionsTime(s.Began), sessionsDuration(s.Duration),
			sessionsClean(s.Workload.Name), sessionsClean(s.Target), s.Operations, s.Denied, s.Rows, sessionsEnd(s))
	}
	return table.Flush()
}

func sessionsListJSON(w io.Writer, list []record.Summary) error {
	lines := make([]string, len(list))
	for i, s := range list {
		lines[i] = "\n" + sessionsSummaryJSON(s)
	}
	_, err := fmt.Fprintf(w, "[%s]\n", strings.Join(lines, ","))
	return err
}
