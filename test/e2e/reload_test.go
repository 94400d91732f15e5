package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// reloadTime is how long documents may take to be in force.
const reloadTime = 2 * time.Second

func TestNewPolicyDecidesInLiveSessionsAndOnPreparedStatements(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	c := w.wire()
	c.send(parse("drop", "DROP TABLE IF EXISTS nowhere"), parse("select", "SELECT 1"), syncMessage())
	if diff := cmp.Diff([]string{"ParseComplete", "ParseComplete", "Ready I"}, c.batch()); diff != "" {
		t.Fatal(diff)
	}
	prepared := func(name string) string {
		c.send(bind("", name), execute(""), syncMessage())
		return strings.Join(c.batch(), ", ")
	}
	dropped := "BindComplete, NoticeResponse, DROP TABLE, Ready I"
	if got := prepared("drop"); got != dropped {
		t.Fatalf("before: %s", got)
	}
	wrote := time.Now()
	w.WriteDocument("policy.yaml", w.policy(guarded))
	await(t, "the prepared statement is denied", func() bool { return prepared("drop") == "Error 42501, Ready I" })
	if took := time.Since(wrote); took > reloadTime {
		t.Errorf("the policy was in force after %s, want %s", took, reloadTime)
	}
	if diff := cmp.Diff(deniedQuery, c.query("DROP TABLE IF EXISTS nowhere")); diff != "" {
		t.Errorf("a simple query (-want +got):\n%s", diff)
	}
	if got := prepared("select"); got != "BindComplete, Row 1, SELECT 1, Ready I" {
		t.Errorf("what is allowed still: %s", got)
	}
	w.WriteDocument("policy.yaml", w.policy(allowAll))
	await(t, "the prepared statement is allowed again", func() bool { return prepared("drop") == dropped })

	w.WriteDocument("policy.yaml", strings.ReplaceAll(w.policy(allowAll), w.name, "somebody-else"))
	await(t, "a session without a policy is denied everything", func() bool { return cmp.Equal(c.query("SELECT 1"), deniedQuery) })
}

func TestBrokenDocumentChangesNothingAndStatusSaysWhy(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	c := w.wire()
	tests := []struct {
		name, content string
		says          []string
	}{
		{"an unknown field", strings.Replace(w.policy(guarded), "rules:", "redactions: []\n  rules:", 1), []string{"policy.yaml:9", "redactions"}},
		{"an action of a later version", w.policy("[{name: all, action: forward}]"), []string{"policy.yaml:9", "forward"}},
		{"a field that statements do not have", w.policy(`[{name: all, when: 'statement.knid == "ddl"', action: allow}]`), []string{"policy.yaml:9", "knid"}},
		{"no YAML", "}{", []string{"policy.yaml", "is no YAML"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.WriteDocument("policy.yaml", tt.content)
			var faults string
			await(t, "status tells of it", func() bool {
				s := w.status()
				faults = strings.Join(s.Faults, "\n")
				return !s.Ready && strings.Contains(faults, tt.says[0])
			})
			for _, text := range tt.says {
				if !strings.Contains(faults, text) {
					t.Errorf("status does not say %q: %s", text, faults)
				}
			}
			if diff := cmp.Diff(deniedQuery, c.query("DROP TABLE t")); diff != "" {
				t.Errorf("what was denied (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(selected, w.wire().query("SELECT 1")); diff != "" {
				t.Errorf("what was allowed, in a new session (-want +got):\n%s", diff)
			}
			w.WriteDocument("policy.yaml", w.policy(guarded))
			await(t, "it is ready again", func() bool { return w.status().Ready })
		})
	}
}
