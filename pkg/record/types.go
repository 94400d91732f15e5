package record

import (
	"errors"
	"fmt"
	"time"
)

// Errors by which a caller chooses.
var (
	// ErrClosed says that the session, or the store, takes no more events.
	ErrClosed = errors.New("the record is closed")
	// ErrLocked says that another process writes the store.
	ErrLocked = errors.New("another process writes this record")
	// ErrNotFound says that the store has no such session.
	ErrNotFound = errors.New("no such session")
)

// A Fragment is members of a JSON object, encoded once and used many times: `"text":"SELECT $1","fingerprint":"…"`, without
// braces and on one line. NewFragment makes one.
type Fragment []byte

// Meta is what a session's first event says.
type Meta struct {
	Workload Workload `json:"workload"`
	Target   string   `json:"target"`
	Protocol string   `json:"protocol"`
	// Destination is where the workload dialled; Upstream where the proxy dials (host:port each).
	Destination string `json:"destination"`
	Upstream    string `json:"upstream,omitempty"`
	Node        string `json:"node,omitempty"`
}

// Workload is who dialled.
type Workload struct {
	Name   string `json:"name"`
	Cgroup string `json:"cgroup"`
	PID    uint32 `json:"pid"`
	UID    uint32 `json:"uid"`
	Comm   string `json:"comm"`
	// ProcessUnknown is true where the kernel does not say which process dialled: PID, UID and Comm mean nothing then.
	ProcessUnknown bool `json:"processUnknown,omitempty"`
}

// A Note is an event that is no operation. Kind and Detail are as Session.Note takes them.
type Note struct {
	Kind   string
	Detail Fragment
}

// An Operation is one execution: what was asked and what was decided. The fragments are encoded ahead so that writing one allocates nothing.
type Operation struct {
	// Kind is the protocol's word: "query", "execute", "function-call", "copy" …
	Kind string
	// Statement is `"text":…,"fingerprint":…`.
	Statement Fragment
	// Parameters is `"parameters":…`, or nil.
	Parameters Fragment
	// Decision is `"decision":"allow","policy":…,"rule":…`, "decision" first. Whatever is not "allow" counts as denied.
	Decision Fragment
}

// A Result is how an operation ended.
type Result struct {
	Operation uint64 // the operation's sequence number
	Rows      int64
	// Bytes are the bytes that the server sent in answer.
	Bytes    int64
	Duration time.Duration
	// Error is the protocol's error code (SQLSTATE), or "".
	Error string
	// Masked is `"masked":{"policy/mask":…}`, how many values each mask was applied to, or nil.
	Masked Fragment
}

// Totals are sums over a session.
type Totals struct {
	Operations uint64 `json:"operations"`
	// Denied are those of the operations that were not allowed.
	Denied uint64 `json:"denied"`
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	// ResultsLost are results that could not be kept while the disk was full.
	ResultsLost uint64 `json:"resultsLost,omitempty"`
}

// An Ending is how a session ended.
type Ending struct {
	Reason string `json:"reason"`
	Totals
	// Duration is from the session's first event to its last, by a clock that is never set.
	Duration time.Duration `json:"nanoseconds"`
}

// A Fault is something in a stored record that is not as it was written.
type Fault struct {
	// File is relative to the state directory.
	File string `json:"file"`
	// Line counts from 1; 0 when the fault is not in one line.
	Line int `json:"line,omitempty"`
	// Session is the id, or "".
	Session string `json:"session,omitempty"`
	What    string `json:"what"`
}

// Error is file, line and what.
func (f *Fault) Error() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.File, f.What)
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.What)
}

// The types of events that the package itself writes; Note refuses them.
const (
	typeOpen      = "open"
	typeOperation = "operation"
	typeResult    = "result"
	typeText      = "text"
	typeRecovered = "recovered"
	typeContinued = "continued"
	typeClose     = "close"
	typeSeal      = "seal"
)

// The types of the ledger's lines; open and seal have the names of the events that they repeat.
const (
	typeKey        = "key"
	typeStart      = "start"
	typeStop       = "stop"
	typeRefused    = "refused"
	typeSuppressed = "suppressed"
	typeSigned     = "signed"
	typeAbandoned  = "abandoned"
	typeDamaged    = "damaged"
	typePruned     = "pruned"
)

// reasonInterrupted is the reason of sessions that a start found unsealed; reasonStopped of those that the store's Close found.
const (
	reasonInterrupted = "interrupted"
	reasonStopped     = "stopped"
)
