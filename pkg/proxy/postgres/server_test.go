package postgres

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/test/env"
)

// A pipeline is what a client sends, and the same with what is denied replaced by what the server itself refuses.
type pipeline struct{ through, direct strings.Builder }

func (p *pipeline) both(messages ...string) {
	for _, m := range messages {
		p.through.WriteString(m)
		p.direct.WriteString(m)
	}
}

func (p *pipeline) denied(make func(text string) string) {
	p.through.WriteString(make("DELETE FROM items"))
	p.direct.WriteString(make("no statement"))
}

// finish ends whatever is open, and gets an answer by which the end of all answers is known.
func (p *pipeline) finish(marker int) {
	p.both(syn, qry("ROLLBACK"), qry(fmt.Sprintf("SELECT %d", marker)))
}

// randomPipeline is a sequence of valid messages, of which many fail.
func randomPipeline(random *rand.Rand, marker int) *pipeline {
	queries := []string{
		"SELECT 1", "SELECT 1/0", "BEGIN", "COMMIT", "ROLLBACK", "", "SELECT 1; SELECT 2", "INSERT INTO items VALUES (7)", "SELECT 1; SELECT 1/0; SELECT 2",
		"PREPARE s AS SELECT 3", "DEALLOCATE s", "EXECUTE s", "DEALLOCATE ALL", "SAVEPOINT a", "ROLLBACK TO a", "no statement at all",
		"INSERT INTO items VALUES (1) RETURNING a", "FETCH ALL FROM p", "CLOSE ALL", "COPY items TO STDOUT", "SHOW server_version", "NOTIFY x",
	}
	prepared := []string{ // none fails at Bind: what of a portal is left then is the server's own
		"SELECT 1", "SELECT a FROM items", "SELECT 1/(random()*0)::int", "BEGIN", "COMMIT", "ROLLBACK", "", "INSERT INTO items VALUES (8)", "no statement",
		"SELECT generate_series(1, 5)", "DEALLOCATE ALL", "COPY items TO STDOUT", "SELECT missing",
	}
	names, portals := []string{"", "s", "r"}, []string{"", "p"}
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	p := &pipeline{}
	for range 5 + random.IntN(25) {
		switch random.IntN(16) {
		case 0, 1:
			p.both(qry(pick(queries)))
		case 2:
			p.denied(qry)
		case 3, 4:
			p.both(prs(pick(names), pick(prepared)))
		case 5:
			name := pick(names)
			p.denied(func(text string) string { return prs(name, text) })
		case 6:
			p.both(bnd(pick(portals), pick(names)))
		case 7:
			p.both(mk(msgExecute, pick(portals), "\x00", uint32Bytes(uint32(random.IntN(3)))))
		case 8:
			p.both(dsc("S", pick(names)), dsc("P", pick(portals)))
		case 9:
			p.both(cls("S", pick(names)), cls("P", pick(portals)))
		case 10, 11:
			p.both(syn)
		case 12:
			p.both(prs("", pick(prepared)), bnd("", ""), dsc("P", ""), exe(""), syn)
		case 13:
			p.both(qry(pick([]string{"COPY items FROM STDIN", "COPY missing FROM STDIN", "COPY items FROM STDIN; SELECT 1"})), data, pick([]string{dn, fail, syn + dn, data + flsh + dn}))
		case 14:
			text := pick([]string{"COPY items FROM STDIN", "COPY missing FROM STDIN", "COPY items FROM STDIN WHERE a > 1"})
			p.both(cls("S", "copy"), cls("P", "copy"), prs("copy", text), bnd("copy", "copy"), exe("copy"), pick([]string{"", syn, flsh}),
				pick([]string{data, mk(msgCopyData, "no number\n")}), pick([]string{dn, fail}), syn)
		case 15:
			p.both(mk(msgFunctionCall, uint32Bytes(953), "\x00\x00\x00\x01\x00\x01\x00\x00\x00\x04\x00\x00\x00\x63\x00\x01"))
		}
	}
	p.finish(marker)
	return p
}

// exchange sends bytes in pieces, and gives back the answers up to those to the marker: types, row counts and transaction status.
func exchange(t *testing.T, conn net.Conn, send string, marker int, random *rand.Rand) (shape []string) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		for len(send) > 0 {
			n := min(1+random.IntN(200), len(send))
			if _, err := io.WriteString(conn, send[:n]); err != nil {
				return
			}
			send = send[n:]
		}
	}()
	found := false
	for {
		typ, body, err := readMessage(conn)
		if err != nil {
			t.Fatalf("%v after %s", err, strings.Join(shape, " "))
		}
		switch typ {
		case msgNoticeResponse, msgParameterStatus, msgNotification:
			continue
		case msgReadyForQuery:
			shape = append(shape, "Z"+string(body))
			if found {
				return shape
			}
			continue
		case msgDataRow:
			found = found || strings.HasSuffix(string(body), strconv.Itoa(marker))
		case msgCommandComplete:
			shape = append(shape, "C"+strings.TrimSuffix(string(body), "\x00"))
			continue
		}
		shape = append(shape, string(typ))
	}
}

func readMessage(conn net.Conn) (typ byte, body []byte, err error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, nil, err
	}
	typ, size, ok := header(head[:])
	if !ok {
		return 0, nil, fmt.Errorf("length of %q", typ)
	}
	body = make([]byte, size-headerSize)
	_, err = io.ReadFull(conn, body)
	return typ, body, err
}

// dialServer logs in as a client that needs no password.
func dialServer(t *testing.T, server *env.Server, user string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort(server.Hosts[0], strconv.Itoa(server.Port)))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, startupPacket("user", user, "database", "postgres", "client_min_messages", "error")); err != nil {
		t.Fatal(err)
	}
	for {
		typ, body, err := readMessage(conn)
		if err != nil || typ == msgErrorResponse {
			t.Fatalf("login: %v %s", err, body)
		}
		if typ == msgReadyForQuery {
			_ = conn.SetDeadline(time.Time{})
			return conn
		}
	}
}

type noCounter struct{}

func (noCounter) Add(float64) {}

// relayed is a client's connection to the server through a machine.
func relayed(t *testing.T, engine *relay.Engine, server *env.Server, plain bool, prepare func(*wire)) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	inner, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if !plain {
		inner = struct{ net.Conn }{inner}
	}
	w := newWire()
	prepare(w)
	_, err = engine.Start(relay.Leg{Conn: inner, Half: w.f, Received: noCounter{}}, relay.Leg{Conn: dialServer(t, server, "through"), Half: w.b, Received: noCounter{}},
		func(c, u net.Conn, _ error) { c.Close(); u.Close() })
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestAnswersHaveTheShapeOfTheServersOwn(t *testing.T) {
	server := twoSchemas(t)
	sameShapes(t, server, func(*wire) {})
}

// twoSchemas is a server with two roles that have a table of their own each.
func twoSchemas(t *testing.T) *env.Server {
	t.Helper()
	o := env.PostgresOptions{Auth: "trust"}
	for _, role := range []string{"direct", "through"} {
		o.SQL = append(o.SQL, "CREATE ROLE "+role+" LOGIN", "CREATE SCHEMA "+role+" AUTHORIZATION "+role, "CREATE TABLE "+role+".items (a integer)",
			"ALTER TABLE "+role+".items OWNER TO "+role)
	}
	return env.Postgres(t, o)
}

// sameShapes compares what a client gets of the server with what it gets through machines.
func sameShapes(t *testing.T, server *env.Server, prepare func(*wire)) {
	t.Helper()
	engine, err := relay.NewEngine(1)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 1))
		direct := dialServer(t, server, "direct")
		through := relayed(t, engine, server, seed%2 == 0, prepare)
		var sent strings.Builder
		for round := range 3 { // names and what was prepared stay from one to the next
			marker := 471100 + round
			p := randomPipeline(random, marker)
			sent.WriteString(p.through.String())
			want := exchange(t, direct, p.direct.String(), marker, rand.New(rand.NewPCG(seed, 2)))
			got := exchange(t, through, p.through.String(), marker, rand.New(rand.NewPCG(seed, 3)))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d, round %d: %s\nafter %s", seed, round, diff, describe(sent.String()))
			}
		}
		direct.Close()
		through.Close()
	}
}

// describe lists messages for people.
func describe(sent string) string {
	var b strings.Builder
	for len(sent) >= headerSize {
		n := int(binary.BigEndian.Uint32([]byte(sent[1:]))) + 1
		fmt.Fprintf(&b, "%c%q\n", sent[0], sent[headerSize:min(n, len(sent))])
		sent = sent[min(n, len(sent)):]
	}
	return b.String()
}
