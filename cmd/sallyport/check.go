package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/config"
)

// A checkReport is what check says of a directory; its JSON is the output of -o json.
type checkReport struct {
	Directory         string           `json:"directory"`
	Valid             bool             `json:"valid"`
	Targets           []checkedTarget  `json:"targets"`
	CredentialSources []checkedSource  `json:"credentialSources"`
	Policies          []checkedPolicy  `json:"policies"`
	Workloads         []string         `json:"workloads"`
	Warnings          []string         `json:"warnings"`
	Problems          []config.Problem `json:"problems"`
}

type checkedTarget struct {
	Name       string   `json:"name"`
	Protocol   string   `json:"protocol"`
	Endpoints  []string `json:"endpoints"`
	TLS        string   `json:"tls"`
	Credential string   `json:"credential"`
}

type checkedSource struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Username string `json:"username"`
}

type checkedPolicy struct {
	Name      string   `json:"name"`
	Workloads []string `json:"workloads"`
	Targets   []string `json:"targets"`
	Rules     []string `json:"rules"`
}

func newCheckCommand() *cobra.Command {
	var directory, output string
	command := &cobra.Command{
		Use:   "check --config DIR",
		Short: "Check a directory of documents",
		Long: `Check reads the documents of a directory as "sallyport up" does, compiles the policies, and lists what is there,
or every problem with its file, line and field. It opens no file that a document names and resolves no host.
The exit status is 0 when the documents are good, 1 when they are not.`,
		Example: `  sallyport check --config /etc/sallyport
  sallyport check --config examples/one-host -o json`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(command *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("-o %q: want table or json", output)
			}
			report, err := check(directory)
			if err != nil {
				return err
			}
			print := report.printTable
			if output == "json" {
				print = report.printJSON
			}
			if err := print(command.OutOrStdout()); err != nil {
				return err
			}
			if !report.Valid {
				return &exitError{status: 1}
			}
			return nil
		},
	}
	command.Flags().StringVar(&directory, "config", "", "directory of the documents")
	command.Flags().StringVarP(&output, "output", "o", "table", "how to print: table or json")
	for _, err := range []error{
		command.MarkFlagRequired("config"),
		command.MarkFlagDirname("config"),
		command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)),
	} {
		if err != nil {
			panic(err) // The flags are those defined above.
		}
	}
	return command
}

// check loads a directory. Its error is for a directory that could not be read; problems of documents are in the report.
func check(directory string) (*checkReport, error) {
	report := &checkReport{Directory: directory, Targets: []checkedTarget{}, CredentialSources: []checkedSource{},
		Policies: []checkedPolicy{}, Workloads: []string{}, Warnings: []string{}, Problems: []config.Problem{}}
	snapshot, _, err := config.Load(directory)
	var bad *config.Error
	switch {
	case errors.As(err, &bad):
		report.Problems = bad.Problems
		return report, nil
	case err != nil:
		return nil, err
	}
	report.Valid = true
	report.Workloads = append(report.Workloads, snapshot.CgroupSelectors()...)
	report.Warnings = append(report.Warnings, snapshot.Warnings()...)
	for _, name := range slices.Sorted(maps.Keys(snapshot.Targets)) {
		report.Targets = append(report.Targets, checkTarget(name, snapshot.Targets[name].Spec))
	}
	for _, name := range slices.Sorted(maps.Keys(snapshot.CredentialSources)) {
		checked := checkedSource{Name: name}
		switch spec := snapshot.CredentialSources[name].Spec; {
		case spec.Static != nil:
			checked.Kind, checked.Username = "static", spec.Static.Username
		case spec.PostgresRole != nil:
			checked.Kind, checked.Username = "postgresRole", spec.PostgresRole.Admin.Username
		}
		report.CredentialSources = append(report.CredentialSources, checked)
	}
	for _, name := range slices.Sorted(maps.Keys(snapshot.Policies)) {
		report.Policies = append(report.Policies, checkPolicy(name, snapshot.Policies[name].Spec))
	}
	return report, nil
}

func checkTarget(name string, spec v1alpha1.TargetSpec) checkedTarget {
	checked := checkedTarget{Name: name, Protocol: spec.Protocol, TLS: spec.Upstream.TLS.Mode, Credential: spec.Credential}
	for _, endpoint := range spec.Endpoints {
		// At most one of Host and CIDR is set.
		checked.Endpoints = append(checked.Endpoints, net.JoinHostPort(endpoint.Host+endpoint.CIDR, strconv.Itoa(endpoint.Port)))
	}
	return checked
}

func checkPolicy(name string, spec v1alpha1.AccessPolicySpec) checkedPolicy {
	checked := checkedPolicy{Name: name, Targets: spec.Targets}
	for _, workload := range spec.Workloads {
		checked.Workloads = append(checked.Workloads, workload.Cgroup)
	}
	for _, rule := range spec.Rules {
		checked.Rules = append(checked.Rules, rule.Name)
	}
	return checked
}

func (r *checkReport) printJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}

func (r *checkReport) printTable(w io.Writer) error {
	var b strings.Builder
	for _, problem := range r.Problems {
		fmt.Fprintln(&b, problem)
	}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for i, target := range r.Targets {
		header(table, i, "TARGET\tPROTOCOL\tENDPOINTS\tTLS\tCREDENTIAL")
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", target.Name, target.Protocol, strings.Join(target.Endpoints, ","), target.TLS, target.Credential)
	}
	for i, source := range r.CredentialSources {
		header(table, i, "\nCREDENTIAL SOURCE\tKIND\tUSER NAME")
		fmt.Fprintf(table, "%s\t%s\t%s\n", source.Name, source.Kind, source.Username)
	}
	for i, policy := range r.Policies {
		header(table, i, "\nPOLICY\tWORKLOADS\tTARGETS\tRULES")
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", policy.Name, strings.Join(policy.Workloads, ","), strings.Join(policy.Targets, ","),
			strings.Join(policy.Rules, ","))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if r.Valid && len(r.Warnings) > 0 && b.Len() > 0 {
		b.WriteByte('\n')
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", warning)
	}
	// The first header has no table above it.
	_, err := io.WriteString(w, strings.TrimPrefix(b.String(), "\n"))
	return err
}

// header prints the names of the columns above the first row.
func header(w io.Writer, row int, columns string) {
	if row == 0 {
		fmt.Fprintln(w, columns)
	}
}
