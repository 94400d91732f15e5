package e2e

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// secret is what masked columns hold in these tests.
const secret = "canary-9b51c"

const maskedColumns = `
  - {name: mail, columns: [public.customers.email], with: partial}
  - {name: card, columns: [public.customers.card], with: redact}`

// withCustomers is a world in which two columns of customers are masked.
func withCustomers(t *testing.T, o options) *world {
	t.Helper()
	o.masks = maskedColumns
	w := start(t, o)
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE customers (id integer PRIMARY KEY, name text, email text, card text); CREATE VIEW contacts AS SELECT name, lower(card) AS x, email FROM customers; "+
		"INSERT INTO customers SELECT n, 'name ' || n, 'a"+secret+"@example.com', '"+secret+"' FROM generate_series(1, 3) n"); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestMaskedColumnsStayHiddenFromPsql(t *testing.T) {
	t.Parallel()
	w := withCustomers(t, options{})
	got := w.psql("SELECT * FROM customers WHERE id = 1", "SELECT name, x FROM contacts LIMIT 1", "COPY (SELECT id, card FROM customers WHERE id = 2) TO STDOUT", `\copy customers TO STDOUT CSV HEADER`,
		"SELECT email::integer FROM customers", "INSERT INTO customers (id, card) SELECT 9, name FROM customers WHERE id = 1 RETURNING card, name", `\d customers`, `\d+ contacts`, "EXPLAIN SELECT * FROM customers WHERE id = 1")
	if strings.Contains(got.Stdout+got.Stderr, secret) {
		t.Fatalf("psql shows the secret:\n%s\n%s", got.Stdout, got.Stderr)
	}
	for _, want := range []string{"1|name 1|a***@e", "name 1|********\n", "2\t********\n", "id,name,email,card\n", "3,name 3,a***@e", "Scan"} {
		if !strings.Contains(got.Stdout, want) {
			t.Errorf("%q is not in\n%s\n%s", want, got.Stdout, got.Stderr)
		}
	}
	if metrics := w.Metrics(); !strings.Contains(metrics, `sallyport_masked_values_total{mask="card",policy="orders",target="orders-db"}`) {
		t.Error("masked values are not counted")
	}
}

func TestMaskedColumnsStayHiddenFromPgx(t *testing.T) {
	t.Parallel()
	w := withCustomers(t, options{})
	for name, mode := range map[string]pgx.QueryExecMode{
		"prepared": pgx.QueryExecModeCacheStatement, "described": pgx.QueryExecModeCacheDescribe, "simple": pgx.QueryExecModeSimpleProtocol, "unnamed": pgx.QueryExecModeExec,
	} {
		config := w.config()
		config.DefaultQueryExecMode = mode
		c := w.connectConfig(config)
		for range 2 {
			for _, text := range []string{"SELECT card FROM customers WHERE id = $1", "SELECT upper(card) FROM customers WHERE id = $1", "SELECT x FROM contacts WHERE $1 > 0 LIMIT 1"} {
				var card *string
				if err := c.QueryRow(timeout(t), text, 1).Scan(&card); err != nil || card == nil || *card != "********" {
					t.Errorf("%s, %s: %v, %v", name, text, card, err)
				}
			}
		}
		batch := &pgx.Batch{}
		for id := range 3 {
			batch.Queue("SELECT name, card FROM customers WHERE id = $1", id+1)
		}
		results := c.SendBatch(timeout(t), batch)
		for range 3 {
			var who, card string
			if err := results.QueryRow().Scan(&who, &card); err != nil || card != "********" || !strings.HasPrefix(who, "name ") {
				t.Errorf("%s, batch: %q, %q, %v", name, who, card, err)
			}
		}
		if err := results.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAKeptConnectionKeepsNothingOfMasks(t *testing.T) {
	t.Parallel()
	w := withCustomers(t, options{upstream: "{tls: {mode: disable}, pool: {maxIdle: 2, idleTimeout: 10s}}"})
	for range 3 {
		c := w.connect()
		var card string
		if err := c.QueryRow(timeout(t), "SELECT card FROM customers WHERE id = 1").Scan(&card); err != nil || card != "********" {
			t.Fatalf("%q, %v", card, err)
		}
		if _, err := c.Exec(timeout(t), "SELECT 1/0"); err == nil || !strings.Contains(err.Error(), "division by zero") || strings.Contains(err.Error(), "sallyport") {
			t.Errorf("an error that tells nothing is hidden: %v", err)
		}
		if err := c.Close(timeout(t)); err != nil {
			t.Fatal(err)
		}
	}
}
