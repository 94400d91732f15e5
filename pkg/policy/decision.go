package policy

import "time"

// Action is the outcome of a decision. The zero value denies.
type Action uint8

// Outcomes.
const (
	Deny Action = iota
	Allow
	Hold // until people have approved it
)

// String is "deny", "allow" or "hold".
func (a Action) String() string {
	switch a {
	case Allow:
		return "allow"
	case Hold:
		return "hold"
	}
	return "deny"
}

// A Decision is what policy says of one operation.
type Decision struct {
	Action Action
	// Policy and Rule name what decided; Rule is "default" when no rule matched and "error" when none could be evaluated.
	Policy, Rule string
	// Message is for the client; never "" on a denial.
	Message string
	// Holds are the approvals that the operation needs, each of them, one for each rule that holds it; none unless Action is Hold.
	Holds []*Approval
}

// An Approval is what has to be approved, and by whom, before an operation runs. It is made by a rule with action approve; whatever
// else wants people to decide on an operation makes one of its own. It is not changed once made.
type Approval struct {
	// Policy and Rule name what holds.
	Policy, Rule string
	// Message is for the client and for approvers; "" is none.
	Message string
	// Timeout is how long the operation is held before it is denied.
	Timeout time.Duration
	// Window is how long the approval serves for the same operation again; 0 is once.
	Window time.Duration
	// Approvers are who may decide: "user:NAME", "group:NAME" or "uid:NUMBER".
	Approvers []string
	// NeedsReason is true when who decides must say why.
	NeedsReason bool
}
