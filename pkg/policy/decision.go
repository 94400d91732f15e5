package policy

// Action is the outcome of a decision. The zero value denies.
type Action uint8

// Outcomes.
const (
	Deny Action = iota
	Allow
)

// String is "deny" or "allow".
func (a Action) String() string {
	if a == Allow {
		return "allow"
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
}
