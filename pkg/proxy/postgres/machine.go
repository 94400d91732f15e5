package postgres

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/mask"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// A judge decides on what a client asks and records it: the shared session.
type judge interface {
	// Decide is policy's word on the units of one statement.
	Decide(units []sql.Unit, searchPath []string) policy.Decision
	// Admit records an operation before it is forwarded; it counts the decision. An error means: do not forward.
	Admit(op *record.Operation, d policy.Decision) (uint64, error)
	// Added counts how long it took from reading an operation to having it recorded.
	Added(d time.Duration)
	// Finish records how an admitted operation ended.
	Finish(r *record.Result)
	// Note records something else.
	Note(kind string, detail record.Fragment)
	// Revision changes whenever a decision may have.
	Revision() uint64
	// Options say how much is recorded.
	Options() (fullText, fullParameters bool)
	asker
	// Masks are what results do not show; nil for most sessions.
	Masks() *mask.Rules
	// Masked counts values that a mask was applied to.
	Masked(policy, mask string, values uint64)
}

// parser is the shared cache of pkg/sql.
type parser interface {
	Get(text []byte) (*sql.Script, error)
}

// maxResults is how many results wait for Settle.
const maxResults = 8

// A machine is what both directions of a relayed session share. The relay package never runs both at once.
type machine struct {
	judge   judge
	parser  parser
	session string // id, for what the client sees

	due        inflight
	statements names[*plan]
	portals    names[portal]
	unrun      []*binding[portal] // bound and not executed, so not recorded yet
	cursors    uint64             // how many DECLAREs were sent
	batch      uint64             // grows with every Sync and Query that is sent
	open       bool               // something was sent after the last Sync or Query: its transaction may not have ended
	skipping   bool               // the server has refused something, or will: it skips to Sync, and so does the relay
	status     byte               // of the last ReadyForQuery: 'I', 'T' or 'E'
	copyIn     bool               // the server reads CopyData
	backendMid bool               // the client has seen only a part of a server's message
	serverMid  bool               // a server's message has not come wholly
	draining   bool
	ended      bool       // the client said Terminate
	expired    bool       // the lease did
	keep       bool       // the connection is to be kept for another session
	reset      resetStage // for that

	searchPath []string // every schema that an unqualified name may resolve to
	role       string   // what "$user" in a search path stands for
	pathChange uint64
	madeSchema bool // so what the search path resolved to at login may not hold for the next session

	verdicts     map[*sql.Script]*verdict
	verdictBytes int
	judged       uint64 // revision and pathChange of the verdicts
	underway     consideration

	waiting  *heldMessage // a message that waits for people
	holding  *holding     // where a CancelRequest finds it; nil until it is needed, unless the session was made with one
	masks    *masking     // nil while no policy masks anything
	pictures pictures     // for masks
	source   *string      // with masks: the text that is on its way to the server

	parameters map[string]string // what the server reported last
	errors     []byte            // room for encoding
	results    []record.Result   // of operations that have ended, to be recorded by Settle
}

// Drain ends the session at the next moment at which nothing is lost by it; for relay.Link.Inject.
func (m *machine) Drain(out *relay.Output) error {
	m.draining = true
	if m.reset != notReset || !m.idle() && !m.held() {
		return nil
	}
	return m.Cut(out)
}

// Cut ends the session now; for relay.Link.Inject.
func (m *machine) Cut(out *relay.Output) error { return m.part(out, shutdown(m.session)) }

// Expire ends the session because its lease has ended; for relay.Link.Inject.
func (m *machine) Expire(out *relay.Output) error {
	m.expired = true
	return m.part(out, fatal(codeAdminShutdown, "terminating connection: the session's credential has expired", m.session))
}

// part tells the client why the session ends, unless that would come in the middle of a message.
func (m *machine) part(out *relay.Output, why *denial) error {
	if !m.backendMid && !m.ended {
		out.Forward(m.encode(why))
	}
	return relay.ErrDone
}

// idle is true between transactions, with nothing due.
func (m *machine) idle() bool {
	return m.due.n == 0 && m.status == 'I' && !m.open && !m.skipping && !m.serverMid && !m.copyIn
}

// sent notes what an admitted script may change when it reaches the server, and gives back what its end decides on.
func (m *machine) sent(script *sql.Script, raw func() string) (changes []change) {
	for i, st := range script.Statements {
		if path := m.withChanges(m.searchPath, st); len(path) > len(m.searchPath) {
			m.searchPath = path
			m.pathChange++
		}
		for j := range st.Units {
			switch st.Units[j].Verb {
			case "DECLARE CURSOR":
				m.cursors++
			case "CREATE SCHEMA", "ALTER SCHEMA":
				m.madeSchema = true
			}
		}
		if st.Prepares != "" {
			if b := m.statements.get([]byte(st.Prepares)); b != nil {
				p := innerPlan(script, st)
				p.raw = raw()
				p.source, p.index = m.source, i
				m.statements.send(b, p, m.batch)
				changes = append(changes, change{b, p})
			}
		}
		if st.Deallocates != "" {
			if b := m.statements.find([]byte(st.Deallocates)); b != nil {
				m.statements.send(b, nil, m.batch)
				changes = append(changes, change{binding: b})
			}
		}
		if st.DeallocatesAll {
			m.statements.sendSweep(m.batch)
			changes = append(changes, change{})
		}
	}
	return changes
}

// withChanges is a search path with what a statement may add to it.
func (m *machine) withChanges(path []string, st *sql.Statement) []string {
	add := func(schema string) {
		if schema == "$user" {
			schema = m.role
		}
		if !slices.Contains(path, schema) {
			path = append(path[:len(path):len(path)], schema)
		}
	}
	if st.SearchPathChanged {
		for _, schema := range st.SearchPath {
			add(schema)
		}
	}
	for i := range st.Units {
		if role := st.Units[i].Role; role != "" {
			add(role) // "$user" follows the current role
		}
	}
	return path
}

// done makes the changes of an operation that the server has run. A single statement that failed changed nothing; where one of
// several failed, it is uncertain which of them ran.
func (m *machine) done(e *expected, failed bool) {
	for _, c := range e.changes {
		switch uncertain := failed && e.several; {
		case c.binding == nil:
			m.statements.settleSweep(!failed || uncertain)
		case failed && !uncertain:
			m.statements.settle(c.binding)
		case uncertain || c.plan == nil:
			m.statements.unset(c.binding)
		default:
			m.statements.confirm(c.binding, c.plan)
		}
	}
	e.changes = nil
}

// next takes the answered message in front off the queue.
func (m *machine) next() {
	m.due.pop()
	for e := m.due.front(); e != nil && e.kind == dueCopyEnd; e = m.due.front() {
		m.due.pop() // the server ignored it, because it was not reading CopyData
	}
}

// forgetAfterError drops what the server skips after an error: everything up to the next Sync.
func (m *machine) forgetAfterError() {
	for m.due.n > 0 && m.due.front().kind != dueSync {
		m.forget(m.due.front(), "skipped")
		m.due.pop()
	}
	// Without a Sync on its way, what the client sends from here on is skipped too.
	m.skipping = m.skipping || m.due.n == 0
}

// Abandon records what was still due when the session ended.
func (m *machine) Abandon() {
	for ; m.due.n > 0; m.due.pop() {
		m.forget(m.due.front(), "interrupted")
	}
	m.Settle()
}

// forget undoes what an expected answer would have confirmed.
func (m *machine) forget(e *expected, why string) {
	if e.statement != nil {
		m.statements.settle(e.statement)
	}
	if e.portal != nil {
		m.portals.settle(e.portal)
	}
	// A skipped string did nothing; of an interrupted one nobody asks any more.
	e.several = false
	m.done(e, true)
	m.finish(e, why)
}

// finish records the end of an operation.
func (m *machine) finish(e *expected, sqlstate string) {
	if e.op == 0 {
		return
	}
	rows := e.rows
	if e.counted {
		rows = e.tagged
	}
	if len(m.results) == maxResults {
		m.Settle()
	}
	r := record.Result{Operation: e.op, Rows: rows, Bytes: e.bytes, Duration: sinceStart() - e.started, Error: sqlstate}
	if e.masked != nil {
		r.Masked = m.maskedFragment(e.masked.applied)
	}
	m.results = append(m.results, r)
	e.op = 0
}

// Settle implements relay.Settler for both directions: it records how operations ended when the client has its answers.
func (m *machine) Settle() {
	for i := range m.results {
		m.judge.Finish(&m.results[i])
	}
	m.results = m.results[:0]
}

// safeParameter is an error for a reported parameter under which the server reads text in another way than the parser does.
func safeParameter(name, value string) error {
	switch {
	case name == "standard_conforming_strings" && value != "on":
		return fmt.Errorf("the server reads strings with standard_conforming_strings=%s; only on can be decided on", value)
	case name == "client_encoding" && !sql.SafeClientEncoding(value):
		return fmt.Errorf("client encoding %s can not be decided on", value)
	}
	return nil
}

var processStart = time.Now()

// sinceStart is a monotonic clock.
func sinceStart() time.Duration { return time.Since(processStart) }

// quoteName makes a name that the client chose safe to show.
func quoteName(name string) string {
	if len(name) > 63 {
		name = name[:63]
	}
	return strings.ToValidUTF8(name, "?")
}
