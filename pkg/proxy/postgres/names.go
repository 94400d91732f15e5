package postgres

import (
	"slices"

	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

const (
	// maxNames is how many prepared statements, and how many portals, a session may name.
	maxNames = 64 << 10
	// maxNamedBytes bounds the memory of each of the two, as far as it can be told.
	maxNamedBytes = 64 << 20
)

// A plan is a prepared statement: what running it does.
type plan struct {
	script *sql.Script
	units  []sql.Unit // what EXECUTE of it adds to policy's view
	text   string     // the full text, where the record is to hold it
	inner  bool       // PREPARE made it, so it is not all of the script
	raw    string     // the text as it came, where a rule may hold the statement; "" is not known
	types  string     // of the parameters, as Parse gave them; with raw
	source *string    // with masks: the text that it is in, as statement index
	index  int

	parameters record.Fragment // of the last Bind, which mostly serves for the next
	count      int
}

// innerPlan is what PREPARE makes.
func innerPlan(script *sql.Script, st *sql.Statement) *plan {
	return &plan{script: script, units: st.Units[1:], inner: true}
}

// nested is true for a prepared EXECUTE, which only a Parse message can make.
func (p *plan) nested() bool {
	return !p.inner && slices.ContainsFunc(p.script.Statements, func(st *sql.Statement) bool { return st.Executes != "" })
}

// size is about how many bytes the plan keeps alive.
func (p *plan) size() int {
	const perPlan, perUnit = 256, 256
	if p == nil {
		return 0
	}
	n := perPlan + 2*len(p.script.Normalised) + len(p.text) + len(p.raw) + len(p.types) + perUnit*len(p.units)
	if p.source != nil {
		n += len(*p.source)
	}
	return n
}

// recorded is the text that stands in a record for the plan.
func (p *plan) recorded() string {
	if p.text != "" {
		return p.text
	}
	return p.script.Normalised
}

// countParameters is the record's word on the values of a Bind, of which r is at the parameters' formats.
func (p *plan) countParameters(r *reader) record.Fragment {
	for range r.uint16() {
		r.uint16()
	}
	n := r.uint16()
	if p.parameters == nil || p.count != n {
		p.count, p.parameters = n, record.NewFragment(map[string]any{"parameters": map[string]int{"count": n}})
	}
	return p.parameters
}

// A portal is a plan with parameters bound.
type portal struct {
	plan       *plan
	parameters record.Fragment
	verdict    *verdict // at the time of the Bind
	cursors    uint64   // machine.cursors at that time
	bound      string   // digest of the parameters, where the Bind was held
}

func (p portal) size() int { return len(p.parameters) }

// sized is what names can count.
type sized interface{ size() int }

// A binding is what one name stands for. Changes take effect in the order in which they were sent, unless the server refuses one, and then it skips
// everything up to the next Sync. So within one batch (up to Sync) the last change sent is what holds for what follows;
// across batches only what the server confirmed does.
type binding[T sized] struct {
	name  string
	value T      // confirmed; none when nothing is, or when it is uncertain
	epoch uint64 // of the names when value was confirmed
	bound bool   // there is a value, if the epoch has not ended

	next    T      // last sent
	pending int    // changes sent that the server has not answered
	at      uint64 // the number of next among all changes sent
	batch   uint64 // of next
	charged int    // what it counts for in names.bytes

	listed bool // in machine.unrun
}

// names are the names of one kind in a session; "" is the unnamed one, which no sweep touches.
type names[T sized] struct {
	unnamed binding[T]
	named   map[string]*binding[T]
	bytes   int    // of all values, pending ones too
	epoch   uint64 // grows when the server drops all that is named: what was confirmed before is gone
	sends   uint64
	stale   bool // an epoch ended since the last purge

	sweeps struct { // changes to all names at once: DEALLOCATE ALL
		pending   int
		at, batch uint64 // of the last
	}
}

// find is nil when nothing was ever bound to the name.
func (n *names[T]) find(name []byte) *binding[T] {
	if len(name) == 0 {
		return &n.unnamed
	}
	return n.named[string(name)]
}

// get is the binding of a name; nil when there are too many.
func (n *names[T]) get(name []byte) *binding[T] {
	if b := n.find(name); b != nil {
		return b
	}
	if full := func() bool { return len(n.named) >= maxNames || n.bytes >= maxNamedBytes }; full() {
		if n.purge(); full() {
			return nil
		}
	}
	if n.named == nil {
		n.named = map[string]*binding[T]{}
	}
	b := &binding[T]{name: string(name)}
	n.named[b.name] = b
	return b
}

// purge forgets what ended with an epoch; once for each, so that a full session costs no more than another.
func (n *names[T]) purge() {
	if !n.stale {
		return
	}
	n.stale = false
	for _, b := range n.named {
		if b.pending == 0 {
			n.settled(b)
		}
	}
}

// send notes a change on its way to the server.
func (n *names[T]) send(b *binding[T], v T, batch uint64) {
	n.sends++
	b.next, b.at, b.batch = v, n.sends, batch
	b.pending++
	n.charge(b, v.size())
}

func (n *names[T]) charge(b *binding[T], bytes int) {
	b.charged += bytes
	n.bytes += bytes
}

// confirm notes that the server made the change.
func (n *names[T]) confirm(b *binding[T], v T) {
	b.value, b.bound, b.epoch = v, true, n.epoch
	n.settle(b)
}

// unset notes that the server closed what b names, or that it is uncertain what b names.
func (n *names[T]) unset(b *binding[T]) {
	var none T
	b.value, b.bound = none, false
	n.settle(b)
}

// settle notes that a change was made or refused.
func (n *names[T]) settle(b *binding[T]) {
	if b.pending > 0 {
		b.pending--
	}
	if b.pending == 0 {
		n.settled(b)
	}
}

// settled drops what is not needed any more of a binding that nothing is pending for.
func (n *names[T]) settled(b *binding[T]) {
	var none T
	b.next = none
	kept := 0
	if n.live(b) {
		kept = b.value.size()
	} else {
		b.value, b.bound = none, false
		if b != &n.unnamed && n.named[b.name] == b {
			delete(n.named, b.name)
		}
	}
	n.charge(b, kept-b.charged)
}

func (n *names[T]) live(b *binding[T]) bool {
	return b.bound && (b.epoch == n.epoch || b == &n.unnamed)
}

// sweep notes that the server dropped all names that it had confirmed.
func (n *names[T]) sweep() {
	if len(n.named) > 0 {
		n.epoch++
		n.stale = true
	}
}

// sendSweep notes that a command to drop all names is on its way.
func (n *names[T]) sendSweep(batch uint64) {
	n.sends++
	n.sweeps.pending++
	n.sweeps.at, n.sweeps.batch = n.sends, batch
}

// settleSweep notes the command's end. Answers come in order, so what is still pending was sent after it.
func (n *names[T]) settleSweep(made bool) {
	n.sweeps.pending--
	if made {
		n.sweep()
	}
}

// now is what the name stands for when a message of batch reaches the server; known is false while that depends on answers due.
func (n *names[T]) now(b *binding[T], batch uint64) (v T, known bool) {
	switch {
	case n.sweeps.pending > 0 && b != &n.unnamed && (b.pending == 0 || b.at < n.sweeps.at):
		return v, n.sweeps.batch == batch
	case b.pending > 0 && b.batch == batch:
		return b.next, true
	case b.pending > 0:
		return v, false
	case n.live(b):
		return b.value, true
	}
	return v, true
}
