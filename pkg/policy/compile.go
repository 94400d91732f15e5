package policy

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/mask"
)

// costLimit bounds the evaluation of one expression, in CEL's units: a whole list of thousands of tables can be gone through, a
// nested product of such lists can not.
const costLimit = 1_000_000

// An Error is what is wrong with one rule.
type Error struct {
	// Policy is the policy's name, Rule the rule's, Field where the expression stands, such as spec.rules[2].when.
	Policy, Rule, Field string
	// Message says what, with line and column within the expression.
	Message string
}

// Error is the whole of it in a line.
func (e Error) Error() string {
	return fmt.Sprintf("policy %s: rule %s: %s: %s", e.Policy, e.Rule, e.Field, e.Message)
}

// Errors are all that is wrong with a set of policies.
type Errors []Error

// Error is one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// A Set is policies, compiled. Nobody sees it change.
type Set struct {
	policies []*compiled // by name
	masks    masks
}

type compiled struct {
	name    string
	cgroups []string
	targets []string
	record  v1alpha1.RecordOptions
	role    v1alpha1.RoleTemplate
	rules   []rule
	masks   mask.Source
}

type rule struct {
	policy, name, message string
	action                Action
	holds                 []*Approval // one, with action Hold
	when                  cel.Program // nil is true
	process               bool        // it asks for the process
}

// Compile compiles every rule of the policies, whose documents are valid. The error is of type Errors and holds all that is wrong.
func Compile(policies []v1alpha1.AccessPolicy) (*Set, error) {
	env, err := cel.NewEnv(
		ext.NativeTypes(reflect.TypeFor[Statement](), reflect.TypeFor[workloadFields](), reflect.TypeFor[Target](), reflect.TypeFor[Session](),
			ext.ParseStructTags(true)),
		cel.Variable("statement", cel.ObjectType("policy.Statement")),
		cel.Variable("workload", cel.ObjectType("policy.workloadFields")),
		cel.Variable("target", cel.ObjectType("policy.Target")),
		cel.Variable("session", cel.ObjectType("policy.Session")),
		ext.Strings(), ext.Sets(),
	)
	if err != nil {
		return nil, fmt.Errorf("environment of rules: %w", err)
	}
	set := &Set{}
	var all Errors
	for _, doc := range policies {
		p := &compiled{name: doc.Metadata.Name, targets: doc.Spec.Targets, record: doc.Spec.Record, role: doc.Spec.Role}
		p.masks = mask.Source{Policy: p.name, Masks: doc.Spec.Masks, Masking: doc.Spec.Masking}
		for _, w := range doc.Spec.Workloads {
			p.cgroups = append(p.cgroups, w.Cgroup)
		}
		for i, r := range doc.Spec.Rules {
			made := rule{policy: p.name, name: r.Name, message: r.Message}
			switch r.Action {
			case v1alpha1.ActionAllow:
				made.action = Allow
			case v1alpha1.ActionApprove:
				made.action, made.holds = Hold, []*Approval{ApprovalOf(p.name, r.Name, r.Message, r.Approval)}
			}
			if r.When != "" {
				var problem string
				if made.when, made.process, problem = compileRule(env, r.When); problem != "" {
					all = append(all, Error{Policy: p.name, Rule: r.Name, Field: fmt.Sprintf("spec.rules[%d].when", i), Message: problem})
				}
			}
			p.rules = append(p.rules, made)
		}
		set.policies = append(set.policies, p)
	}
	if len(all) > 0 {
		return nil, all
	}
	slices.SortFunc(set.policies, func(a, b *compiled) int { return cmp.Compare(a.name, b.name) })
	return set, nil
}

// ApprovalOf is what a rule, or a mask, of a policy wants approved; spec is validated.
func ApprovalOf(policy, rule, message string, spec *v1alpha1.Approval) *Approval {
	a := &Approval{Policy: policy, Rule: rule, Message: message, Approvers: spec.Approvers, NeedsReason: spec.Reason == v1alpha1.ReasonRequired}
	a.Timeout, _ = time.ParseDuration(spec.Timeout)
	a.Window, _ = time.ParseDuration(spec.Window) // "" is 0
	return a
}

func compileRule(env *cel.Env, expression string) (program cel.Program, process bool, problem string) {
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		var problems []string
		for _, e := range issues.Errors() {
			problems = append(problems, fmt.Sprintf("%d:%d: %s", e.Location.Line(), e.Location.Column()+1, e.Message))
		}
		return nil, false, strings.Join(problems, "; ")
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, false, fmt.Sprintf("yields %s, expected bool", ast.OutputType())
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit))
	if err != nil {
		return nil, false, err.Error()
	}
	return program, asksForProcess(ast), ""
}

// Grant finds what decides for a workload on a target: the rules of all policies that select both, in the order of the policies'
// names. It is false when there is no such policy.
func (s *Set) Grant(w Workload, target string) (Grant, bool) {
	g := &grant{}
	var masks []mask.Source
	for _, p := range s.policies {
		if !slices.Contains(p.targets, target) || !slices.ContainsFunc(p.cgroups, func(c string) bool { return selects(c, w.Cgroup) }) {
			continue
		}
		g.policies = append(g.policies, p.name)
		g.rules = append(g.rules, p.rules...)
		g.holds = g.holds || slices.ContainsFunc(p.rules, func(r rule) bool { return r.action == Hold }) ||
			slices.ContainsFunc(p.masks.Masks, func(m v1alpha1.Mask) bool { return m.Inference == v1alpha1.InferenceApprove })
		masks = append(masks, p.masks)
		// The most that one of the policies asks for is recorded.
		if p.record.Text == v1alpha1.RecordFull {
			g.record.Text = v1alpha1.RecordFull
		}
		if p.record.Parameters == v1alpha1.RecordFull {
			g.record.Parameters = v1alpha1.RecordFull
		}
		g.role.MemberOf = append(g.role.MemberOf, p.role.MemberOf...)
		g.role.Grants = append(g.role.Grants, p.role.Grants...)
	}
	g.masks = s.masks.of(masks)
	return Grant{g}, len(g.policies) > 0
}

// selects is true for the very cgroup, and for every one directly below where the selector ends in "/*".
func selects(selector, cgroup string) bool {
	if parent, ok := strings.CutSuffix(selector, "/*"); ok {
		name, below := strings.CutPrefix(cgroup, parent+"/")
		return below && name != "" && !strings.Contains(name, "/")
	}
	return selector == cgroup
}
