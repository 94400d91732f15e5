package postgres

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/pki"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
)

// packet is a startup packet with a code and a body.
func packet(code uint32, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return string(binary.BigEndian.AppendUint32(b, code)) + body
}

func startupPacket(pairs ...string) string {
	return packet(protocolVersion3, strings.Join(pairs, "\x00")+"\x00\x00")
}

func serverConfig(t *testing.T) *tls.Config {
	t.Helper()
	ca, err := pki.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ca.ServerTLS("db.example")
}

// shake runs the handshake against a client function.
func shake(t *testing.T, mode string, client func(c net.Conn)) (*startup, error) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); client(a); a.Close() }()
	_, st, err := handshake(b, mode, serverConfig(t))
	b.Close()
	<-done
	return st, err
}

func TestStartupAnswersWhatClientsProbe(t *testing.T) {
	hello := startupPacket("user", "ann", "database", "shop")
	for _, test := range []struct {
		name, mode, send string
		answers          string // one byte for each request
	}{
		{"plain", v1alpha1.ClientTLSAuto, hello, ""},
		{"GSS is declined", v1alpha1.ClientTLSAuto, packet(codeGSSENCRequest, "") + hello, "N"},
		{"TLS is declined where it is never wanted", v1alpha1.ClientTLSNever, packet(codeSSLRequest, "") + hello, "N"},
		{"GSS, then TLS, both declined", v1alpha1.ClientTLSNever, packet(codeGSSENCRequest, "") + packet(codeSSLRequest, "") + hello, "NN"},
	} {
		t.Run(test.name, func(t *testing.T) {
			st, err := shake(t, test.mode, func(c net.Conn) {
				sent := make(chan struct{})
				go func() { defer close(sent); _, _ = io.WriteString(c, test.send) }()
				defer func() { <-sent }()
				got := make([]byte, len(test.answers))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != test.answers {
					t.Errorf("answers %q, %v; want %q", got, err, test.answers)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if st.user() != "ann" || st.database() != "shop" {
				t.Errorf("startup %+v", st)
			}
		})
	}
}

func TestStartupTerminatesTLS(t *testing.T) {
	for _, direct := range []bool{false, true} {
		st, err := shake(t, v1alpha1.ClientTLSAlways, func(c net.Conn) {
			if !direct {
				_, _ = io.WriteString(c, packet(codeSSLRequest, ""))
				var answer [1]byte
				if _, err := io.ReadFull(c, answer[:]); err != nil || answer[0] != 'S' {
					t.Errorf("answer %q, %v", answer, err)
				}
			}
			s := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
			_, _ = io.WriteString(s, startupPacket("user", "ann"))
		})
		if err != nil || st.user() != "ann" || st.database() != "ann" {
			t.Errorf("direct %v: %+v, %v", direct, st, err)
		}
	}
}

func TestDirectTLSMustNameTheProtocol(t *testing.T) {
	_, err := shake(t, v1alpha1.ClientTLSAuto, func(c net.Conn) {
		s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		_ = s.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(s, startupPacket("user", "ann"))
	})
	var e *startupError
	if !errors.As(err, &e) || e.reason != proxy.ReasonTLS {
		t.Errorf("got %v", err)
	}
}

func TestBadStartupsAreRefusedWithTheirReason(t *testing.T) {
	for _, test := range []struct {
		name, mode, send, reason string
		told                     bool
	}{
		{"HTTP", "", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", proxy.ReasonProtocol, false},
		{"garbage", "", "\x00\x00\x00\x01\xff\xff\xff\xff", proxy.ReasonProtocol, false},
		{"a length of a GiB", "", "\x40\x00\x00\x00\x00\x03\x00\x00", proxy.ReasonProtocol, false},
		{"half a message", "", startupPacket("user", "ann")[:10], proxy.ReasonClientGone, false},
		{"nothing", "", "", proxy.ReasonClientGone, false},
		{"protocol 2", "", packet(2<<16, "x"), proxy.ReasonProtocol, true},
		{"no user", "", startupPacket("database", "shop"), proxy.ReasonProtocol, true},
		{"no end", "", packet(protocolVersion3, "user\x00ann\x00"), proxy.ReasonProtocol, true},
		{"bytes behind the end", "", packet(protocolVersion3, "user\x00ann\x00\x00x"), proxy.ReasonProtocol, true},
		{"replication", "", startupPacket("user", "ann", "replication", "database"), proxy.ReasonDenied, true},
		{"an encoding that hides quotes", "", startupPacket("user", "ann", "client_encoding", "SJIS"), proxy.ReasonDenied, true},
		{"no TLS where it is required", v1alpha1.ClientTLSAlways, startupPacket("user", "ann"), proxy.ReasonTLS, true},
		{"half a cancel request", "", packet(codeCancelRequest, "1234"), proxy.ReasonProtocol, true},
		{"TLS that is none", "", "\x16\x03\x01\xff\xff\x00\x00\x00", proxy.ReasonTLS, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			mode := test.mode
			if mode == "" {
				mode = v1alpha1.ClientTLSAuto
			}
			_, err := shake(t, mode, func(c net.Conn) {
				go func() { _, _ = io.Copy(io.Discard, c) }()
				_, _ = io.WriteString(c, test.send)
			})
			var e *startupError
			if !errors.As(err, &e) || e.reason != test.reason || (e.tell != nil) != test.told {
				t.Errorf("got %#v", err)
			}
		})
	}
}

func TestSettingsOfTheStartupAreDecidedLikeSET(t *testing.T) {
	for _, test := range []struct {
		name  string
		pairs []string
		want  []string // names of settings
		err   string
	}{
		{"harmless ones need no policy", []string{"application_name", "x", "DateStyle", "ISO", "client_encoding", "UTF8"}, nil, ""},
		{"others do", []string{"search_path", "a", "statement_timeout", "1"}, []string{"search_path", "statement_timeout"}, ""},
		{"in options too", []string{"options", `-c role=admin --work-mem=1MB -cgeqo=off`}, []string{"role", "work_mem", "geqo"}, ""},
		{"with escapes", []string{"options", `-c search_path=a\ b`}, []string{"search_path"}, ""},
		{"an option that hides another is still seen", []string{"options", "-c role=a -c role=b", "role", "c"}, []string{"role", "role", "role"}, ""},
		{"unknown options are refused", []string{"options", "-f s"}, nil, "not known"},
		{"a value is needed", []string{"options", "-c geqo"}, nil, "no value"},
		{"strings must be read as the parser does", []string{"options", "-c standard_conforming_strings=off"}, nil, "standard_conforming_strings"},
		{"so must encodings", []string{"options", "-c Client-Encoding=BIG5", "x", "y"}, nil, "encoding"},
	} {
		t.Run(test.name, func(t *testing.T) {
			st, err := parseStartup(protocolVersion3, []byte(startupPacket(append([]string{"user", "ann"}, test.pairs...)...)[8:]))
			if err != nil {
				t.Fatal(err)
			}
			units, err := st.settings()
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			var got []string
			for _, u := range units {
				got = append(got, u.Setting)
			}
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("%v, %s", err, diff)
			}
		})
	}
}

func FuzzStartup(f *testing.F) {
	f.Add([]byte(startupPacket("user", "ann", "options", `-c a=b\ c`)[8:]))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		st, err := parseStartup(protocolVersion3, body)
		if err == nil {
			_, _ = st.settings()
		}
	})
}
