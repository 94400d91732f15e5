package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
)

// version is the version of the protocol; the two halves of one release agree on it.
const version = 1

// Limits on what is believed of the other side.
const (
	maxMessageBytes   = 64 << 10
	maxDocumentsBytes = 32 << 20
	maxFileBytes      = 1 << 20
	maxDescriptors    = 4
	maxQueuedEvents   = 256
)

// kind is what a message is; each is one datagram, with descriptors where noted.
type kind string

const (
	// Both ways, first.
	kindHello kind = "hello"
	// To the proxy.
	kindDocuments kind = "documents" // one descriptor: Documents as JSON
	kindEnroll    kind = "enroll"    // one descriptor for each listener
	kindWithdraw  kind = "withdraw"
	kindStatus    kind = "status"
	kindEvent     kind = "event"
	kindFile      kind = "file"   // one descriptor: the content; none with an error
	kindPerson    kind = "person" // one descriptor: the connection
	// To capture.
	kindApplied  kind = "applied"  // answers documents
	kindEnrolled kind = "enrolled" // answers enroll
	kindRead     kind = "read"     // asks for file
	kindOffer    kind = "offer"    // one descriptor for each listener
	kindOffered  kind = "offered"  // there are no more offers
	kindLeave    kind = "leave"    // no listener from here on
)

// message is any message of the seam; which fields mean something depends on its kind.
type message struct {
	Kind       kind           `json:"kind"`
	Version    int            `json:"version,omitempty"`
	Revision   uint64         `json:"revision,omitempty"`
	Workload   *Workload      `json:"workload,omitempty"`
	ID         uint64         `json:"id,omitempty"`
	Generation uint64         `json:"generation,omitempty"`
	Status     *CaptureStatus `json:"status,omitempty"`
	Event      *CaptureEvent  `json:"event,omitempty"`
	Person     *Person        `json:"person,omitempty"`
	Request    uint64         `json:"request,omitempty"`
	Path       string         `json:"path,omitempty"`
	Error      string         `json:"error,omitempty"`
}

// errMessage is wrapped by every error about a message that is not as it must be; the socket is closed then.
var errMessage = errors.New("malformed message")

// decode reads a message that came with a number of descriptors, and checks that it is whole.
func decode(data []byte, descriptors int) (*message, error) {
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	whole, min, max := true, 0, 0
	switch m.Kind {
	case kindHello, kindApplied, kindEnrolled, kindWithdraw, kindOffered, kindLeave:
	case kindDocuments:
		min, max = 1, 1
	case kindEnroll, kindOffer:
		whole, min, max = m.Workload != nil, 1, maxDescriptors
	case kindStatus:
		whole = m.Status != nil
	case kindEvent:
		whole = m.Event != nil
	case kindPerson:
		whole, min, max = m.Person != nil, 1, 1
	case kindFile:
		if m.Error == "" {
			min, max = 1, 1
		}
	case kindRead:
		whole = m.Path != ""
	default:
		return nil, fmt.Errorf("%w: unknown kind %q", errMessage, m.Kind)
	}
	if !whole {
		return nil, fmt.Errorf("%w: %s without its body", errMessage, m.Kind)
	}
	if descriptors < min || descriptors > max {
		return nil, fmt.Errorf("%w: %s with %d descriptors", errMessage, m.Kind, descriptors)
	}
	return &m, nil
}
