package v1alpha1

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Approval says how people decide on what a rule, or a mask, holds.
type Approval struct {
	// Timeout is how long a statement is held; when nobody has decided by then it is denied: 1s to 24h. Default: 10m.
	Timeout string `yaml:"timeout,omitempty" json:"timeout,omitempty"`
	// Approvers are who may decide: "user:NAME", "group:NAME" or "uid:NUMBER" of the host. At least one. Whoever asks is never among them.
	Approvers []string `yaml:"approvers" json:"approvers"`
	// Window is how long an approval serves for the very same statement again: 1s to 24h. Default: it serves once.
	Window string `yaml:"window,omitempty" json:"window,omitempty"`
	// Reason says whether who decides must give one: "optional" or "required". Default: optional.
	Reason string `yaml:"reason,omitempty" json:"reason,omitempty"`
}

// Approvals says who is told of what a policy's rules hold.
type Approvals struct {
	// Webhook is told of each statement that is held, and of how that ended.
	Webhook *Webhook `yaml:"webhook,omitempty" json:"webhook,omitempty"`
}

// Webhook is an HTTP endpoint that gets signed JSON (approvals.md has its form).
type Webhook struct {
	// URL is where to POST: https, or http to a loopback address.
	URL string `yaml:"url" json:"url"`
	// Secret is the key of the signature.
	Secret SecretSource `yaml:"secret" json:"secret"`
	// CA is a PEM bundle that the endpoint's certificate must be trusted by. Default: the system's roots.
	CA *FileSource `yaml:"ca,omitempty" json:"ca,omitempty"`
}

// Values of Approval.Reason.
const (
	ReasonOptional = "optional"
	ReasonRequired = "required"
)

// Prefixes of Approval.Approvers.
const (
	ApproverUser  = "user:"
	ApproverGroup = "group:"
	ApproverUID   = "uid:"
)

// Bounds of Approval.Timeout and Approval.Window.
const (
	minApproval  = time.Second
	maxApproval  = 24 * time.Hour
	maxApprovers = 64
)

func (a *Approval) setDefaults() {
	if a == nil {
		return
	}
	if a.Timeout == "" {
		a.Timeout = "10m"
	}
	if a.Reason == "" {
		a.Reason = ReasonOptional
	}
}

// validate is for an approval that belongs to the field by which it is needed, where that says approve.
func (a *Approval) validate(p *problems, field, by string, needed bool) {
	switch {
	case a == nil && needed:
		p.add(field, "is missing; expected who decides: {approvers: [\"group:dba\"]}")
		return
	case a == nil:
		return
	case !needed:
		p.add(field, "is for %[1]s approve; expected that %[1]s, or no approval", by)
	}
	p.check(field+".timeout", checkApprovalDuration(a.Timeout))
	if a.Window != "" {
		p.check(field+".window", checkApprovalDuration(a.Window))
	}
	p.check(field+".reason", checkOneOf(a.Reason, ReasonOptional, ReasonRequired))
	switch n := len(a.Approvers); {
	case n == 0:
		p.add(field+".approvers", "is empty; expected at least one approver, such as \"group:dba\"")
	case n > maxApprovers:
		p.add(field+".approvers", "has %d approvers; expected at most %d: name a group", n, maxApprovers)
	}
	seen := map[string]int{}
	for i, approver := range a.Approvers {
		at := fmt.Sprintf("%s.approvers[%d]", field, i)
		p.check(at, checkApprover(approver))
		if first, ok := seen[approver]; ok {
			p.add(at, "is the same as approvers[%d]; expected each once", first)
		}
		seen[approver] = i
	}
}

func checkApprovalDuration(text string) string {
	if d, err := time.ParseDuration(text); err != nil || d < minApproval || d > maxApproval {
		return fmt.Sprintf("found %s; expected a duration from 1s to 24h", quote(text))
	}
	return ""
}

// checkApprover asks for one of the three forms. Names are the host's to know: they may come later than the document.
func checkApprover(approver string) string {
	const expected = `expected "user:NAME", "group:NAME" or "uid:NUMBER"`
	if number, ok := strings.CutPrefix(approver, ApproverUID); ok {
		// All ones is no user: chown(2) takes it for "leave unchanged".
		if n, err := strconv.ParseUint(number, 10, 32); err != nil || n == 1<<32-1 || strconv.FormatUint(n, 10) != number {
			return fmt.Sprintf("found %s; %s", quote(approver), expected)
		}
		return ""
	}
	name, ok := strings.CutPrefix(approver, ApproverUser)
	if !ok {
		name, ok = strings.CutPrefix(approver, ApproverGroup)
	}
	if !ok || name == "" || strings.ContainsAny(name, ": \t,") || checkText(name, 255) != "" {
		return fmt.Sprintf("found %s; %s", quote(approver), expected)
	}
	return ""
}

func (a *Approvals) validate(p *problems, field string) {
	hook := a.Webhook
	if hook == nil {
		p.add(field, "is empty; expected a webhook")
		return
	}
	p.check(field+".webhook.url", checkWebhook(hook.URL))
	hook.Secret.validate(p, field+".webhook.secret")
	if hook.CA != nil {
		p.check(field+".webhook.ca.file", checkFile(hook.CA.File))
	}
}

// checkWebhook quotes nothing of what was found: the path of a webhook is often the secret of a chat service.
func checkWebhook(text string) string {
	const expected = "expected an https URL, or an http URL of a loopback address"
	if text == "" {
		return "is missing; " + expected
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Hostname() == "" || checkHost(u.Hostname()) != "" || checkText(text, 2048) != "" {
		return "is no URL with a host; " + expected
	}
	switch addr, err := netip.ParseAddr(u.Hostname()); {
	case u.User != nil:
		return "has a user in it; " + expected + " without one"
	case u.Fragment != "":
		return "has a fragment; " + expected + " without one"
	case u.Scheme == "https":
		return ""
	case u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && addr.IsLoopback()):
		return ""
	}
	return "is not https; " + expected
}
