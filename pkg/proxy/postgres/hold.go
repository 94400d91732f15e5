package postgres

import (
	"slices"
	"sync"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
)

// An asker asks people: the shared session.
type asker interface {
	// Holds is true when a rule may hold an operation.
	Holds() bool
	// Question is the request for an approval of an operation; equal operations have an equal hash, and no others.
	Question(a *policy.Approval, op proxy.Operation) approval.Request
	// Ask makes the request, or finds an approval that is left. It may take its time, and be called while anything else is.
	Ask(a *policy.Approval, r approval.Request) (*approval.Ticket, error)
	// Replaced is closed when decisions may be others than they were.
	Replaced() <-chan struct{}
}

const canceledByClient = "the client canceled the statement"

// A heldMessage is one of the client's that waits for people to approve it. Everything behind it waits too. Query, Bind and FunctionCall
// are held, but Parse is not, which runs nothing; Bind is, and not Execute, because a portal can be run by other means.
//
// First the answers to all that was sent before are awaited, so that the notice about it stands between two answers and an error before
// it has been seen. Then people are asked, elsewhere: the other sessions of the thread go on. The message is considered anew
// each time, so that a decision made under documents that are not in force any more is void.
type heldMessage struct {
	flushed bool               // the server was told to send what it has
	granted []approval.Request // what was approved so far, and used

	mu       sync.Mutex
	request  approval.Request // what is being asked
	asking   bool
	ticket   *approval.Ticket
	err      error  // why there is no ticket, or why it is of no use
	used     bool   // the ticket's approval was taken for this message
	told     bool   // the client was
	gone     string // why nobody waits any more
	canceled bool   // … because the client said so
}

// A holding is where a session's hold can be found from elsewhere.
type holding struct {
	mu      sync.Mutex
	message *heldMessage
}

func (h *holding) set(to *heldMessage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.message = to
}

// cancel is for a CancelRequest: it is true when that was for a held message, which now gets its answer.
func (h *holding) cancel() bool {
	h.mu.Lock()
	held := h.message
	h.mu.Unlock()
	return held != nil && held.cancel()
}

func (h *heldMessage) cancel() bool {
	h.mu.Lock()
	if !h.asking {
		h.mu.Unlock()
		return false
	}
	ticket := h.ticket
	h.canceled = true
	if ticket == nil { // it is withdrawn as soon as it is there
		h.gone = canceledByClient
	}
	h.mu.Unlock()
	if ticket == nil || ticket.Withdraw(canceledByClient) {
		return true
	}
	// It is decided already, so the server is to be told too.
	h.mu.Lock()
	defer h.mu.Unlock()
	h.canceled = false
	return false
}

// withdraw says that nobody waits any more, and gives back the request if it was pending.
func (h *heldMessage) withdraw(reason string) (r approval.Request, pending bool) {
	h.mu.Lock()
	ticket := h.ticket
	h.gone = reason
	h.mu.Unlock()
	if ticket == nil {
		return r, false
	}
	pending = ticket.Withdraw(reason)
	return ticket.Request(), pending
}

// ask gets the ticket; it runs elsewhere.
func (h *heldMessage) ask(j judge, a *policy.Approval, r approval.Request) {
	ticket, err := j.Ask(a, r)
	if err == nil && ticket.Earlier() {
		err = h.use(ticket)
	}
	h.mu.Lock()
	h.ticket, h.err = ticket, err
	gone := h.gone
	h.mu.Unlock()
	if ticket != nil && gone != "" {
		ticket.Withdraw(gone)
	}
}

// await waits until people have decided, the documents are replaced, or nobody waits any more; it runs elsewhere.
func (h *heldMessage) await(ticket *approval.Ticket, replaced, done <-chan struct{}) {
	select {
	case <-ticket.Done():
	case <-replaced:
		return
	case <-done:
		return
	}
	if ticket.Request().State != approval.Approved {
		return
	}
	err := h.use(ticket)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

func (h *heldMessage) use(ticket *approval.Ticket) error {
	if err := ticket.Use(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.used = true
	return nil
}

func (h *heldMessage) has(hash string) bool {
	return slices.ContainsFunc(h.granted, func(r approval.Request) bool { return r.Hash == hash })
}

func (h *heldMessage) begin(r approval.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.request, h.asking = r, true
	h.ticket, h.err, h.used, h.told, h.gone, h.canceled = nil, nil, false, false, "", false
}

func (h *heldMessage) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asking, h.ticket = false, nil
}

// show makes a hold the one that a CancelRequest finds.
func (f *frontend) show(h *heldMessage) {
	if f.holding == nil {
		f.holding = &holding{}
	}
	f.holding.set(h)
}

// endHold withdraws what is held still, and records that.
func (m *machine) endHold(reason string) {
	h := m.waiting
	if h == nil {
		return
	}
	m.waiting = nil
	if m.holding != nil {
		m.holding.set(nil)
	}
	if r, pending := h.withdraw(reason); pending && h.told {
		m.judge.Note(string(approval.Withdrawn), decidedFragment(r, false))
	}
}

// held is true when a message waits for people, and the client has seen all that came before it.
func (m *machine) held() bool {
	return m.waiting != nil && m.waiting.asking && m.due.n == 0 && !m.backendMid
}
