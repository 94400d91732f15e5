package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sallyport-dev/sallyport/test/env"
)

func TestLargeResultStreamsInBoundedMemory(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	const rows, width = 20_000, 10_000
	for _, tt := range []struct{ name, sql string }{
		{"many rows", fmt.Sprintf("SELECT repeat('x', %d) FROM generate_series(1, %d)", width, rows)},
		{"one value", fmt.Sprintf("SELECT repeat('x', %d)", rows*width)},
	} {
		conn := w.workload().mustDial(w.address())
		c := newWire(t, conn)
		c.start(w.database())
		c.send(&pgproto3.Query{String: tt.sql})
		n, last, err := readAnswer(conn)
		if err != nil || n < rows*width || last != 'I' {
			t.Errorf("%s: %d bytes, status %q, %v", tt.name, n, last, err)
		}
	}
	if mib := w.peakMemory(); mib > memoryBound {
		t.Errorf("the proxy used %d MiB", mib)
	}
}

// readAnswer reads messages up to ReadyForQuery, however large, and keeps none.
func readAnswer(c net.Conn) (n int64, status byte, err error) {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, 0, err
	}
	for {
		var head [5]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return n, 0, err
		}
		size := int64(binary.BigEndian.Uint32(head[1:])) - 4
		n += size
		switch head[0] {
		case 'Z':
			_, err = io.ReadFull(c, head[:1])
			return n, head[0], err
		case 'E':
			text, _ := io.ReadAll(io.LimitReader(c, size))
			return n, 0, fmt.Errorf("error %q", text)
		}
		if _, err := io.CopyN(io.Discard, c, size); err != nil {
			return n, 0, err
		}
	}
}

func TestLargeParameterStreamsInBoundedMemory(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	const size = 64 << 20
	var length int
	if err := w.connect().QueryRow(timeout(t), "SELECT length($1::bytea)", make([]byte, size)).Scan(&length); err != nil || length != size {
		t.Errorf("length %d, %v", length, err)
	}
	if mib := w.peakMemory(); mib > memoryBound {
		t.Errorf("the proxy used %d MiB", mib)
	}
}

func TestNotificationsReachAnIdleSession(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	listener, notifier := w.connect(), w.connect()
	if _, err := listener.Exec(timeout(t), "LISTEN news"); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} {
		if _, err := notifier.Exec(timeout(t), "SELECT pg_notify('news', $1)", text); err != nil {
			t.Fatal(err)
		}
		got, err := listener.WaitForNotification(timeout(t))
		if err != nil || got.Channel != "news" || got.Payload != text {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	// In the midst of an answer, too.
	if _, err := listener.Exec(timeout(t), "NOTIFY news, 'own'"); err != nil {
		t.Error(err)
	}
	if got, err := listener.WaitForNotification(timeout(t)); err != nil || got.Payload != "own" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestPortalIsFetchedInParts(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	c := w.wire()
	some := &pgproto3.Execute{Portal: "p", MaxRows: 2}
	c.send(&pgproto3.Query{String: "BEGIN"})
	c.batch()
	c.send(parse("", "SELECT generate_series(1, 5)"), bind("p", ""), some, syncMessage())
	if diff := cmp.Diff("ParseComplete, BindComplete, Row 1, Row 2, PortalSuspended, Ready T", strings.Join(c.batch(), ", ")); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	c.send(some, some, some, syncMessage())
	if diff := cmp.Diff("Row 3, Row 4, PortalSuspended, Row 5, SELECT 1, SELECT 0, Ready T", strings.Join(c.batch(), ", ")); diff != "" {
		t.Errorf("next (-want +got):\n%s", diff)
	}
	c.send(&pgproto3.Query{String: "COMMIT"})
	c.batch()
	c.send(some, syncMessage())
	if diff := cmp.Diff("Error 34000, Ready I", strings.Join(c.batch(), ", ")); diff != "" {
		t.Errorf("after the transaction (-want +got):\n%s", diff)
	}
	cursor := []struct{ text, want string }{
		{"BEGIN", "BEGIN, Ready T"},
		{"DECLARE c CURSOR FOR SELECT generate_series(1, 3)", "DECLARE CURSOR, Ready T"},
		{"FETCH 2 FROM c", "RowDescription, Row 1, Row 2, FETCH 2, Ready T"},
		{"CLOSE c", "CLOSE CURSOR, Ready T"},
		{"COMMIT", "COMMIT, Ready I"},
	}
	for _, step := range cursor {
		if got := strings.Join(c.query(step.text), ", "); got != step.want {
			t.Errorf("%s: %s, want %s", step.text, got, step.want)
		}
	}
}

func TestPipelineOfTenThousandStatements(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	const n = 10_000
	for _, group := range []int{1, n} { // statements between two Syncs
		t.Run(fmt.Sprintf("with a Sync after %d", group), func(t *testing.T) {
			c := w.wire()
			defer c.close()
			var pipeline []pgproto3.FrontendMessage
			for i := range n {
				pipeline = append(pipeline, unnamed(fmt.Sprintf("SELECT %d", i))...)
				if (i+1)%group == 0 {
					pipeline = append(pipeline, syncMessage())
				}
			}
			sent := make(chan error, 1)
			go func() { sent <- c.trySend(pipeline...) }()
			next := 0
			for next < n {
				for _, word := range c.batch() {
					if row, ok := strings.CutPrefix(word, "Row "); ok {
						if row != fmt.Sprint(next) {
							t.Fatalf("row %s, want %d", row, next)
						}
						next++
					}
				}
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
	entries := w.sealed()
	count := 0
	for _, e := range entries {
		if e.Operation != nil {
			count++
		}
	}
	if count != n {
		t.Errorf("%d operations are recorded, want %d", count, n)
	}
}

func TestCancelStopsTheRightSessionOnly(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	busy, bystander := w.connect(), w.connect()
	other := make(chan error, 1)
	go func() {
		_, err := bystander.Exec(timeout(t), "SELECT pg_sleep(1)")
		other <- err
	}()
	own := make(chan error, 1)
	go func() {
		_, err := busy.Exec(timeout(t), "SELECT pg_sleep(60)")
		own <- err
	}()
	await(t, "both sleep", func() bool {
		return w.backends(sleeping) == 2
	})
	sendCancel(t, w.workload().mustDial(w.address()), pgproto3.CancelRequest{ProcessID: busy.PgConn().PID(), SecretKey: busy.PgConn().SecretKey()})
	if err := <-own; sqlstate(err) != "57014" {
		t.Errorf("the canceled statement ends with %v", err)
	}
	if err := <-other; err != nil {
		t.Errorf("the other session is hit: %v", err)
	}
	if got := scan(t, busy, "SELECT 1"); got != "1" {
		t.Errorf("after the cancel: %s", got)
	}
}

func TestClientThatAsksItsSocketForTheServerCancelsThere(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	c := w.connect()
	if got := c.PgConn().Conn().RemoteAddr().String(); got != w.address() {
		t.Fatalf("the socket is connected to %s, the workload dialled %s", got, w.address())
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(timeout(t), "SELECT pg_sleep(30)")
		done <- err
	}()
	await(t, "the statement", func() bool { return w.backends(sleeping) == 1 })
	if err := c.PgConn().CancelRequest(timeout(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; sqlstate(err) != "57014" {
		t.Errorf("the statement ended with %v", err)
	}
}

func TestPsqlCancelsOnInterrupt(t *testing.T) {
	t.Parallel()
	w := start(t, options{postgres: &env.PostgresOptions{TLS: true}, upstream: "{tls: {ca: {file: CA}}}"})
	for _, mode := range []string{"disable", "require"} {
		pidFile := filepath.Join(t.TempDir(), "pid")
		ended := make(chan env.Result, 1)
		go func() {
			ended <- w.run([]string{"PGSSLMODE=" + mode}, "sh", "-c", "echo $$ >"+pidFile+"; exec psql -X -w -At -c 'SELECT pg_sleep(60)'")
		}()
		await(t, "it sleeps", func() bool { return w.backends(sleeping) == 1 })
		if err := syscall.Kill(atoi(t, strings.TrimSpace(readFile(t, pidFile))), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if got := <-ended; !strings.Contains(got.Stderr, "ERROR:  canceling statement due to user request") {
			t.Errorf("with sslmode %s psql printed %q and said %q", mode, got.Stdout, got.Stderr)
		}
	}
}

func TestCancelByAnotherKeyOrAnotherWorkloadDoesNothing(t *testing.T) {
	t.Parallel()
	other := env.Name("other")
	w := start(t, options{also: []string{other}})
	stranger := enter(t, w.Agent, other)
	c := w.wire()
	c.send(&pgproto3.Query{String: "SELECT pg_sleep(60)"})
	await(t, "it sleeps", func() bool {
		return w.backends(sleeping) == 1
	})
	server := w.value("SELECT pid FROM pg_stat_activity WHERE usename = $1 AND "+sleeping, w.role())
	if server != fmt.Sprint(c.key.ProcessID) {
		t.Errorf("the client is given process id %d, and the server's is %s", c.key.ProcessID, server)
	}
	wrong := bytes.Clone(c.key.SecretKey)
	wrong[3] ^= 1
	right := pgproto3.CancelRequest{ProcessID: c.key.ProcessID, SecretKey: c.key.SecretKey}
	tests := []struct {
		name    string
		request pgproto3.CancelRequest
		from    *workload
	}{
		{"another secret", pgproto3.CancelRequest{ProcessID: right.ProcessID, SecretKey: wrong}, w.workload()},
		{"another process id", pgproto3.CancelRequest{ProcessID: right.ProcessID + 1, SecretKey: right.SecretKey}, w.workload()},
		{"the right key from another workload", right, stranger},
	}
	for _, tt := range tests {
		refused := w.metric(`sallyport_connections_refused_total{reason="cancel_not_found"}`)
		sendCancel(t, tt.from.mustDial(w.address()), tt.request)
		await(t, tt.name+" is refused", func() bool {
			return w.metric(`sallyport_connections_refused_total{reason="cancel_not_found"}`) == refused+1
		})
		if w.backends(sleeping) != 1 {
			t.Fatalf("%s canceled the statement", tt.name)
		}
	}
	sendCancel(t, w.workload().mustDial(w.address()), right)
	if got := strings.Join(c.batch(), ", "); got != "RowDescription, Error 57014, Ready I" {
		t.Errorf("the right key: %s", got)
	}
}

// sendCancel sends a cancel request and waits until it has been served.
func sendCancel(t *testing.T, conn net.Conn, request pgproto3.CancelRequest) {
	t.Helper()
	c := newWire(t, conn)
	c.send(&request)
	if got := c.rest(); len(got) > 0 {
		t.Errorf("a cancel request is answered: %v", got)
	}
}

func TestServersOwnErrorsReachTheClient(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	t.Run("a statement that takes too long", func(t *testing.T) {
		c := w.connect()
		if _, err := c.Exec(timeout(t), "SET statement_timeout = '50ms'"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(timeout(t), "SELECT pg_sleep(60)"); sqlstate(err) != "57014" || !strings.Contains(err.Error(), "statement timeout") {
			t.Errorf("it ends with %v", err)
		}
		if got := scan(t, c, "SELECT 1"); got != "1" {
			t.Errorf("afterwards: %s", got)
		}
	})
	const terminated = "FATAL 57P01"
	t.Run("an idle session that is terminated", func(t *testing.T) {
		c := w.wire()
		pid := strings.TrimPrefix(c.query("SELECT pg_backend_pid()")[1], "Row ")
		w.server.Exec("SELECT pg_terminate_backend(" + pid + ")")
		if got := strings.Join(c.rest(), ", "); got != terminated {
			t.Errorf("it gets %s", got)
		}
	})
	t.Run("a busy session that is terminated", func(t *testing.T) {
		c := w.wire()
		pid := strings.TrimPrefix(c.query("SELECT pg_backend_pid()")[1], "Row ")
		c.send(parse("", "SELECT pg_sleep(60)"), bind("", ""), execute(""), syncMessage())
		await(t, "it sleeps", func() bool {
			return w.value("SELECT wait_event FROM pg_stat_activity WHERE pid = $1", atoi(t, pid)) == "PgSleep"
		})
		w.server.Exec("SELECT pg_terminate_backend(" + pid + ")")
		if got := strings.Join(c.rest(), ", "); got != "ParseComplete, BindComplete, "+terminated {
			t.Errorf("it gets %s", got)
		}
	})
}
