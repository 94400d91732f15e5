package postgres

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/mask"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/test/env"
)

// canary is what the masked column holds, and what no client may see.
const canary = "canary-7f3a9"

// maskedSchema has masked columns: people.secret, and what is made of it.
var maskedSchema = []string{
	"CREATE TABLE people (id integer PRIMARY KEY, name text, secret text CHECK (length(secret) < 1000), secret_number bigint, note text)",
	"INSERT INTO people SELECT n, 'name ' || n, '" + canary + "-' || n, 4242424242 + n, 'note ' || n FROM generate_series(1, 20) n",
	"CREATE TABLE plain (id integer PRIMARY KEY, word text)",
	"INSERT INTO plain SELECT n, 'word ' || n FROM generate_series(1, 20) n",
	"CREATE VIEW seen AS SELECT id, upper(secret) AS shown, secret AS whole, name FROM people",
	"CREATE UNIQUE INDEX secrets ON people (secret)",
	"GRANT ALL ON people, plain, seen TO PUBLIC", "GRANT CREATE ON SCHEMA public TO PUBLIC",
}

// secretsMasked masks the secrets of people.
var secretsMasked = mask.Compile([]mask.Source{{Policy: "p", Masks: []v1alpha1.Mask{
	{Name: "secrets", Columns: []string{"public.people.secret"}, With: v1alpha1.MaskRedact, Inference: v1alpha1.InferenceAllow},
	{Name: "numbers", Columns: []string{"public.people.secret_number"}, With: v1alpha1.MaskNull, Inference: v1alpha1.InferenceDeny},
}, Masking: v1alpha1.Masking{Mode: v1alpha1.MaskingStrict, TrustedFunctions: []string{"pg_catalog.lo_close"}}}})

// mailMasked masks what looks like an e-mail address.
var mailMasked = mask.Compile([]mask.Source{{Policy: "p", Masks: []v1alpha1.Mask{
	{Name: "mail", Detect: []string{"email"}, With: v1alpha1.MaskRedact, Inference: v1alpha1.InferenceAllow},
}}})

// A testDatabase is a database whose catalog is looked at by a connection of the test's.
type testDatabase struct{ database }

func newTestDatabase(t testing.TB, server *env.Server) *testDatabase {
	t.Helper()
	conn, err := pgconn.Connect(context.Background(), server.URL(env.Superuser, server.Password, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	d := &testDatabase{}
	d.conn, d.idle = conn, time.NewTimer(time.Hour)
	return d
}

// Now implements pictures.
func (d *testDatabase) Now(after time.Time) *picture { return d.now(after) }

// Changed implements pictures.
func (d *testDatabase) Changed() {
	now := time.Now()
	d.changed.Store(&now)
}

// Take implements pictures.
func (d *testDatabase) Take(after time.Time) (*picture, error) { return d.newer(after, nil, nil) }

// A maskedWorld is a server, and an engine that relays to it.
type maskedWorld struct {
	server   *env.Server
	engine   *relay.Engine
	pictures *testDatabase
}

func newMaskedWorld(t testing.TB) *maskedWorld {
	t.Helper()
	w := &maskedWorld{server: env.Postgres(t, env.PostgresOptions{Auth: "trust", SQL: append([]string{"CREATE ROLE through LOGIN"}, maskedSchema...)})}
	w.pictures = newTestDatabase(t, w.server)
	var err error
	if w.engine, err = relay.NewEngine(1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.engine.Close)
	return w
}

// connect is a client's connection to the server with masks.
func (w *maskedWorld) connect(t *testing.T, rules *mask.Rules) *maskedClient {
	t.Helper()
	return w.connectThrough(t, rules, func(c net.Conn) net.Conn { return c })
}

// connectThrough is connect with something around the server's connection.
func (w *maskedWorld) connectThrough(t *testing.T, rules *mask.Rules, around func(net.Conn) net.Conn) *maskedClient {
	t.Helper()
	client, inner := net.Pipe()
	v := newWire()
	v.judge.masks, v.judge.forbidden, v.machine.pictures = rules, func(*sql.Unit, []string) bool { return false }, w.pictures
	_, err := w.engine.Start(relay.Leg{Conn: inner, Half: v.f, Received: noCounter{}},
		relay.Leg{Conn: around(dialServer(t, w.server, "through")), Half: v.b, Received: noCounter{}}, func(c, u net.Conn, _ error) { c.Close(); u.Close() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return &maskedClient{t: t, conn: client, wire: v}
}

// A maskedClient speaks the protocol byte by byte.
type maskedClient struct {
	t    *testing.T
	conn net.Conn
	wire *wire
}

// ask sends messages, of which as many end a batch as are given, and returns all that comes back.
func (c *maskedClient) ask(batches int, messages ...string) []byte {
	c.t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = io.WriteString(c.conn, strings.Join(messages, "")) }()
	var all []byte
	for batches > 0 {
		var head [headerSize]byte
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			c.t.Fatalf("%v after %q", err, all)
		}
		typ, size, _ := header(head[:])
		body := make([]byte, size-headerSize)
		if _, err := io.ReadFull(c.conn, body); err != nil {
			c.t.Fatal(err)
		}
		all = append(append(all, head[:]...), body...)
		if typ == msgReadyForQuery {
			batches--
		}
		if typ == msgErrorResponse && string(errorField(body, 'V')) == "FATAL" {
			c.t.Fatalf("the session ended: %q", body)
		}
	}
	return all
}

// query is the answer to a simple query.
func (c *maskedClient) query(text string) []byte { c.t.Helper(); return c.ask(1, qry(text)) }

// extended is the answer to the same by extended protocol, with results in a format.
func (c *maskedClient) extended(text string, format int) []byte {
	c.t.Helper()
	bind := mk(msgBind, "\x00\x00\x00\x00\x00\x00\x00\x01\x00", string(rune(format)))
	return c.ask(1, prs("", text), bind, exe(""), syn)
}

// told is the canary in whatever form; "" when it is not there.
func told(answer []byte) string {
	lower := bytes.ToLower(answer)
	for _, form := range []string{canary, hex.EncodeToString([]byte(canary)), base64.StdEncoding.EncodeToString([]byte(canary))[:12], reversed(canary), "42424242"} {
		if bytes.Contains(lower, []byte(strings.ToLower(form))) {
			return form
		}
	}
	return ""
}

func reversed(s string) string {
	b := []byte(s)
	for i := range len(b) / 2 {
		b[i], b[len(b)-1-i] = b[len(b)-1-i], b[i]
	}
	return string(b)
}

// valuesOf are the values of all DataRows, "NULL" for none; an error is its SQLSTATE and message.
func valuesOf(answer []byte) (values []string) {
	for len(answer) >= headerSize {
		typ, size, _ := header(answer)
		r := reader{p: answer[headerSize:size]}
		switch typ {
		case msgDataRow:
			for range r.uint16() {
				if n := r.uint32(); n == 0xffffffff {
					values = append(values, "NULL")
				} else {
					values = append(values, string(r.take(int(n))))
				}
			}
		case msgErrorResponse:
			values = append(values, fmt.Sprintf("%s %s", errorField(r.p, 'C'), errorField(r.p, 'M')))
		case msgCopyData:
			values = append(values, string(r.p))
		}
		answer = answer[size:]
	}
	return values
}

// An unreadable is a database whose catalog can not be read.
type unreadable struct{}

// Now implements pictures.
func (unreadable) Now(time.Time) *picture { return nil }

// Take implements pictures.
func (unreadable) Take(time.Time) (*picture, error) { return nil, errors.New("no connection") }

// Changed implements pictures.
func (unreadable) Changed() {}
