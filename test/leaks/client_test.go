package leaks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A client speaks the protocol message by message and keeps every byte that it receives.
type client struct {
	*pgproto3.Frontend
	conn net.Conn
	seen bytes.Buffer // since the session began
	said []byte       // the same, but for what differs from one database to the next
	over bool
	// relations is the last OID of those that both databases have.
	relations uint32
	t         testing.TB
}

// Read implements io.Reader for the Frontend.
func (c *client) Read(p []byte) (int, error) {
	n, err := c.conn.Read(p)
	c.seen.Write(p[:n])
	return n, err
}

// dial opens a session of a policy's workload in a database.
func (w *world) dial(t testing.TB, policy, database string) *client {
	t.Helper()
	conn, err := net.Dial("unix", w.sockets[policy])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &client{conn: conn, relations: w.relations, t: t}
	c.Frontend = pgproto3.NewFrontend(c, conn)
	c.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber,
		Parameters: map[string]string{"user": "anybody", "database": database, "application_name": "leaks", "DateStyle": "ISO"}})
	if last := c.untilReady(); c.over || last != "" {
		t.Fatalf("the session is refused: %s", last)
	}
	c.seen.Reset()
	c.said = nil
	return c
}

func (c *client) send(messages ...pgproto3.FrontendMessage) {
	c.t.Helper()
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.conn.Write(b); err != nil {
		c.over = true // what it was told before is still to be read
	}
}

// untilReady receives up to ReadyForQuery or the session's end; first is the first error.
func (c *client) untilReady() (first string) {
	first, _ = c.until(func(m pgproto3.BackendMessage) bool {
		_, ready := m.(*pgproto3.ReadyForQuery)
		return ready
	})
	return first
}

// until receives up to a message; last is that.
func (c *client) until(isLast func(pgproto3.BackendMessage) bool) (first string, last pgproto3.BackendMessage) {
	c.t.Helper()
	for {
		m, err := c.Receive()
		if err != nil {
			var network net.Error
			if errors.As(err, &network) && network.Timeout() {
				c.t.Errorf("no answer within %s", patience)
			}
			c.over = true
			return first, nil
		}
		c.note(m)
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			if first == "" {
				first = m.Code + " " + m.Message
			}
		case *pgproto3.CopyInResponse:
			c.send(&pgproto3.CopyData{Data: []byte("1\tx\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
		}
		if isLast(m) {
			return first, m
		}
	}
}

// note keeps what was said. Relations that a script makes have another OID in each database.
func (c *client) note(m pgproto3.BackendMessage) {
	if d, ok := m.(*pgproto3.RowDescription); ok {
		for i := range d.Fields {
			if f := &d.Fields[i]; f.TableOID > c.relations {
				f.TableOID = c.relations + 1
			}
		}
	}
	var err error
	if c.said, err = m.(interface{ Encode([]byte) ([]byte, error) }).Encode(c.said); err != nil {
		c.t.Fatal(err)
	}
}

// A way is how a statement is sent.
type way struct {
	name string
	send func(c *client, sql string) (first string)
}

func parse(name, sql string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: sql} }

func bind(portal, statement string, format int16) *pgproto3.Bind {
	return &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement, ResultFormatCodes: []int16{format}}
}

func execute(portal string, rows uint32) *pgproto3.Execute {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

// ways are those that clients use, and some that are only allowed.
var ways = []way{
	{"simple", func(c *client, sql string) string {
		c.send(&pgproto3.Query{String: sql})
		return c.untilReady()
	}},
	{"extended in text", func(c *client, sql string) string {
		c.send(parse("", sql), bind("", "", 0), &pgproto3.Describe{ObjectType: 'P'}, execute("", 0), &pgproto3.Sync{})
		return c.untilReady()
	}},
	{"extended in binary", func(c *client, sql string) string {
		c.send(parse("", sql), bind("", "", 1), execute("", 0), &pgproto3.Sync{})
		return c.untilReady()
	}},
	{"prepared, described and executed twice, in pieces", func(c *client, sql string) string {
		c.send(parse("s", sql), &pgproto3.Describe{ObjectType: 'S', Name: "s"}, &pgproto3.Sync{})
		first := c.untilReady()
		for format := range int16(2) {
			if format == 1 && !repeatable(sql) {
				break
			}
			c.send(bind("p", "s", format))
			for pieces := true; pieces && !c.over; {
				c.send(execute("p", 1), &pgproto3.Describe{ObjectType: 'P', Name: "p"}, &pgproto3.Flush{})
				problem, last := c.until(endsExecute)
				if _, pieces = last.(*pgproto3.PortalSuspended); problem != "" && first == "" {
					first = problem
				}
			}
			c.send(&pgproto3.Close{ObjectType: 'P', Name: "p"}, &pgproto3.Sync{})
			c.untilReady()
		}
		c.send(&pgproto3.Close{ObjectType: 'S', Name: "s"}, &pgproto3.Sync{})
		c.untilReady()
		return first
	}},
}

// repeatable is true for what can be executed again in the same transaction.
func repeatable(sql string) bool {
	verb, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
	return slices.Contains([]string{"SELECT", "WITH", "VALUES", "TABLE", "UPDATE", "DELETE", "FETCH", "EXECUTE", "EXPLAIN", "SHOW", "COPY"}, verb)
}

// endsExecute is true for messages that end the answer to Execute.
func endsExecute(m pgproto3.BackendMessage) bool {
	switch m.(type) {
	case *pgproto3.CommandComplete, *pgproto3.EmptyQueryResponse, *pgproto3.PortalSuspended, *pgproto3.ErrorResponse, *pgproto3.ReadyForQuery:
		return true
	}
	return false
}

// An outcome is what came of a session.
type outcome struct {
	received []byte // every byte
	said     []byte // the messages, but for what differs from one database to the next
	problem  string // the first error
}

// run sends statements one after the other in a new session.
func (w *world) run(t testing.TB, policy, database string, send way, statements []string) (o outcome) {
	t.Helper()
	c := w.dial(t, policy, database)
	defer c.conn.Close()
	for _, sql := range statements {
		if c.over {
			break
		}
		if problem := send.send(c, sql); problem != "" && o.problem == "" {
			o.problem = fmt.Sprintf("%.40s…: %s", sql, problem)
		}
	}
	c.send(&pgproto3.Terminate{})
	_, _ = io.Copy(io.Discard, c)
	o.received, o.said = c.seen.Bytes(), c.said
	return o
}
