package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sallyport-dev/sallyport/test/env"
)

func TestClientThatDoesNotSpeakPostgreSQLIsClosedAndNothingIsDialled(t *testing.T) {
	t.Parallel()
	w := start(t, options{postgres: &env.PostgresOptions{}})
	// What the server logs of connections from here on is the workload's.
	before := received(w)
	long := func(n uint32, body string) []byte { return append(binary.BigEndian.AppendUint32(nil, n), body...) }
	tests := []struct {
		name   string
		bytes  []byte
		reason string
		want   string // what the client is told; "" for nothing
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: orders\r\n\r\n"), "protocol", ""},
		{"SSH", []byte("SSH-2.0-OpenSSH_9.6\r\n"), "protocol", ""},
		{"a length of 1 GiB", long(1<<30, "\x00\x03\x00\x00"), "protocol", ""},
		{"a length of -1", long(0xffffffff, "\x00\x03\x00\x00"), "protocol", ""},
		{"a length of 0", long(0, "\x00\x03\x00\x00"), "protocol", ""},
		{"more than a startup may have", startupBytes(t, map[string]string{"user": "a", "options": strings.Repeat("x", 10_000)}), "protocol", ""},
		{"protocol 2", long(8, "\x00\x02\x00\x00"), "protocol", "FATAL 08P01"},
		{"protocol 4", long(8, "\x00\x04\x00\x00"), "protocol", "FATAL 08P01"},
		{"a startup without a user", startupBytes(t, map[string]string{"database": "x"}), "protocol", "FATAL 08P01"},
		{"a startup without an end", long(13, "\x00\x03\x00\x00user\x00"), "protocol", "FATAL 08P01"},
		{"a startup with more behind its end", long(18, "\x00\x03\x00\x00user\x00a\x00\x00\x00x"), "protocol", "FATAL 08P01"},
		{"a short cancel request", long(12, "\x04\xd2\x16\x2e\x00\x00\x00\x01"), "protocol", "FATAL 08P01"},
		{"nothing, and gone", nil, "client_gone", ""},
		{"half a length, and gone", []byte{0, 0}, "client_gone", ""},
		{"half a startup, and gone", long(100, "\x00\x03\x00\x00user"), "client_gone", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			series := fmt.Sprintf("sallyport_connections_refused_total{reason=%q}", tt.reason)
			refused := w.metric(series)
			conn := w.workload().mustDial(w.address())
			c := newWire(t, conn)
			if err := c.write(tt.bytes); err != nil {
				t.Fatal(err)
			}
			if tt.reason == "client_gone" {
				conn.Close()
			} else if got := strings.Join(c.rest(), ", "); got != tt.want {
				t.Errorf("it is told %q, want %q", got, tt.want)
			}
			conn.Close()
			await(t, "it is counted", func() bool { return w.metric(series) == refused+1 })
		})
	}
	t.Run("garbage of every first byte", func(t *testing.T) {
		random := rand.NewChaCha8([32]byte{1})
		for first := range 256 {
			junk := make([]byte, 64)
			_, _ = random.Read(junk)
			junk[0] = byte(first)
			conn := w.workload().mustDial(w.address())
			if err := newWire(t, conn).write(junk); err != nil {
				t.Fatal(err)
			}
			conn.(*net.TCPConn).CloseWrite()
			newWire(t, conn).rest()
			conn.Close()
		}
	})
	t.Run("half a startup, and silence", func(t *testing.T) {
		began := time.Now()
		var silent sync.WaitGroup
		for _, text := range [][]byte{nil, {0}, long(100, "\x00\x03\x00\x00user"), {0x16}, {0x16, 3, 1, 2, 0, 1}} {
			c := newWire(t, w.workload().mustDial(w.address()))
			if err := c.write(text); err != nil {
				t.Fatal(err)
			}
			silent.Go(func() {
				if got := c.rest(); len(got) > 0 {
					t.Errorf("after %q and silence it is told %v", text, got)
				}
			})
		}
		silent.Wait()
		if took := time.Since(began); took < 9*time.Second || took > 13*time.Second {
			t.Errorf("it took %s", took)
		}
		await(t, "all are counted", func() bool {
			return w.metric(`sallyport_connections_refused_total{reason="timeout"}`)+w.metric(`sallyport_connections_refused_total{reason="tls"}`) >= 5
		})
		if n := w.metric(`sallyport_connections_refused_total{reason="timeout"}`); n != 5 {
			t.Errorf("%v are counted as timeouts, want 5", n)
		}
	})
	if after := received(w); after != before {
		t.Errorf("the server was connected to %d times", after-before)
	}
	if mib := w.peakMemory(); mib > memoryBound {
		t.Errorf("the proxy used %d MiB", mib)
	}
	if n := w.metric("sallyport_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
}

// received is how many connections the server has logged (log_connections).
func received(w *world) int { return strings.Count(w.server.Log(), "connection received") }

func TestSessionThatBreaksTheProtocolEndsAlone(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	bystander := w.wire()
	tests := []struct {
		name  string
		bytes []byte
		want  string
	}{
		{"an unknown type", message('z', ""), "FATAL 08P01"},
		{"a type of the server's", message('T', ""), "FATAL 08P01"},
		{"a password nobody asked for", message('p', "secret\x00"), "FATAL 08P01"},
		{"a Query with a length of 3", []byte{'Q', 0, 0, 0, 3, 0}, "FATAL 08P01"},
		{"a Query with a length of 0", []byte{'Q', 0, 0, 0, 0, 0}, "FATAL 08P01"},
		{"a Query with a length of 1 GiB", []byte{'Q', 0x40, 0, 0, 0, 'S'}, "FATAL 08P01"},
		{"a Query without an end", message('Q', "SELECT 1"), "FATAL 08P01"},
		{"a Query with two ends", message('Q', "SELECT 1\x00; DROP TABLE t\x00"), "FATAL 08P01"},
		{"an empty Query message", message('Q', ""), "FATAL 08P01"},
		{"a Parse without a text", message('P', "name\x00"), "FATAL 08P01"},
		{"a Parse that promises more types", message('P', "\x00SELECT 1\x00\x00\x05"), "FATAL 08P01"},
		{"a Bind without an end", message('B', "portal"), "FATAL 08P01"},
		{"an Execute without a limit", message('E', "\x00"), "FATAL 08P01"},
		{"a Close of nothing", message('C', ""), "FATAL 08P01"},
		{"a startup in the midst", startupBytes(t, map[string]string{"user": "a"}), "FATAL 08P01"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := w.wire()
			if err := c.write(tt.bytes); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(c.rest(), ", "); got != tt.want {
				t.Errorf("it is told %q, want %q", got, tt.want)
			}
			if diff := cmp.Diff(selected, bystander.query("SELECT 1")); diff != "" {
				t.Errorf("another session (-want +got):\n%s", diff)
			}
		})
	}
	bystander.close()
	w.sealed()
	for _, s := range w.sessions() {
		if s.Reason != "protocol" && s.Reason != "terminated" {
			t.Errorf("a session's reason is %q", s.Reason)
		}
	}
}

func TestNamesMeanWhatTheServerMeansByThem(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded, record: "{text: full}"})
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE secrets (n int)"); err != nil {
		t.Fatal(err)
	}
	list := func(messages ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage { return messages }
	closeOf := func(name string) pgproto3.FrontendMessage { return &pgproto3.Close{ObjectType: 'S', Name: name} }
	run := func(name string) []pgproto3.FrontendMessage { return list(bind("", name), execute("")) }
	ran := func(n int) string { return fmt.Sprintf("BindComplete, Row %d, SELECT 1", n) }
	steps := []struct {
		name string
		send []pgproto3.FrontendMessage
		want string
	}{
		{"Bind to a statement that is not there", run("nobody"), "Error 26000, Ready I"},
		{"Execute of a portal that is not there", list(execute("nobody")), "Error 34000, Ready I"},
		{"a first Parse", append(list(parse("s", "SELECT 1")), run("s")...), "ParseComplete, " + ran(1) + ", Ready I"},
		{"another text for the same name is refused, and what follows skipped", append(list(parse("s", "SELECT 2")), run("s")...), "Error 42P05, Ready I"},
		{"so the name stays what it was", run("s"), ran(1) + ", Ready I"},
		{"Close and Parse in one go", append(list(closeOf("s"), parse("s", "SELECT 3")), run("s")...), "CloseComplete, ParseComplete, " + ran(3) + ", Ready I"},
		{"a denied Parse changes nothing", append(list(parse("s", "SELECT * FROM secrets")), run("s")...), "Error 42501, Ready I"},
		{"after it", run("s"), ran(3) + ", Ready I"},
		{"Close of one that is denied its successor", append(list(closeOf("s"), parse("s", "TABLE secrets")), run("s")...), "CloseComplete, Error 42501, Ready I"},
		{"then it is gone", run("s"), "Error 26000, Ready I"},
		{"the unnamed statement is replaced", append(append(append(list(parse("", "SELECT 4")), run("")...), parse("", "SELECT 5")), run("")...),
			"ParseComplete, " + ran(4) + ", ParseComplete, " + ran(5) + ", Ready I"},
		{"a Parse that the server refuses", append(list(parse("t", "SELECT * FROM nowhere")), run("t")...), "Error 42P01, Ready I"},
		{"leaves no name", run("t"), "Error 26000, Ready I"},
		{"Close of a name that is not there", list(closeOf("t")), "CloseComplete, Ready I"},
		{"a name of 63 bytes and one cut to it", append(list(parse(strings.Repeat("n", 63), "SELECT 6")), run(strings.Repeat("n", 63))...),
			"ParseComplete, " + ran(6) + ", Ready I"},
	}
	c := w.wire()
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			c.t = t
			c.send(append(step.send, syncMessage())...)
			if diff := cmp.Diff(step.want, strings.Join(c.batch(), ", ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	c.t = t
	c.close()
	var ranThen []string
	for _, e := range w.sealed() {
		if o := e.Operation; o != nil && o.Kind == "execute" && o.Result != nil && o.Result.Error == "" {
			ranThen = append(ranThen, fmt.Sprint(o.Text, " ", o.Result.Rows))
		}
	}
	want := []string{"SELECT 1 1", "SELECT 1 1", "SELECT 3 1", "SELECT 3 1", "SELECT 4 1", "SELECT 5 1", "SELECT 6 1"}
	if diff := cmp.Diff(want, ranThen); diff != "" {
		t.Errorf("the record (-want +got):\n%s", diff)
	}
}

func TestPreparedStatementsOfASessionAreBounded(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	c := w.wire()
	const n = 70_000
	go func() {
		var pipeline []pgproto3.FrontendMessage
		for i := range n {
			pipeline = append(pipeline, parse(fmt.Sprintf("s%d", i), "SELECT 1"), syncMessage())
			if len(pipeline) > 1000 {
				if c.trySend(pipeline...) != nil {
					return
				}
				pipeline = nil
			}
		}
		_ = c.trySend(pipeline...)
	}()
	made, refused := 0, 0
	for range n {
		switch got := strings.Join(c.batch(), ", "); got {
		case "ParseComplete, Ready I":
			made++
		case "Error 54000, Ready I":
			refused++
		default:
			t.Fatalf("a Parse gives %s", got)
		}
	}
	if made != 65_536 || refused != n-made {
		t.Errorf("%d are prepared and %d refused", made, refused)
	}
	if diff := cmp.Diff(selected, c.query("SELECT 1")); diff != "" {
		t.Errorf("the next query (-want +got):\n%s", diff)
	}
	if mib := w.peakMemory(); mib > memoryBound {
		t.Errorf("the proxy used %d MiB", mib)
	}
}

func TestClientThatStopsReadingHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	for range 8 { // more than there are relay threads
		lazy := w.wire()
		lazy.send(&pgproto3.Query{String: "SELECT repeat('x', 10000) FROM generate_series(1, 100000)"})
	}
	await(t, "the server waits for its clients", func() bool {
		return w.backends("wait_event = 'ClientWrite'") == 8
	})
	c := w.wire()
	for range 100 {
		if diff := cmp.Diff(selected, c.query("SELECT 1")); diff != "" {
			t.Fatalf("another session (-want +got):\n%s", diff)
		}
	}
	if mib := w.peakMemory(); mib > memoryBound {
		t.Errorf("the proxy used %d MiB", mib)
	}
}

func TestClientsThatVanishLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE t (s text)"); err != nil {
		t.Fatal(err)
	}
	ways := []struct {
		name string
		send []byte
	}{
		{"idle", nil},
		{"in the midst of a header", []byte{'Q', 0}},
		{"in the midst of a Query", []byte{'Q', 0, 0, 1, 0, 'S', 'E'}},
		{"in the midst of a COPY", append(message('Q', "COPY t FROM STDIN\x00"), message('d', "x\n")...)},
		{"in the midst of CopyData", append(message('Q', "COPY t FROM STDIN\x00"), 'd', 0, 0, 1, 0, 'x')},
		{"in the midst of a large Bind", append(message('P', "\x00SELECT $1::text\x00\x00\x00"), 'B', 0, 1, 0, 0, 0, 0, 0, 0)},
		{"before an answer is read", message('Q', "SELECT repeat('x', 10000) FROM generate_series(1, 10000)\x00")},
		{"while a statement runs", message('Q', "SELECT pg_sleep(1)\x00")},
		{"in the midst of a transaction", message('Q', "BEGIN; INSERT INTO t VALUES ('x')\x00")},
		{"after a denied statement", message('Q', "hello\x00")},
	}
	w.wire().close()
	w.sealed()
	w.Metrics() // whose connection stays open
	pid := w.proxyPID()
	before := openDescriptors(t, pid)
	for _, way := range ways {
		for _, reset := range []bool{false, true} {
			c := w.wire()
			if err := c.write(way.send); err != nil {
				t.Fatal(err)
			}
			if reset {
				if err := c.conn.(*net.TCPConn).SetLinger(0); err != nil {
					t.Fatal(err)
				}
			}
			c.conn.Close()
		}
	}
	await(t, "no session is left", func() bool {
		return w.metric("sallyport_sessions{") == 0 && w.backends("true") == 0
	})
	await(t, "no descriptor is left", func() bool { return openDescriptors(t, pid) <= before })
	if got := w.value("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("%s rows are left", got)
	}
	w.sealed()
	if n := len(w.sessions()); n != 1+2*len(ways) {
		t.Errorf("%d sessions are recorded, want %d", n, 1+2*len(ways))
	}
	if n := w.metric("sallyport_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
}

func TestRandomBytesInASessionAreHarmless(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE secrets AS SELECT 'hidden' AS s"); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	valid := [][]byte{message('Q', "SELECT * FROM secrets\x00"), message('P', "a\x00SELECT s FROM secrets\x00\x00\x00"), message('B', "\x00a\x00\x00\x00\x00\x00\x00\x00"),
		message('E', "\x00\x00\x00\x00\x00"), message('S', ""), message('C', "Sa\x00"), message('Q', "SELECT 1\x00"), message('H', "")}
	for range 150 {
		var text []byte
		for range 1 + random.IntN(10) {
			text = append(text, valid[random.IntN(len(valid))]...)
		}
		for range random.IntN(4) {
			text[random.IntN(len(text))] = byte(random.Uint32())
		}
		c := w.wire()
		if err := c.write(text); err != nil {
			t.Fatal(err)
		}
		_ = c.conn.(*net.TCPConn).CloseWrite()
		var got bytes.Buffer
		_ = c.conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := got.ReadFrom(c.conn); err != nil && context.Cause(timeout(t)) != nil {
			t.Fatal(err)
		}
		if bytes.Contains(got.Bytes(), []byte("hidden")) {
			t.Fatalf("%q shows what is denied", text)
		}
		c.conn.Close()
	}
	if n := w.metric("sallyport_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
}
