package env

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-dev/sallyport/pkg/account"
)

// Superuser is the role that owns a Server.
const Superuser = "postgres"

// PostgresOptions say what a Server is like. The zero value asks for SCRAM-SHA-256 without TLS.
type PostgresOptions struct {
	// Auth is the method of pg_hba.conf for every role but Superuser: scram-sha-256 (the default), md5, password, trust.
	Auth string
	// TLS has the server offer TLS, with a certificate of the test's own authority for 127.0.0.1, ::1, localhost and TLSNames.
	TLS bool
	// TLSOnly refuses connections without TLS.
	TLSOnly bool
	// TLSNames replace the names of the certificate.
	TLSNames []string
	// Settings are lines of postgresql.conf.
	Settings []string
	// SQL is executed by Superuser in the database postgres, one string in one transaction or statement at a time.
	SQL []string
}

// A Server is a running PostgreSQL.
type Server struct {
	// Port is where it listens, on 127.0.0.1 and, where the machine has IPv6, on ::1.
	Port int
	// Hosts are those addresses.
	Hosts []string
	// Password is Superuser's.
	Password string
	// CAFile is the certificate of the authority, "" without TLS.
	CAFile string
	// Bin is the directory of the server's programs; pgbench is among them.
	Bin string

	t       testing.TB
	dir     string
	user    account.Account
	process *exec.Cmd
	done    <-chan struct{}
}

// Postgres starts a PostgreSQL in a new directory. It ends with the test.
func Postgres(t testing.TB, o PostgresOptions) *Server {
	t.Helper()
	needRoot(t)
	s := &Server{t: t, Bin: postgresBin(t), dir: directory(t, "sallyport-postgres-"), Password: rand.Text(), Hosts: loopbacks()}
	var err error
	// PostgreSQL refuses to run as root.
	if s.user, err = account.Lookup("postgres"); err != nil {
		if s.user, err = account.Lookup("nobody"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(s.dir, s.user.UID, s.user.GID); err != nil {
		t.Fatal(err)
	}
	s.initialise(o)
	t.Cleanup(s.Stop)
	s.startOnFreePort()
	s.Exec(o.SQL...)
	return s
}

// postgresBin is the directory of the newest server's programs.
func postgresBin(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		newest := slices.MaxFunc(found, func(a, b string) int { return postgresVersion(a) - postgresVersion(b) })
		return filepath.Dir(newest)
	}
	program, err := exec.LookPath("initdb")
	if err != nil {
		t.Fatal("no PostgreSQL server is installed; tools/setup does it")
	}
	return filepath.Dir(program)
}

func postgresVersion(initdb string) int {
	version, err := strconv.Atoi(strings.Split(initdb, "/")[4])
	if err != nil {
		return 0
	}
	return version
}

// loopbacks are the loopback addresses that this machine has.
func loopbacks() []string {
	hosts := []string{"127.0.0.1"}
	if listener, err := net.Listen("tcp", "[::1]:0"); err == nil {
		listener.Close()
		hosts = append(hosts, "::1")
	}
	return hosts
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// initialise makes the cluster and its configuration.
func (s *Server) initialise(o PostgresOptions) {
	s.t.Helper()
	passwordFile := filepath.Join(s.dir, "password")
	s.write(passwordFile, s.Password)
	initdb := exec.Command(filepath.Join(s.Bin, "initdb"), "--pgdata="+s.data(), "--username="+Superuser, "--pwfile="+passwordFile,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: s.credential()}
	if out, err := initdb.CombinedOutput(); err != nil {
		s.t.Fatalf("initdb: %v\n%s", err, out)
	}

	auth := o.Auth
	if auth == "" {
		auth = "scram-sha-256"
	}
	settings := []string{
		"listen_addresses = '" + strings.Join(s.Hosts, ",") + "'", "unix_socket_directories = ''",
		// A test's data need not survive the machine.
		"fsync = off", "full_page_writes = off", "synchronous_commit = off", "shared_buffers = 32MB", "max_connections = 60",
	}
	if auth == "md5" {
		settings = append(settings, "password_encryption = md5")
	}
	kind := "host"
	if o.TLS || o.TLSOnly {
		s.CAFile = filepath.Join(s.dir, "ca.pem")
		names := o.TLSNames
		if len(names) == 0 {
			names = []string{"localhost", "127.0.0.1", "::1"}
		}
		certificates := issueCertificates(s.t, names)
		s.write(s.CAFile, certificates.authority)
		s.write(filepath.Join(s.data(), "server.crt"), certificates.certificate)
		s.write(filepath.Join(s.data(), "server.key"), certificates.key)
		if err := os.Chmod(s.CAFile, 0o644); err != nil {
			s.t.Fatal(err)
		}
		settings = append(settings, "ssl = on")
	}
	if o.TLSOnly {
		kind = "hostssl"
	}
	var rules []string
	for _, host := range []string{"127.0.0.1/32", "::1/128"} {
		rules = append(rules, "host all "+Superuser+" "+host+" scram-sha-256", kind+" all all "+host+" "+auth,
			kind+" replication all "+host+" "+auth)
	}
	s.write(filepath.Join(s.data(), "pg_hba.conf"), strings.Join(rules, "\n")+"\n")
	s.write(filepath.Join(s.data(), "postgresql.conf"), strings.Join(append(settings, o.Settings...), "\n")+"\n")
}

// write makes a file that belongs to the server and that nobody else reads.
func (s *Server) write(path, content string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chown(path, s.user.UID, s.user.GID); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) credential() *syscall.Credential {
	return &syscall.Credential{Uid: uint32(s.user.UID), Gid: uint32(s.user.GID)}
}

// startOnFreePort tries other ports when somebody takes the one that was free.
func (s *Server) startOnFreePort() {
	s.t.Helper()
	var err error
	for range 5 {
		s.Port = freePort(s.t, s.Hosts...)
		if err = s.start(); err == nil {
			return
		}
	}
	s.t.Fatalf("start postgres: %v\n%s", err, s.Log())
}

// Start starts a server again that was stopped, on the same port.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("start postgres: %v\n%s", err, s.Log())
	}
}

func (s *Server) start() error {
	log, err := os.OpenFile(s.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.process = exec.Command(filepath.Join(s.Bin, "postgres"), "-D", s.data(), "-p", strconv.Itoa(s.Port))
	s.process.Dir, s.process.Stdout, s.process.Stderr = s.dir, log, log
	// SIGQUIT is the immediate shutdown: should this process die, nothing of the server stays.
	s.process.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential(), Pdeathsig: syscall.SIGQUIT}
	s.done, err = onThread(func() (func(), error) {
		return func() { _ = s.process.Wait() }, s.process.Start()
	})
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		select {
		case <-s.done:
			return fmt.Errorf("it ended: %s", s.process.ProcessState)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		connection, err := pgx.Connect(ctx, s.URL(Superuser, s.Password, "postgres"))
		if err == nil {
			err = connection.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// Stop ends the server at once, as a crash would end it for its clients, and waits for the end. It may be stopped already.
func (s *Server) Stop() {
	if s.process == nil || s.process.Process == nil {
		return
	}
	// The process may have ended by itself.
	_ = s.process.Process.Signal(syscall.SIGQUIT)
	<-s.done
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// Log is what the server has logged so far.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// URL is a connection URI for 127.0.0.1 that prefers TLS where the server has it.
func (s *Server) URL(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: net.JoinHostPort(s.Hosts[0], strconv.Itoa(s.Port)),
		Path: database}
	if password == "" {
		u.User = url.User(user)
	}
	return u.String()
}

// Exec executes each string as Superuser in the database postgres, directly, and fails the test when one fails.
func (s *Server) Exec(sql ...string) {
	s.t.Helper()
	s.ExecIn("postgres", sql...)
}

// ExecIn is Exec in another database.
func (s *Server) ExecIn(database string, sql ...string) {
	s.t.Helper()
	connection := s.connect(database)
	defer connection.Close(context.Background())
	for _, text := range sql {
		if _, err := connection.Exec(context.Background(), text); err != nil {
			s.t.Fatalf("%s: %v", text, err)
		}
	}
}

// Value is the one value, as text, that a query as Superuser gives in the database postgres.
func (s *Server) Value(sql string, arguments ...any) string {
	s.t.Helper()
	connection := s.connect("postgres")
	defer connection.Close(context.Background())
	var value string
	if err := connection.QueryRow(context.Background(), sql, arguments...).Scan(&value); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func (s *Server) connect(database string) *pgx.Conn {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	connection, err := pgx.Connect(ctx, s.URL(Superuser, s.Password, database))
	if err != nil {
		s.t.Fatal(err)
	}
	return connection
}
