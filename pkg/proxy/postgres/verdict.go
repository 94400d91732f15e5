package postgres

import (
	"fmt"
	"unicode/utf8"

	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

const (
	// maxVerdicts and maxVerdictBytes bound what a session remembers.
	maxVerdicts     = 4096
	maxVerdictBytes = 4 << 20
	// unitsAtOnce is how many units are decided on before other sessions have their turn.
	unitsAtOnce = 500
	// maxSchemas is how many schemas a session's search path may have had in all.
	maxSchemas = 64
)

// A verdict is the decision on a script, with what is recorded of it, encoded once.
type verdict struct {
	decision  policy.Decision
	denied    *denial
	statement record.Fragment // with the normalised text
	fragment  record.Fragment // of the decision
	plan      *plan           // for Parse
	executes  []string        // texts of the prepared statements that it runs
	prepared  []*plan         // … and these themselves

	holds    []*policy.Approval // what has to be approved before it runs
	deferred []*policy.Approval // what has to be before that runs which it prepares
	granted  []string           // hashes of what was approved
}

// A hold says what a verdict waits for.
type hold int

const (
	nothing    hold = iota
	forAnswers      // it depends on answers that are due
	forTurn         // others have their turn first
)

// A consideration is a verdict in the making.
type consideration struct {
	*verdict
	script *sql.Script
	judged uint64
	next   int              // statement
	path   []string         // the search path, with what the statements so far may add
	names  map[string]*plan // what the statements so far prepare (nil: deallocate)
	all    bool             // … and whether they deallocate all
	bytes  int              // of executes
	rules  bool             // a rule has allowed a statement
	// depends is true when the verdict depends on what is prepared, so that it holds only this once.
	depends bool
}

// consider is the verdict on a script in this session. With a wait it is nil, and has to be asked for again.
func (m *machine) consider(script *sql.Script) (*verdict, hold) {
	now := m.judge.Revision() + m.pathChange<<32
	if now != m.judged || m.verdicts == nil || len(m.verdicts) >= maxVerdicts || m.verdictBytes >= maxVerdictBytes {
		m.verdicts, m.verdictBytes, m.judged = map[*sql.Script]*verdict{}, 0, now
		m.renewMasks()
	}
	if v := m.verdicts[script]; v != nil {
		return v, nothing
	}
	c := &m.underway
	if c.script != script || c.judged != now {
		// An empty query string does nothing.
		*c = consideration{script: script, judged: now, path: m.searchPath, verdict: &verdict{plan: &plan{script: script}}}
		c.decision = policy.Decision{Action: policy.Allow, Rule: "empty"}
	}
	first, units := c.next, 0
	for ; c.next < len(script.Statements) && c.denied == nil; c.next++ {
		st := script.Statements[c.next]
		if units += len(st.Units); units > unitsAtOnce && c.next > first {
			return nil, forTurn
		}
		if !m.considerStatement(c, st) {
			m.underway = consideration{}
			return nil, forAnswers
		}
	}
	v := c.verdict
	v.statement = statementFragment(script.Normalised, script.Fingerprint, v.executes...)
	v.fragment = decisionFragment(v.decision)
	if !c.depends {
		m.verdicts[script] = v
		m.verdictBytes += v.plan.size() + len(v.statement)
	}
	m.underway = consideration{}
	return v, nothing
}

// considerStatement decides on one statement of the string. It is false when that depends on answers that are due.
func (m *machine) considerStatement(c *consideration, st *sql.Statement) bool {
	units := st.Units
	if st.Executes != "" {
		c.depends = true
		p, d, known := m.executed(c, st.Executes)
		switch {
		case !known:
			return false
		case d != nil:
			c.deny(policy.Decision{Rule: "unknown-statement", Message: d.message}, d)
			return true
		}
		units = append(units[:len(units):len(units)], p.units...)
		c.executes, c.prepared = append(c.executes, p.recorded()), append(c.prepared, p)
		if c.bytes += len(p.recorded()); c.bytes > sql.MaxText {
			c.deny(policy.Decision{Rule: "too-long", Message: "the prepared statements that it executes are too long"}, m.tooLong(sql.MaxText))
			return true
		}
	}
	var d policy.Decision
	switch {
	case st.Denied != "":
		d = policy.Decision{Rule: "undecidable", Message: st.Denied}
	case st.Prepares != "" && !certainName(st.Prepares):
		d = policy.Decision{Rule: "undecidable", Message: "the name of the prepared statement is not ASCII, or too long"}
	case len(m.withChanges(c.path, st)) > max(maxSchemas, len(c.path)):
		d = policy.Decision{Rule: "undecidable", Message: fmt.Sprintf("the session has had more than %d schemas in its search path", maxSchemas)}
	default:
		d = m.judge.Decide(units, c.path)
	}
	if d.Action == policy.Hold {
		d = m.heldBy(c, st, d)
	}
	if d.Action == policy.Deny {
		c.deny(d, m.policyDenial(d))
		return true
	}
	if !c.rules || d.Action == policy.Hold && c.decision.Action != policy.Hold {
		c.decision, c.rules = d, true
	}
	c.plan.units = append(c.plan.units, st.Units...)
	c.path = m.withChanges(c.path, st)
	c.note(st)
	return true
}

// note remembers what later statements of the same string have to know.
func (c *consideration) note(st *sql.Statement) {
	if c.names == nil && (st.Prepares != "" || st.Deallocates != "") {
		c.names = map[string]*plan{}
	}
	switch {
	case st.DeallocatesAll:
		c.names, c.all = nil, true
	case st.Deallocates != "":
		c.names[st.Deallocates] = nil
	case st.Prepares != "":
		p := innerPlan(c.script, st)
		p.raw = withinText
		c.names[st.Prepares] = p
	}
}

func (v *verdict) deny(d policy.Decision, words *denial) {
	d.Action = policy.Deny
	v.decision, v.denied = d, words
}

// executed is what EXECUTE name runs; known is false while that depends on answers that are due.
func (m *machine) executed(c *consideration, name string) (p *plan, d *denial, known bool) {
	p, known = c.names[name]
	if !known {
		if b := m.statements.find([]byte(name)); b != nil && !c.all {
			if p, known = m.statements.now(b, m.batch); !known && m.due.n > 0 {
				return nil, nil, false
			}
		}
	}
	if p == nil || !certainName(name) {
		return nil, m.noSuchStatement(name), true
	}
	if p.nested() { // what it runs may be another thing by now
		return nil, m.nestedExecute(name), true
	}
	return p, nil, true
}

// certainName is true for a name in SQL that the parser and the server read alike: the server cuts a name to 63 bytes in its own
// encoding, which the parser does not know.
func certainName(name string) bool {
	const longest = 63 - utf8.UTFMax
	return len(name) <= longest && isASCII(name)
}

func isASCII[T string | []byte](name T) bool {
	for i := range len(name) {
		if name[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
