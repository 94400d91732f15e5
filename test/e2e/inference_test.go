package e2e

import (
	"context"
	"strings"
	"testing"
)

func TestAStatementThatCouldGuessAMaskedColumnIsHeld(t *testing.T) {
	t.Parallel()
	w := holding(t, options{masks: `[{name: ids, columns: [public.orders.id], with: redact, inference: approve, approval: {approvers: ["uid:64101"]}}]`})
	psql := w.psqlHeld("PGSSLMODE=disable", "SELECT count(*) FROM orders", "SELECT count(*) FROM orders WHERE id > 3")
	r := w.pending()
	if r.Rule != "ids" || r.Text != "SELECT count(*) FROM orders WHERE id > 3" {
		t.Errorf("the request is %+v", r)
	}
	w.decide(approverUID, "approve", r.ID)
	if got := <-psql; got.Status != 0 || got.Stdout != "10\n7\n" || !strings.Contains(got.Stderr, "it uses a masked column in") {
		t.Errorf("psql ended with %d: %q %s", got.Status, got.Stdout, got.Stderr)
	}

	c := w.connect()
	ask := func(id int) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(context.Background(), "SELECT count(*) FROM orders WHERE id = $1", id)
			done <- err
		}()
		return done
	}
	first := ask(1)
	r = w.pending()
	w.decide(approverUID, "approve", r.ID)
	if err := <-first; err != nil {
		t.Error(err)
	}
	second := ask(1) // an approval serves once
	r = w.pending()
	w.decide(approverUID, "deny", r.ID, "--reason", "no guessing")
	if err := <-second; sqlstate(err) != "42501" || !strings.Contains(err.Error(), "no guessing") {
		t.Errorf("denied: %v", err)
	}
}
