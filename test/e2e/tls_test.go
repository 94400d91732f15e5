package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/test/env"
)

func TestClientGetsTLSAsItAndTheTargetWant(t *testing.T) {
	t.Parallel()
	const plain, secured = "plain", "TLS"
	tests := []struct {
		clientTLS, sslmode string
		want               string // plain, secured, or what psql says
	}{
		{"auto", "disable", plain},
		{"auto", "prefer", secured},
		{"auto", "require", secured},
		{"auto", "verify-ca", secured},
		{"auto", "verify-full", secured},
		{"never", "disable", plain},
		{"never", "prefer", plain},
		{"never", "require", "server does not support SSL, but SSL was required"},
		{"never", "verify-full", "server does not support SSL, but SSL was required"},
		{"always", "disable", "FATAL:  sallyport: this target takes only connections with TLS"},
		{"always", "prefer", secured},
		{"always", "require", secured},
		{"always", "verify-full", secured},
	}
	worlds := map[string]*world{}
	for _, tt := range tests {
		if worlds[tt.clientTLS] == nil {
			worlds[tt.clientTLS] = start(t, options{clientTLS: tt.clientTLS})
		}
	}
	for _, tt := range tests {
		t.Run(tt.clientTLS+" with sslmode "+tt.sslmode, func(t *testing.T) {
			w := worlds[tt.clientTLS]
			for _, host := range []string{"127.0.0.1", "localhost"} {
				// PGSSLROOTCERT is what "sallyport run" sets.
				got := w.run([]string{"PGSSLMODE=" + tt.sslmode, "PGHOST=" + host}, "psql", "-X", "-w", "-At", "-c", "SELECT current_user", "-c", `\conninfo`)
				said := got.Stderr
				if got.Status == 0 {
					said = plain
					if strings.Contains(got.Stdout, "SSL connection (protocol: TLSv1.3") {
						said = secured
					}
				}
				if !strings.Contains(said, tt.want) {
					t.Errorf("by %s it is %q, want %q; printed %q", host, said, tt.want, got.Stdout)
				}
				if got.Status == 0 && !strings.HasPrefix(got.Stdout, w.role()+"\n") {
					t.Errorf("psql prints %q", got.Stdout)
				}
			}
		})
	}
}

func TestClientThatVerifiesRefusesAnAgentOfAnotherAuthority(t *testing.T) {
	t.Parallel()
	w := start(t, options{postgres: &env.PostgresOptions{TLS: true}})
	// The server's own authority is not the agent's.
	got := w.run([]string{"PGSSLMODE=verify-full", "PGSSLROOTCERT=" + w.server.CAFile}, "psql", "-X", "-w", "-c", "SELECT 1")
	if got.Status == 0 || !strings.Contains(got.Stderr, "certificate verify failed") {
		t.Errorf("psql ended with %d and said %q", got.Status, got.Stderr)
	}
	await(t, "the refusal is counted", func() bool { return w.metric(`sallyport_connections_refused_total{reason="tls"}`) == 1 })
}

func TestDirectTLSMustNameTheProtocol(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(readFile(t, filepath.Join(w.RunDir, "trust", "ca.pem"))))
	tests := []struct {
		name      string
		protocols []string
		works     bool
	}{
		{"with ALPN postgresql", []string{"postgresql"}, true},
		{"with ALPN postgresql among others", []string{"http/1.1", "postgresql"}, true},
		{"without ALPN", nil, false},
		{"with another protocol's ALPN", []string{"http/1.1"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refused := w.metric(`sallyport_connections_refused_total{reason="tls"}`)
			conn := tls.Client(w.workload().mustDial(w.address()), &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: tt.protocols})
			if tt.works {
				c := newWire(t, conn)
				c.start(w.database())
				if got := strings.Join(c.query("SELECT 1"), ", "); got != "RowDescription, Row 1, SELECT 1, Ready I" {
					t.Errorf("the answer is %s", got)
				}
				c.close()
				return
			}
			c := newWire(t, conn)
			// In TLS 1.3 the client may be done before the server has judged.
			if err := c.write(startupBytes(t, map[string]string{"user": "app", "database": w.database()})); err == nil {
				if got := c.rest(); len(got) > 0 {
					t.Errorf("the answer is %v", got)
				}
			}
			await(t, "the refusal is counted", func() bool { return w.metric(`sallyport_connections_refused_total{reason="tls"}`) == refused+1 })
		})
	}
	t.Run("and not where the target takes no TLS", func(t *testing.T) {
		never := start(t, options{server: w.server, clientTLS: "never"})
		conn := tls.Client(never.workload().mustDial(never.address()), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
		if err := conn.HandshakeContext(timeout(t)); err == nil {
			t.Error("a handshake is made")
		}
		await(t, "the refusal is counted", func() bool { return never.metric(`sallyport_connections_refused_total{reason="protocol"}`) == 1 })
	})
}

func TestUpstreamLegIsSecuredAsTheTargetSays(t *testing.T) {
	t.Parallel()
	withTLS := env.Postgres(t, env.PostgresOptions{TLS: true})
	renamed := env.Postgres(t, env.PostgresOptions{TLS: true, TLSNames: []string{"orders.example"}})
	withoutTLS := sharedServer()
	tests := []struct {
		name     string
		server   *env.Server
		upstream string
		want     string // what pg_stat_ssl says, or the SQLSTATE
		says     string
	}{
		{"disable", withTLS, "{tls: {mode: disable}}", "false", ""},
		{"require", withTLS, "{tls: {mode: require}}", "true", ""},
		{"require takes any certificate", renamed, "{tls: {mode: require}}", "true", ""},
		{"require of a server without TLS", withoutTLS, "{tls: {mode: require}}", "08001", "does not offer TLS"},
		{"verify-full by the endpoint's name", withTLS, "{tls: {mode: verify-full, ca: {file: CA}}}", "true", ""},
		{"verify-full is the default", withTLS, "{tls: {ca: {file: CA}}}", "true", ""},
		{"verify-full by another name", withTLS, "{tls: {ca: {file: CA}, serverName: orders.example}}", "08001", "orders.example"},
		{"verify-full of a server with another name", renamed, "{tls: {ca: {file: CA}}}", "08001", "localhost"},
		{"verify-full of a server by the name it has", renamed, "{tls: {ca: {file: CA}, serverName: orders.example}}", "true", ""},
		{"verify-full without the server's authority", withTLS, "{tls: {mode: verify-full}}", "08001", "unknown authority"},
		{"verify-full with a bundle that is not there", withTLS, "{tls: {ca: {file: /nonexistent/ca.pem}}}", "08001", "/nonexistent/ca.pem"},
		{"verify-full of a server without TLS", withoutTLS, "{tls: {mode: verify-full}}", "08001", "does not offer TLS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := start(t, options{server: tt.server, upstream: tt.upstream})
			c, err := pgx.ConnectConfig(timeout(t), w.config())
			if err != nil {
				if got := sqlstate(err); got != tt.want || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "target orders-db") {
					t.Errorf("SQLSTATE %s, want %s, with %q: %v", got, tt.want, tt.says, err)
				}
				return
			}
			defer c.Close(timeout(t))
			if got := scan(t, c, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); got != tt.want {
				t.Errorf("ssl is %s, want %s", got, tt.want)
			}
		})
	}
}

func TestSessionWorksWithTLSOnBothLegs(t *testing.T) {
	t.Parallel()
	w := start(t, options{postgres: &env.PostgresOptions{TLS: true}, upstream: "{tls: {ca: {file: CA}}}", rules: guarded})
	pgbench := filepath.Join(w.server.Bin, "pgbench")
	tls := []string{"PGSSLMODE=verify-full"}
	if got := w.run(tls, "psql", "-X", "-w", "-Atc", "DROP TABLE t", "-c", "SELECT 1"); got.Stdout != "1\n" || !strings.Contains(got.Stderr, `rule "no-ddl"`) {
		t.Errorf("psql printed %q and said %q", got.Stdout, got.Stderr)
	}
	w.initialisePgbench()
	for _, mode := range []string{"simple", "extended", "prepared"} {
		got := w.run(tls, pgbench, "-n", "-S", "-s", "1", "-c", "4", "-t", "50", "-M", mode)
		if got.Status != 0 || strings.Contains(got.Stderr, "error") {
			t.Errorf("pgbench in %s mode ended with %d and said %s", mode, got.Status, got.Stderr)
		}
	}
	if got := w.run(tls, "psql", "-X", "-w", "-Atc", "SELECT repeat('x', 1000) FROM generate_series(1, 20000)"); len(got.Stdout) != 20000*1001 {
		t.Errorf("a large result has %d bytes; %s", len(got.Stdout), got.Stderr)
	}
	in := w.workload().run(invocation{
		argv: []string{"psql", "-X", "-w", "-c", `COPY pgbench_history (aid) FROM STDIN`},
		env:  append(w.libpq(), tls...), stdin: strings.Join(numbers(20000), "\n") + "\n",
	})
	if got := w.value("SELECT count(*) FROM pgbench_history"); got != "20000" {
		t.Errorf("COPY brought %s rows; %s", got, in.Stderr)
	}
}

func numbers(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint(i)
	}
	return list
}

// certificate is one that nobody trusts.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, template := newCertificate(t)
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// listen is a listener of the test's own.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
