package postgres

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// Name is how Targets name the protocol.
const Name = "postgres"

// A Protocol serves PostgreSQL sessions.
type Protocol struct {
	engine  *relay.Engine
	parser  *sql.Cache
	log     *zap.Logger
	cancels cancels
	pool    pool

	catalogs catalogs
}

// New makes the protocol; sessions are relayed by engine.
func New(engine *relay.Engine, parser *sql.Cache, log *zap.Logger) *Protocol {
	return &Protocol{engine: engine, parser: parser, log: log}
}

// Serve implements proxy.Protocol.
func (p *Protocol) Serve(ctx context.Context, c *proxy.Connection) {
	client, st, err := handshake(c.Client, c.Target.Spec.ClientTLS, c.ServerTLS())
	if err != nil {
		p.refuse(c, client, err)
		return
	}
	if r, ok := client.(*replayed); ok && len(r.first) == 0 {
		client = r.Conn
	}
	if st.cancel != nil {
		defer client.Close()
		p.cancel(ctx, c, *st.cancel)
		return
	}
	settings, err := st.settings()
	if err != nil {
		p.refuse(c, client, &startupError{reason: proxy.ReasonDenied, tell: fatal(codeNotSupported, err.Error(), ""), cause: err})
		return
	}
	s, failed := authorize(c, st, client)
	if failed != nil {
		p.refuse(c, client, failed)
		return
	}
	if d, denied := decideSettings(s, settings); denied {
		p.end(s, client, proxy.ReasonDenied, fmt.Errorf("rule %s denies a startup parameter", d.Rule), appendDenial(nil, settingDenial(s.ID, d)))
		return
	}
	key := poolKeyOf(s, st, settings)
	p.serve(ctx, s, client, p.pool.take(key), key, st)
}

// authorize makes the connection a session; the error, if any, is a startupError.
func authorize(c *proxy.Connection, st *startup, client net.Conn) (*proxy.Session, error) {
	s, refusal := c.Authorize(proxy.Startup{
		User: st.user(), Database: st.database(), ApplicationName: st.parameters["application_name"], Detail: startupFragment(st, client),
	})
	if refusal != nil {
		code := codeInvalidAuthorization
		switch refusal.Reason {
		case proxy.ReasonRecord:
			code = codeDiskFull
		case proxy.ReasonQuota:
			code = codeTooManyConnections
		}
		return nil, &startupError{reason: refusal.Reason, tell: fatal(code, refusal.Message, ""), cause: refusal}
	}
	return s, nil
}

// serve connects an authorized session, by u where that is a kept connection, and begins to relay it.
func (p *Protocol) serve(ctx context.Context, s *proxy.Session, client net.Conn, u *upstream, key poolKey, st *startup) {
	u, failed := p.connect(ctx, s, st, u)
	if failed != nil {
		p.end(s, client, failed.reason, failed.cause, failed.tell)
		return
	}
	r := p.prepare(s, u, key, st)
	if _, err := client.Write(welcome(st, u, r.key)); err != nil {
		r.finish(client, u.conn, relay.ErrClientGone)
		return
	}
	_ = client.SetDeadline(time.Time{})
	_ = u.conn.SetDeadline(time.Time{})
	one, other := r.legs()
	one.Conn, other.Pending = client, slices.Clone(u.pending())
	u.in = nil // its buffer would be most of an idle session's memory
	link, err := p.engine.Start(one, other, r.finish)
	if err != nil {
		r.finish(client, u.conn, err)
		return
	}
	r.began(ctx, link)
}

// connect finds a connection to the target: u, where that is a kept one whose credential is still the source's, or a new one.
func (p *Protocol) connect(ctx context.Context, s *proxy.Session, st *startup, u *upstream) (*upstream, *loginError) {
	if u.proved() {
		return u, nil
	}
	lease, refusal := s.Issue(ctx)
	if refusal != nil {
		if u != nil {
			u.close()
		}
		return nil, &loginError{reason: refusal.Reason, tell: appendDenial(nil, fatal(codeInvalidAuthorization, refusal.Message, s.ID)), cause: refusal}
	}
	if u == nil {
		return login(ctx, s, st, lease)
	}
	if proof := proofOf(lease); !hmac.Equal(proof[:], u.proof[:]) { // it was rotated
		u.close()
		return login(ctx, s, st, lease)
	}
	lease.Close()
	u.proven = time.Now()
	return u, nil
}

// refuse ends a connection that is no session.
func (p *Protocol) refuse(c *proxy.Connection, client net.Conn, err error) {
	defer client.Close()
	var e *startupError
	if !errors.As(err, &e) {
		e = &startupError{reason: proxy.ReasonClientGone, cause: err}
	}
	if e.tell != nil {
		tell(client, appendDenial(nil, e.tell))
	}
	c.Refuse(e.reason, e.Error())
}

// end ends a session that never came to be relayed.
func (p *Protocol) end(s *proxy.Session, client net.Conn, reason string, cause error, message []byte) {
	defer client.Close()
	s.Note("error", record.NewFragment(map[string]string{"error": cause.Error()}))
	tell(client, message)
	s.Connection.Refuse(reason, cause.Error())
	s.Close(reason)
}

// tell sends the client its last message; reading on for a moment keeps a reset from overtaking it.
func tell(client net.Conn, message []byte) {
	_ = client.SetDeadline(time.Now().Add(time.Second))
	if _, err := client.Write(message); err != nil {
		return
	}
	if c, ok := client.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	var discard [512]byte
	for {
		if _, err := client.Read(discard[:]); err != nil {
			return
		}
	}
}

// decideSettings asks policy about settings of the startup, each like the SET that it stands for.
func decideSettings(s *proxy.Session, settings []sql.Unit) (d policy.Decision, denied bool) {
	for i := range settings {
		d = s.Decide(settings[i:i+1], nil)
		if d.Action == policy.Hold { // before there is a session, nobody can be told to wait
			d.Action, d.Message = policy.Deny, "it needs an approval, which a statement can wait for and a startup parameter can not: use SET"
		}
		text := "SET " + settings[i].Setting
		op := &record.Operation{Kind: "startup", Statement: statementFragment(text, ""), Decision: decisionFragment(d)}
		if _, err := s.Admit(op, d); err != nil {
			return policy.Decision{Rule: "record", Message: "the record can not be written"}, true
		}
		if d.Action != policy.Allow {
			return d, true
		}
	}
	return d, false
}

func settingDenial(session string, d policy.Decision) *denial {
	return fatal(codeInsufficientPrivilege, fmt.Sprintf("a startup parameter is denied by rule %q of policy %q: %s", d.Rule, d.Policy, d.Message), session)
}

// startupFragment is the startup as it is recorded: the names of the parameters, and what the client says of itself.
func startupFragment(st *startup, client net.Conn) record.Fragment {
	_, secured := client.(*tls.Conn)
	return record.NewFragment(struct {
		User        string   `json:"user"`
		Database    string   `json:"database"`
		Application string   `json:"applicationName,omitempty"`
		Parameters  []string `json:"parameters"`
		TLS         bool     `json:"tls"`
	}{st.user(), st.database(), st.parameters["application_name"], slices.Sorted(maps.Keys(st.parameters)), secured})
}

// welcome is what the client gets when the session is open: any user is welcome, and the server is shown as it is.
func welcome(st *startup, u *upstream, key cancelKey) []byte {
	var b []byte
	if st.minor > 0 || len(st.unknown) > 0 {
		b, _ = (&pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: 0, UnrecognizedOptions: st.unknown}).Encode(b)
	}
	b = append(b, 'R', 0, 0, 0, 8, 0, 0, 0, authOk)
	for _, v := range u.parameters {
		b = appendMessage(b, msgParameterStatus, v.name, "\x00", v.value, "\x00")
	}
	b = append(b, 'K', 0, 0, 0, 12)
	b = binary.BigEndian.AppendUint32(b, key.pid)
	b = binary.BigEndian.AppendUint32(b, key.secret)
	return append(b, msgReadyForQuery, 0, 0, 0, 5, 'I')
}

// reasonOf is the record's word for why a session ended.
func reasonOf(cause error, terminated bool) string {
	switch {
	case terminated:
		return "terminated"
	case errors.Is(cause, relay.ErrDone):
		return "drained"
	case errors.Is(cause, relay.ErrClientGone):
		return "client_gone"
	case errors.Is(cause, relay.ErrServerGone):
		return "server_gone"
	case errors.Is(cause, relay.ErrStalled):
		return "stalled"
	case errors.Is(cause, relay.ErrShutdown):
		return "shutdown"
	case errors.Is(cause, errProtocol), errors.Is(cause, errMismatch):
		return "protocol"
	}
	return "internal"
}

// cancel serves a CancelRequest; the client never learns whether it found a session.
func (p *Protocol) cancel(ctx context.Context, c *proxy.Connection, key cancelKey) {
	found := p.cancels.find(key, c.Workload.ID, c.Workload.Generation)
	if found == nil {
		c.Refuse(proxy.ReasonCancel, "the key fits no session of the workload")
		return
	}
	found.cancel(ctx)
}
