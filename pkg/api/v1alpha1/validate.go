package v1alpha1

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// A FieldError is one thing that is wrong with a document.
type FieldError struct {
	// Field is the path of the field, such as spec.endpoints[0].port.
	Field string
	// Message says what was found and what was expected. It never quotes what may be a secret.
	Message string
}

// Error is the field and the message.
func (e FieldError) Error() string { return e.Field + ": " + e.Message }

// problems collects FieldErrors.
type problems []FieldError

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
}

// check adds the message that a check returned; "" is no problem.
func (p *problems) check(field, message string) {
	if message != "" {
		p.add(field, "%s", message)
	}
}

// Validate says all that is wrong with the document by itself; whether what it names exists is not asked here.
// Call Default first.
func (t *Target) Validate() []FieldError {
	var p problems
	p.check("metadata.name", checkLabel(t.Metadata.Name))
	spec := &t.Spec
	p.check("spec.protocol", checkOneOf(spec.Protocol, ProtocolPostgres))
	if len(spec.Endpoints) == 0 {
		p.add("spec.endpoints", "is empty; expected at least one endpoint")
	}
	seen := map[string]int{}
	for i, endpoint := range spec.Endpoints {
		field := fmt.Sprintf("spec.endpoints[%d]", i)
		before := len(p)
		endpoint.validate(&p, field)
		if len(p) > before {
			continue
		}
		if first, ok := seen[endpoint.Key()]; ok {
			p.add(field, "is the same destination as spec.endpoints[%d]; expected each once", first)
			continue
		}
		seen[endpoint.Key()] = i
	}
	spec.Upstream.validate(&p)
	p.check("spec.clientTLS", checkOneOf(spec.ClientTLS, ClientTLSAuto, ClientTLSNever, ClientTLSAlways))
	p.check("spec.credential", checkLabel(spec.Credential))
	return p
}

func (e Endpoint) validate(p *problems, field string) {
	switch {
	case e.Host != "" && e.CIDR != "":
		p.add(field, "has both host and cidr; expected exactly one of them")
	case e.Host != "":
		p.check(field+".host", checkHost(e.Host))
	case e.CIDR != "":
		p.check(field+".cidr", checkCIDR(e.CIDR))
	default:
		p.add(field, "has neither host nor cidr; expected exactly one of them")
	}
	if e.Port < 1 || e.Port > 65535 {
		p.add(field+".port", "found %d; expected a port from 1 to 65535", e.Port)
	}
}

// Key is equal for two endpoints that are the same destination: the address range, or the name in lower case, with the port.
func (e Endpoint) Key() string {
	if prefix, ok := e.Prefix(); ok {
		return fmt.Sprintf("%s port %d", prefix, e.Port)
	}
	return fmt.Sprintf("%s port %d", strings.ToLower(e.Host), e.Port)
}

func (u *Upstream) validate(p *problems) {
	if u.Address != "" {
		p.check("spec.upstream.address", checkHostPort(u.Address))
	}
	if u.Pool != nil {
		if u.Pool.MaxIdle < 1 || u.Pool.MaxIdle > 1000 {
			p.add("spec.upstream.pool.maxIdle", "found %d; expected 1 to 1000", u.Pool.MaxIdle)
		}
		if d, err := time.ParseDuration(u.Pool.IdleTimeout); err != nil || d < 100*time.Millisecond || d > time.Minute {
			p.add("spec.upstream.pool.idleTimeout", "found %q; expected a duration from 100ms to 1m", u.Pool.IdleTimeout)
		}
	}
	u.TLS.validate(p, "spec.upstream.tls")
}

func (t *UpstreamTLS) validate(p *problems, field string) {
	if t == nil {
		return
	}
	p.check(field+".mode", checkOneOf(t.Mode, TLSVerifyFull, TLSRequire, TLSDisable))
	if t.CA != nil {
		p.check(field+".ca.file", checkFile(t.CA.File))
	}
	if t.ServerName != "" {
		p.check(field+".serverName", checkHost(t.ServerName))
	}
	if t.Mode == TLSRequire || t.Mode == TLSDisable {
		const unverified = "contradicts mode %s, which verifies nothing; expected mode verify-full, or no %s"
		if t.CA != nil {
			p.add(field+".ca", unverified, t.Mode, "ca")
		}
		if t.ServerName != "" {
			p.add(field+".serverName", unverified, t.Mode, "serverName")
		}
	}
}

// Validate says all that is wrong with the document by itself.
func (c *CredentialSource) Validate() []FieldError {
	var p problems
	p.check("metadata.name", checkLabel(c.Metadata.Name))
	static, role := c.Spec.Static, c.Spec.PostgresRole
	if (static == nil) == (role == nil) {
		p.add("spec", "has not exactly one kind of source; expected static or postgresRole")
		return p
	}
	if role != nil {
		role.validate(&p, "spec.postgresRole")
		return p
	}
	p.check("spec.static.username", checkUsername(static.Username))
	static.Password.validate(&p, "spec.static.password")
	return p
}

// InlineSecret is the answer to a secret that is written into a document.
const InlineSecret = "a secret does not belong in a document; expected where it is kept: {file: /run/secrets/NAME} or {env: NAME}"

// validate quotes no value: what is written into the wrong field may be the secret itself.
func (s SecretSource) validate(p *problems, field string) {
	switch {
	case s.File != "" && s.Env != "":
		p.add(field, "has both file and env; expected exactly one of them")
	case s.File != "":
		if checkFile(s.File) != "" {
			p.add(field+".file", "is no absolute, clean path of a file; %s", InlineSecret)
		}
	case s.Env != "":
		if !isVariable(s.Env) {
			p.add(field+".env", "is no name of an environment variable; %s", InlineSecret)
		}
	default:
		p.add(field, "is missing; expected {file: /run/secrets/NAME} or {env: NAME}")
	}
}

// Validate says all that is wrong with the document by itself; whether the expressions of its rules compile, and whether
// its targets exist, is not asked here.
func (a *AccessPolicy) Validate() []FieldError {
	var p problems
	p.check("metadata.name", checkLabel(a.Metadata.Name))
	a.Spec.validateWorkloads(&p)
	a.Spec.validateTargets(&p)
	a.Spec.validateRules(&p)
	p.check("spec.record.text", checkOneOf(a.Spec.Record.Text, RecordNormalised, RecordFull))
	p.check("spec.record.parameters", checkOneOf(a.Spec.Record.Parameters, RecordRedacted, RecordFull))
	a.Spec.validateMasks(&p)
	a.Spec.Role.validate(&p, "spec.role")
	if a.Spec.Approvals != nil {
		a.Spec.Approvals.validate(&p, "spec.approvals")
	}
	return p
}

func (s *AccessPolicySpec) validateWorkloads(p *problems) {
	if len(s.Workloads) == 0 {
		p.add("spec.workloads", "is empty; expected at least one workload")
	}
	seen := map[string]int{}
	for i, workload := range s.Workloads {
		field := fmt.Sprintf("spec.workloads[%d].cgroup", i)
		if message := checkCgroup(workload.Cgroup); message != "" {
			p.add(field, "%s", message)
			continue
		}
		if first, ok := seen[workload.Cgroup]; ok {
			p.add(field, "is the same as spec.workloads[%d].cgroup; expected each once", first)
			continue
		}
		seen[workload.Cgroup] = i
	}
}

func (s *AccessPolicySpec) validateTargets(p *problems) {
	if len(s.Targets) == 0 {
		p.add("spec.targets", "is empty; expected the name of at least one Target")
	}
	seen := map[string]int{}
	for i, name := range s.Targets {
		field := fmt.Sprintf("spec.targets[%d]", i)
		if message := checkLabel(name); message != "" {
			p.add(field, "%s", message)
			continue
		}
		if first, ok := seen[name]; ok {
			p.add(field, "is the same as spec.targets[%d]; expected each once", first)
			continue
		}
		seen[name] = i
	}
}

func (s *AccessPolicySpec) validateRules(p *problems) {
	if len(s.Rules) == 0 {
		p.add("spec.rules", "is empty; expected at least one rule")
	}
	unconditional := -1
	seen := map[string]int{}
	for i, rule := range s.Rules {
		field := fmt.Sprintf("spec.rules[%d]", i)
		if unconditional >= 0 {
			p.add(field, "is never reached: spec.rules[%d] (%s) matches everything; expected the unconditional rule last",
				unconditional, s.Rules[unconditional].Name)
		} else if rule.Unconditional() {
			unconditional = i
		}
		rule.validate(p, field)
		if first, ok := seen[rule.Name]; ok && rule.Name != "" {
			p.add(field+".name", "is the same as spec.rules[%d].name; expected names that are unique within the policy", first)
			continue
		}
		seen[rule.Name] = i
	}
}

func (r Rule) validate(p *problems, field string) {
	p.check(field+".name", checkLabel(r.Name))
	if r.Name == "default" || r.Name == "error" {
		p.add(field+".name", "found %q, which names what is decided when no rule decides; expected another name", r.Name)
	}
	p.check(field+".action", checkOneOf(r.Action, ActionAllow, ActionDeny, ActionApprove))
	r.Approval.validate(p, field+".approval", "action", r.Action == ActionApprove)
	if r.Message == "" {
		return
	}
	p.check(field+".message", checkText(r.Message, 1024))
	if r.Action == ActionAllow {
		p.add(field+".message", "is shown to the client when a rule denies, and this one allows; expected no message")
	}
}

// checkCgroup also refuses "/" and "/*": they would enrol every process of the machine, the agent's own included.
func checkCgroup(selector string) string {
	const expected = "expected the path of a cgroup such as /sallyport/demo or /sallyport/*"
	switch {
	case selector == "":
		return "is missing; " + expected
	case checkText(selector, 4095) != "":
		return checkText(selector, 4095)
	case !strings.HasPrefix(selector, "/"), path.Clean(selector) != selector:
		return fmt.Sprintf("found %q, which is not absolute and clean; %s", selector, expected)
	case selector == "/", selector == "/*":
		return fmt.Sprintf("found %q, which is every process of the machine; %s", selector, expected)
	case strings.Contains(strings.TrimSuffix(selector, "/*"), "*"):
		return fmt.Sprintf("found %q, where \"*\" is not the whole last element; %s", selector, expected)
	}
	return ""
}
