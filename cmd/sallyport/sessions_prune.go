package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/record"
)

// sessionsPruned is what -o json prints.
type sessionsPruned struct {
	// DryRun is true when nothing was removed.
	DryRun   bool              `json:"dryRun"`
	Sessions []record.Prunable `json:"sessions"`
}

func newSessionsPruneCommand() *cobra.Command {
	var options sessionsOptions
	var olderThan time.Duration
	var keep int
	var dryRun bool
	command := &cobra.Command{
		Use:   "prune --older-than DURATION",
		Short: "Remove old sessions, and say so in the ledger",
		Long: `Remove sessions that ended longer ago than --older-than. The ledger keeps its lines about them, and says first, signed, that they
were removed, when and by whom; "verify" counts them, and a session that is missing without such a line stays a fault.

Sessions that are open or damaged stay. Short sessions may share a file; they go when all of that file may.

It may run beside the agent, and needs to be root or the user that the state directory belongs to, whom it becomes.`,
		Example: `  sallyport sessions prune --older-than 720h --dry-run
  sallyport sessions prune --older-than 720h --keep 1000`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			asJSON, err := options.json()
			if err != nil {
				return err
			}
			if olderThan <= 0 {
				return errors.New("--older-than: want a duration above 0, as 720h")
			}
			if keep < 0 {
				return errors.New("--keep: want 0 or more")
			}
			by := sessionsPrunedBy()
			o := record.PruneOptions{Before: time.Now().Add(-olderThan), Keep: keep, By: by}
			found, err := sessionsPrune(options.stateDir, o, dryRun)
			if err != nil {
				return err
			}
			return sessionsPrunedReport(command.OutOrStdout(), sessionsPruned{DryRun: dryRun, Sessions: found}, asJSON)
		},
	}
	options.addFlags(command)
	command.Flags().DurationVar(&olderThan, "older-than", 0, "how long ago a session must have ended, as 720h (required)")
	command.Flags().IntVar(&keep, "keep", 0, "how many of the newest sessions stay however old they are")
	command.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would be removed")
	if err := command.MarkFlagRequired("older-than"); err != nil {
		panic(err) // the flag is not there
	}
	return command
}

func sessionsPrune(dir string, o record.PruneOptions, dryRun bool) (found []record.Prunable, err error) {
	found, err = record.FindPrunable(dir, o)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no record in %s: %w", dir, err)
	case err != nil || dryRun || len(found) == 0:
		return found, err
	}
	if err := becomeOwner(dir); err != nil {
		return nil, err
	}
	store, err := record.JoinStore(dir, zap.NewNop())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return store.Prune(o)
}

// becomeOwner gives up root for the user of the state directory: a file of root's there would stop the proxy.
func becomeOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() == int(owner.Uid) {
		return nil
	}
	err = errors.Join(syscall.Setgroups([]int{int(owner.Gid)}), syscall.Setgid(int(owner.Gid)), syscall.Setuid(int(owner.Uid)))
	if err != nil {
		return fmt.Errorf("become the owner of %s, user %d: %w", dir, owner.Uid, err)
	}
	return nil
}

// sessionsPrunedBy is who runs the command: the user, and whom sudo says it runs for.
func sessionsPrunedBy() string {
	uid := strconv.Itoa(os.Getuid())
	by := "uid " + uid
	if u, err := user.LookupId(uid); err == nil {
		by = u.Username + " (uid " + uid + ")"
	}
	if behind := os.Getenv("SUDO_USER"); behind != "" {
		by += ", by sudo for " + behind
	}
	return by
}

func sessionsPrunedReport(w io.Writer, p sessionsPruned, asJSON bool) error {
	if asJSON {
		if p.Sessions == nil {
			p.Sessions = []record.Prunable{}
		}
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(p)
	}
	did := "pruned"
	if p.DryRun {
		did = "would prune"
		for _, s := range p.Sessions {
			fmt.Fprintf(w, "%s  ended %s\n", s.ID, sessionsTime(s.Sealed))
		}
	}
	_, err := fmt.Fprintf(w, "%s %d sessions\n", did, len(p.Sessions))
	return err
}
