package e2e

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/test/env"
)

// pooled keeps connections for longer than any of the tests.
const pooled = "{tls: {mode: disable}, pool: {maxIdle: 2, idleTimeout: 1m}}"

// backendOf opens a session, does something in it, closes it and gives the process id of the server's backend.
func backendOf(t *testing.T, w *world, config *pgx.ConnConfig, do func(c *pgx.Conn)) string {
	t.Helper()
	c, err := pgx.ConnectConfig(timeout(t), config)
	if err != nil {
		t.Fatal(err)
	}
	pid := scan(t, c, "SELECT pg_backend_pid()")
	do(c)
	if err := c.Close(timeout(t)); err != nil {
		t.Fatal(err)
	}
	w.sealed() // by then the connection is kept, or gone
	return pid
}

func nothing(*pgx.Conn) {}

func TestKeptConnectionRemembersNothingOfTheSessionBefore(t *testing.T) {
	t.Parallel()
	w := start(t, options{upstream: pooled})
	first := backendOf(t, w, w.config(), func(c *pgx.Conn) {
		for _, sql := range []string{"CREATE TEMP TABLE mine (n int)", "SET work_mem = '123MB'", "SET search_path = pg_catalog", "PREPARE mine AS SELECT 1",
			"LISTEN mine", "DECLARE mine CURSOR WITH HOLD FOR SELECT 1", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"} {
			if _, err := c.Exec(timeout(t), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		scan(t, c, "SELECT pg_advisory_lock(4711)::text")
		scan(t, c, "SELECT set_config('my.secret', 'hidden', false)")
	})
	second := backendOf(t, w, w.config(), func(c *pgx.Conn) {
		for sql, want := range map[string]string{
			"SELECT count(*) FROM pg_class WHERE relname = 'mine'":            "0",
			"SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'": "0",
			"SELECT count(*) FROM pg_cursors WHERE name = 'mine'":             "0",
			"SELECT count(*) FROM pg_listening_channels()":                    "0",
			"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())": "0",
			"SELECT coalesce(current_setting('my.secret', true), '')":                                                                                   "",
			"SHOW work_mem":                      "4MB",
			"SHOW search_path":                   `"$user", public`,
			"SHOW default_transaction_read_only": "off",
			"SELECT current_user":                w.role(),
		} {
			if got := scan(t, c, sql); got != want {
				t.Errorf("%s: %s, want %s", sql, got, want)
			}
		}
	})
	if first != second {
		t.Errorf("the second session has backend %s, the first had %s", second, first)
	}
}

func TestConnectionWhoseSessionMadeASchemaIsNotKept(t *testing.T) {
	t.Parallel()
	w := start(t, options{upstream: pooled})
	first := backendOf(t, w, w.config(), func(c *pgx.Conn) {
		if _, err := c.Exec(timeout(t), `CREATE SCHEMA made`); err != nil {
			t.Fatal(err)
		}
	})
	if second := backendOf(t, w, w.config(), nothing); second == first {
		t.Errorf("the next session has the same backend %s", second)
	}
}

func TestKeptConnectionIsForTheSameSessionsOnly(t *testing.T) {
	t.Parallel()
	other := env.Name("other")
	w := start(t, options{upstream: pooled, also: []string{other}})
	stranger := enter(t, w.Agent, other)
	fromStranger := w.config()
	fromStranger.DialFunc = stranger.dial
	otherName := w.config()
	otherName.RuntimeParams["application_name"] = "another"
	otherDatabase := w.config()
	otherDatabase.Database = "postgres"

	first := backendOf(t, w, w.config(), nothing)
	for name, config := range map[string]*pgx.ConnConfig{
		"another workload": fromStranger, "another startup parameter": otherName, "another database": otherDatabase,
	} {
		if got := backendOf(t, w, config, nothing); got == first {
			t.Errorf("%s is given the same backend", name)
		}
	}
	if got := backendOf(t, w, w.config(), nothing); got != first {
		t.Errorf("the same workload is given backend %s, want %s", got, first)
	}

	// A new password in the file: the old login is not used for long.
	const next = "rotated-password"
	w.server.Exec("ALTER ROLE " + w.role() + " PASSWORD '" + next + "'")
	w.storePassword(next)
	rotated := first
	await(t, "a login with the new password", func() bool {
		rotated = backendOf(t, w, w.config(), nothing)
		return rotated != first
	})
	w.storePassword("wrong")
	await(t, "a wrong password is refused", func() bool {
		c, err := pgx.ConnectConfig(timeout(t), w.config())
		if err == nil {
			err = c.Close(timeout(t))
		}
		return sqlstate(err) == "28P01"
	})
	w.storePassword(next)
	rotated = backendOf(t, w, w.config(), nothing)

	// New documents: a connection was opened by what the old ones said.
	revision := w.status().Agent.Revision
	w.WriteDocument("policy.yaml", w.policy(guarded))
	await(t, "the documents are in force", func() bool { s := w.status(); return s.Ready && s.Agent.Revision > revision })
	if got := backendOf(t, w, w.config(), nothing); got == rotated {
		t.Error("the connection outlives its documents")
	}
}

func TestConnectionThatIsNotCleanIsNotKept(t *testing.T) {
	t.Parallel()
	w := start(t, options{upstream: pooled})
	tests := []struct {
		name string
		end  func(c *wire)
	}{
		{"a client that vanishes", func(c *wire) { c.conn.Close() }},
		{"a transaction that is open", func(c *wire) {
			c.query("BEGIN")
			c.close()
		}},
		{"a transaction that failed", func(c *wire) {
			c.query("BEGIN; SELECT * FROM nowhere")
			c.close()
		}},
		{"an answer that is due", func(c *wire) { c.send(append(unnamed("SELECT pg_sleep(0.1)"), syncMessage())...); c.close() }},
		{"a COPY under way", func(c *wire) {
			c.query("CREATE TEMP TABLE t (n int)")
			c.send(append(unnamed("COPY t FROM STDIN"), syncMessage())...)
			c.close()
		}},
	}
	for _, tt := range tests {
		c := w.wire()
		pid := strings.TrimPrefix(c.query("SELECT pg_backend_pid()")[1], "Row ")
		tt.end(c)
		w.sealed()
		if got := backendOf(t, w, w.config(), func(c *pgx.Conn) {
			if status := c.PgConn().TxStatus(); status != 'I' {
				t.Errorf("after %s the next session's status is %c", tt.name, status)
			}
		}); got == pid {
			t.Errorf("after %s the backend is used again", tt.name)
		}
		// That one is kept; away with it.
		w.server.Exec("SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE usename = '" + w.role() + "'")
	}
	// A kept connection that has died is not given to anybody.
	if got := w.psql("SELECT 1"); got.Stdout != "1\n" {
		t.Errorf("after the kept connection's death psql says %q", got.Stderr)
	}
}
