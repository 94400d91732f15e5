package postgresrole

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/credential"
	"github.com/sallyport-dev/sallyport/test/env"
)

// memory is the administrator's password.
type memory string

func (m memory) ReadFile(context.Context, string) ([]byte, error) { return bytes.Clone([]byte(m)), nil }

// setUp makes a server with an administrator who is no superuser, and owns what he grants.
func setUp(t *testing.T) *env.Server {
	t.Helper()
	server := env.Postgres(t, env.PostgresOptions{Settings: []string{"log_statement = all"}, SQL: []string{
		"CREATE ROLE administrator LOGIN CREATEROLE PASSWORD 'admin-secret'", "CREATE ROLE keeper", "GRANT keeper TO administrator",
		"CREATE DATABASE shop OWNER administrator",
	}})
	server.ExecIn("shop", "SET ROLE administrator", "CREATE SCHEMA shop", "CREATE TABLE shop.orders (id int)", "CREATE TABLE shop.customers (id int)",
		"INSERT INTO shop.orders VALUES (1)", "GRANT CREATE, USAGE ON SCHEMA shop TO keeper", "RESET ROLE", "CREATE TABLE shop.foreign_to_him (id int)")
	return server
}

func newSource(t *testing.T, server *env.Server, change func(*v1alpha1.PostgresRole)) *Source {
	t.Helper()
	spec := &v1alpha1.PostgresRole{
		Address: "127.0.0.1:" + strconv.Itoa(server.Port), TLS: &v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSDisable},
		Admin: v1alpha1.StaticCredential{Username: "administrator", Password: v1alpha1.SecretSource{File: "/p"}},
		Owner: "keeper",
		Role:  v1alpha1.RoleTemplate{Grants: []v1alpha1.RoleGrant{{Privileges: []string{"SELECT"}, Tables: []string{"shop.orders"}}}},
	}
	if change != nil {
		change(spec)
	}
	spec.Default()
	s, err := New(v1alpha1.CredentialSource{
		Metadata: v1alpha1.ObjectMeta{Name: "orders"}, Spec: v1alpha1.CredentialSourceSpec{PostgresRole: spec},
	}, memory("admin-secret"), zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Retire)
	return s
}

var request = credential.Request{Workload: "Check-Out", Target: "orders", Session: "S1", Database: "shop"}

func issue(t *testing.T, s *Source, req credential.Request) *credential.Lease {
	t.Helper()
	lease, err := s.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

func release(t *testing.T, lease *credential.Lease) {
	t.Helper()
	if err := lease.Release(context.Background()); err != nil {
		t.Error(err)
	}
}

// login connects with a lease.
func login(t *testing.T, server *env.Server, lease *credential.Lease) (*pgx.Conn, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.URL(lease.Username, string(lease.Password.Reveal()), "shop"))
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

func roles(server *env.Server) string {
	return server.Value(`SELECT coalesce(string_agg(rolname, ' '), '') FROM pg_roles WHERE rolname LIKE 'sallyport\_%'`)
}

func TestARoleMayDoWhatItsTemplateSaysAndIsGoneAfterwards(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	s := newSource(t, server, nil)
	req := request
	req.Role = v1alpha1.RoleTemplate{
		MemberOf: []string{"keeper"}, Grants: []v1alpha1.RoleGrant{{Privileges: []string{"SELECT", "INSERT"}, Tables: []string{"shop.customers"}}},
	}
	lease := issue(t, s, req)
	password := string(lease.Password.Reveal())
	conn, err := login(t, server, lease)
	if err != nil {
		t.Fatal(err)
	}
	for statement, allowed := range map[string]bool{
		"SELECT * FROM shop.orders": true, "SELECT * FROM shop.customers": true, "INSERT INTO shop.customers VALUES (7)": true,
		"INSERT INTO shop.orders VALUES (2)": false, "DELETE FROM shop.customers": false, "SELECT * FROM shop.foreign_to_him": false,
		"CREATE ROLE another": false, "CREATE TABLE shop.mine (id int)": true, // keeper may create
	} {
		if _, err := conn.Exec(t.Context(), statement); (err == nil) != allowed {
			t.Errorf("%s: %v", statement, err)
		}
	}
	var name string
	if err := conn.QueryRow(t.Context(), "SHOW application_name").Scan(&name); err != nil || name != "sallyport/Check-Out" {
		t.Errorf("application_name is %q, %v", name, err)
	}
	if second, err := login(t, server, lease); err == nil {
		t.Errorf("a second connection was let in: %v", second)
	}
	if got := server.Value("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1", lease.Username); !strings.Contains(got, "session S1") {
		t.Errorf("the comment is %q", got)
	}
	release(t, lease)
	release(t, lease) // may be called again
	if left := roles(server); left != "" {
		t.Errorf("left: %s", left)
	}
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the session outlived its role")
	}
	check := server.URL(env.Superuser, server.Password, "shop")
	super, err := pgx.Connect(t.Context(), check)
	if err != nil {
		t.Fatal(err)
	}
	defer super.Close(context.Background())
	var owner string
	if err := super.QueryRow(t.Context(), "SELECT tableowner FROM pg_tables WHERE tablename = 'mine'").Scan(&owner); err != nil || owner != "keeper" {
		t.Errorf("what the role made belongs to %q, %v", owner, err)
	}
	if strings.Contains(server.Log(), password) {
		t.Error("the server's log has the password")
	}
}

func TestNothingIsLeftOfARoleThatCouldNotBeMadeWhole(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	for name, template := range map[string]v1alpha1.RoleTemplate{
		"a table that is not there":                    {Grants: []v1alpha1.RoleGrant{{Privileges: []string{"SELECT"}, Tables: []string{"shop.none"}}}},
		"a table that the administrator may not grant": {Grants: []v1alpha1.RoleGrant{{Privileges: []string{"SELECT"}, Tables: []string{"shop.foreign_to_him"}}}},
		"a group that is not there":                    {MemberOf: []string{`no "such" group`}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSource(t, server, func(r *v1alpha1.PostgresRole) { r.Role = template })
			if lease, err := s.Issue(t.Context(), request); err == nil || !strings.Contains(err.Error(), "credential source orders") {
				t.Errorf("got %v, %v", lease, err)
			}
			if left := roles(server); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

func TestAWrongAdministratorIsAnErrorThatDoesNotTellThePassword(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	s := newSource(t, server, func(r *v1alpha1.PostgresRole) { r.Admin.Username = "nobody" })
	_, err := s.Issue(t.Context(), request)
	if err == nil || strings.Contains(err.Error(), "admin-secret") || !strings.Contains(err.Error(), "administrator nobody") {
		t.Errorf("got %v", err)
	}
}

func TestWhatACrashLeftIsSweptAndWhatOthersHoldIsNot(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	first := newSource(t, server, nil)
	held, lost := issue(t, first, request), issue(t, first, request)
	conn, err := login(t, server, lost)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody renewed it: its validity ran out.
	server.Exec(fmt.Sprintf("ALTER ROLE %s VALID UNTIL '2020-01-01'", lost.Username))
	second := newSource(t, server, nil)
	if err := second.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := roles(server); got != held.Username {
		t.Errorf("there are %q, want %s alone", got, held.Username)
	}
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the session outlived its role")
	}
	release(t, held)
	release(t, lost) // it is gone already
}

func TestHeldRolesAreRenewed(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	s := newSource(t, server, nil)
	lease := issue(t, s, request)
	server.Exec(fmt.Sprintf("ALTER ROLE %s VALID UNTIL '2020-01-01'", lease.Username))
	if err := s.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := server.Value("SELECT (rolvaliduntil BETWEEN now() + interval '4 minutes' AND now() + interval '6 minutes')::text FROM pg_roles WHERE rolname = $1", lease.Username); got != "true" {
		t.Error("the role is not valid for the next minutes")
	}
	release(t, lease)
}

func TestSessionsOfAWorkloadShareARoleUntilTheLastEnds(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	s := newSource(t, server, func(r *v1alpha1.PostgresRole) { r.Scope = v1alpha1.ScopeWorkload })
	leases := make(chan *credential.Lease)
	for range 8 {
		go func() {
			lease, err := s.Issue(t.Context(), request)
			if err != nil {
				t.Error(err)
			}
			leases <- lease
		}()
	}
	var all []*credential.Lease
	for range 8 {
		all = append(all, <-leases)
	}
	other := request
	other.Workload = "another"
	apart := issue(t, s, other)
	for _, lease := range all {
		if lease.Username != all[0].Username || lease.Username == apart.Username {
			t.Errorf("%s has %s, and %s has %s", request.Workload, lease.Username, other.Workload, apart.Username)
		}
	}
	release(t, apart)
	for _, lease := range all[1:] {
		release(t, lease)
	}
	if _, err := login(t, server, &credential.Lease{Username: all[0].Username, Password: all[0].Password}); err != nil {
		t.Errorf("the last lease's role: %v", err)
	}
	release(t, all[0])
	if left := roles(server); left != "" {
		t.Errorf("left: %s", left)
	}
}

func TestARoleInItsSecondHalfIsKeptByThoseThatHaveIt(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	s := newSource(t, server, func(r *v1alpha1.PostgresRole) { r.Scope = v1alpha1.ScopeWorkload })
	old := issue(t, s, request)
	s.mu.Lock()
	s.held[old.Username].expires = time.Now().Add(s.ttl / 3)
	s.mu.Unlock()
	fresh := issue(t, s, request)
	if fresh.Username == old.Username {
		t.Error("a new session got the old role")
	}
	if _, err := login(t, server, old); err != nil {
		t.Errorf("the old role: %v", err)
	}
	release(t, old)
	release(t, fresh)
}

func TestLeasesOutliveARetiredSource(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	s := newSource(t, server, nil)
	lease := issue(t, s, request)
	s.Retire()
	if _, err := login(t, server, lease); err != nil {
		t.Error(err)
	}
	release(t, lease)
	if left := roles(server); left != "" {
		t.Errorf("left: %s", left)
	}
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		t.Error("the source still works")
	}
}

func TestDatabasesThatAreNotThereLeaveNothing(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	s := newSource(t, server, nil)
	for n := range 3 {
		req := request
		req.Database = fmt.Sprintf("nowhere%d", n)
		if _, err := s.Issue(t.Context(), req); err == nil {
			t.Error("issued for a database that is not there")
		}
	}
	s.admin.mu.Lock()
	defer s.admin.mu.Unlock()
	for name := range s.admin.conns {
		if name != maintenance {
			t.Errorf("%s is kept", name)
		}
	}
}

func TestAServerThatRestartsIsDialledAgain(t *testing.T) {
	t.Parallel()
	server := setUp(t)
	s := newSource(t, server, nil)
	release(t, issue(t, s, request))
	server.Stop()
	if _, err := s.Issue(t.Context(), request); err == nil {
		t.Error("issued without a server")
	}
	server.Start()
	release(t, issue(t, s, request))
}
