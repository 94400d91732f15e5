package e2e

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sallyport-dev/sallyport/test/env"
)

func TestWorkloadThatHasItsSessionsIsToldSoAndOthersAreServed(t *testing.T) {
	t.Parallel()
	other := env.Name("other")
	w := start(t, options{also: []string{other}, flags: []string{"--sessions-per-workload", "2"}})
	stranger := w.config()
	stranger.DialFunc = enter(t, w.Agent, other).dial
	busy := w.wire()
	second := w.connect()

	_, err := pgx.ConnectConfig(timeout(t), w.config())
	if sqlstate(err) != "53300" || !strings.Contains(err.Error(), "the workload has 2 sessions open, as many as it may have") {
		t.Errorf("the third session: %v", err)
	}
	await(t, "the refusal is counted", func() bool { return w.metric(`sallyport_connections_refused_total{reason="quota"}`) == 1 })
	if got := scan(t, w.connectConfig(stranger), "SELECT 1"); got != "1" {
		t.Errorf("another workload reads %s", got)
	}
	// What it has open it can cancel.
	busy.send(&pgproto3.Query{String: "SELECT pg_sleep(60)"})
	await(t, "it sleeps", func() bool { return w.backends(sleeping) == 1 })
	sendCancel(t, w.workload().mustDial(w.address()), pgproto3.CancelRequest{ProcessID: busy.key.ProcessID, SecretKey: busy.key.SecretKey})
	if got := strings.Join(busy.batch(), ", "); got != "RowDescription, Error 57014, Ready I" {
		t.Errorf("the canceled statement: %s", got)
	}

	if err := second.Close(timeout(t)); err != nil {
		t.Fatal(err)
	}
	await(t, "there is room for another", func() bool {
		c, err := pgx.ConnectConfig(timeout(t), w.config())
		if err != nil {
			return false
		}
		return c.Close(timeout(t)) == nil
	})
}
