package postgres

import (
	"crypto/sha256"
	"errors"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// maxHeld is how long a message may be that is to be approved, bytes: people read it, and it stays in memory meanwhile.
const maxHeld = 256 << 10

// flushMessage makes the server send the answers that it has ready.
var flushMessage = appendMessage(nil, msgFlush)

// A question is what a held message is, in the parts that differ between messages.
type question struct {
	kind, text string          // the whole text, as it came
	script     *sql.Script     // nil where the text is shown as it is
	parameters record.Fragment // as they are recorded
	binding    []string        // further parts that make it what it is
}

// heldBy notes what holds a statement, and gives back the decision that goes for it. PREPARE runs nothing: what holds the statement in it is
// asked when that runs.
func (m *machine) heldBy(c *consideration, st *sql.Statement, d policy.Decision) policy.Decision {
	if st.Prepares != "" {
		c.deferred = policy.Join(c.deferred, d.Holds)
		d = m.judge.Decide(st.Units[:1], c.path)
	}
	c.holds = policy.Join(c.holds, d.Holds)
	return d
}

// holdsOf is what has to be approved before a plan runs whose script the verdict is on.
func (v *verdict) holdsOf(p *plan) []*policy.Approval {
	if p.inner {
		return policy.Join(v.holds, v.deferred)
	}
	return v.holds
}

// approved is a verdict that holds a message, as it is now: forward goes with one that allows it, because all approvals are there, or denies
// it. With any other step there is none yet.
func (f *frontend) approved(v *verdict, holds []*policy.Approval, q question, out *relay.Output) (*verdict, step) {
	if f.size > maxHeld {
		return v.notBy(holds[0], "too long", f.tooLongToApprove(holds[0])), forward
	}
	if f.have < f.size {
		out.Need = f.size
		return nil, more
	}
	op, known := f.operationHeld(v, q)
	if !known {
		return v.notBy(holds[0], "prepared before", f.preparedBefore(holds[0])), forward
	}
	if f.waiting == nil {
		f.waiting = &heldMessage{}
	}
	for _, a := range holds {
		r := f.judge.Question(a, op)
		if f.waiting.has(r.Hash) {
			continue
		}
		if f.waiting.asking && f.waiting.request.Hash != r.Hash { // the documents are others now
			before := f.waiting
			f.endHold("the policy has changed")
			f.waiting = &heldMessage{flushed: before.flushed, granted: before.granted}
		}
		words, s := f.askFor(f.waiting, a, r, out)
		if s != forward {
			return nil, s
		}
		if words != nil {
			return v.notBy(a, words.message, words, f.waiting.request), forward
		}
	}
	return v.by(f.waiting.granted), forward
}

// askFor is where one approval stands: forward with no denial when it is there.
func (f *frontend) askFor(h *heldMessage, a *policy.Approval, r approval.Request, out *relay.Output) (*denial, step) {
	if !h.asking {
		switch {
		case f.due.n > 0, f.serverMid:
			f.flush, h.flushed = !h.flushed, true
			out.Pause = true
			return nil, wait
		case f.draining:
			return f.notAskedAnyMore(a), forward
		}
		h.begin(r)
		f.show(h)
		judge := f.judge
		out.Await = func(<-chan struct{}) { h.ask(judge, a, r) }
		return nil, wait
	}
	h.mu.Lock()
	ticket, err, used, canceled := h.ticket, h.err, h.used, h.canceled
	h.mu.Unlock()
	if err != nil {
		f.judge.Note("error", record.NewFragment(map[string]string{"error": "approval: " + err.Error()}))
		if errors.Is(err, approval.ErrTooMany) {
			return f.tooManyHeld(a), forward
		}
		return f.notAsked(a), forward
	}
	now := ticket.Request()
	h.request = now
	switch {
	case canceled && now.State != approval.Pending:
		f.judge.Note(string(approval.Withdrawn), decidedFragment(now, false))
		return f.notApproved(now, true), forward
	case now.State == approval.Approved && used:
		f.judge.Note(string(approval.Approved), decidedFragment(now, ticket.Earlier()))
		// The message is asked for by its own hash; an earlier approval has the same.
		h.granted = append(h.granted, now)
		h.end()
		return nil, forward
	case now.State != approval.Pending && now.State != approval.Approved:
		f.judge.Note(string(now.State), decidedFragment(now, false))
		return f.notApproved(now, false), forward
	case !h.told:
		h.told = true
		f.judge.Note("held", heldFragment(now))
		out.Reply(heldNotice(now, f.session))
	}
	replaced := f.judge.Replaced()
	out.Await = func(done <-chan struct{}) { h.await(ticket, replaced, done) }
	return nil, wait
}

// approvedBind is approved for a Bind, of which r is at the parameters' formats.
func (f *frontend) approvedBind(v *verdict, holds []*policy.Approval, p *plan, r reader, out *relay.Output) (*verdict, step) {
	q := p.question(digest(r.p))
	if _, full := f.judge.Options(); full {
		q.parameters = allParameters(&r)
	} else {
		q.parameters = p.countParameters(&r)
	}
	return f.approved(v, holds, q, out)
}

func (p *plan) question(bound string) question {
	return question{kind: "execute", text: p.raw, script: p.script, binding: []string{p.types, bound}}
}

// digest is SHA-256 of the part of a Bind that holds parameters and formats.
func digest(p []byte) string {
	sum := sha256.Sum256(p)
	return string(sum[:])
}

// stillApproved is the verdict on an Execute: that of its Bind, if all that is asked for now was approved then. An Execute is not
// held by itself.
func (f *frontend) stillApproved(v *verdict, holds []*policy.Approval, what portal) *verdict {
	op, known := f.operationHeld(v, what.plan.question(what.bound))
	for _, a := range holds {
		if !known || what.bound == "" || !what.verdict.has(f.judge.Question(a, op).Hash) {
			return v.notBy(a, "bound before", f.boundBefore(a))
		}
	}
	return what.verdict
}

func (v *verdict) has(hash string) bool {
	for _, granted := range v.granted {
		if granted == hash {
			return true
		}
	}
	return false
}

// by is the verdict when what holds it was approved.
func (v *verdict) by(granted []approval.Request) *verdict {
	allowed := *v
	allowed.decision = policy.Decision{Action: policy.Allow, Policy: v.decision.Policy, Rule: v.decision.Rule}
	allowed.fragment = approvalFragment(allowed.decision, granted...)
	for _, r := range granted {
		allowed.granted = append(allowed.granted, r.Hash)
	}
	return &allowed
}

// notBy is the verdict when an approval was not given.
func (v *verdict) notBy(a *policy.Approval, why string, words *denial, requests ...approval.Request) *verdict {
	denied := *v
	denied.decision, denied.denied = policy.Decision{Action: policy.Deny, Policy: a.Policy, Rule: a.Rule, Message: why}, words
	denied.fragment = approvalFragment(denied.decision, requests...)
	return &denied
}

// keptText is the text that a plan keeps, where a rule could hold it: the approval is bound to it.
func (m *machine) keptText(text []byte) string {
	if !m.judge.Holds() || len(text) > maxHeld {
		return ""
	}
	return string(text)
}

// withinText stands for the text of a plan that the very string prepares in which it is executed.
const withinText = "within"

// operationHeld is what a message is, for people and for the hash. It is false when a text that it runs was not kept.
func (f *frontend) operationHeld(v *verdict, q question) (op proxy.Operation, known bool) {
	op = proxy.Operation{Kind: q.kind, Text: q.text, Recorded: q.text, Parameters: q.parameters}
	if q.text == "" {
		return op, false
	}
	fullText, _ := f.judge.Options()
	if q.script != nil {
		op.Text = q.script.RedactedText(q.text)
		if op.Recorded = op.Text; !fullText {
			op.Recorded = q.script.Normalised
		}
	}
	op.Binding = append([]string{q.text}, q.binding...)
	for _, p := range v.prepared {
		if p.raw == "" {
			return op, false
		}
		op.Binding = append(op.Binding, p.raw, p.types)
		if p.raw != withinText {
			op.Executes = append(op.Executes, p.script.RedactedText(p.raw))
		}
	}
	op.Binding = append(op.Binding, f.searchPath...)
	return op, true
}
