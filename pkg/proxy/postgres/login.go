package postgres

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sallyport-dev/sallyport/pkg/proxy"
)

// loginTimeout bounds the login from the TCP connection to the first ReadyForQuery.
const loginTimeout = 20 * time.Second

// schemasQuery asks which schemas an unqualified name may resolve to.
const schemasQuery = "SELECT pg_catalog.unnest(pg_catalog.current_schemas(false))\x00"

// An upstream is a connection to the server, logged in and idle.
type upstream struct {
	conn       net.Conn
	in         *bufio.Reader // may hold bytes that came early
	tls        *tls.Config   // nil without; for cancel requests
	parameters []setting     // as reported, in order
	key        cancelKey     // the server's own
	schemas    []string      // the search path at login
	lease      *proxy.Lease
	proof      [sha256.Size]byte // of the credential that the server accepted
	proven     time.Time         // when that was last known to be the source's
}

// A loginError is why no session with the server came about.
type loginError struct {
	reason string
	tell   []byte // an ErrorResponse
	cause  error
}

// Error implements error.
func (e *loginError) Error() string { return e.cause.Error() }

// login connects to the target with a lease, which is the connection's from then on.
func login(ctx context.Context, s *proxy.Session, st *startup, lease *proxy.Lease) (*upstream, *loginError) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	u := &upstream{lease: lease, proof: proofOf(lease), proven: time.Now()}
	fail := func(reason, code, what string, err error) (*upstream, *loginError) {
		if u.conn != nil {
			u.conn.Close()
		}
		lease.Close()
		err = fmt.Errorf("target %s %s: %w", s.Target.Metadata.Name, what, err)
		var own *serverError
		if errors.As(err, &own) && own.forClient() {
			return nil, &loginError{reason: reason, tell: own.raw, cause: err}
		}
		return nil, &loginError{reason: reason, tell: appendDenial(nil, fatal(code, err.Error(), s.ID)), cause: err}
	}
	config, err := s.UpstreamTLS(ctx)
	if err != nil {
		return fail(proxy.ReasonUpstream, codeCanNotConnect, "can not be connected to safely", err)
	}
	u.tls = config
	if u.conn, err = s.Dial(ctx); err != nil {
		return fail(proxy.ReasonUpstream, codeCanNotConnect, "can not be reached", err)
	}
	deadline, _ := ctx.Deadline()
	_ = u.conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = u.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if config != nil {
		if u.conn, err = secure(ctx, u.conn, config); err != nil {
			return fail(proxy.ReasonUpstream, codeCanNotConnect, "can not be connected to safely", err)
		}
	}
	u.in = bufio.NewReaderSize(u.conn, 8<<10)
	parameters := map[string]string{}
	for name, value := range st.parameters {
		parameters[name] = value
	}
	parameters["user"], parameters["database"] = lease.Username, st.database()
	message, err := (&pgproto3.StartupMessage{ProtocolVersion: protocolVersion3, Parameters: parameters}).Encode(nil)
	if err != nil {
		return fail(proxy.ReasonLogin, codeProtocolViolation, "can not be asked for this session", err)
	}
	if _, err := u.conn.Write(message); err != nil {
		return fail(proxy.ReasonUpstream, codeConnectionFailure, "can not be reached", err)
	}
	// The server judges a role that may not log in, or not to this database, only after its password.
	unfit := func(code string, err error) (*upstream, *loginError) {
		var own *serverError
		if errors.As(err, &own) && !own.forClient() {
			return fail(proxy.ReasonLogin, own.code, fmt.Sprintf("refused the credential of source %s", lease.Source), err)
		}
		return fail(proxy.ReasonLogin, code, "could not be logged in to", err)
	}
	if err := u.authenticate(lease.Lease, s.UpstreamVerified()); err != nil {
		return unfit(codeInvalidAuthorization, err)
	}
	if err := u.begin(); err != nil {
		return unfit(codeConnectionFailure, err)
	}
	return u, nil
}

// secure asks for TLS and makes its handshake.
func secure(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	var request [8]byte
	binary.BigEndian.PutUint32(request[:], 8)
	binary.BigEndian.PutUint32(request[4:], codeSSLRequest)
	if _, err := conn.Write(request[:]); err != nil {
		return conn, err
	}
	// One byte and no more: what came unencrypted behind it must not be taken for the server's.
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return conn, err
	}
	if answer[0] != 'S' {
		return conn, errors.New("the server does not offer TLS")
	}
	config = config.Clone()
	config.NextProtos = []string{"postgresql"}
	c := tls.Client(conn, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return conn, fmt.Errorf("tls: %w", err)
	}
	return c, nil
}

// A serverError is an ErrorResponse during login.
type serverError struct {
	raw  []byte // the whole message
	code string
	text string
}

// Error gives the SQLSTATE alone for what may tell of the credential.
func (e *serverError) Error() string {
	if e.forClient() {
		return fmt.Sprintf("%s (%s)", e.text, e.code)
	}
	return "SQLSTATE " + e.code
}

// forClient is false for errors of authorization (class 28): they are about a credential that is not the client's.
func (e *serverError) forClient() bool { return len(e.code) == 5 && e.code[:2] != "28" }

// read is the next message that is not a notice. ParameterStatus is kept on the way.
func (u *upstream) read() (typ byte, body []byte, err error) {
	for {
		var head [headerSize]byte
		if _, err := io.ReadFull(u.in, head[:]); err != nil {
			return 0, nil, fmt.Errorf("the server closed the connection: %w", err)
		}
		typ, size, ok := header(head[:])
		if !ok || size > maxControl {
			return 0, nil, fmt.Errorf("the server speaks another protocol (message %q of %d bytes)", typ, size)
		}
		body = make([]byte, size-headerSize)
		if _, err := io.ReadFull(u.in, body); err != nil {
			return 0, nil, fmt.Errorf("the server closed the connection: %w", err)
		}
		switch typ {
		case msgNoticeResponse, msgNotification:
		case msgErrorResponse:
			return 0, nil, &serverError{raw: append(head[:], body...), code: string(errorField(body, 'C')), text: string(errorField(body, 'M'))}
		case msgParameterStatus:
			if err := u.parameter(body); err != nil {
				return 0, nil, err
			}
		default:
			return typ, body, nil
		}
	}
}

func (u *upstream) parameter(body []byte) error {
	r := reader{p: body}
	name, value := string(r.cstring()), string(r.cstring())
	if !r.end() {
		return errors.New("malformed ParameterStatus")
	}
	if err := safeParameter(name, value); err != nil {
		return err
	}
	for i := range u.parameters {
		if u.parameters[i].name == name {
			u.parameters[i].value = value
			return nil
		}
	}
	u.parameters = append(u.parameters, setting{name, value})
	return nil
}

// begin reads what follows AuthenticationOk and asks for the search path.
func (u *upstream) begin() error {
	for {
		typ, body, err := u.read()
		switch {
		case err != nil:
			return err
		case typ == 'K':
			r := reader{p: body}
			u.key = cancelKey{r.uint32(), r.uint32()}
			if !r.end() {
				return errors.New("malformed BackendKeyData")
			}
		case typ == msgReadyForQuery:
			rows, err := u.query(schemasQuery)
			u.schemas = rows
			return err
		default:
			return fmt.Errorf("message %q after the login", typ)
		}
	}
}

// query runs one query of the proxy's own and returns the first column of its rows. Any other message than the query's answer is an
// error: what a session before left on its way would come here.
func (u *upstream) query(text string) ([]string, error) {
	if _, err := u.conn.Write(appendMessage(nil, msgQuery, text)); err != nil {
		return nil, err
	}
	var rows []string
	complete := false
	for {
		typ, body, err := u.read()
		switch {
		case err != nil:
			return nil, err
		case typ == msgRowDescription && !complete:
		case typ == msgDataRow && !complete:
			r := reader{p: body}
			r.uint16()
			value := r.take(int(r.uint32()))
			if r.bad {
				return nil, errors.New("malformed DataRow")
			}
			rows = append(rows, string(value))
		case typ == msgCommandComplete && !complete:
			complete = true
		case typ == msgReadyForQuery && complete:
			if len(body) != 1 || body[0] != 'I' {
				return nil, errors.New("the server is not idle")
			}
			return rows, nil
		default:
			return nil, fmt.Errorf("message %q in answer to a query of the proxy's own", typ)
		}
	}
}

// pending is what was read from the connection and not used.
func (u *upstream) pending() []byte {
	if u.in == nil { // it was kept by the pool
		return nil
	}
	p, _ := u.in.Peek(u.in.Buffered())
	return p
}

// close says goodbye.
func (u *upstream) close() {
	_ = u.conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = u.conn.Write([]byte{msgTerminate, 0, 0, 0, 4})
	u.conn.Close()
	u.lease.Close()
}
