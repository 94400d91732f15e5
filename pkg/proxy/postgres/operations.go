package postgres

import (
	"bytes"
	"fmt"

	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

func (f *frontend) query(body []byte, out *relay.Output) (step, error) {
	text, ok := soleString(body)
	if !ok {
		return 0, f.violation(out, "malformed Query")
	}
	v, script, s, err := f.judgeText(text, out)
	switch {
	case err != nil:
		return f.denyText(msgQuery, nil, text, err), nil
	case v == nil:
		return s, nil
	}
	f.op = record.Operation{Kind: "query", Statement: f.statementOf(v, script, text), Decision: v.fragment}
	var t *trace
	if f.masked() && v.denied == nil {
		if t, s = f.judgeMasks(msgQuery, nil, string(text), script, out); t == nil {
			return s, nil
		}
	}
	// Nobody is asked about what masks deny.
	if holds := t.holding(v.holds); len(holds) > 0 && v.denied == nil {
		if v, s = f.approved(v, holds, question{kind: "query", text: string(text), script: script}, out); s != forward {
			return s, nil
		}
		f.op.Decision = v.fragment
	}
	if v.denied != nil {
		return f.denyStatement(msgQuery, nil, v.denied, v.decision, &f.op), nil
	}
	seq, ok := f.admit(nil, v.decision)
	if !ok {
		return f.refuse(msgQuery, nil, f.noRecord(), policy.Decision{}), nil
	}
	e := f.due.push()
	e.kind, e.op, e.started = dueQuery, seq, f.since
	f.expectMasked(e, t, script, 0)
	f.track(e, script, func() string { return f.keptText(text) })
	f.batch++ // after a failed Query nothing is skipped: what it changes is uncertain to what follows
	return forward, nil
}

// admit records f.op, and before it the portals that are bound and not executed, other than runs: FETCH, and some functions, run
// portals by name. Without a record nothing is forwarded.
func (f *frontend) admit(runs *binding[portal], d policy.Decision) (seq uint64, ok bool) {
	if !f.recordUnrun(runs) {
		return 0, false
	}
	seq, err := f.judge.Admit(&f.op, d)
	f.recorded()
	return seq, err == nil
}

// recorded counts the time since the input was read, or since the operation before this one.
func (f *frontend) recorded() {
	now := sinceStart()
	f.judge.Added(now - f.since)
	f.since = now
}

func (f *frontend) recordUnrun(except *binding[portal]) bool {
	for len(f.unrun) > 0 {
		b := f.unrun[len(f.unrun)-1]
		if b != except {
			p, known := f.portals.now(b, f.batch)
			if !known {
				p = b.next
			}
			if p.plan != nil {
				op := f.operationOf("bind", p, p.verdict)
				if _, err := f.judge.Admit(&op, p.verdict.decision); err != nil {
					return false
				}
			}
		}
		b.listed = false
		f.unrun = f.unrun[:len(f.unrun)-1]
	}
	return true
}

// track notes what a script changes when it runs.
func (f *frontend) track(e *expected, script *sql.Script, raw func() string) {
	e.changes, e.several = f.sent(script, raw), len(script.Statements) > 1
}

func (f *frontend) parse(body []byte, out *relay.Output) (step, error) {
	r := reader{p: body}
	name, text := r.cstring(), r.cstring()
	types := r.p
	for range r.uint16() {
		r.uint32() // a parameter's type
	}
	switch {
	case !r.end():
		return 0, f.violation(out, "malformed Parse")
	case !isName(name):
		return f.refuse(msgParse, refusedName, f.badName(), policy.Decision{}), nil
	}
	v, script, s, err := f.judgeText(text, out)
	switch {
	case err != nil:
		return f.denyText(msgParse, name, text, err), nil
	case v == nil:
		return s, nil
	}
	if v.denied != nil {
		f.op = record.Operation{Kind: "parse", Statement: f.statementOf(v, script, text), Decision: v.fragment}
		return f.denyStatement(msgParse, name, v.denied, v.decision, &f.op), nil
	}
	var t *trace
	if f.masked() {
		f.op = record.Operation{Kind: "parse", Statement: f.statementOf(v, script, text), Decision: v.fragment}
		if t, s = f.judgeMasks(msgParse, name, string(text), script, out); t == nil {
			return s, nil
		}
	}
	b := f.statements.get(name)
	if b == nil {
		return f.refuse(msgParse, name, f.tooManyNames(), policy.Decision{}), nil
	}
	p := v.plan
	full, _ := f.judge.Options()
	kept := f.keptText(text)
	if full || kept != "" || t != nil {
		p = &plan{script: script, units: p.units, raw: kept}
	}
	if full {
		p.text = script.RedactedText(string(text))
	}
	if kept != "" {
		p.types = string(types)
	}
	if t != nil {
		p.source = &t.text
	}
	f.statements.send(b, p, f.batch)
	e := f.due.push()
	e.kind, e.statement, e.plan = dueParse, b, p
	f.expectMasked(e, t, script, 0)
	return forward, nil
}

func (f *frontend) bind(body []byte, out *relay.Output) (step, error) {
	r := reader{p: body}
	name, statement := r.cstring(), r.cstring()
	switch {
	case r.bad:
		return 0, f.violation(out, "malformed Bind")
	case !isName(name) || !isName(statement):
		return f.refuse(msgBind, refusedName, f.badName(), policy.Decision{}), nil
	}
	var p *plan
	if prepared := f.statements.find(statement); prepared != nil {
		var known bool
		if p, known = f.statements.now(prepared, f.batch); !known && f.due.n > 0 {
			return f.hold(forAnswers, out), nil
		}
	}
	if p == nil {
		return f.refuse(msgBind, refusedName, f.noSuchStatement(string(statement)), policy.Decision{}), nil
	}
	verdict, held := f.consider(p.script)
	if held != nothing {
		return f.hold(held, out), nil
	}
	v, rest := portal{plan: p, cursors: f.cursors}, r
	if _, full := f.judge.Options(); full {
		v.parameters = allParameters(&r)
	} else {
		v.parameters = p.countParameters(&r)
	}
	var t *trace
	if f.masked() && verdict.denied == nil {
		var s step
		f.op = f.operationOf("bind", v, verdict)
		if t, s = f.judgePlan(msgBind, p, out); t == nil {
			return s, nil
		}
	}
	if holds := t.holding(verdict.holdsOf(p)); len(holds) > 0 && verdict.denied == nil {
		var s step
		if verdict, s = f.approvedBind(verdict, holds, p, rest, out); s != forward {
			return s, nil
		}
		v.bound = digest(rest.p)
	}
	if v.verdict = verdict; verdict.denied != nil {
		f.op = f.operationOf("bind", v, verdict)
		return f.denyStatement(msgBind, refusedName, verdict.denied, verdict.decision, &f.op), nil
	}
	b := f.portals.get(name)
	if b == nil {
		return f.refuse(msgBind, refusedName, f.tooManyNames(), policy.Decision{}), nil
	}
	if b.listed && !f.recordUnrun(nil) {
		return f.refuse(msgBind, refusedName, f.noRecord(), policy.Decision{}), nil
	}
	f.portals.send(b, v, f.batch)
	f.unrun, b.listed = append(f.unrun, b), true
	e := f.due.push()
	e.kind, e.portal, e.bound = dueBind, b, v
	f.expectMasked(e, t, p.script, p.index)
	return forward, nil
}

// operationOf is what is recorded of a portal.
func (f *frontend) operationOf(kind string, p portal, v *verdict) record.Operation {
	op := record.Operation{Kind: kind, Statement: v.statement, Parameters: p.parameters, Decision: v.fragment}
	if p.plan.text != "" {
		op.Statement = statementFragment(p.plan.text, p.plan.script.Fingerprint, v.executes...)
	}
	return op
}

func (f *frontend) execute(body []byte, out *relay.Output) (step, error) {
	r := reader{p: body}
	name := r.cstring()
	r.uint32() // the row limit
	if !r.end() {
		return 0, f.violation(out, "malformed Execute")
	}
	var what portal
	b := f.portals.find(name)
	if b != nil {
		var known bool
		if what, known = f.portals.now(b, f.batch); !known && f.due.n > 0 {
			return f.hold(forAnswers, out), nil
		}
	}
	switch {
	case what.plan == nil:
		return f.refuse(msgExecute, refusedName, f.noSuchPortal(string(name)), policy.Decision{}), nil
	case what.cursors != f.cursors && len(name) > 0:
		return f.refuse(msgExecute, refusedName, f.replacedPortal(string(name)), policy.Decision{}), nil
	}
	v, held := f.consider(what.plan.script)
	if held != nothing {
		return f.hold(held, out), nil
	}
	f.op = f.operationOf("execute", what, v)
	var t *trace
	if f.masked() && v.denied == nil {
		var s step
		if t, s = f.judgePlan(msgExecute, what.plan, out); t == nil {
			return s, nil
		}
	}
	if holds := t.holding(v.holdsOf(what.plan)); len(holds) > 0 && v.denied == nil {
		v = f.stillApproved(v, holds, what)
		f.op = f.operationOf("execute", what, v)
	}
	if v.denied != nil {
		return f.denyStatement(msgExecute, refusedName, v.denied, v.decision, &f.op), nil
	}
	seq, ok := f.admit(b, v.decision)
	if !ok {
		return f.refuse(msgExecute, refusedName, f.noRecord(), policy.Decision{}), nil
	}
	if t != nil {
		f.describeFirst(body, t)
	}
	e := f.due.push()
	e.kind, e.op, e.started = dueExecute, seq, f.since
	f.expectMasked(e, t, what.plan.script, what.plan.index)
	f.track(e, what.plan.script, func() string { return what.plan.raw })
	if t != nil {
		return replace, nil
	}
	return forward, nil
}

// hold asks to be called again when what the message waits for may have happened.
func (f *frontend) hold(why hold, out *relay.Output) step {
	if why == forTurn {
		out.Async = func() {} // other sessions come first
	} else {
		out.Pause = true
	}
	return wait
}

func (f *frontend) close(body []byte, out *relay.Output) (step, error) {
	r := reader{p: body}
	what, name := r.byte(), r.cstring()
	switch {
	case !r.end():
		return 0, f.violation(out, "malformed Close")
	case !isName(name):
		return f.refuse(msgClose, refusedName, f.badName(), policy.Decision{}), nil
	}
	e := f.due.push()
	e.kind = dueClose
	switch what {
	case 'S':
		if b := f.statements.find(name); b != nil {
			f.statements.send(b, nil, f.batch)
			e.statement = b
		}
	case 'P':
		if b := f.portals.find(name); b != nil {
			f.portals.send(b, portal{}, f.batch)
			e.portal = b
		}
	}
	return forward, nil
}

func (f *frontend) functionCall(body []byte, out *relay.Output) (step, error) {
	oid := (&reader{p: body}).uint32()
	name, known := functionNames[oid]
	d := policy.Decision{Rule: "unknown-function", Message: "function not known"}
	words := f.unknownFunction(oid)
	if known {
		unit := sql.Unit{Kind: sql.KindCall, Verb: "FUNCTION CALL", Functions: []sql.Object{{Schema: "pg_catalog", Name: name}}, Filtered: true}
		if d = f.judge.Decide([]sql.Unit{unit}, f.searchPath); d.Action == policy.Allow {
			d = f.decideFunction(name, d)
		}
		words = f.policyDenial(d)
	}
	fragment := decisionFragment(d)
	if d.Action == policy.Hold {
		v, s := f.approved(&verdict{decision: d}, d.Holds, question{kind: "function-call", text: fmt.Sprintf("%s (oid %d)", name, oid), binding: []string{string(body)}}, out)
		if s != forward {
			return s, nil
		}
		d, words, fragment = v.decision, v.denied, v.fragment
	}
	f.op = record.Operation{Kind: "function-call", Statement: statementFragment(fmt.Sprintf("%s (oid %d)", name, oid), ""), Decision: fragment}
	if d.Action != policy.Allow {
		return f.denyStatement(msgFunctionCall, nil, words, d, &f.op), nil
	}
	seq, ok := f.admit(nil, d)
	if !ok {
		return f.refuse(msgFunctionCall, nil, f.noRecord(), policy.Decision{}), nil
	}
	e := f.due.push()
	e.kind, e.op, e.started = dueFunctionCall, seq, f.since
	f.batch++
	return forward, nil
}

// judgeText parses and considers. v is nil when that has to wait (s says how) or failed.
func (f *frontend) judgeText(text []byte, out *relay.Output) (v *verdict, script *sql.Script, s step, err error) {
	switch {
	case f.parsed.done:
		script, err = f.parsed.script, f.parsed.err
	case len(text) >= asyncText:
		own := bytes.Clone(text)
		out.Async = func() {
			script, err := f.parser.Get(own)
			f.parsed = parsed{done: true, script: script, err: err}
		}
		return nil, nil, wait, nil
	default:
		script, err = f.parser.Get(text)
	}
	if err != nil {
		return nil, nil, 0, err
	}
	v, held := f.consider(script)
	if held != nothing {
		// The script is kept, so that the next call goes on with the same.
		f.parsed = parsed{done: true, script: script}
		return nil, nil, f.hold(held, out), nil
	}
	return v, script, 0, nil
}

// statementOf is what the record says of a statement: the full text where policy wants it.
func (f *frontend) statementOf(v *verdict, script *sql.Script, text []byte) record.Fragment {
	if full, _ := f.judge.Options(); !full {
		return v.statement
	}
	return statementFragment(script.RedactedText(string(text)), script.Fingerprint, v.executes...)
}
