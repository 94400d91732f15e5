package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/credential"
	"github.com/sallyport-dev/sallyport/pkg/pki"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
)

func TestConnectionIsKeptOnlyWhenItsResetIsAnsweredCleanly(t *testing.T) {
	clean := tag("DISCARD ALL") + idleNow
	for _, test := range []struct {
		name           string
		before         []turn
		answer         string
		asked, isReset bool
	}{
		{"a clean end", nil, clean, true, true},
		{"after a statement", []turn{c("Q", qry("SELECT 1")), s("C Z(I)", tag("SELECT 0"), idleNow)}, clean, true, true},
		{"with notices and parameters", nil, notice + setting1 + clean, true, true},
		{"the reset fails", nil, errMsg("25001") + idleNow, true, false},
		{"a transaction is open after it", nil, tag("DISCARD ALL") + inTx, true, false},
		{"more comes behind it", nil, clean + notice, true, false},
		{"a notification for the session that ended", nil, mk(msgNotification, "\x00\x00\x00\x01x\x00\x00") + clean, true, false},
		{"a parameter that hides quotes", nil, mk(msgParameterStatus, "client_encoding\x00GBK\x00") + clean, true, false},
		{"no message at all", nil, "\x00\x00\x00\x00\x00", true, false},
		{"an answer is due", []turn{c("Q", qry("SELECT 1"))}, "", false, false},
		{"a transaction is open", []turn{c("Q", qry("BEGIN")), s("C Z(T)", tag("BEGIN"), inTx)}, "", false, false},
		{"a Sync is missing", []turn{c("P", prs("", "SELECT 1")), s("1", parseOK)}, "", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, bytewise := range []bool{false, true} {
				if bytewise && test.name == "more comes behind it" {
					continue // then it is found when the connection is taken
				}
				w := newWire()
				w.keep, w.bytewise = true, bytewise
				for _, turn := range test.before {
					if turn.from == 'c' {
						w.client(turn.send)
					} else {
						w.server(turn.send)
					}
				}
				w.forwarded()
				w.answered()
				w.client(term + qry("DROP TABLE t"))
				want := ""
				if test.asked {
					want = "Q"
				}
				if got := w.forwarded(); got != want {
					t.Fatalf("the server got %q, want %q", got, want)
				}
				w.server(test.answer)
				if (w.reset == wasReset) != test.isReset || w.err == nil {
					t.Errorf("bytewise %v: reset %v, error %v", bytewise, w.reset, w.err)
				}
				if got := w.answered(); got != "" {
					t.Errorf("the client got %q", got)
				}
			}
		})
	}
}

// tcpEnds are both ends of a connection on loopback.
func tcpEnds(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// kept is an upstream with a connection and a lease.
func kept(conn net.Conn) *upstream {
	lease := &credential.Lease{Release: func(context.Context) error { return nil }}
	return &upstream{conn: conn, lease: &proxy.Lease{Lease: lease}}
}

// tlsEnds are tcpEnds with TLS.
func tlsEnds(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	client, server := tcpEnds(t)
	ca, err := pki.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	there := tls.Server(server, ca.ServerTLS("db.example"))
	done := make(chan error, 1)
	go func() {
		_, err := there.Write([]byte("x"))
		done <- err
	}()
	here := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	if _, err := io.ReadFull(here, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return here, there
}

func TestConnectionOnWhichTheServerSpokeIsNotTakenFromThePool(t *testing.T) {
	for _, test := range []struct {
		name  string
		do    func(server net.Conn)
		quiet bool
	}{
		{"nothing happened", func(net.Conn) {}, true},
		{"a late notice came", func(server net.Conn) { _, _ = io.WriteString(server, notice) }, false},
		{"the server said goodbye", func(server net.Conn) { server.Close() }, false},
	} {
		for kind, ends := range map[string]func(*testing.T) (net.Conn, net.Conn){"plain": tcpEnds, "TLS": tlsEnds} {
			t.Run(test.name+", "+kind, func(t *testing.T) {
				ours, theirs := ends(t)
				var p pool
				key := poolKey{id: "k", size: 1, idle: time.Minute}
				u := kept(ours)
				test.do(theirs)
				if !test.quiet { // until it has arrived
					raw := ours
					if secured, ok := ours.(*tls.Conn); ok {
						raw = secured.NetConn()
					}
					for deadline := time.Now().Add(5 * time.Second); relay.Quiet(raw); runtime.Gosched() {
						if time.Now().After(deadline) {
							t.Fatal("nothing arrives")
						}
					}
				}
				p.put(key, u)
				got := p.take(key)
				if (got == u) != test.quiet {
					t.Fatalf("taken: %v", got != nil)
				}
				if !test.quiet {
					if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
						t.Errorf("it is not closed: %v", err)
					}
					return
				}
				// It can be used on.
				go func() { _, _ = theirs.Write([]byte("y")) }()
				_ = ours.SetDeadline(time.Now().Add(5 * time.Second))
				if _, err := io.ReadFull(ours, make([]byte, 1)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestPoolKeepsNoMoreThanItsSizeAndNoLongerThanItsTime(t *testing.T) {
	var p pool
	key := poolKey{id: "k", size: 1, idle: time.Minute}
	a, _ := tcpEnds(t)
	b, other := tcpEnds(t)
	p.put(key, kept(a))
	p.put(key, kept(b))
	_ = other.SetDeadline(time.Now().Add(5 * time.Second))
	if got, err := io.ReadAll(other); err != nil || string(got) != term {
		t.Errorf("the one too many got %q, %v", got, err)
	}
	if p.take(poolKey{id: "other", size: 1, idle: time.Minute}) != nil {
		t.Error("taken under another key")
	}
	if u := p.take(key); u == nil || u.conn != a || p.take(key) != nil {
		t.Errorf("taken: %v", u)
	}
	d, end := tcpEnds(t)
	p.put(poolKey{id: "k", size: 1, idle: time.Millisecond}, kept(d))
	_ = end.SetDeadline(time.Now().Add(5 * time.Second))
	if got, err := io.ReadAll(end); err != nil || string(got) != term {
		t.Errorf("the one kept too long got %q, %v", got, err)
	}
	if p.take(key) != nil {
		t.Error("it is still there")
	}
}
