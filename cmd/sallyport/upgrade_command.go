package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// upSocket is the socket of a running "sallyport up" in its run directory. Who connects asks for an upgrade, and is answered by
// one upgradeAnswer when that is done.
const upSocket = "up.sock"

// maxUpgradeAnswer bounds what is read of an answer, in bytes.
const maxUpgradeAnswer = 64 << 10

type upgradeAnswer struct {
	upgraded
	// Error is why the upgrade is not complete; "" when it is.
	Error string `json:"error,omitempty"`
}

func newUpgradeCommand() *cobra.Command {
	var runDir string
	command := &cobra.Command{
		Use:   "upgrade",
		Short: "Have a running agent start its programs anew, without a refused connection",
		Long: `Have a running agent start sallyport-capture and sallyport-proxy anew, as they are on disk by now. It returns when that is done,
or says why not.

The kernel's part is updated in place. The new proxy starts beside the one that serves; when it has applied the documents and taken
over all listeners, the other one accepts no more: its sessions end when they are idle and outside a transaction, one after the
other, and at the latest after the drain time of "sallyport up". When the new proxy does not work, the other one goes on.

"sallyport up" itself goes on as it is; a new version of it needs a restart. SIGUSR2 to it asks for the same.`,
		Example: `  make install && sallyport upgrade
  sallyport upgrade --run-dir /run/sallyport-2`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			dir, err := filepath.Abs(runDir)
			if err != nil {
				return err
			}
			done, err := askUpgrade(command.Context(), dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "upgraded: capture is process %d, the proxy is process %d; process %d drains\n",
				done.Capture, done.Proxy, done.Before)
			return nil
		},
	}
	command.Flags().StringVar(&runDir, "run-dir", defaultRunDir, "run directory of the agent")
	must(command.MarkFlagDirname("run-dir"))
	return command
}

// askUpgrade asks the agent of a run directory, and waits.
func askUpgrade(ctx context.Context, runDir string) (upgraded, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(runDir, upSocket))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return upgraded{}, fmt.Errorf("no agent runs on %s", runDir)
	}
	if err != nil {
		return upgraded{}, fmt.Errorf("ask the agent on %s: %w", runDir, err)
	}
	defer conn.Close()
	var answer upgradeAnswer
	switch err := json.NewDecoder(io.LimitReader(conn, maxUpgradeAnswer)).Decode(&answer); {
	case errors.Is(err, io.EOF):
		return upgraded{}, errors.New("the agent ended, or refuses to answer: upgrade needs root")
	case err != nil:
		return upgraded{}, fmt.Errorf("answer of the agent: %w", err)
	case answer.Error != "":
		return upgraded{}, errors.New(answer.Error)
	}
	return answer.upgraded, nil
}

// serveUpgrades makes the socket, which root alone can connect to, and serves it until ctx ends and the function that it returns is
// called.
func (a *agent) serveUpgrades(ctx context.Context) (stop func(), err error) {
	path := filepath.Join(a.runDir, upSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace %s: %w", path, err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// Who connected before this line is refused by SO_PEERCRED.
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return // It is closed.
			}
			served.Go(func() { a.answerUpgrade(ctx, conn) })
		}
	})
	return func() {
		listener.Close()
		served.Wait()
	}, nil
}

func (a *agent) answerUpgrade(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	if uid, pid, err := handoff.Peer(conn); err != nil || uid != 0 {
		a.log.Warn("refused a request to upgrade", zap.Uint32("uid", uid), zap.Uint32("pid", pid), zap.Error(err))
		return
	}
	var answer upgradeAnswer
	var err error
	if answer.upgraded, err = a.upgrade(ctx); err != nil {
		answer.Error = err.Error()
	}
	// Who asked may be gone.
	_ = json.NewEncoder(conn).Encode(answer)
}
