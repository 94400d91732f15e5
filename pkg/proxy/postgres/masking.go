package postgres

import (
	"bytes"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/mask"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/lineage"
)

// ruleMasking is the rule of denials that are no rule's of a policy: what can not be masked is denied.
const ruleMasking = "masking"

// A masking is what a session knows so that no masked value reaches the client. A session has none until a policy of its masks
// something.
type masking struct {
	*applied          // nil when the documents mask nothing any more
	pictures pictures // of the database's catalog

	traces   map[string]*trace // by text
	bytes    int               // of their texts
	path     uint64            // machine.pathChange that they hold for
	view     *view             // … and the catalog
	taken    *picture          // elsewhere, for the message that waits; failed is why there is none
	failed   error
	analysed *trace // elsewhere too
	cursors  map[string]*cursor

	after   time.Time       // the catalog has to be newer
	changed lineage.Changed // by the open transaction
	altered bool            // it may have changed something
	tainted bool            // it may have touched something masked
	large   bool            // a row that comes in pieces is collected
	room    []byte          // for what is rewritten
}

// An applied is the masks of a session's policies, with how often they were applied in the answers to the operation in front.
type applied struct {
	rules *mask.Rules
	tally []uint64
}

// renewMasks follows the documents.
func (m *machine) renewMasks() {
	rules := m.judge.Masks()
	switch {
	case m.masks == nil && rules == nil:
		return
	case m.masks == nil:
		// What the open transaction did meanwhile is not known.
		m.masks = &masking{pictures: m.pictures, cursors: map[string]*cursor{}, tainted: m.status != 'I', altered: m.status != 'I'}
	case m.masks.applied != nil && m.masks.rules == rules:
		return
	}
	m.masks.traces, m.masks.applied = nil, nil
	if rules != nil {
		m.masks.applied = &applied{rules: rules, tally: make([]uint64, rules.Len())}
	}
}

// masked is true when there are masks in force.
func (m *machine) masked() bool { return m.masks != nil && m.masks.applied != nil }

// transactionOver notes that no transaction is open.
func (k *masking) transactionOver(quiet bool) {
	k.tainted = false
	if k.altered && quiet { // else what is on its way was decided on before the catalog is looked at again
		k.altered, k.changed = false, lineage.Changed{}
		k.after = time.Now()
		k.pictures.Changed()
	}
	if quiet && k.view != nil {
		k.view.picture = nil
	}
}

// judgeMasks says what a message whose text policy allows does with masked values. t is nil when it can not be forwarded, or not yet; s
// says what becomes of it. f.op is what a denial records.
func (f *frontend) judgeMasks(typ byte, name []byte, text string, script *sql.Script, out *relay.Output) (t *trace, s step) {
	t, ok := f.traced(text, script, out)
	if !ok {
		f.parsed = parsed{done: true, script: script} // for the next call
		return nil, wait
	}
	denied, by := t.denied, t.deniedBy
	for i, format := range f.formats(script) {
		if why := t.copyDenied(format, i); denied == "" {
			denied = why
		}
	}
	if denied == "" {
		return t, forward
	}
	d, words := f.maskingDenial(by, denied)
	f.op.Decision = decisionFragment(d)
	return nil, f.denyStatement(typ, name, words, d, &f.op)
}

// holding is what rules hold a message for, and masks. Without masks t is nil.
func (t *trace) holding(rules []*policy.Approval) []*policy.Approval {
	if t == nil {
		return rules
	}
	return policy.Join(rules, t.holds)
}

// judgePlan is judgeMasks for what was prepared.
func (f *frontend) judgePlan(typ byte, p *plan, out *relay.Output) (*trace, step) {
	if p.source == nil {
		return nil, f.refuse(typ, refusedName, f.preparedUnmasked(), policy.Decision{})
	}
	return f.judgeMasks(typ, refusedName, *p.source, p.script, out)
}

// expectMasked notes that a message of which t is the trace goes to the server; its answers begin with those of a statement. Without masks t is nil.
func (f *frontend) expectMasked(e *expected, t *trace, script *sql.Script, statement int) {
	if f.source = nil; t == nil {
		return
	}
	e.masked = &answers{trace: t, formats: f.formats(script), statement: statement}
	switch f.source = &t.text; {
	case e.kind == dueQuery || e.kind == dueExecute:
		f.runs(t)
	case e.kind == dueBind && statement < len(t.statements):
		if name := e.portal.name; name != "" { // FETCH takes portals too
			f.masks.names(name, &t.statements[statement])
		}
	}
}

// describeFirst replaces an Execute by a Describe of its portal and itself, so that what comes is known column by column, whatever the
// client asked for.
func (f *frontend) describeFirst(execute []byte, t *trace) {
	portal, _, _ := bytes.Cut(execute, []byte{0})
	e := f.due.push()
	e.kind, e.own = dueDescribe, true
	e.masked = &answers{trace: t}
	f.refused = appendMessage(f.refused[:0], msgDescribe, "P", string(portal), "\x00")
	f.refused = appendMessage(f.refused, msgExecute, string(execute))
}

// decideFunction is the decision on a function that policy allows a FunctionCall message to call: what it gives has no lineage.
func (f *frontend) decideFunction(name string, allowed policy.Decision) policy.Decision {
	f.judge.Revision() // so that the masks are those of the documents in force
	f.renewMasks()
	if !f.masked() || f.masks.rules.Trusted("pg_catalog", name) {
		return allowed
	}
	d, _ := f.maskingDenial("", "what "+name+" reads can not be masked, and the policy does not trust it")
	return d
}

// giveBack lets an idle session keep no room; what is in it is written all the same.
func (k *masking) giveBack(idle bool) {
	const kept = 4 << 10
	if idle && cap(k.room) > kept {
		k.room = nil
	}
}

// maskingDenial is a denial for a reason that no rule of a policy gives.
func (m *machine) maskingDenial(policyName, message string) (policy.Decision, *denial) {
	d := policy.Decision{Policy: policyName, Rule: ruleMasking, Message: message}
	return d, m.policyDenial(d)
}

// maskedFragment is what a result says of the masks that were applied; it is nil when none was. The counts begin anew.
func (m *machine) maskedFragment(a *applied) record.Fragment {
	var counts map[string]uint64
	for i, n := range a.tally {
		if n == 0 {
			continue
		}
		if counts == nil {
			counts = map[string]uint64{}
		}
		by := a.rules.Mask(i)
		counts[by.Policy+"/"+by.Name] += n
		m.judge.Masked(by.Policy, by.Name, n)
		a.tally[i] = 0
	}
	if counts == nil {
		return nil
	}
	return record.NewFragment(map[string]any{"masked": counts})
}
