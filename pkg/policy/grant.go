package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/mask"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// A Grant is what decides in a session. Only Set.Grant makes one; the zero value denies everything.
type Grant struct{ *grant }

type grant struct {
	policies []string
	rules    []rule
	record   v1alpha1.RecordOptions
	masks    *mask.Rules
	role     v1alpha1.RoleTemplate
	holds    bool // a rule, or a mask, may
}

// Rules that no policy has.
const (
	ruleDefault = "default" // no rule matched
	ruleError   = "error"   // a rule could not be evaluated
)

// RecordOptions say how much of an operation the record holds.
func (g Grant) RecordOptions() v1alpha1.RecordOptions {
	if g.grant == nil {
		return v1alpha1.RecordOptions{}
	}
	return g.record
}

// Role is what a just-in-time role may do: all that the policies say together.
func (g Grant) Role() v1alpha1.RoleTemplate {
	if g.grant == nil {
		return v1alpha1.RoleTemplate{}
	}
	return g.role
}

// Decide finds the first rule that matches a statement.
func (g Grant) Decide(statement *Statement, subject *Subject) Decision {
	if g.grant == nil {
		return Decision{Rule: ruleDefault, Message: "no policy is for this workload and target"}
	}
	variables := map[string]any{
		"statement": statement, "workload": subject.Workload.fields(), "target": &subject.Target, "session": &subject.Session,
	}
	for i := range g.rules {
		r := &g.rules[i]
		if r.process && subject.Workload.ProcessUnknown {
			return Decision{Policy: r.policy, Rule: ruleError, Message: fmt.Sprintf("rule %s asks for the process, which is not known", r.name)}
		}
		if r.when != nil {
			value, _, err := r.when.Eval(variables)
			matches, ok := false, false
			if err == nil {
				matches, ok = value.Value().(bool)
			}
			if !ok {
				return Decision{Policy: r.policy, Rule: ruleError, Message: fmt.Sprintf("rule %s could not be evaluated", r.name)}
			}
			if !matches {
				continue
			}
		}
		d := Decision{Action: r.action, Policy: r.policy, Rule: r.name, Message: r.message, Holds: r.holds}
		if d.Action == Deny && d.Message == "" {
			d.Message = "not allowed"
		}
		return d
	}
	return Decision{
		Policy: strings.Join(g.policies, ","), Rule: ruleDefault,
		Message: "no rule of policy " + strings.Join(g.policies, ", ") + " allows it",
	}
}

// Holds is true when a rule may hold what it matches.
func (g Grant) Holds() bool {
	return g.grant != nil && g.holds
}

// DecideStatement decides on every unit of one statement: the first denial, else what the rules that hold a unit ask for, all of them,
// else the decision on the outermost unit. searchPath is every schema that an unqualified name may resolve to.
func (g Grant) DecideStatement(units []sql.Unit, searchPath []string, subject *Subject) Decision {
	var all Decision
	for i := range units {
		d := g.Decide(Resolve(&units[i], searchPath), subject)
		switch {
		case d.Action == Deny:
			return d
		case i == 0, d.Action == Hold && all.Action != Hold:
			all = d
		case d.Action == Hold:
			all.Holds = Join(all.Holds, d.Holds)
		}
	}
	if len(units) == 0 {
		return Decision{Rule: ruleDefault, Message: "nothing to decide on"}
	}
	return all
}

// Join is both lists, each approval once.
func Join(a, b []*Approval) []*Approval {
	for _, h := range b {
		if !slices.Contains(a, h) {
			a = append(a[:len(a):len(a)], h)
		}
	}
	return a
}
