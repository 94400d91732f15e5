package env

import (
	"context"
	"crypto/x509"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestServerAsksForWhatItsOptionsSay(t *testing.T) {
	tests := []struct {
		name    string
		options PostgresOptions
		tls     bool
		want    string // of the role's stored password
	}{
		{name: "scram without TLS", options: PostgresOptions{}, want: "SCRAM-SHA-256"},
		{name: "md5 without TLS", options: PostgresOptions{Auth: "md5"}, want: "md5"},
		{name: "cleartext in TLS only", options: PostgresOptions{Auth: "password", TLSOnly: true}, tls: true, want: "SCRAM-SHA-256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.options.SQL = []string{"CREATE ROLE app LOGIN PASSWORD 'secret'"}
			server := Postgres(t, tt.options)
			if got := server.Value("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'"); got[:len(tt.want)] != tt.want {
				t.Errorf("stored password %q, want one that begins with %q", got, tt.want)
			}
			if tt.tls {
				withoutTLS(t, server)
			}
			config, err := pgx.ParseConfig(server.URL("app", "secret", "postgres"))
			if err != nil {
				t.Fatal(err)
			}
			if tt.tls {
				authority, err := os.ReadFile(server.CAFile)
				if err != nil {
					t.Fatal(err)
				}
				config.TLSConfig.RootCAs = x509.NewCertPool()
				config.TLSConfig.RootCAs.AppendCertsFromPEM(authority)
				config.TLSConfig.InsecureSkipVerify, config.TLSConfig.ServerName = false, "localhost"
			}
			connection, err := pgx.ConnectConfig(context.Background(), config)
			if err != nil {
				t.Fatal(err)
			}
			if err := connection.Close(context.Background()); err != nil {
				t.Error(err)
			}
			server.Stop()
			if _, err := pgx.ConnectConfig(context.Background(), config); err == nil {
				t.Error("a stopped server accepts connections")
			}
			server.Start()
		})
	}
}

func withoutTLS(t *testing.T, server *Server) {
	t.Helper()
	connection, err := pgx.Connect(context.Background(), server.URL("app", "secret", "postgres")+"?sslmode=disable")
	if err == nil {
		connection.Close(context.Background())
		t.Error("a connection without TLS is accepted")
	}
}
