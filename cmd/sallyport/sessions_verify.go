package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sallyport-dev/sallyport/pkg/record"
)

// sessionsVerdict is what -o json prints.
type sessionsVerdict struct {
	// Sound is true when there is no fault.
	Sound bool `json:"sound"`
	record.Report
}

func newSessionsVerifyCommand() *cobra.Command {
	var options sessionsOptions
	var keyFile, headFile string
	command := &cobra.Command{
		Use:   "verify [ID…]",
		Short: "Prove that no session was altered, removed or added",
		Long: `Check the ledger and all sessions, or only those named, against their hash chains and signatures. An ID may be cut short so
long as it names one session. Open sessions are checked so far as they go.

The record is checked against the key that its own ledger begins with, and against its own head. Whoever holds the node's key
can write another record that is sound in itself: --key and --head check against copies that were kept elsewhere.

The exit status is 0 when everything is sound, 1 when a fault was found, and 2 when it could not be checked.`,
		Example: `  sallyport sessions verify
  sallyport sessions verify 01HF7YAT3B6Q
  sallyport sessions verify --key kept/record.pub --head kept/ledger.head -o json | jq .faults`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: options.complete,
		RunE: func(command *cobra.Command, args []string) error {
			asJSON, err := options.json()
			if err != nil {
				return &exitError{status: 2, err: err}
			}
			report, err := sessionsVerify(options.stateDir, args, keyFile, headFile)
			if err != nil {
				return &exitError{status: 2, err: err}
			}
			sound := len(report.Faults) == 0
			if asJSON {
				err = sessionsReportJSON(command.OutOrStdout(), sessionsVerdict{Sound: sound, Report: report})
			} else {
				err = sessionsReport(command.OutOrStdout(), report)
			}
			switch {
			case err != nil:
				return &exitError{status: 2, err: err}
			case !sound:
				return &exitError{status: 1} // the faults have been printed
			default:
				return nil
			}
		},
	}
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{status: 2, err: err} })
	options.addFlags(command)
	command.Flags().StringVar(&keyFile, "key", "", "public key that the record must be by: a copy of record.pub")
	command.Flags().StringVar(&headFile, "head", "", "head that the ledger must still cover: a copy of ledger.head")
	return command
}

func sessionsVerify(dir string, args []string, keyFile, headFile string) (record.Report, error) {
	var o record.VerifyOptions
	for _, argument := range args {
		id, err := record.Find(dir, argument)
		if err != nil {
			return record.Report{}, err
		}
		o.Sessions = append(o.Sessions, id)
	}
	if keyFile != "" {
		content, err := os.ReadFile(keyFile)
		if err != nil {
			return record.Report{}, err
		}
		if o.Key, err = record.ParsePublicKey(content); err != nil {
			return record.Report{}, fmt.Errorf("%s: %w", keyFile, err)
		}
	}
	if headFile != "" {
		content, err := os.ReadFile(headFile)
		if err != nil {
			return record.Report{}, err
		}
		head, err := record.ParseHead(content)
		if err != nil {
			return record.Report{}, fmt.Errorf("%s: %w", headFile, err)
		}
		o.Head = &head
	}
	report, err := record.Verify(dir, o)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("there is no record in %s: %w", dir, err)
	}
	return report, err
}

func sessionsReportJSON(w io.Writer, v sessionsVerdict) error {
	encoded, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	// Line by line: the newlines between are not text of the record.
	for line := range bytes.Lines(append(encoded, '\n')) {
		if _, err := fmt.Fprintln(w, sessionsCleanJSON(bytes.TrimSuffix(line, []byte("\n")))); err != nil {
			return err
		}
	}
	return nil
}

func sessionsReport(w io.Writer, r record.Report) error {
	pruned := ""
	if r.Pruned > 0 {
		pruned = fmt.Sprintf("; %d more were pruned", r.Pruned)
	}
	fmt.Fprintf(w, "checked: %d sessions (%d open) with %d events, and %d lines of the ledger%s\n", r.Sessions, r.Open, r.Events, r.LedgerLines, pruned)
	if r.Covered > 0 {
		fmt.Fprintf(w, "head:    covers %d lines, signed %s\n", r.Covered, sessionsTime(r.HeadTime))
	}
	fmt.Fprintf(w, "key:     %s\n", sessionsClean(r.Key))
	for _, note := range r.Notes {
		fmt.Fprintf(w, "note:    %s\n", sessionsClean(note))
	}
	for _, fault := range r.Faults {
		fmt.Fprintf(w, "fault:   %s\n", sessionsClean(fault.Error()))
	}
	result := "sound"
	if len(r.Faults) > 0 {
		result = fmt.Sprintf("NOT SOUND: %d faults", len(r.Faults))
	}
	_, err := fmt.Fprintf(w, "result:  %s\n", result)
	return err
}
