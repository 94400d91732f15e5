package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

const (
	goodTarget = `apiVersion: sallyport.dev/v1alpha1
kind: Target
metadata: {name: orders-db}
spec:
  protocol: postgres
  endpoints:
  - {host: orders.internal, port: 5432}
  - cidr: 10.8.0.0/24
    port: 5432
  upstream:
    address: ""
    tls:
      ca: {file: /etc/pg/ca.pem}
  credential: orders-app
`
	goodSource = `apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata:
  name: orders-app
spec:
  static:
    username: app
    password: {file: /run/secrets/orders}
`
	goodPolicy = `apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: checkout-orders}
spec:
  workloads:
  - cgroup: /sallyport/demo
  targets: [orders-db]
  rules:
  - {name: no-ddl, when: 'statement.kind == "ddl"', action: deny}
  - {name: rest, action: allow}
`
	good = goodTarget + "---\n" + goodSource + "---\n" + goodPolicy
)

func parse(contents ...string) (*Snapshot, error) {
	var files []handoff.File
	for i, content := range contents {
		files = append(files, handoff.File{Path: fmt.Sprintf("%c.yaml", 'a'+i), Content: []byte(content)})
	}
	return Parse(files)
}

// problemsOf is the lines of the error.
func problemsOf(t *testing.T, snapshot *Snapshot, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var list *Error
	if snapshot != nil || !errors.As(err, &list) || len(list.Problems) == 0 {
		t.Fatalf("got %v and %T %v, want no snapshot and a list of problems", snapshot, err, err)
	}
	return strings.Split(err.Error(), "\n")
}

func TestGoodDocumentsBecomeASnapshot(t *testing.T) {
	for name, contents := range map[string][]string{
		"in one file":                        {good},
		"in three files":                     {goodPolicy, goodTarget, goodSource},
		"between comments and empty ones":    {"# first\n---\n# nothing here\n---\n" + good + "---\n", "# only a comment\n", ""},
		"with lines that end as Windows has": {strings.ReplaceAll(good, "\n", "\r\n")},
		"with aliases":                       {strings.Replace(good, "host: orders.internal, port: 5432", "host: orders.internal, port: &port 5432", 1), "# nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			snapshot, err := parse(contents...)
			if err != nil {
				t.Fatal(err)
			}
			target := snapshot.Targets["orders-db"]
			want := v1alpha1.TargetSpec{
				Protocol:  "postgres",
				Endpoints: []v1alpha1.Endpoint{{Host: "orders.internal", Port: 5432}, {CIDR: "10.8.0.0/24", Port: 5432}},
				Upstream: v1alpha1.Upstream{TLS: &v1alpha1.UpstreamTLS{Mode: v1alpha1.TLSVerifyFull, ServerName: "orders.internal",
					CA: &v1alpha1.FileSource{File: "/etc/pg/ca.pem"}}},
				ClientTLS: v1alpha1.ClientTLSAuto, Credential: "orders-app",
			}
			if diff := cmp.Diff(want, target.Spec); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(map[string]struct{}{"/etc/pg/ca.pem": {}, "/run/secrets/orders": {}}, snapshot.NamedFiles()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"/sallyport/demo"}, snapshot.CgroupSelectors()); diff != "" {
				t.Error(diff)
			}
			if snapshot.Empty() || snapshot.Compiled == nil || len(snapshot.Policies) != 1 || len(snapshot.CredentialSources) != 1 {
				t.Errorf("got %+v", snapshot)
			}
			if warnings := snapshot.Warnings(); warnings != nil {
				t.Errorf("warnings: %v", warnings)
			}
		})
	}
}

func TestNoDocumentsAreAnEmptySnapshot(t *testing.T) {
	snapshot, err := parse()
	if err != nil || !snapshot.Empty() || snapshot.Compiled == nil {
		t.Fatalf("got %+v, %v", snapshot, err)
	}
	if got := snapshot.Warnings(); len(got) != 1 || !strings.Contains(got[0], "nothing is protected") {
		t.Errorf("warnings: %v", got)
	}
}

func TestWarningsTellWhatIsSeldomMeant(t *testing.T) {
	snapshot, err := parse(strings.Replace(goodTarget, "ca: {file: /etc/pg/ca.pem}", "mode: require", 1), goodSource,
		strings.ReplaceAll(goodSource, "orders-app", "unused"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"CredentialSource/unused: no Target names it",
		"Target/orders-db: no AccessPolicy names it: enrolled workloads are refused there",
		"Target/orders-db: spec.upstream.tls.mode is require: whoever answers at its address is taken for the server",
	}
	if diff := cmp.Diff(want, snapshot.Warnings()); diff != "" {
		t.Error(diff)
	}
}

// TestProblems changes one thing in good documents and tells the problems.
func TestProblems(t *testing.T) {
	const (
		target = "a.yaml:%d:%d: Target/orders-db: "
		source = "a.yaml:%d:%d: CredentialSource/orders-app: "
		policy = "a.yaml:%d:%d: AccessPolicy/checkout-orders: "
	)
	at := func(format string, line, column int) string { return fmt.Sprintf(format, line, column) }
	for _, test := range []struct {
		name     string
		old, new string
		want     []string
	}{
		{"an unknown field is named with the nearest known one", "  protocol: postgres", "  protcol: postgres", []string{
			at(target, 4, 1) + "spec.protocol: is missing; expected postgres",
			at(target, 5, 3) + "spec.protcol: is an unknown field; did you mean protocol?"}},
		{"an unknown field like no other is told the known ones", "  rules:", "  redactions: []\n  rules:", []string{
			at(policy, 32, 3) + "spec.redactions: is an unknown field; expected one of approvals, masking, masks, record, role, rules, targets, workloads"}},
		{"a mask is told its place", "  rules:", "  masks:\n  - {columns: [customers.email], with: blur}\n  rules:", []string{
			at(policy, 33, 16) + `spec.masks[0].columns[0]: found "customers.email"; expected schema.table.column, where a part may be "*", or *.column`,
			at(policy, 33, 40) + `spec.masks[0].with: found "blur"; expected redact, partial, hash, null or fixed`}},
		{"an unknown field in a list is told its place", "port: 5432}", "port: 5432, service: {}}", []string{
			at(target, 7, 41) + "spec.endpoints[0].service: is an unknown field; expected one of cidr, host, port"}},
		{"a field that is given twice", "  protocol: postgres", "  protocol: postgres\n  protocol: postgres", []string{
			at(target, 6, 3) + "spec.protocol: is given twice, first in line 5; expected once"}},
		{"a string for an integer", "orders.internal, port: 5432", `orders.internal, port: "5432"`, []string{
			at(target, 7, 35) + "spec.endpoints[0].port: found a string; expected an integer"}},
		{"a number with a fraction for an integer", "orders.internal, port: 5432", `orders.internal, port: 5432.5`, []string{
			at(target, 7, 35) + "spec.endpoints[0].port: found a number; expected an integer"}},
		{"an integer that is too large", "orders.internal, port: 5432", `orders.internal, port: 18446744073709551615`, []string{
			at(target, 7, 35) + "spec.endpoints[0].port: found an integer out of range; expected an integer"}},
		{"a port out of range", "orders.internal, port: 5432", "orders.internal, port: 70000", []string{
			at(target, 7, 35) + "spec.endpoints[0].port: found 70000; expected a port from 1 to 65535"}},
		{"a missing field stands where its parent does", "    port: 5432\n", "", []string{
			at(target, 8, 5) + "spec.endpoints[1].port: found 0; expected a port from 1 to 65535"}},
		{"an integer for a string", "username: app", "username: 42", []string{
			at(source, 22, 15) + "spec.static.username: found an integer; expected a string: put it in quotes"}},
		{"no value for a string", "username: app", "username:", []string{
			at(source, 22, 14) + "spec.static.username: found no value; expected a string"}},
		{"a list for a string", "username: app", "username: [app]", []string{
			at(source, 22, 15) + "spec.static.username: found a list; expected a string"}},
		{"a value of another type", "username: app", "username: !!binary YXBw", []string{
			at(source, 22, 15) + "spec.static.username: found a value of another type; expected a string: put it in quotes"}},
		{"a string for a mapping", "metadata: {name: orders-db}", "metadata: orders-db", []string{
			"a.yaml:3:11: Target: metadata: found a string; expected a mapping",
			at(policy, 31, 13) + `spec.targets[0]: found "orders-db"; expected the name of a Target that exists`}},
		{"a string for a list", "targets: [orders-db]", "targets: orders-db", []string{
			at(policy, 31, 12) + "spec.targets: found a string; expected a list"}},
		{"no value for a mapping", "  upstream:\n    address: \"\"\n    tls:\n      ca: {file: /etc/pg/ca.pem}\n", "  upstream:\n", []string{
			at(target, 10, 12) + "spec.upstream: found no value; expected a mapping"}},
		{"an unknown action", "action: allow", "action: ask", []string{
			at(policy, 34, 26) + `spec.rules[1].action: found "ask"; expected allow, deny or approve`}},
		{"an approval without approvers", "action: allow", "action: approve, approval: {approvers: [dba]}", []string{
			at(policy, 34, 58) + `spec.rules[1].approval.approvers[0]: found "dba"; expected "user:NAME", "group:NAME" or "uid:NUMBER"`}},
		{"an empty expression", "{name: rest, action", "{name: rest, when: '', action", []string{
			at(policy, 34, 24) + "spec.rules[1].when: is empty; expected an expression, or no field for a rule that matches everything"}},
		{"an inline secret", "password: {file: /run/secrets/orders}", "password: hunter2", []string{
			at(source, 23, 15) + "spec.static.password: " + v1alpha1.InlineSecret}},
		{"an inline secret under a key", "password: {file: /run/secrets/orders}", "password: {value: hunter2}", []string{
			at(source, 23, 16) + "spec.static.password: has an unknown field; " + v1alpha1.InlineSecret}},
		{"an inline secret for a key", "password: {file: /run/secrets/orders}", "password: {hunter2}", []string{
			at(source, 23, 16) + "spec.static.password: has an unknown field; " + v1alpha1.InlineSecret}},
		{"an inline secret for a path", "file: /run/secrets/orders", "file: hunter2", []string{
			at(source, 23, 22) + "spec.static.password.file: is no absolute, clean path of a file; " + v1alpha1.InlineSecret}},
		{"a secret that is no YAML", "{file: /run/secrets/orders}", "*hunter2", []string{
			"a.yaml: is no YAML: unknown anchor '…' referenced",
			at(target, 14, 15) + `spec.credential: found "orders-app"; expected the name of a CredentialSource that exists`}},
		{"a merge of mappings", "  protocol: postgres", "  <<: {protocol: postgres}\n  protocol: postgres", []string{
			at(target, 5, 3) + "spec.<<: is a merge of mappings, which is not understood here; expected the fields to be written out"}},
		{"a key that is a list", "  protocol: postgres", "  [a]: b\n  protocol: postgres", []string{
			at(target, 5, 3) + `spec."": found a list for a key; expected one of clientTLS, credential, endpoints, protocol, upstream`}},
		{"another version", "sallyport.dev/v1alpha1\nkind: Target", "sallyport.dev/v1\nkind: Target", []string{
			`a.yaml:1:13: Target/orders-db: apiVersion: found "sallyport.dev/v1"; expected sallyport.dev/v1alpha1`}},
		{"an unknown kind", "kind: Target", "kind: Targets", []string{
			`a.yaml:2:7: kind: found "Targets"; expected Target`}},
		{"a kind like no other", "kind: Target", "kind: ConfigMap", []string{
			`a.yaml:2:7: kind: found "ConfigMap"; expected one of AccessPolicy, CredentialSource, Target`}},
		{"a key that would speak to the terminal", "  protocol: postgres", "  \"a\\e[2Jb\": c\n  protocol: postgres", []string{
			at(target, 5, 3) + `spec."a\x1b[2Jb": is an unknown field; expected one of clientTLS, credential, endpoints, protocol, upstream`}},
		{"a name that would speak to the terminal", "{name: orders-db}", `{name: "a\nb"}`, []string{
			`a.yaml:3:18: Target/"a\nb": metadata.name: found "a\nb"; expected a DNS label: lower-case letters, digits and inner dashes, at most 63 characters`}},
		{"no kind", "kind: Target\n", "", []string{
			`a.yaml:1:1: kind: is missing; expected one of AccessPolicy, CredentialSource, Target`}},
		{"a document that is a list", "---\n", "---\n- a\n---\n", []string{
			"a.yaml:16:1: found a list; expected a mapping with apiVersion, kind, metadata and spec"}},
		{"a reference to nothing", "targets: [orders-db]", "targets: [order-db]", []string{
			at(policy, 31, 13) + `spec.targets[0]: found "order-db"; expected the name of a Target that exists: did you mean orders-db?`}},
		{"a reference that is no name", "targets: [orders-db]", "targets: ['*']", []string{
			at(policy, 31, 13) + `spec.targets[0]: found "*"; expected a DNS label: lower-case letters, digits and inner dashes, at most 63 characters`}},
		{"a credential that is not there", "credential: orders-app", "credential: nobody", []string{
			at(target, 14, 15) + `spec.credential: found "nobody"; expected the name of a CredentialSource that exists`}},
		{"a rule that is never reached", "when: 'statement.kind == \"ddl\"', ", "", []string{
			at(policy, 34, 5) + "spec.rules[1]: is never reached: spec.rules[0] (no-ddl) matches everything; expected the unconditional rule last"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := strings.Replace(good, test.old, test.new, 1)
			if content == good {
				t.Fatal("nothing was changed")
			}
			snapshot, err := parse(content)
			got := problemsOf(t, snapshot, err)
			// Problems that only follow from a document that could not be read are not what is tested.
			got = without(got, test.want, "expected the name of a")
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the secret is quoted: %v", err)
			}
		})
	}
}

// without drops the lines with the text that are not wanted.
func without(lines, want []string, text string) []string {
	var kept []string
	for _, line := range lines {
		wanted := !strings.Contains(line, text)
		for _, other := range want {
			wanted = wanted || line == other
		}
		if wanted {
			kept = append(kept, line)
		}
	}
	return kept
}

func TestProblemsOfAllFilesAreReportedTogether(t *testing.T) {
	snapshot, err := parse(goodSource+"---\n"+goodSource, strings.Replace(goodPolicy, "allow", "alow", 1)+"---\n{", goodTarget,
		strings.Replace(goodTarget, "orders-db", "other-db", 1))
	want := []string{
		"a.yaml:13:9: CredentialSource/orders-app: metadata.name: is taken by the CredentialSource at a.yaml:1; expected names that are unique within a kind",
		`b.yaml:10:26: AccessPolicy/checkout-orders: spec.rules[1].action: found "alow"; expected allow, deny or approve`,
		"b.yaml:12:1: is no YAML: did not find expected node content",
		"d.yaml:7:5: Target/other-db: spec.endpoints[0]: orders.internal port 5432 is claimed by spec.endpoints[0] of Target/orders-db at c.yaml:1; expected each destination to belong to one target",
		"d.yaml:8:5: Target/other-db: spec.endpoints[1]: 10.8.0.0/24 port 5432 is claimed by spec.endpoints[1] of Target/orders-db at c.yaml:1; expected each destination to belong to one target",
	}
	if diff := cmp.Diff(want, problemsOf(t, snapshot, err)); diff != "" {
		t.Error(diff)
	}
}

func TestExpressionsThatDoNotCompileAreToldTheirPlace(t *testing.T) {
	broken := strings.NewReplacer(`'statement.kind == "ddl"'`, `'statement.kid == "ddl"'`, "{name: rest, action: allow}",
		"{name: rest, action: allow, when: 'statement.kind'}").Replace(goodPolicy)
	snapshot, err := parse(goodTarget, goodSource, broken)
	got := problemsOf(t, snapshot, err)
	want := []string{
		"c.yaml:9:26: AccessPolicy/checkout-orders: spec.rules[0].when: 1:10: ",
		"c.yaml:10:39: AccessPolicy/checkout-orders: spec.rules[1].when: ",
	}
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("got %s, want %s…", got[i], want[i])
		}
	}
}

func TestMoreSpecificRangeMayBelongToAnotherTarget(t *testing.T) {
	other := strings.NewReplacer("orders-db", "other-db", "10.8.0.0/24", "10.8.0.0/25", "orders.internal", "other.internal").Replace(goodTarget)
	if _, err := parse(good, other); err != nil {
		t.Error(err)
	}
}

func TestNameMayBeUsedOnceForEachKind(t *testing.T) {
	if _, err := parse(strings.NewReplacer("orders-db", "orders", "orders-app", "orders", "checkout-orders", "orders").Replace(good)); err != nil {
		t.Error(err)
	}
}

func TestAliasesAreBounded(t *testing.T) {
	bomb := goodPolicy + "bomb:\n  a: &a [x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'k'; c++ {
		bomb += fmt.Sprintf("  %c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 7), c-1)
	}
	rules := "apiVersion: sallyport.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: a}\nspec:\n  targets: &t [&n orders-db" +
		strings.Repeat(", *n", 60_000) + "]\n"
	for name, content := range map[string]string{
		"of lists of lists":     bomb,
		"of one value":          rules,
		"of a loop":             "apiVersion: sallyport.dev/v1alpha1\nkind: AccessPolicy\nmetadata: &m {name: *m}\n",
		"of a loop at the root": "&r\napiVersion: sallyport.dev/v1alpha1\nkind: AccessPolicy\nmetadata: *r\nspec: *r\n",
	} {
		t.Run(name, func(t *testing.T) {
			snapshot, err := parse(goodTarget+"---\n"+goodSource, content)
			if got := problemsOf(t, snapshot, err); len(got) == 0 {
				t.Error("no problem was found")
			}
		})
	}
}

func TestFileThatIsTooLargeIsRefused(t *testing.T) {
	snapshot, err := parse(strings.Repeat("#", MaxFileBytes+1))
	if diff := cmp.Diff([]string{"a.yaml: is too large; expected at most 1048576 bytes"}, problemsOf(t, snapshot, err)); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("&r\napiVersion: sallyport.dev/v1alpha1\nkind: AccessPolicy\nmetadata: *r\nspec: *r\n"))
	f.Add([]byte("apiVersion: sallyport.dev/v1alpha1\nkind: Target\n<<: {a: b}\n? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		snapshot, err := Parse([]handoff.File{{Path: "a.yaml", Content: content}})
		if (snapshot == nil) == (err == nil) {
			t.Fatalf("got %v and %v", snapshot, err)
		}
		if err != nil && err.Error() == "" {
			t.Fatal("an error without a problem")
		}
	})
}

func TestAFaultOnTheFirstLineIsToldItsLine(t *testing.T) {
	snapshot, err := parse("\ta: b")
	if diff := cmp.Diff([]string{"a.yaml:1:1: is no YAML: found character that cannot start any token"}, problemsOf(t, snapshot, err)); diff != "" {
		t.Error(diff)
	}
}
