package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

const roleDocument = `apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata: {name: orders-app}
spec:
  postgresRole:
    address: 127.0.0.1:%d
    tls: {mode: disable}
    admin: {username: %s, password: {file: %s}}
`

func TestASessionHasARoleOfItsOwnThatMayDoWhatPolicySays(t *testing.T) {
	t.Parallel()
	w := prepare(t, options{})
	documents := w.documents()
	source := strings.Index(documents["target.yaml"], "---\n")
	w.WriteDocument("target.yaml", documents["target.yaml"][:source])
	w.WriteDocument("source.yaml", fmt.Sprintf(roleDocument, w.server.Port, w.role(), w.passwordFile))
	w.WriteDocument("policy.yaml", documents["policy.yaml"]+"  role: {grants: [{privileges: [SELECT], tables: [shop.orders]}]}\n")
	w.server.ExecIn(w.database(), "CREATE SCHEMA shop", "CREATE TABLE shop.orders AS SELECT 1 AS id", "CREATE TABLE shop.customers (id int)")
	w.Start()

	c := w.connect()
	user := scan(t, c, "SELECT current_user")
	if !strings.HasPrefix(user, "sallyport_"+strings.ReplaceAll(w.name, "-", "_")[:10]) {
		t.Errorf("the session is %s", user)
	}
	if got := scan(t, c, "SELECT id::text FROM shop.orders"); got != "1" {
		t.Errorf("read %q", got)
	}
	if err := c.QueryRow(timeout(t), "SELECT id FROM shop.customers").Scan(new(int)); sqlstate(err) != "42501" || strings.Contains(err.Error(), "sallyport:") {
		t.Errorf("a table that the role was not granted: %v", err)
	}
	if err := c.Close(timeout(t)); err != nil {
		t.Error(err)
	}
	await(t, "the role is gone", func() bool {
		return w.server.Value("SELECT count(*)::text FROM pg_roles WHERE rolname = $1", user) == "0"
	})

	// Whoever cannot make a role lets nobody in.
	w.storePassword("wrong")
	w.server.Exec(fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%s'", w.role()))
	_, err := pgx.ConnectConfig(timeout(t), w.config())
	if sqlstate(err) != "28000" || strings.Contains(err.Error(), w.password) {
		t.Errorf("without an administrator: %v", err)
	}
	w.storePassword(w.password)
	w.connect()
}
