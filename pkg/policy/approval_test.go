package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

func hold(name, when string) v1alpha1.Rule {
	return v1alpha1.Rule{Name: name, When: when, Action: v1alpha1.ActionApprove, Approval: &v1alpha1.Approval{
		Timeout: "5m", Window: "1h", Approvers: []string{"group:" + name}, Reason: v1alpha1.ReasonRequired,
	}}
}

func TestDenialWinsOverHoldAndHoldOverAllow(t *testing.T) {
	g := mustGrant(t, document("p",
		deny("no-drop", `statement.verb == "DROP TABLE"`),
		hold("dba", `statement.verb == "DELETE"`),
		hold("security", `"public.secrets" in statement.tables`),
		hold("explain", `statement.verb == "EXPLAIN"`),
		allow("rest", ""),
	))
	for _, test := range []struct{ name, text, action, rule, asked string }{
		{"what no rule holds", "SELECT 1", "allow", "rest", ""},
		{"what one rule holds", "DELETE FROM t", "hold", "dba", "dba"},
		{"what is held within what is allowed", "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "hold", "dba", "dba"},
		{"what two rules hold", "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d, secrets", "hold", "security", "security dba"},
		{"what one rule holds twice", "WITH a AS (DELETE FROM t RETURNING *), b AS (DELETE FROM u RETURNING *) SELECT 1", "hold", "dba", "dba"},
		{"what is held outside of what is held", "EXPLAIN DELETE FROM t", "hold", "explain", "explain dba"},
		{"what is denied within what is held", "CREATE RULE r AS ON INSERT TO t DO DELETE FROM u", "hold", "dba", "dba"},
		{"the first match decides", "DELETE FROM secrets", "hold", "dba", "dba"},
	} {
		t.Run(test.name, func(t *testing.T) {
			script, err := sql.Parse(test.text)
			if err != nil {
				t.Fatal(err)
			}
			d := g.DecideStatement(script.Statements[0].Units, []string{"public"}, subject)
			var asked []string
			for _, a := range d.Holds {
				asked = append(asked, a.Rule)
			}
			if got := strings.Join(asked, " "); d.Action.String() != test.action || d.Rule != test.rule || got != test.asked {
				t.Errorf("got %s by %s, asking %q", d.Action, d.Rule, got)
			}
		})
	}
	denied := []sql.Unit{{Verb: "DELETE"}, {Verb: "DROP TABLE"}}
	if d := g.DecideStatement(denied, nil, subject); d.Action != Deny || d.Rule != "no-drop" || d.Holds != nil {
		t.Errorf("a denial behind a hold gives %+v", d)
	}
}

func TestHoldSaysWhoIsAskedForHowLong(t *testing.T) {
	g := mustGrant(t, document("p", hold("dba", "")))
	if !g.Holds() || mustGrant(t, document("p", allow("all", ""))).Holds() || (Grant{}).Holds() {
		t.Error("Holds does not tell")
	}
	d := g.Decide(&Statement{}, subject)
	want := Decision{Action: Hold, Policy: "p", Rule: "dba", Holds: []*Approval{{
		Policy: "p", Rule: "dba", Timeout: 5 * time.Minute, Window: time.Hour, Approvers: []string{"group:dba"}, NeedsReason: true,
	}}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}
