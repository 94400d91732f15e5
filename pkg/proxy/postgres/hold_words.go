package postgres

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
)

// SQLSTATEs of held statements.
const (
	codeWarning       = "01000"
	codeQueryCanceled = "57014"
)

// heldNotice tells the client who is asked and until when.
func heldNotice(r approval.Request, session string) []byte {
	message := fmt.Sprintf("sallyport: held by rule %q of policy %q until %s: request %s waits for %s", r.Rule, r.Policy,
		r.Expires.UTC().Format(time.RFC3339), r.ID, strings.Join(r.Approvers, " or "))
	if r.Message != "" {
		message += ": " + r.Message
	}
	out, err := (&pgproto3.NoticeResponse{
		Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: codeWarning, Message: clean(message),
		Hint: "Whoever may decide runs: sallyport approvals approve " + r.ID + ". Cancel the statement to withdraw the request. Session " + session + ".",
	}).Encode(nil)
	if err != nil { // only a message over 1 GiB
		return nil
	}
	return out
}

// notApproved is what the client gets for a request that ended without an approval.
func (m *machine) notApproved(r approval.Request, canceled bool) *denial {
	if canceled {
		return &denial{code: codeQueryCanceled, message: "canceling statement due to user request", hint: "The request " + r.ID + " for an approval is withdrawn. Session " + m.session + "."}
	}
	message := fmt.Sprintf("sallyport: not approved: request %s, held by rule %q of policy %q, ", r.ID, r.Rule, r.Policy)
	switch d := r.Decision; {
	case r.State == approval.Denied && d != nil && d.By != nil:
		message += "was denied by " + d.By.String()
	case r.State == approval.Expired:
		message += "was not decided in time"
	default:
		message += "was withdrawn"
	}
	if d := r.Decision; d != nil && d.Reason != "" {
		message += ": " + d.Reason
	}
	return &denial{code: codeInsufficientPrivilege, message: message, hint: m.hint()}
}

func heldBy(a *policy.Approval) string { return fmt.Sprintf("rule %q of policy %q", a.Rule, a.Policy) }

func (m *machine) tooManyHeld(a *policy.Approval) *denial {
	return &denial{code: codeInsufficientPrivilege, message: "sallyport: denied: " + heldBy(a) + " holds it, and this workload asks for too many approvals", hint: m.hint()}
}

func (m *machine) notAsked(a *policy.Approval) *denial {
	return &denial{code: codeDiskFull, message: "sallyport: denied: " + heldBy(a) + " holds it, and the request for an approval can not be written or used", hint: m.hint()}
}

func (m *machine) notAskedAnyMore(a *policy.Approval) *denial {
	return &denial{code: codeAdminShutdown, message: "sallyport: denied: " + heldBy(a) + " holds it, and the proxy is being stopped or replaced: connect again", hint: m.hint()}
}

func (m *machine) tooLongToApprove(a *policy.Approval) *denial {
	return &denial{code: codeProgramLimit, message: fmt.Sprintf("sallyport: denied: %s holds it, and a message of more than %d bytes is too long to be approved", heldBy(a), maxHeld), hint: m.hint()}
}

func (m *machine) preparedBefore(a *policy.Approval) *denial {
	return &denial{code: codeInsufficientPrivilege, message: "sallyport: denied: " + heldBy(a) + " holds it, and its text was prepared before there was such a rule, or is too long: prepare it again", hint: m.hint()}
}

func (m *machine) boundBefore(a *policy.Approval) *denial {
	return &denial{code: codeInsufficientPrivilege, message: "sallyport: denied: " + heldBy(a) + " holds it, and what was approved when it was bound is not what it is now: bind it again", hint: m.hint()}
}

// heldFragment is what is recorded when people are asked.
func heldFragment(r approval.Request) record.Fragment {
	return record.NewFragment(struct {
		Request   string    `json:"request"`
		Hash      string    `json:"hash"`
		Policy    string    `json:"policy"`
		Rule      string    `json:"rule"`
		Approvers []string  `json:"approvers"`
		Expires   time.Time `json:"expires"`
		Kind      string    `json:"kind"`
	}{r.ID, r.Hash, r.Policy, r.Rule, r.Approvers, r.Expires.UTC(), r.Kind})
}

// decidedFragment is what is recorded of how a request ended. earlier is an approval that another request was given.
func decidedFragment(r approval.Request, earlier bool) record.Fragment {
	var d approval.Decision
	if r.Decision != nil {
		d = *r.Decision
	}
	return record.NewFragment(struct {
		Request string       `json:"request"`
		Hash    string       `json:"hash"`
		Policy  string       `json:"policy"`
		Rule    string       `json:"rule"`
		By      *approval.By `json:"by,omitempty"`
		Decided time.Time    `json:"decided"`
		Reason  string       `json:"reason,omitempty"`
		Earlier bool         `json:"earlier,omitempty"`
	}{r.ID, r.Hash, r.Policy, r.Rule, d.By, d.Time.UTC(), d.Reason, earlier})
}

// approvalFragment is a decision that people took part in.
func approvalFragment(d policy.Decision, requests ...approval.Request) record.Fragment {
	type request struct {
		Request string       `json:"request"`
		State   string       `json:"state"`
		By      *approval.By `json:"by,omitempty"`
	}
	var took []request
	for _, r := range requests {
		if r.ID == "" {
			continue
		}
		one := request{Request: r.ID, State: string(r.State)}
		if r.Decision != nil {
			one.By = r.Decision.By
		}
		took = append(took, one)
	}
	return record.NewFragment(struct {
		Decision  string    `json:"decision"`
		Policy    string    `json:"policy,omitempty"`
		Rule      string    `json:"rule"`
		Approvals []request `json:"approvals,omitempty"`
	}{d.Action.String(), d.Policy, d.Rule, took})
}

// withdrawnBecause is, for approvers, why a session ended that waited for them.
func withdrawnBecause(cause error) string {
	switch {
	case errors.Is(cause, relay.ErrClientGone):
		return "the client has closed its connection"
	case errors.Is(cause, relay.ErrServerGone):
		return "the server has closed the connection"
	case errors.Is(cause, relay.ErrDone), errors.Is(cause, relay.ErrShutdown):
		return "the proxy is being stopped or replaced"
	}
	return "the session has ended"
}
