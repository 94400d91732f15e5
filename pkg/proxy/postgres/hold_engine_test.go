package postgres

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/test/env"
)

// relayedHeld is a client's connection to the server through a machine whose updates are held, as serve relays one.
func relayedHeld(t *testing.T, engine *relay.Engine, server *env.Server, plain bool, asker asker) (client net.Conn, m *machine, ended <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	_ = client.SetDeadline(time.Now().Add(30 * time.Second))
	inner, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if !plain {
		inner = &replayed{Conn: inner}
	}
	w := newWire()
	w.holding = &holding{}
	w.judge.asker = asker
	updates := &policy.Approval{Policy: "p", Rule: "update", Timeout: time.Minute, Approvers: []string{"user:dba"}}
	w.judge.held = func(u *sql.Unit) *policy.Approval {
		if u.Verb == "UPDATE" {
			return updates
		}
		return nil
	}
	done, causes := make(chan error, 1), make(chan error, 1)
	if _, err = engine.Start(relay.Leg{Conn: inner, Half: w.f, Received: noCounter{}}, relay.Leg{Conn: dialServer(t, server, "through"), Half: w.b, Received: noCounter{}},
		func(c, u net.Conn, cause error) {
			c.Close()
			u.Close()
			causes <- cause
		}); err != nil {
		t.Fatal(err)
	}
	go func() {
		cause := <-causes
		w.endHold(withdrawnBecause(cause))
		w.Abandon()
		done <- cause
	}()
	return client, w.machine, done
}

func TestHeldStatementsOfManySessionsAtOnce(t *testing.T) {
	server := env.Postgres(t, env.PostgresOptions{Auth: "trust", SQL: []string{"CREATE ROLE through LOGIN", "CREATE TABLE items (a integer)", "INSERT INTO items VALUES (1)", "GRANT ALL ON items TO through"}})
	engine, err := relay.NewEngine(2)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	desk, err := approval.Open(approval.Options{Dir: filepath.Join(t.TempDir(), "approvals")})
	if err != nil {
		t.Fatal(err)
	}
	defer desk.Close()
	const sessions = 24
	var running sync.WaitGroup
	for i := range sessions {
		client, m, ended := relayedHeld(t, engine, server, i%2 == 0, &crowd{desk: desk, replaced: make(chan struct{})})
		running.Go(func() {
			// Those of one kind ask for the very same, so that their requests have one hash.
			what := []string{"approved", "canceled"}[i%4/2]
			if i%8 >= 4 {
				what = "gone"
			}
			if _, err := io.WriteString(client, prs("", "UPDATE items SET a = a -- "+what)+bnd("", "")+exe("")+syn+qry("SELECT 4711")); err != nil {
				t.Error(err)
				return
			}
			var want, got []string
			switch what {
			case "approved":
				want = []string{"1", "N", "2", "C", "Z", "T", "D", "C", "Z"}
			case "canceled":
				want = []string{"1", "N", "E", "Z", "T", "D", "C", "Z"}
			case "gone":
				for len(got) < 2 {
					typ, _, err := readMessage(client)
					if err != nil {
						t.Errorf("session %d: %v", i, err)
						return
					}
					got = append(got, string(typ))
				}
				client.Close()
				if cause := <-ended; cause != relay.ErrClientGone {
					t.Errorf("session %d ended by %v", i, cause)
				}
				return
			}
			for len(got) < len(want) {
				typ, body, err := readMessage(client)
				if err != nil {
					t.Errorf("session %d: %v after %v", i, err, got)
					return
				}
				if typ == msgErrorResponse && what == "approved" {
					t.Errorf("session %d: %s", i, errorField(body, 'M'))
				}
				if got = append(got, string(typ)); len(got) == 2 && what == "canceled" && !m.holding.cancel() {
					t.Errorf("session %d can not be canceled", i)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("session %d: %s", i, diff)
			}
		})
	}
	stop := make(chan struct{})
	decider := make(chan struct{})
	go func() {
		defer close(decider)
		for {
			list, err := desk.List(dba, false)
			if err != nil {
				t.Error(err)
			}
			for _, r := range list {
				if !strings.HasSuffix(r.Text, "approved") {
					continue
				}
				if _, err := desk.Decide(dba, r.ID, true, ""); err != nil {
					t.Error(err)
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	running.Wait()
	close(stop)
	<-decider
	if n := desk.Waiting(); n != 0 {
		t.Errorf("%d are still waiting", n)
	}
}
