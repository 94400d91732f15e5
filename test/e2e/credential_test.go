package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/test/env"
)

func TestProxyLogsInByTheMethodThatTheServerAsksFor(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		postgres *env.PostgresOptions
		upstream string
		want     string // SQLSTATE
		says     string
	}{
		{name: "SCRAM-SHA-256"},
		{name: "SCRAM-SHA-256 in TLS", postgres: &env.PostgresOptions{TLSOnly: true, TLS: true}, upstream: "{tls: {ca: {file: CA}}}"},
		{name: "MD5", postgres: &env.PostgresOptions{Auth: "md5"}},
		{name: "no password", postgres: &env.PostgresOptions{Auth: "trust"}},
		{
			name: "a password in clear, in verified TLS", postgres: &env.PostgresOptions{Auth: "password", TLS: true},
			upstream: "{tls: {ca: {file: CA}}}",
		},
		{
			name: "no password in clear without TLS", postgres: &env.PostgresOptions{Auth: "password"},
			want: "28000", says: "only sent over verified TLS",
		},
		{
			name: "no password in clear in TLS that is not verified", postgres: &env.PostgresOptions{Auth: "password", TLS: true},
			upstream: "{tls: {mode: require}}", want: "28000", says: "only sent over verified TLS",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{postgres: tt.postgres, upstream: tt.upstream})
			c, err := pgx.ConnectConfig(timeout(t), w.config())
			if sqlstate(err) != tt.want || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("SQLSTATE %s, want %s, with %q: %v", sqlstate(err), tt.want, tt.says, err)
			}
			if err == nil {
				defer c.Close(timeout(t))
				if got := scan(t, c, "SELECT current_user"); got != w.role() {
					t.Errorf("the role is %s", got)
				}
			}
		})
	}
}

func TestPasswordInClearIsNotSentToWhoeverAsks(t *testing.T) {
	t.Parallel()
	l := listen(t)
	w := start(t, options{upstream: fmt.Sprintf("{address: %q, tls: {mode: disable}}", l.Addr())})
	received := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		startup, err := readStartup(c)
		if err == nil {
			_, err = c.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3}) // AuthenticationCleartextPassword
		}
		if err != nil {
			received <- err.Error()
			return
		}
		rest, _ := io.ReadAll(c)
		received <- string(startup) + string(rest)
	}()
	_, err := pgx.ConnectConfig(timeout(t), w.config())
	if sqlstate(err) != "28000" {
		t.Errorf("the client gets %v", err)
	}
	if got := <-received; strings.Contains(got, w.password) || !strings.Contains(got, w.role()) {
		t.Errorf("the server got %q", got)
	}
}

// readStartup reads one message without a type.
func readStartup(c net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:])-4)
	_, err := io.ReadFull(c, body)
	return body, err
}

// TestManInTheMiddleOfTLSGetsNoSession shows that SCRAM is bound to the TLS channel (SCRAM-SHA-256-PLUS): a middle that terminates TLS on both
// sides relays everything truthfully, and the server still sees that the client's channel is another.
func TestManInTheMiddleOfTLSGetsNoSession(t *testing.T) {
	t.Parallel()
	server := env.Postgres(t, env.PostgresOptions{TLS: true})
	l := listen(t)
	own := certificate(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go relayTLS(c, net.JoinHostPort("127.0.0.1", itoa(server.Port)), own)
		}
	}()
	w := start(t, options{server: server, upstream: fmt.Sprintf("{address: %q, tls: {mode: require}}", l.Addr())})
	_, err := pgx.ConnectConfig(timeout(t), w.config())
	if sqlstate(err) != "28000" || !strings.Contains(err.Error(), "refused the credential of source orders-app") {
		t.Errorf("the client gets %v", err)
	}
	if !strings.Contains(server.Log(), "SCRAM channel binding check failed") {
		t.Errorf("the server's log does not tell of channel binding:\n%s", server.Log())
	}
}

// relayTLS terminates TLS on both sides and copies.
func relayTLS(client net.Conn, address string, own tls.Certificate) {
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(patience))
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	request, err := readStartup(client)
	if err != nil {
		return
	}
	if _, err := server.Write(append([]byte{0, 0, 0, 8}, request...)); err != nil {
		return
	}
	var answer [1]byte
	if _, err := io.ReadFull(server, answer[:]); err != nil {
		return
	}
	if _, err := client.Write(answer[:]); err != nil {
		return
	}
	inner := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{own}})
	outer := tls.Client(server, &tls.Config{InsecureSkipVerify: true})
	go func() {
		_, _ = io.Copy(outer, inner)
		outer.Close()
	}()
	_, _ = io.Copy(inner, outer)
}

func newCertificate(t testing.TB) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "middle"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func TestFailedLoginNamesTheCauseAndNotTheSecret(t *testing.T) {
	t.Parallel()
	const wrong = "not-the-password-at-all"
	tests := []struct {
		name    string
		prepare func(w *world, config *pgx.ConnConfig)
		want    string // SQLSTATE
		says    []string
		stops   bool // the server
	}{
		{"a wrong password", func(w *world, _ *pgx.ConnConfig) { w.storePassword(wrong) }, "28P01",
			[]string{"source orders-app", "target orders-db", "28P01"}, false},
		{"no password file", func(w *world, _ *pgx.ConnConfig) { w.removePassword() }, "28000",
			[]string{"credential source orders-app issued no credential"}, false},
		{"an empty password file", func(w *world, _ *pgx.ConnConfig) { w.storePassword("") }, "28000",
			[]string{"credential source orders-app issued no credential"}, false},
		{"a role that may not log in", func(w *world, _ *pgx.ConnConfig) { w.server.Exec("ALTER ROLE " + w.role() + " NOLOGIN") }, "28000",
			[]string{"source orders-app"}, false},
		{"no such database", func(_ *world, config *pgx.ConnConfig) { config.Database = "nowhere" }, "3D000",
			[]string{`database "nowhere" does not exist`}, false},
		{"a role without a connection left", func(w *world, _ *pgx.ConnConfig) {
			w.server.Exec("ALTER ROLE " + w.role() + " NOSUPERUSER CONNECTION LIMIT 0")
		}, "53300", []string{"too many connections"}, false},
		{"a server that is down", func(w *world, _ *pgx.ConnConfig) { w.server.Stop() }, "08001",
			[]string{"target orders-db can not be reached", "127.0.0.1", "connection refused"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := options{}
			if tt.stops {
				o.postgres = &env.PostgresOptions{}
			}
			w := start(t, o)
			config := w.config()
			tt.prepare(w, config)
			_, err := pgx.ConnectConfig(timeout(t), config)
			if sqlstate(err) != tt.want {
				t.Fatalf("SQLSTATE %s, want %s", sqlstate(err), tt.want)
			}
			for _, text := range tt.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
			for _, secret := range []string{wrong, w.password} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error tells %q: %v", secret, err)
				}
			}
		})
	}
}

func TestSessionsComeBackWithTheServer(t *testing.T) {
	t.Parallel()
	w := start(t, options{postgres: &env.PostgresOptions{}})
	c := w.connect()
	w.server.Stop()
	if err := c.Ping(timeout(t)); err == nil {
		t.Error("a session outlives its server")
	}
	if _, err := pgx.ConnectConfig(timeout(t), w.config()); sqlstate(err) != "08001" {
		t.Errorf("while the server is down: %v", err)
	}
	w.server.Start()
	if got := scan(t, w.connect(), "SELECT 1"); got != "1" {
		t.Errorf("after its return: %s", got)
	}
}
