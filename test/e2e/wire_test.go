package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A wire is a client that speaks the protocol message by message.
type wire struct {
	*pgproto3.Frontend
	conn net.Conn
	key  pgproto3.BackendKeyData
	t    testing.TB
}

// wire opens a session from inside the workload.
func (w *world) wire() *wire {
	w.t.Helper()
	c := newWire(w.t, w.workload().mustDial(w.address()))
	c.start(w.database())
	return c
}

func newWire(t testing.TB, conn net.Conn) *wire {
	return &wire{Frontend: pgproto3.NewFrontend(conn, conn), conn: conn, t: t}
}

// start says who connects, and waits for the first ReadyForQuery.
func (c *wire) start(database string) {
	c.t.Helper()
	c.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber,
		Parameters: map[string]string{"user": "anybody", "database": database}})
	for {
		switch m := c.receive().(type) {
		case *pgproto3.ErrorResponse:
			c.t.Fatalf("the startup is refused: %s %s", m.Code, m.Message)
		case *pgproto3.BackendKeyData:
			c.key = *m
		case *pgproto3.ReadyForQuery:
			return
		}
	}
}

// send sends messages in one write.
func (c *wire) send(messages ...pgproto3.FrontendMessage) {
	c.t.Helper()
	if err := c.trySend(messages...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *wire) trySend(messages ...pgproto3.FrontendMessage) error {
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			return err
		}
	}
	return c.write(b)
}

// write sends bytes as they are.
func (c *wire) write(b []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

// receive is the next message, which the next call overwrites.
func (c *wire) receive() pgproto3.BackendMessage {
	c.t.Helper()
	m, err := c.tryReceive()
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return m
}

func (c *wire) tryReceive() (pgproto3.BackendMessage, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return c.Receive()
}

// batch is the messages up to ReadyForQuery, in words.
func (c *wire) batch() []string {
	c.t.Helper()
	var words []string
	for {
		m := c.receive()
		words = append(words, inWords(m))
		if _, ok := m.(*pgproto3.ReadyForQuery); ok {
			return words
		}
	}
}

// query runs a simple Query and gives the answer in words.
func (c *wire) query(text string) []string {
	c.t.Helper()
	c.send(&pgproto3.Query{String: text})
	return c.batch()
}

// rest is the messages up to the end of the connection, in words.
func (c *wire) rest() []string {
	c.t.Helper()
	var words []string
	for {
		m, err := c.tryReceive()
		if err != nil {
			if !ended(err) {
				c.t.Errorf("the connection does not end: %v", err)
			}
			return words
		}
		words = append(words, inWords(m))
	}
}

// ended is true for what a connection gives whose other end has closed or reset it.
func ended(err error) bool {
	var network net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || !(errors.As(err, &network) && network.Timeout())
}

// close says goodbye.
func (c *wire) close() {
	c.t.Helper()
	c.send(&pgproto3.Terminate{})
	c.conn.Close()
}

func inWords(m pgproto3.BackendMessage) string {
	switch m := m.(type) {
	case *pgproto3.ErrorResponse:
		if m.Severity == "ERROR" {
			return "Error " + m.Code
		}
		return m.Severity + " " + m.Code
	case *pgproto3.CommandComplete:
		return string(m.CommandTag)
	case *pgproto3.DataRow:
		var values []string
		for _, v := range m.Values {
			values = append(values, string(v))
		}
		return "Row " + strings.Join(values, "|")
	case *pgproto3.ReadyForQuery:
		return "Ready " + string(m.TxStatus)
	case *pgproto3.NotificationResponse:
		return "Notification " + m.Channel + " " + m.Payload
	case *pgproto3.ParameterStatus:
		return "ParameterStatus " + m.Name
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3.")
}

// parse, bind, execute and syncMessage are messages of the extended protocol with the rest left at its default.
func parse(name, text string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: text} }

func bind(portal, statement string, parameters ...string) *pgproto3.Bind {
	b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement}
	for _, p := range parameters {
		b.Parameters = append(b.Parameters, []byte(p))
	}
	return b
}

func execute(portal string) *pgproto3.Execute { return &pgproto3.Execute{Portal: portal} }

func syncMessage() *pgproto3.Sync { return &pgproto3.Sync{} }

// unnamed is Parse, Bind and Execute of one statement.
func unnamed(text string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{parse("", text), bind("", ""), execute("")}
}

// message is any message, right or wrong.
func message(typ byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body))), body...)
}

// startupBytes is a StartupMessage.
func startupBytes(t testing.TB, parameters map[string]string) []byte {
	t.Helper()
	b, err := (&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: parameters}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
