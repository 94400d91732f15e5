package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// startupTimeout is how long a client may take from its connect to the end of its StartupMessage.
const startupTimeout = 10 * time.Second

// maxStartup is the server's own limit on a StartupMessage, bytes (MAX_STARTUP_PACKET_LENGTH).
const maxStartup = 10000

// Codes in the place of a protocol version; "Message Formats" in the PostgreSQL manual.
const (
	codeCancelRequest = 80877102
	codeSSLRequest    = 80877103
	codeGSSENCRequest = 80877104
	protocolVersion3  = 196608
)

// A startup is what a client asks for before anything is known of it.
type startup struct {
	parameters map[string]string
	minor      uint32   // protocol 3.minor
	unknown    []string // _pq_. parameters, which are protocol extensions
	cancel     *cancelKey
}

func (s *startup) user() string { return s.parameters["user"] }

// database is the user's name where the client names none.
func (s *startup) database() string {
	if d := s.parameters["database"]; d != "" {
		return d
	}
	return s.user()
}

// A startupError is why a startup ends, with the metric's reason and what the client is told; nothing when it would not understand.
type startupError struct {
	reason string
	tell   *denial
	cause  error
}

// Error implements error.
func (e *startupError) Error() string { return e.cause.Error() }

func badStartup(format string, args ...any) *startupError {
	err := fmt.Errorf(format, args...)
	return &startupError{reason: proxy.ReasonProtocol, tell: fatal(codeProtocolViolation, err.Error(), ""), cause: err}
}

// handshake reads up to the StartupMessage or CancelRequest and terminates TLS on the way. The connection that it returns is the client's from
// then on. Exact sizes are read, because TLS may follow any message.
func handshake(client net.Conn, mode string, serverTLS *tls.Config) (net.Conn, *startup, error) {
	if err := client.SetDeadline(time.Now().Add(startupTimeout)); err != nil {
		return client, nil, err
	}
	secured, asked := false, 0
	for {
		var head [8]byte
		if _, err := io.ReadFull(client, head[:]); err != nil {
			return client, nil, startupReadError(err)
		}
		if head[0] == 0x16 && !secured && asked == 0 && mode != v1alpha1.ClientTLSNever { // a TLS record: sslnegotiation=direct
			c, err := terminate(&replayed{client, head[:]}, serverTLS, true)
			if err != nil {
				return client, nil, err
			}
			client, secured = c, true
			continue
		}
		size, code := int(binary.BigEndian.Uint32(head[:4])), binary.BigEndian.Uint32(head[4:])
		if size < 8 || size > maxStartup {
			// Not told: whoever speaks so speaks another protocol.
			return client, nil, &startupError{reason: proxy.ReasonProtocol, cause: fmt.Errorf("startup message of %d bytes", size)}
		}
		body := make([]byte, size-8)
		if _, err := io.ReadFull(client, body); err != nil {
			return client, nil, startupReadError(err)
		}
		switch {
		case code == codeSSLRequest || code == codeGSSENCRequest:
			if asked++; asked > 2 || size != 8 || secured {
				return client, nil, badStartup("encryption asked for again")
			}
			answer := byte('N')
			if code == codeSSLRequest && mode != v1alpha1.ClientTLSNever {
				answer = 'S'
			}
			if _, err := client.Write([]byte{answer}); err != nil {
				return client, nil, startupReadError(err)
			}
			if answer == 'S' {
				c, err := terminate(client, serverTLS, false)
				if err != nil {
					return client, nil, err
				}
				client, secured = c, true
			}
		case code == codeCancelRequest:
			key, ok := parseCancel(body)
			if !ok {
				return client, nil, badStartup("malformed CancelRequest")
			}
			return client, &startup{cancel: key}, nil
		case code>>16 == 3:
			if mode == v1alpha1.ClientTLSAlways && !secured {
				err := errors.New("this target takes only connections with TLS")
				return client, nil, &startupError{reason: proxy.ReasonTLS, tell: fatal(codeInvalidAuthorization, err.Error(), ""), cause: err}
			}
			s, err := parseStartup(code, body)
			return client, s, err
		default:
			return client, nil, badStartup("unsupported frontend protocol %d.%d", code>>16, code&0xffff)
		}
	}
}

// parseStartup takes a StartupMessage's parameters.
func parseStartup(code uint32, body []byte) (*startup, error) {
	s := &startup{parameters: map[string]string{}, minor: code & 0xffff}
	r := reader{p: body}
	for {
		name := string(r.cstring())
		if name == "" {
			break
		}
		value := string(r.cstring())
		if strings.HasPrefix(name, "_pq_.") {
			s.unknown = append(s.unknown, name)
			continue
		}
		s.parameters[name] = value
	}
	switch {
	case !r.end():
		return nil, badStartup("malformed StartupMessage")
	case s.user() == "":
		return nil, badStartup("the StartupMessage names no user")
	}
	switch v := s.parameters["replication"]; v {
	case "", "false", "off", "no", "0":
		delete(s.parameters, "replication")
	default:
		err := errors.New("replication connections cannot be decided on")
		return nil, &startupError{reason: proxy.ReasonDenied, tell: fatal(codeNotSupported, err.Error(), ""), cause: err}
	}
	if v, ok := s.parameters["client_encoding"]; ok && !sql.SafeClientEncoding(v) {
		err := fmt.Errorf("client encoding %q cannot be decided on", quoteName(v))
		return nil, &startupError{reason: proxy.ReasonDenied, tell: fatal(codeNotSupported, err.Error(), ""), cause: err}
	}
	return s, nil
}

// harmless are startup parameters that need no policy: they change how values look, and nothing else.
var harmless = map[string]bool{
	"user": true, "database": true, "options": true, "application_name": true, "client_encoding": true, "datestyle": true,
	"timezone": true, "intervalstyle": true, "extra_float_digits": true, "bytea_output": true,
}

// settings are the server's settings that the startup sets, other than harmless ones, as units for policy: what SET would be.
func (s *startup) settings() ([]sql.Unit, error) {
	set, err := parseOptions(s.parameters["options"])
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.parameters)) {
		set = append(set, setting{strings.ToLower(name), s.parameters[name]})
	}
	var units []sql.Unit
	for _, v := range set {
		if err := safeParameter(v.name, v.value); err != nil {
			return nil, err
		}
		if harmless[v.name] {
			continue
		}
		u := sql.Unit{Kind: sql.KindSession, Verb: "SET", Setting: v.name, Filtered: true}
		if v.name == "role" || v.name == "session_authorization" {
			u.Role = v.value
		}
		units = append(units, u)
	}
	return units, nil
}

// A setting is a parameter of the server, its name in lower case.
type setting struct{ name, value string }

// parseOptions reads the command-line options of a session: -c name=value and --name=value, with a backslash before what is to be
// literal ("options" under StartupMessage in the manual). Other options are for single-user mode or change what is checked here.
func parseOptions(options string) ([]setting, error) {
	var set []setting
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch {
		case word == "-c" && i+1 < len(words):
			i++
			word = words[i]
		case strings.HasPrefix(word, "-c"), strings.HasPrefix(word, "--"):
			word = word[2:]
		default:
			return nil, fmt.Errorf("startup option %q is not known", quoteName(word))
		}
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			return nil, fmt.Errorf("startup option %q has no value", quoteName(word))
		}
		set = append(set, setting{strings.ToLower(strings.ReplaceAll(name, "-", "_")), value})
	}
	return set, nil
}

// splitOptions is pg_split_opts of the server.
func splitOptions(s string) []string {
	var words []string
	for i := 0; i < len(s); {
		for i < len(s) && isSpace(s[i]) {
			i++
		}
		var word []byte
		for ; i < len(s) && !isSpace(s[i]); i++ {
			if s[i] == '\\' && i+1 < len(s) {
				i++
			}
			word = append(word, s[i])
		}
		if len(word) > 0 {
			words = append(words, string(word))
		}
	}
	return words
}

func isSpace(c byte) bool { return strings.IndexByte(" \t\n\v\f\r", c) >= 0 }

func startupReadError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &startupError{reason: proxy.ReasonTimeout, cause: errors.New("no startup message in time")}
	case errors.Is(err, io.EOF):
		return &startupError{reason: proxy.ReasonClientGone, cause: errors.New("the client left before its startup")}
	}
	return &startupError{reason: proxy.ReasonClientGone, cause: err}
}

// terminate makes the TLS server's handshake. Direct TLS must name the protocol (ALPN), so that it cannot be mistaken for another's.
func terminate(client net.Conn, serverTLS *tls.Config, direct bool) (net.Conn, error) {
	config := serverTLS.Clone()
	config.NextProtos = []string{"postgresql"}
	c := tls.Server(client, config)
	err := c.HandshakeContext(context.Background()) // bounded by the connection's deadline
	if err == nil && direct && c.ConnectionState().NegotiatedProtocol != "postgresql" {
		err = errors.New("direct TLS without ALPN postgresql")
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, startupReadError(err)
	case err != nil:
		return nil, &startupError{reason: proxy.ReasonTLS, cause: fmt.Errorf("tls with the client: %w", err)}
	}
	return c, nil
}

// replayed is a connection of which a few bytes were read already.
type replayed struct {
	net.Conn
	first []byte
}

// NetConn is the connection itself.
func (r *replayed) NetConn() net.Conn { return r.Conn }

// Read gives the bytes that were read first.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// CloseWrite ends what the other side reads.
func (r *replayed) CloseWrite() error {
	if c, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
