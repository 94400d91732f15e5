package approval

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A State is how far a request has come.
type State string

// States of a request. All but Pending are final.
const (
	Pending   State = "pending"
	Approved  State = "approved"
	Denied    State = "denied"
	Expired   State = "expired"   // nobody decided in time
	Withdrawn State = "withdrawn" // whoever asked does not wait any more
)

// Errors by which a caller chooses.
var (
	// ErrNotFound says that there is no such request, or none that the person may see.
	ErrNotFound = errors.New("there is no such request")
	// ErrForbidden says that the person may not decide; what wraps it says why.
	ErrForbidden = errors.New("not allowed")
	// ErrDecided says that it is too late; what wraps it says how the request ended.
	ErrDecided = errors.New("the request is not pending any more")
	// ErrNeedsReason says that the rule wants a reason.
	ErrNeedsReason = errors.New("the rule wants a reason with each decision")
	// ErrTooMany says that the workload has too many requests; the operation is to be denied.
	ErrTooMany = errors.New("the workload waits for too many approvals")
	// ErrClosed says that the Desk takes no more requests.
	ErrClosed = errors.New("no more approvals are asked for: the proxy ends")
)

// A Request is one held operation, as it is stored and shown. What it shows of the operation was chosen to be shown: secrets are redacted,
// and parameters are there only where policy records them.
type Request struct {
	// ID names the request: eight lower-case letters and digits.
	ID    string `json:"id"`
	State State  `json:"state"`
	// Hash binds the request to all of the operation; see Hash.
	Hash    string    `json:"hash"`
	Created time.Time `json:"created"`
	// Expires is when it is denied for want of a decision.
	Expires time.Time `json:"expires"`

	// Session is the id of the session's record.
	Session  string   `json:"session"`
	Workload Workload `json:"workload"`
	Target   string   `json:"target"`
	Database string   `json:"database,omitempty"`

	// Policy and Rule hold the operation; Message is the rule's.
	Policy  string `json:"policy"`
	Rule    string `json:"rule"`
	Message string `json:"message,omitempty"`
	// Approvers are who may decide: "user:NAME", "group:NAME" or "uid:NUMBER".
	Approvers []string `json:"approvers"`
	// NeedsReason is true when who decides must say why.
	NeedsReason bool `json:"needsReason,omitempty"`
	// Window is for how many seconds the approval serves again; 0 is once.
	Window int64 `json:"windowSeconds,omitempty"`

	// Kind is the protocol's word for the operation: "query", "bind" …
	Kind string `json:"kind"`
	// Text is the operation. Of a finished request only the beginning of what policy records is kept, and Cut is true.
	Text string `json:"text"`
	Cut  bool   `json:"cut,omitempty"`
	// Recorded is the text as policy has it recorded, while the request is pending.
	Recorded string `json:"recorded,omitempty"`
	// Executes are the texts of prepared statements that the operation runs.
	Executes []string `json:"executes,omitempty"`
	// Parameters is JSON: {"count":N}, or a list of values.
	Parameters json.RawMessage `json:"parameters,omitempty"`

	// Decision is how it ended; nil while it is pending.
	Decision *Decision `json:"decision,omitempty"`

	// Owner is the process that holds the operation.
	Owner string `json:"owner,omitempty"`
}

// Workload is who asked.
type Workload struct {
	Name   string `json:"name"`
	Cgroup string `json:"cgroup"`
	PID    uint32 `json:"pid"`
	UID    uint32 `json:"uid"`
	Comm   string `json:"comm"`
}

// A Decision is how a request ended.
type Decision struct {
	Time time.Time `json:"time"`
	// By is who decided; nil when nobody did.
	By *By `json:"by,omitempty"`
	// Reason is the person's, or why the request was withdrawn.
	Reason string `json:"reason,omitempty"`
}

// By is a person who decided.
type By struct {
	UID uint32 `json:"uid"`
	// User is the host's name for the uid; "" when it has none.
	User string `json:"user,omitempty"`
}

// String is the name, or the uid.
func (b By) String() string {
	if b.User != "" {
		return b.User
	}
	return fmt.Sprintf("uid %d", b.UID)
}

// hashVersion changes with the meaning of the parts.
const hashVersion = "sallyport approval v1"

// Hash is SHA-256, in hexadecimal, over parts, each with its length, so that no two lists of parts have the same. The caller puts in
// everything that makes the operation what it is: who asks, where, by which rule, the whole text, every parameter.
func Hash(parts ...string) string {
	h := sha256.New()
	for _, part := range append([]string{hashVersion}, parts...) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(part))) // a hash takes everything
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Shown is the request without what is for the store alone.
func (r Request) Shown() Request {
	r.Recorded, r.Owner = "", ""
	return r
}

// keptText is how much of a finished request's text is kept, bytes.
const keptText = 4 << 10

// finish makes a request final. Who decides has to see all; what stays for weeks is no more than what policy has recorded, which the
// session's record has whole.
func (r *Request) finish(s State, d Decision) {
	r.State, r.Decision = s, &d
	kept := r.Recorded[:min(len(r.Recorded), keptText)]
	r.Cut = kept != r.Text || len(r.Executes) > 0
	r.Text, r.Recorded, r.Executes = strings.ToValidUTF8(kept, ""), "", nil
	if len(r.Parameters) > keptText {
		r.Parameters, r.Cut = nil, true
	}
}
