package upgrade

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The users that the server sees: the credential's is the proxy's, the workload's own is a connection past the proxy.
const (
	proxyUser    = "app"
	workloadUser = "workload"
)

// server speaks as much PostgreSQL as a client needs that asks for a constant: PostgreSQL itself starts a process for each
// connection, and would be the bottleneck of the rate.
type server struct {
	address string
	// accepted are all connections, logins those that said who they are: as the proxy, or as anybody else.
	accepted, logins, direct atomic.Int64
}

func newServer(t *testing.T) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.9.8.7:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s := &server{address: listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			go s.serve(conn)
		}
	}()
	return s
}

func (s *server) serve(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	first, err := backend.ReceiveStartupMessage()
	if err != nil {
		return
	}
	startup, ok := first.(*pgproto3.StartupMessage)
	if !ok {
		return
	}
	if startup.Parameters["user"] == proxyUser {
		s.logins.Add(1)
	} else {
		s.direct.Add(1)
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	for name, value := range map[string]string{
		"server_version": "17.0", "client_encoding": "UTF8", "standard_conforming_strings": "on", "DateStyle": "ISO, MDY",
	} {
		backend.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	status := byte('I')
	for {
		backend.Send(&pgproto3.ReadyForQuery{TxStatus: status})
		if backend.Flush() != nil {
			return
		}
		message, err := backend.Receive()
		if err != nil {
			return
		}
		query, ok := message.(*pgproto3.Query)
		if !ok {
			return // Terminate, or what this server does not know.
		}
		tag := "SELECT 1"
		switch {
		case query.String == "BEGIN":
			status, tag = 'T', "BEGIN"
		case query.String == "COMMIT":
			status, tag = 'I', "COMMIT"
		default:
			value := "public" // what the proxy asks for itself
			if constant, ok := strings.CutPrefix(query.String, "SELECT '"); ok {
				value = strings.TrimSuffix(constant, "'")
			}
			backend.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("value"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}}})
			backend.Send(&pgproto3.DataRow{Values: [][]byte{[]byte(value)}})
		}
		backend.Send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
	}
}
