package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sallyport-dev/sallyport/pkg/record"
)

// sessionsOptions are the flags that all commands about sessions have.
type sessionsOptions struct {
	stateDir, output string
}

func newSessionsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "sessions",
		Short: "List, show, replay, verify and prune recorded sessions",
		Long: `List, show, replay, verify and prune recorded sessions. All but prune only read, also while the agent runs. They need to read the
state directory, which belongs to the proxy's user; root may.

What a workload sent is shown with its control characters escaped, so that it can not take over the terminal.`,
		// With both of these a misspelt command is an error; by itself cobra would print help and be content.
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newSessionsListCommand(), newSessionsShowCommand(), newSessionsReplayCommand(), newSessionsVerifyCommand(), newSessionsPruneCommand())
	return command
}

func (o *sessionsOptions) addFlags(command *cobra.Command) {
	command.Flags().StringVar(&o.stateDir, "state-dir", defaultStateDir, "directory that holds the record")
	command.Flags().StringVarP(&o.output, "output", "o", "table", "how to print: table or json")
	must := func(err error) {
		if err != nil {
			panic(err) // the flag is not there
		}
	}
	must(command.MarkFlagDirname("state-dir"))
	must(command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
}

// json is whether to print JSON.
func (o *sessionsOptions) json() (bool, error) {
	switch o.output {
	case "json":
		return true, nil
	case "table":
		return false, nil
	default:
		return false, fmt.Errorf("-o %q: want table or json", o.output)
	}
}

// complete offers the ids of sessions.
func (o *sessionsOptions) complete(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	list, _ := record.List(o.stateDir) // what can not be read is not offered
	var ids []string
	for _, s := range list {
		if strings.HasPrefix(s.ID, strings.ToUpper(prefix)) {
			ids = append(ids, s.ID+"\t"+sessionsClean(s.Workload.Name+" to "+s.Target))
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// list is record.List; a fault of the ledger is told, and what comes before it is returned.
func (o *sessionsOptions) list(stderr io.Writer) (list []record.Summary, damaged bool, err error) {
	list, err = record.List(o.stateDir)
	var fault *record.Fault
	switch {
	case errors.As(err, &fault):
		fmt.Fprintf(stderr, "sallyport: the record is damaged; \"sallyport sessions verify\" says more: %s\n", sessionsClean(fault.Error()))
		return list, true, nil
	case errors.Is(err, os.ErrNotExist):
		return nil, false, fmt.Errorf("there is no record in %s: %w", o.stateDir, err)
	default:
		return list, false, err
	}
}

// find is the one session that an argument names, as the ledger has it. Of a session that the ledger does not have, only the id is known.
func (o *sessionsOptions) find(argument string, stderr io.Writer) (record.Summary, error) {
	id, err := record.Find(o.stateDir, argument)
	if err != nil {
		return record.Summary{}, err
	}
	list, _, err := o.list(stderr)
	if err != nil {
		return record.Summary{}, err
	}
	for _, s := range list {
		if s.ID == id {
			return s, nil
		}
	}
	for _, err := range record.Read(o.stateDir, id) {
		if errors.Is(err, record.ErrNotFound) {
			return record.Summary{}, err
		}
		break
	}
	return record.Summary{ID: id, Damaged: "the ledger does not have this session"}, nil
}

// sessionsClean makes text of unknown origin safe to print on one line: what is not printable is written as \n, \x1b, \u202e …
func sessionsClean(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		text = text[size:]
	}
	return b.String()
}

// sessionsCleanJSON is the same value as the JSON text, without spaces between its tokens; in strings, what is not printable is
// escaped as JSON does it.
func sessionsCleanJSON(text []byte) string {
	var b strings.Builder
	for _, r := range string(text) {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.String()
}

// sessionsSummaryJSON is a session in JSON; NewFragment keeps bytes that are no UTF-8, in the record's own escape.
func sessionsSummaryJSON(s record.Summary) string {
	return "{" + sessionsCleanJSON(record.NewFragment(s)) + "}"
}

// sessionsTime is when something was, in UTC.
func sessionsTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// sessionsDuration is short: three digits are enough for people.
func sessionsDuration(d time.Duration) string {
	for _, unit := range []time.Duration{time.Hour, time.Minute, time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			switch unit {
			case time.Hour, time.Minute:
				return d.Round(time.Second).String()
			default:
				return d.Round(unit / 100).String()
			}
		}
	}
	return d.String()
}

// sessionsEnd is how a session ended, in a word or a few.
func sessionsEnd(s record.Summary) string {
	switch {
	case s.Damaged != "":
		return "damaged: " + sessionsClean(s.Damaged)
	case s.Open:
		return "open"
	default:
		return sessionsClean(s.Reason)
	}
}
