package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/approval/api"
)

// TestApprovalsScripts runs the scripts about held statements. Each finds two requests, $ONE and $TWO, in the run directory $RUN, and is root, whose
// group decides on the first.
func TestApprovalsScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Files: []string{"testdata/approvals.txt"},
		Setup: func(env *testscript.Env) error {
			run := filepath.Join(env.WorkDir, "run")
			if err := os.Mkdir(run, 0o755); err != nil {
				return err
			}
			desk, err := approval.Open(approval.Options{Dir: filepath.Join(env.WorkDir, "approvals")})
			if err != nil {
				return err
			}
			listener, err := net.Listen("unix", filepath.Join(run, "approvals.sock"))
			if err != nil {
				return err
			}
			server := api.NewServer(desk, func() {}, zap.NewNop())
			ctx, stop := context.WithCancel(context.Background())
			go func() { _ = server.Serve(ctx) }()
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					server.Accept(approval.Person{UID: 0, User: "root", Groups: []string{"dba"}, Cgroup: "/user.slice"}, conn)
				}
			}()
			env.Defer(func() {
				listener.Close()
				stop()
				_ = desk.Close()
			})
			env.Setenv("RUN", run)
			for name, approver := range map[string]string{"ONE": "group:dba", "TWO": "user:carol"} {
				ticket, err := desk.Ask(approval.Request{
					Hash: approval.Hash(name), Workload: approval.Workload{Name: "shop", Cgroup: "/sallyport/shop", PID: 42, UID: 1000, Comm: "psql"},
					Target: "orders-db", Database: "shop", Policy: "orders", Rule: "big-" + map[string]string{"ONE": "delete", "TWO": "update"}[name],
					Message: "ask the owners", Approvers: []string{approver}, Kind: "query", Session: "01HF7YAT3B6QYCKS0PWCTW05HG",
					Text: "DELETE FROM orders\n  -- \x1b[2Jgone", Recorded: "DELETE FROM orders", Executes: []string{"PREPARE p AS TABLE a"}, Parameters: json.RawMessage(`["1"]`), NeedsReason: true,
				}, time.Hour)
				if err != nil {
					return err
				}
				env.Setenv(name, ticket.Request().ID)
			}
			return nil
		},
	})
}
