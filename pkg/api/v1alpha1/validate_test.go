package v1alpha1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func target(change func(*Target)) *Target {
	t := &Target{
		TypeMeta: TypeMeta{APIVersion: APIVersion, Kind: KindTarget},
		Metadata: ObjectMeta{Name: "orders-db"},
		Spec: TargetSpec{Protocol: ProtocolPostgres, Credential: "orders-app",
			Endpoints: []Endpoint{{Host: "orders.internal", Port: 5432}, {CIDR: "10.8.0.0/24", Port: 5432}}},
	}
	if change != nil {
		change(t)
	}
	t.Default()
	return t
}

func credentialSource(change func(*CredentialSource)) *CredentialSource {
	c := &CredentialSource{
		Metadata: ObjectMeta{Name: "orders-app"},
		Spec: CredentialSourceSpec{Static: &StaticCredential{Username: "app",
			Password: SecretSource{File: "/run/secrets/orders"}}},
	}
	if change != nil {
		change(c)
	}
	c.Default()
	return c
}

func accessPolicy(change func(*AccessPolicy)) *AccessPolicy {
	a := &AccessPolicy{
		Metadata: ObjectMeta{Name: "checkout-orders"},
		Spec: AccessPolicySpec{
			Workloads: []WorkloadSelector{{Cgroup: "/sallyport/demo"}, {Cgroup: "/sallyport/*"}},
			Targets:   []string{"orders-db"},
			Rules: []Rule{
				{Name: "no-ddl", When: `statement.kind == "ddl"`, Action: ActionDeny, Message: "schema changes go through migrations"},
				{Name: "rest", Action: ActionAllow},
			},
		},
	}
	if change != nil {
		change(a)
	}
	a.Default()
	return a
}

// fieldTest breaks a valid document at one field.
type fieldTest[T any] struct {
	name    string
	change  func(T)
	field   string // "" when nothing is wrong
	message string // a part of the message
}

func (f fieldTest[T]) check(t *testing.T, got []FieldError) {
	t.Helper()
	if f.field == "" {
		if len(got) > 0 {
			t.Errorf("got %v, want no error", got)
		}
		return
	}
	if len(got) != 1 || got[0].Field != f.field || !strings.Contains(got[0].Message, f.message) {
		t.Errorf("got %v, want %s: …%s…", got, f.field, f.message)
	}
}

func TestTargetValidation(t *testing.T) {
	endpoint := func(e Endpoint) func(*Target) { return func(t *Target) { t.Spec.Endpoints = []Endpoint{e} } }
	upstream := func(u Upstream) func(*Target) { return func(t *Target) { t.Spec.Upstream = u } }
	tls := func(tls UpstreamTLS) func(*Target) { return upstream(Upstream{TLS: &tls}) }
	name := func(name string) func(*Target) { return func(t *Target) { t.Metadata.Name = name } }
	for _, test := range []fieldTest[*Target]{
		{name: "a target by host and range is valid"},
		{name: "a name is required", change: name(""), field: "metadata.name", message: "is missing"},
		{name: "a name is in lower case", change: name("Orders"), field: "metadata.name", message: `found "Orders"; expected a DNS label`},
		{name: "a name does not end in a dash", change: name("orders-"), field: "metadata.name"},
		{name: "a name has at most 63 characters", change: name(strings.Repeat("a", 64)), field: "metadata.name"},
		{name: "63 characters are a name", change: name(strings.Repeat("a", 63))},
		{name: "a name has no dot", change: name("a.b"), field: "metadata.name"},
		{name: "mysql is no protocol of this version", change: func(t *Target) { t.Spec.Protocol = "mysql" },
			field: "spec.protocol", message: `found "mysql"; expected postgres`},
		{name: "a protocol is required", change: func(t *Target) { t.Spec.Protocol = "" }, field: "spec.protocol", message: "is missing"},
		{name: "endpoints are required", change: func(t *Target) { t.Spec.Endpoints = nil }, field: "spec.endpoints", message: "is empty"},
		{name: "an endpoint has a host or a range", change: endpoint(Endpoint{Port: 5432}), field: "spec.endpoints[0]", message: "neither host nor cidr"},
		{name: "an endpoint has not both", change: endpoint(Endpoint{Host: "a", CIDR: "10.0.0.0/8", Port: 5432}), field: "spec.endpoints[0]", message: "both host and cidr"},
		{name: "port 0 is no port", change: endpoint(Endpoint{Host: "a"}), field: "spec.endpoints[0].port", message: "found 0; expected a port from 1 to 65535"},
		{name: "port 65536 is no port", change: endpoint(Endpoint{Host: "a", Port: 65536}), field: "spec.endpoints[0].port"},
		{name: "port 65535 is a port", change: endpoint(Endpoint{Host: "a", Port: 65535})},
		{name: "a host may be an IPv4 address", change: endpoint(Endpoint{Host: "127.0.0.1", Port: 1})},
		{name: "a host may be an IPv6 address", change: endpoint(Endpoint{Host: "2001:db8::1", Port: 1})},
		{name: "a host may have underscores", change: endpoint(Endpoint{Host: "my_db", Port: 1})},
		{name: "a mapped address is written as IPv4", change: endpoint(Endpoint{Host: "::ffff:10.0.0.1", Port: 1}), field: "spec.endpoints[0].host", message: "10.0.0.1"},
		{name: "a host has no zone", change: endpoint(Endpoint{Host: "fe80::1%eth0", Port: 1}), field: "spec.endpoints[0].host", message: "without a zone"},
		{name: "a host is not every address", change: endpoint(Endpoint{Host: "0.0.0.0", Port: 1}), field: "spec.endpoints[0].host", message: "one host"},
		{name: "a mistyped address is no name", change: endpoint(Endpoint{Host: "10.8.0.256", Port: 1}), field: "spec.endpoints[0].host", message: "neither"},
		{name: "a host is no URL", change: endpoint(Endpoint{Host: "postgres://db", Port: 1}), field: "spec.endpoints[0].host"},
		{name: "a host has no port in it", change: endpoint(Endpoint{Host: "db:5432", Port: 1}), field: "spec.endpoints[0].host"},
		{name: "a host is no pattern", change: endpoint(Endpoint{Host: "*.internal", Port: 1}), field: "spec.endpoints[0].host"},
		{name: "a host is not too long", change: endpoint(Endpoint{Host: strings.Repeat("a.", 126) + "ab", Port: 1}), field: "spec.endpoints[0].host", message: "253"},
		{name: "a range has no bits of hosts", change: endpoint(Endpoint{CIDR: "10.8.0.7/24", Port: 1}), field: "spec.endpoints[0].cidr", message: `found "10.8.0.7/24"; expected 10.8.0.0/24`},
		{name: "a range has its canonical spelling", change: endpoint(Endpoint{CIDR: "2001:DB8::/32", Port: 1}), field: "spec.endpoints[0].cidr", message: "expected 2001:db8::/32"},
		{name: "a range has a length", change: endpoint(Endpoint{CIDR: "10.8.0.0", Port: 1}), field: "spec.endpoints[0].cidr", message: "such as 10.8.0.0/24"},
		{name: "a mapped range is written as IPv4", change: endpoint(Endpoint{CIDR: "::ffff:10.0.0.0/104", Port: 1}), field: "spec.endpoints[0].cidr", message: "IPv4"},
		{name: "a range is not of groups", change: endpoint(Endpoint{CIDR: "224.0.0.0/8", Port: 1}), field: "spec.endpoints[0].cidr", message: "hosts"},
		{name: "a destination is given once", change: func(t *Target) {
			t.Spec.Endpoints = []Endpoint{{Host: "10.8.0.1", Port: 1}, {CIDR: "10.8.0.1/32", Port: 1}, {CIDR: "10.8.0.1/32", Port: 2}}
		}, field: "spec.endpoints[1]", message: "same destination as spec.endpoints[0]"},
		{name: "names differ by more than case", change: func(t *Target) {
			t.Spec.Endpoints = []Endpoint{{Host: "db", Port: 1}, {Host: "DB", Port: 1}}
		}, field: "spec.endpoints[1]"},
		{name: "an upstream address is host and port", change: upstream(Upstream{Address: "db.internal:5432"})},
		{name: "an upstream address may be IPv6", change: upstream(Upstream{Address: "[2001:db8::1]:5432"})},
		{name: "an upstream address has a port", change: upstream(Upstream{Address: "db.internal"}), field: "spec.upstream.address", message: "expected host:port"},
		{name: "an upstream port is a number", change: upstream(Upstream{Address: "db.internal:postgres"}), field: "spec.upstream.address", message: `found port "postgres"`},
		{name: "an upstream port is not 0", change: upstream(Upstream{Address: "db.internal:0"}), field: "spec.upstream.address"},
		{name: "an upstream host is one", change: upstream(Upstream{Address: "d b:5432"}), field: "spec.upstream.address"},
		{name: "connections may be kept", change: upstream(Upstream{Pool: &Pool{MaxIdle: 8}})},
		{name: "a number of connections to keep is needed", change: upstream(Upstream{Pool: &Pool{}}), field: "spec.upstream.pool.maxIdle", message: "expected 1 to 1000"},
		{name: "connections are not kept for long", change: upstream(Upstream{Pool: &Pool{MaxIdle: 1, IdleTimeout: "1h"}}), field: "spec.upstream.pool.idleTimeout", message: "expected a duration"},
		{name: "prefer is no mode", change: tls(UpstreamTLS{Mode: "prefer"}), field: "spec.upstream.tls.mode", message: "expected verify-full, require or disable"},
		{name: "a CA goes with verify-full", change: tls(UpstreamTLS{CA: &FileSource{File: "/etc/pg/ca.pem"}})},
		{name: "a CA contradicts require", change: tls(UpstreamTLS{Mode: TLSRequire, CA: &FileSource{File: "/ca"}}), field: "spec.upstream.tls.ca", message: "contradicts mode require"},
		{name: "a server name contradicts disable", change: tls(UpstreamTLS{Mode: TLSDisable, ServerName: "a"}), field: "spec.upstream.tls.serverName"},
		{name: "a CA names a file", change: tls(UpstreamTLS{CA: &FileSource{}}), field: "spec.upstream.tls.ca.file", message: "is missing"},
		{name: "a CA's path is absolute", change: tls(UpstreamTLS{CA: &FileSource{File: "ca.pem"}}), field: "spec.upstream.tls.ca.file", message: "absolute"},
		{name: "a CA's path is clean", change: tls(UpstreamTLS{CA: &FileSource{File: "/etc/../etc/ca.pem"}}), field: "spec.upstream.tls.ca.file", message: "clean"},
		{name: "sometimes is no clientTLS", change: func(t *Target) { t.Spec.ClientTLS = "sometimes" }, field: "spec.clientTLS", message: "expected auto, never or always"},
		{name: "a credential is required", change: func(t *Target) { t.Spec.Credential = "" }, field: "spec.credential", message: "is missing"},
	} {
		t.Run(test.name, func(t *testing.T) { test.check(t, target(test.change).Validate()) })
	}
}

func TestCredentialSourceValidation(t *testing.T) {
	password := func(s SecretSource) func(*CredentialSource) {
		return func(c *CredentialSource) { c.Spec.Static.Password = s }
	}
	const field = "spec.static.password"
	for _, test := range []fieldTest[*CredentialSource]{
		{name: "a password from a file is valid"},
		{name: "a password from a variable is valid", change: password(SecretSource{Env: "ORDERS_PASSWORD2"})},
		{name: "a kind of source is required", change: func(c *CredentialSource) { c.Spec.Static = nil }, field: "spec", message: "expected static"},
		{name: "a user name is required", change: func(c *CredentialSource) { c.Spec.Static.Username = "" }, field: "spec.static.username", message: "is missing"},
		{name: "a user name is text", change: func(c *CredentialSource) { c.Spec.Static.Username = "a\x00b" }, field: "spec.static.username", message: "control character"},
		{name: "a password is required", change: password(SecretSource{}), field: field, message: "is missing"},
		{name: "a password has one source", change: password(SecretSource{File: "/p", Env: "P"}), field: field, message: "both file and env"},
		{name: "a file is an absolute path", change: password(SecretSource{File: "s3cret"}), field: field + ".file", message: "does not belong in a document"},
		{name: "a file's path is clean", change: password(SecretSource{File: "/run//p"}), field: field + ".file"},
		{name: "a variable has a name", change: password(SecretSource{Env: "s3cret!"}), field: field + ".env", message: "does not belong in a document"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := credentialSource(test.change).Validate()
			test.check(t, got)
			for _, problem := range got {
				if strings.Contains(problem.Error(), "s3cret") {
					t.Errorf("the secret is quoted: %s", problem)
				}
			}
		})
	}
}

func TestAccessPolicyValidation(t *testing.T) {
	cgroup := func(path string) func(*AccessPolicy) {
		return func(a *AccessPolicy) { a.Spec.Workloads = []WorkloadSelector{{Cgroup: path}} }
	}
	rules := func(rules ...Rule) func(*AccessPolicy) { return func(a *AccessPolicy) { a.Spec.Rules = rules } }
	const path = "spec.workloads[0].cgroup"
	for _, test := range []fieldTest[*AccessPolicy]{
		{name: "a policy with two rules is valid"},
		{name: "workloads are required", change: func(a *AccessPolicy) { a.Spec.Workloads = nil }, field: "spec.workloads", message: "is empty"},
		{name: "targets are required", change: func(a *AccessPolicy) { a.Spec.Targets = nil }, field: "spec.targets", message: "is empty"},
		{name: "rules are required", change: rules(), field: "spec.rules", message: "is empty"},
		{name: "a target is named once", change: func(a *AccessPolicy) { a.Spec.Targets = []string{"a", "a"} }, field: "spec.targets[1]", message: "same as spec.targets[0]"},
		{name: "a target is named by its name", change: func(a *AccessPolicy) { a.Spec.Targets = []string{"*"} }, field: "spec.targets[0]"},
		{name: "a systemd unit is a workload", change: cgroup(`/system.slice/shop\x2dcart@1.service`)},
		{name: "a cgroup is required", change: cgroup(""), field: path, message: "is missing"},
		{name: "a cgroup is absolute", change: cgroup("sallyport/demo"), field: path, message: "not absolute and clean"},
		{name: "a cgroup does not climb", change: cgroup("/sallyport/../demo"), field: path, message: "not absolute and clean"},
		{name: "a cgroup has no trailing slash", change: cgroup("/sallyport/"), field: path, message: "not absolute and clean"},
		{name: "the root is no workload", change: cgroup("/"), field: path, message: "every process"},
		{name: "all below the root is no workload", change: cgroup("/*"), field: path, message: "every process"},
		{name: "a star is a whole element", change: cgroup("/sallyport/demo*"), field: path, message: "whole last element"},
		{name: "a star is the last element", change: cgroup("/sallyport/*/demo"), field: path, message: "whole last element"},
		{name: "a star is there once", change: cgroup("/sallyport/*/*"), field: path, message: "whole last element"},
		{name: "a cgroup has no control characters", change: cgroup("/a\nb"), field: path, message: "control character"},
		{name: "a cgroup is named once", change: func(a *AccessPolicy) {
			a.Spec.Workloads = []WorkloadSelector{{Cgroup: "/a/b"}, {Cgroup: "/a/b"}}
		}, field: "spec.workloads[1].cgroup", message: "same as spec.workloads[0]"},
		{name: "ask is no action", change: rules(Rule{Name: "a", Action: "ask"}), field: "spec.rules[0].action", message: `found "ask"; expected allow, deny or approve`},
		{name: "an action is required", change: rules(Rule{Name: "a"}), field: "spec.rules[0].action", message: "is missing; expected allow, deny or approve"},
		{name: "a rule has a name", change: rules(Rule{Action: ActionDeny}), field: "spec.rules[0].name", message: "is missing"},
		{name: "default is no name of a rule", change: rules(Rule{Name: "default", Action: ActionDeny}), field: "spec.rules[0].name", message: "another name"},
		{name: "error is no name of a rule", change: rules(Rule{Name: "error", Action: ActionDeny}), field: "spec.rules[0].name", message: "another name"},
		{name: "names of rules are unique", change: rules(Rule{Name: "a", When: "x", Action: ActionDeny}, Rule{Name: "a", Action: ActionDeny}), field: "spec.rules[1].name", message: "spec.rules[0].name"},
		{name: "an unconditional rule is the last", change: rules(Rule{Name: "a", Action: ActionAllow}, Rule{Name: "b", Action: ActionDeny}), field: "spec.rules[1]", message: "never reached: spec.rules[0] (a)"},
		{name: "the expression true is unconditional", change: rules(Rule{Name: "a", When: " true ", Action: ActionAllow}, Rule{Name: "b", When: "x", Action: ActionDeny}), field: "spec.rules[1]", message: "never reached"},
		{name: "an allowing rule has no message", change: rules(Rule{Name: "a", Action: ActionAllow, Message: "no"}), field: "spec.rules[0].message", message: "expected no message"},
		{name: "a message is one line", change: rules(Rule{Name: "a", Action: ActionDeny, Message: "a\nb"}), field: "spec.rules[0].message", message: "one line"},
		{name: "a message is short", change: rules(Rule{Name: "a", Action: ActionDeny, Message: strings.Repeat("a", 1025)}), field: "spec.rules[0].message", message: "at most 1024"},
		{name: "text is normalised or full", change: func(a *AccessPolicy) { a.Spec.Record.Text = "none" }, field: "spec.record.text", message: "expected normalised or full"},
		{name: "parameters are redacted or full", change: func(a *AccessPolicy) { a.Spec.Record.Parameters = "none" }, field: "spec.record.parameters", message: "expected redacted or full"},
	} {
		t.Run(test.name, func(t *testing.T) { test.check(t, accessPolicy(test.change).Validate()) })
	}
}

func TestEveryProblemOfADocumentIsReported(t *testing.T) {
	var fields []string
	for _, problem := range (&Target{Spec: TargetSpec{Endpoints: []Endpoint{{}}, ClientTLS: "x"}}).Validate() {
		fields = append(fields, problem.Field)
	}
	want := []string{"metadata.name", "spec.protocol", "spec.endpoints[0]", "spec.endpoints[0].port", "spec.clientTLS", "spec.credential"}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Error(diff)
	}
}

func TestDefaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Target)
		want   UpstreamTLS
	}{
		{"the server's name is the first host", nil, UpstreamTLS{Mode: TLSVerifyFull, ServerName: "orders.internal"}},
		{"the server's name is the host of the address", func(t *Target) { t.Spec.Upstream.Address = "[2001:db8::1]:5432" },
			UpstreamTLS{Mode: TLSVerifyFull, ServerName: "2001:db8::1"}},
		{"a server's name that is given stays", func(t *Target) { t.Spec.Upstream.TLS = &UpstreamTLS{ServerName: "pg"} },
			UpstreamTLS{Mode: TLSVerifyFull, ServerName: "pg"}},
		{"ranges alone give no name", func(t *Target) { t.Spec.Endpoints = t.Spec.Endpoints[1:] }, UpstreamTLS{Mode: TLSVerifyFull}},
		{"what is not verified needs no name", func(t *Target) { t.Spec.Upstream.TLS = &UpstreamTLS{Mode: TLSRequire} }, UpstreamTLS{Mode: TLSRequire}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := target(test.change)
			if diff := cmp.Diff(&test.want, got.Spec.Upstream.TLS); diff != "" || got.Spec.ClientTLS != ClientTLSAuto {
				t.Errorf("clientTLS %s, tls %s", got.Spec.ClientTLS, diff)
			}
		})
	}
	if got := accessPolicy(nil).Spec.Record; got != (RecordOptions{Text: RecordNormalised, Parameters: RecordRedacted}) {
		t.Errorf("record is %+v", got)
	}
}

func TestHostsAreThoseOfTheEndpoints(t *testing.T) {
	if diff := cmp.Diff([]string{"orders.internal"}, target(nil).Hosts()); diff != "" {
		t.Error(diff)
	}
}
