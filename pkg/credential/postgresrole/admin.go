package postgresrole

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/credential"
	"github.com/sallyport-dev/sallyport/pkg/credential/static"
	"github.com/sallyport-dev/sallyport/pkg/pki"
)

// maintenance is the database for what concerns no other one.
const maintenance = "postgres"

// An admin does what its role may, on one connection for each database, kept while it is of use.
type admin struct {
	spec       v1alpha1.PostgresRole
	files      static.Files
	credential credential.Source

	mu    sync.Mutex
	conns map[string]*adminConn
}

// An adminConn is used by one at a time.
type adminConn struct {
	users   int // who is in or waits; under admin.mu
	mu      sync.Mutex
	conn    *pgconn.PgConn
	refused error // what GRANT did not grant, which the server only warns of
}

// in runs f with a connection to a database. A connection that fails is not used again; one that had been kept is tried anew.
func (a *admin) in(ctx context.Context, database string, f func(*adminConn) error) error {
	a.mu.Lock()
	if a.conns == nil {
		a.conns = map[string]*adminConn{}
	}
	c := a.conns[database]
	if c == nil {
		c = &adminConn{}
		a.conns[database] = c
	}
	c.users++
	a.mu.Unlock()
	defer a.left(database, c)
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.conn != nil
	for {
		if c.conn == nil {
			if err := a.connect(ctx, c, database); err != nil {
				return err
			}
		}
		c.refused = nil
		err := f(c)
		if err == nil || !c.conn.IsClosed() {
			return err
		}
		c.conn = nil
		if !kept || ctx.Err() != nil {
			return err
		}
		kept = false
	}
}

// left forgets a database that could not be connected to: clients choose the names.
func (a *admin) left(database string, c *adminConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.users--; c.users == 0 && c.conn == nil && a.conns[database] == c {
		delete(a.conns, database)
	}
}

// connect logs the administrator in.
func (a *admin) connect(ctx context.Context, c *adminConn, database string) error {
	host, port, err := net.SplitHostPort(a.spec.Address)
	if err != nil {
		return err
	}
	// Nothing of the process's environment counts.
	config, err := pgconn.ParseConfig("sslmode=disable target_session_attrs=any connect_timeout=10 host=127.0.0.1 user=x passfile=/dev/null")
	if err != nil {
		return err
	}
	var ca []byte
	if a.spec.TLS.CA != nil {
		if ca, err = a.files.ReadFile(ctx, a.spec.TLS.CA.File); err != nil {
			return fmt.Errorf("certificate authority: %w", err)
		}
	}
	if config.TLSConfig, err = pki.UpstreamTLS(a.spec.TLS, ca); err != nil {
		return err
	}
	config.RequireAuth = "scram-sha-256,md5"
	if config.TLSConfig != nil && a.spec.TLS.Mode == v1alpha1.TLSVerifyFull {
		config.RequireAuth = "" // a password in clear goes to a server that has proven who it is, and to no other
		if config.TLSConfig.ServerName == "" {
			config.TLSConfig.ServerName = host
		}
	}
	lease, err := a.credential.Issue(ctx, credential.Request{})
	if err != nil {
		return err
	}
	defer func() { _ = lease.Release(ctx) }() // it only clears the password
	if config.Port, err = parsePort(port); err != nil {
		return err
	}
	config.Host, config.User, config.Database = host, lease.Username, database
	config.Password = string(lease.Password.Reveal())
	config.Fallbacks = nil
	config.RuntimeParams = map[string]string{"application_name": "sallyport", "search_path": "", "statement_timeout": "20000", "lock_timeout": "10000"}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if strings.HasPrefix(n.Code, "01007") { // privilege_not_granted
			c.refused = errors.New(n.Message)
		}
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("administrator %s at %s: %w", lease.Username, a.spec.Address, safe(err))
	}
	c.conn = conn
	return nil
}

func parsePort(port string) (uint16, error) {
	n, err := net.LookupPort("tcp", port)
	return uint16(n), err
}

// safe is an error without what a driver says of the connection's configuration.
func safe(err error) error {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return fmt.Errorf("%s (%s)", server.Message, server.Code)
	}
	var failed *pgconn.ConnectError
	if errors.As(err, &failed) {
		return errors.Unwrap(failed)
	}
	return err
}

// exec runs statements as one transaction.
func (c *adminConn) exec(ctx context.Context, statements ...string) error {
	_, err := c.conn.Exec(ctx, strings.Join(statements, ";\n")).ReadAll()
	return safe(err)
}

// column is the first column of a query's rows.
func (c *adminConn) column(ctx context.Context, query string, arguments ...string) ([]string, error) {
	values := make([][]byte, len(arguments))
	for i, argument := range arguments {
		values[i] = []byte(argument)
	}
	result := c.conn.ExecParams(ctx, query, values, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, safe(result.Err)
	}
	var rows []string
	for _, row := range result.Rows {
		rows = append(rows, string(row[0]))
	}
	return rows, nil
}

// close ends the connections.
func (a *admin) close() {
	a.mu.Lock()
	conns := a.conns
	a.conns = nil
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, c := range conns {
		c.mu.Lock()
		if c.conn != nil {
			_ = c.conn.Close(ctx)
			c.conn = nil
		}
		c.mu.Unlock()
	}
}
