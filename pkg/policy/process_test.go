package policy

import "testing"

func TestRuleThatAsksForAnUnknownProcessDenies(t *testing.T) {
	known := Subject{Workload: Workload{Name: "shop", Cgroup: "/shop", Comm: "psql"}}
	unknown := known
	unknown.Workload.ProcessUnknown = true
	for _, test := range []struct {
		name, when string
		asks       bool
	}{
		{"nothing of the workload", `statement.verb == ""`, false},
		{"its name", `workload.name == "shop"`, false},
		{"its cgroup", `workload.cgroup.startsWith("/shop")`, false},
		{"its uid", `workload.uid == 0`, true},
		{"its uid, negated", `workload.uid != 1000`, true},
		{"its command", `workload.comm == "psql"`, true},
		{"its uid behind what is true already", `workload.name == "shop" || workload.uid == 7`, true},
		{"its uid through a list", `[workload].exists(w, w.uid == 0)`, true},
		{"its uid without its type", `dyn(workload).uid == 0`, true},
		{"all of it", `workload == workload`, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := mustGrant(t, document("p", allow("rule", test.when)), document("q", allow("rest", "")))
			if d := g.Decide(&Statement{}, &known); d.Action != Allow || d.Rule != "rule" {
				t.Errorf("with a process: %+v", d)
			}
			d := g.Decide(&Statement{}, &unknown)
			if test.asks && (d.Action != Deny || d.Rule != ruleError) {
				t.Errorf("without: %+v: want it denied", d)
			}
			if !test.asks && d.Action != Allow {
				t.Errorf("without: %+v: want it allowed", d)
			}
		})
	}
}
