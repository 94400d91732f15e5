package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

func document(name string, rules ...v1alpha1.Rule) v1alpha1.AccessPolicy {
	return v1alpha1.AccessPolicy{
		Metadata: v1alpha1.ObjectMeta{Name: name},
		Spec: v1alpha1.AccessPolicySpec{
			Workloads: []v1alpha1.WorkloadSelector{{Cgroup: "/sallyport/shop"}, {Cgroup: "/ci/*"}},
			Targets:   []string{"orders"},
			Rules:     rules,
		},
	}
}

func allow(name, when string) v1alpha1.Rule {
	return v1alpha1.Rule{Name: name, When: when, Action: v1alpha1.ActionAllow}
}

func deny(name, when string) v1alpha1.Rule {
	return v1alpha1.Rule{Name: name, When: when, Action: v1alpha1.ActionDeny, Message: "no"}
}

func mustGrant(t testing.TB, docs ...v1alpha1.AccessPolicy) Grant {
	t.Helper()
	set, err := Compile(docs)
	if err != nil {
		t.Fatal(err)
	}
	g, ok := set.Grant(Workload{Cgroup: "/sallyport/shop"}, "orders")
	if !ok {
		t.Fatal("no grant")
	}
	return g
}

var subject = &Subject{
	Workload: Workload{Name: "shop", Cgroup: "/sallyport/shop", UID: 1000, Comm: "psql"},
	Target:   Target{Name: "orders", Protocol: "postgres"},
	Session:  Session{Database: "shop", User: "ann", ApplicationName: "psql"},
}

func TestFirstMatchDecides(t *testing.T) {
	g := mustGrant(t, document("p",
		deny("no-ddl", `statement.kind == "ddl"`),
		deny("whole-table", `statement.verb in ["DELETE", "UPDATE"] && !statement.filtered`),
		deny("secrets", `"public.secrets" in statement.tables`),
		deny("files", `statement.file || statement.program`),
		deny("sleep", `"pg_sleep" in statement.functions`),
		deny("become", `statement.role != "" && statement.role != "reader"`),
		allow("reports", `statement.kind == "query" && statement.reads.all(t, t in ["public.orders", "public.items"])`),
		allow("own", `workload.name == "shop" && workload.uid == 1000 && session.database == "shop" && target.protocol == "postgres" && statement.setting == "work_mem"`),
		allow("mine", `statement.writes.exists_one(t, t.startsWith("public.o"))`),
	))
	object := func(names ...string) (objects []sql.Object) {
		for _, n := range names {
			schema, name, found := strings.Cut(n, ".")
			if !found {
				schema, name = "", n
			}
			objects = append(objects, sql.Object{Schema: schema, Name: name})
		}
		return objects
	}
	for _, test := range []struct {
		name string
		unit sql.Unit
		path []string
		want string
	}{
		{"ddl", sql.Unit{Kind: "ddl", Verb: "DROP TABLE"}, nil, "no-ddl"},
		{"an unfiltered delete", sql.Unit{Kind: "dml", Verb: "DELETE", Writes: object("public.orders")}, nil, "whole-table"},
		{"a filtered one", sql.Unit{Kind: "dml", Verb: "DELETE", Writes: object("public.orders"), Filtered: true}, nil, "mine"},
		{"a table by its full name", sql.Unit{Kind: "query", Reads: object("public.orders", "public.items")}, nil, "reports"},
		{"a table left to the search path", sql.Unit{Kind: "query", Reads: object("orders")}, []string{"public"}, "reports"},
		{"… which may be another schema's", sql.Unit{Kind: "query", Reads: object("orders")}, []string{"public", "evil"}, "default"},
		{"a forbidden table hidden in the search path", sql.Unit{Kind: "query", Reads: object("secrets")}, []string{"other", "public"}, "secrets"},
		{"a name that resolves to nothing", sql.Unit{Kind: "query", Reads: object("orders")}, nil, "default"},
		{"a program", sql.Unit{Kind: "copy", Program: true}, nil, "files"},
		{"a function by its name", sql.Unit{Kind: "query", Functions: object("pg_sleep")}, []string{"public"}, "sleep"},
		{"a function by its full name", sql.Unit{Kind: "query", Functions: object("pg_catalog.pg_sleep")}, nil, "sleep"},
		{"another schema's function of that name", sql.Unit{Kind: "query", Functions: object("own.pg_sleep")}, nil, "reports"},
		{"a role", sql.Unit{Kind: "session", Verb: "SET", Role: "admin"}, nil, "become"},
		{"a setting", sql.Unit{Kind: "session", Verb: "SET", Setting: "work_mem"}, nil, "own"},
		{"anything else", sql.Unit{Kind: "do", Verb: "DO"}, nil, "default"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := g.DecideStatement([]sql.Unit{test.unit}, test.path, subject)
			if d.Rule != test.want {
				t.Errorf("rule %s, want %s", d.Rule, test.want)
			}
			if d.Action == Deny && d.Message == "" {
				t.Error("a denial without a message")
			}
		})
	}
}

func TestEveryUnitMustBeAllowed(t *testing.T) {
	g := mustGrant(t, document("p", deny("del", `statement.verb == "DELETE"`), allow("rest", "")))
	units := []sql.Unit{{Kind: "query", Verb: "EXPLAIN"}, {Kind: "dml", Verb: "DELETE"}}
	if d := g.DecideStatement(units, nil, subject); d.Rule != "del" || d.Action != Deny {
		t.Errorf("got %+v", d)
	}
	if d := g.DecideStatement(units[:1], nil, subject); d.Rule != "rest" || d.Action != Allow {
		t.Errorf("got %+v", d)
	}
	if d := g.DecideStatement(nil, nil, subject); d.Action != Deny {
		t.Errorf("nothing was allowed: %+v", d)
	}
}

func TestGrantIsForTheWorkloadsAndTargetsOfItsPolicies(t *testing.T) {
	set, err := Compile([]v1alpha1.AccessPolicy{document("z", allow("z", "")), document("a", deny("a", `statement.kind == "ddl"`))})
	if err != nil {
		t.Fatal(err)
	}
	for cgroup, want := range map[string]bool{
		"/sallyport/shop": true, "/sallyport/shop2": false, "/sallyport": false, "/sallyport/shop/x": false,
		"/ci/job1": true, "/ci": false, "/ci/": false, "/ci/job1/step": false,
	} {
		if _, ok := set.Grant(Workload{Cgroup: cgroup}, "orders"); ok != want {
			t.Errorf("%s: %v", cgroup, ok)
		}
	}
	if _, ok := set.Grant(Workload{Cgroup: "/sallyport/shop"}, "other"); ok {
		t.Error("a grant for another target")
	}
	g, _ := set.Grant(Workload{Cgroup: "/sallyport/shop"}, "orders")
	if d := g.Decide(&Statement{Kind: "ddl"}, subject); d.Policy != "a" {
		t.Errorf("policies are consulted in the order of their names: %+v", d)
	}
}

func TestZeroGrantDenies(t *testing.T) {
	if d := (Grant{}).Decide(&Statement{}, subject); d.Action != Deny || d.Message == "" {
		t.Errorf("got %+v", d)
	}
}

func TestRuleThatCanNotBeEvaluatedDenies(t *testing.T) {
	g := mustGrant(t, document("p", allow("index", `statement.tables[3] == "x"`), allow("rest", "")))
	if d := g.Decide(&Statement{}, subject); d.Action != Deny || d.Rule != "error" {
		t.Errorf("got %+v", d)
	}
	g = mustGrant(t, document("p", allow("cost", `statement.tables.all(a, statement.tables.all(b, statement.tables.all(c, a + b + c != "x")))`)))
	many := make([]string, 300)
	if d := g.Decide(&Statement{Tables: many}, subject); d.Action != Deny || d.Rule != "error" {
		t.Errorf("got %+v", d)
	}
}

func TestAllMistakesAreReported(t *testing.T) {
	_, err := Compile([]v1alpha1.AccessPolicy{document("p",
		allow("misspelt", `statement.verbs == "DELETE"`), allow("fine", `true`), allow("type", `statement.verb == 1`), allow("text", `"yes"`), allow("syntax", `statement.`)),
		document("q", allow("unknown", `workloads.name == ""`))})
	var all Errors
	if !errors.As(err, &all) {
		t.Fatalf("got %v", err)
	}
	var fields []string
	for _, e := range all {
		fields = append(fields, e.Policy+" "+e.Field)
		if e.Message == "" || !strings.Contains(err.Error(), e.Message) {
			t.Errorf("message %q", e.Message)
		}
	}
	want := []string{"p spec.rules[0].when", "p spec.rules[2].when", "p spec.rules[3].when", "p spec.rules[4].when", "q spec.rules[0].when"}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Error(diff)
	}
}

func TestRecordOptionsAreTheMostThatIsAsked(t *testing.T) {
	full := document("b", allow("x", ""))
	full.Spec.Record = v1alpha1.RecordOptions{Text: v1alpha1.RecordFull, Parameters: v1alpha1.RecordRedacted}
	if o := mustGrant(t, document("a", allow("x", "")), full).RecordOptions(); o.Text != v1alpha1.RecordFull || o.Parameters == v1alpha1.RecordFull {
		t.Errorf("got %+v", o)
	}
}

func BenchmarkDecide20Rules(b *testing.B) {
	var rules []v1alpha1.Rule
	for i := range 19 {
		rules = append(rules, deny(fmt.Sprintf("r%d", i), fmt.Sprintf(`statement.kind == "ddl" && "public.t%d" in statement.tables`, i)))
	}
	g := mustGrant(b, document("p", append(rules, allow("rest", ""))...))
	units := []sql.Unit{{Kind: "query", Verb: "SELECT", Reads: []sql.Object{{Name: "orders"}}, Filtered: true}}
	path := []string{"public"}
	b.ReportAllocs()
	for b.Loop() {
		if g.DecideStatement(units, path, subject).Action != Allow {
			b.Fatal("denied")
		}
	}
}
