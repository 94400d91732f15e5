package postgres

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/sql"
	"github.com/sallyport-dev/sallyport/pkg/sql/lineage"
)

const (
	// maxTraces and maxTraceBytes bound what a session remembers.
	maxTraces     = 1024
	maxTraceBytes = 4 << 20
	// maxCursors is how many names of cursors a session remembers; what it forgets is unknown.
	maxCursors = 1024
	// missedAge is how old a picture of the catalog has to be before it is looked at again for a name that it lacks.
	missedAge = time.Second
)

// A trace says where the values come from that the statements of a text give and use. It is of one catalog and one set of masks.
type trace struct {
	*applied
	text       string
	view       *view               // nil when no mask names columns
	at         lineage.Session     // in which it is so
	statements []lineage.Statement // … and these are empty then
	shapes     []*shape            // of the last results of each
	reach      bool                // a statement can reach a masked value
	missing    bool                // a name is not in the catalog
	denied     string              // why it is not to run
	deniedBy   string              // the policy whose mask says so; "" when it is not the word of one
	holds      []*policy.Approval  // what masks want approved before it runs
}

// A view is the picture of the catalog that a session's traces are of. An idle session keeps none, but knows which it was: many sessions
// would else keep as many old catalogs in memory.
type view struct {
	picture  *picture
	readings uint64 // readings.id
}

// A cursor is what is known of what FETCH from it gives: the union of all that had the name.
type cursor struct{ lineage.Statement }

// traced says what a text does with masked values. Without masks it is nil. When that has to wait, ok is false.
func (f *frontend) traced(text string, script *sql.Script, out *relay.Output) (t *trace, ok bool) {
	if !f.masked() {
		return nil, true
	}
	k := f.masks
	if !k.rules.HasColumns() {
		return k.lookedThrough(text, script), true
	}
	if err := k.failed; err != nil {
		k.failed = nil
		return &trace{applied: k.applied, text: text, denied: "the catalog of the database can not be read: " + err.Error()}, true
	}
	now := k.taken
	if k.taken = nil; now == nil || now.began.Before(k.after) {
		if now = k.pictures.Now(k.after); now == nil {
			k.take(out)
			return nil, false
		}
	}
	if k.view == nil || now.shared.id != k.view.readings || k.path != f.pathChange {
		k.traces, k.view, k.path = nil, &view{readings: now.shared.id}, f.pathChange
	}
	k.view.picture = now
	if t = k.traces[text]; t == nil {
		if t = k.analysed; t == nil || t.text != text || t.view != k.view || t.applied != k.applied {
			a, v, at := k.applied, k.view, lineage.Session{SearchPath: f.pathWith(script), Changed: k.changed}
			if len(text) >= asyncText {
				k.taken = now
				out.Async = func() { k.analysed = a.analyse(text, now, v, at) }
				return nil, false
			}
			t = a.analyse(text, now, v, at)
		}
		k.analysed = nil
		if t.missing && time.Since(now.ended) > missedAge {
			k.after = time.Now()
			k.take(out)
			return nil, false
		}
		k.remember(t)
	}
	return f.resolve(t, script), true
}

func (k *masking) remember(t *trace) {
	if k.traces == nil || len(k.traces) >= maxTraces || k.bytes >= maxTraceBytes {
		k.traces, k.bytes = map[string]*trace{}, 0
	}
	k.traces[t.text] = t
	k.bytes += len(t.text)
}

// lookedThrough is the trace of a text when no mask names columns: there are the detectors, and no lineage.
func (k *masking) lookedThrough(text string, script *sql.Script) *trace {
	t := k.traces[text]
	if t == nil {
		t = &trace{applied: k.applied, text: text, shapes: make([]*shape, len(script.Statements))}
		k.remember(t)
	}
	return t
}

// take asks to be called again when there is a newer picture of the catalog.
func (k *masking) take(out *relay.Output) {
	after := k.after
	out.Async = func() { k.taken, k.failed = k.pictures.Take(after) }
}

// pathWith is the search path with all that the statements of a script may add to it.
func (m *machine) pathWith(script *sql.Script) []string {
	path := m.searchPath
	for _, st := range script.Statements {
		path = m.withChanges(path, st)
	}
	return path
}

// analyse finds the lineage of a text.
func (a *applied) analyse(text string, now *picture, v *view, at lineage.Session) *trace {
	t := &trace{applied: a, text: text, view: v, at: at}
	var err error
	if t.statements, err = now.analyse(text, a.rules, at); err != nil {
		t.denied = err.Error()
	}
	t.judge()
	return t
}

// judge looks at all statements.
func (t *trace) judge() {
	t.shapes, t.holds = make([]*shape, len(t.statements)), nil
	for i := range t.statements {
		st := &t.statements[i]
		t.reach = t.reach || !st.Reach.Empty()
		t.missing = t.missing || st.Missing
		if t.denied == "" {
			t.denied = st.Denied
		}
		for _, use := range st.Uses {
			switch by := t.rules.Mask(use.Mask); {
			case t.denied == "" && by.Inference == v1alpha1.InferenceDeny:
				t.denied, t.deniedBy = fmt.Sprintf("a column of mask %q may not be used in %s", by.Name, use.Place), by.Policy
			case by.Inference == v1alpha1.InferenceApprove && !slices.ContainsFunc(t.holds, func(a *policy.Approval) bool { return a.Policy == by.Policy && a.Rule == by.Name }):
				t.holds = append(t.holds, policy.ApprovalOf(by.Policy, by.Name, "it uses a masked column in "+use.Place, by.Approval))
			}
		}
	}
}

// resolve is a trace with what the session knows of the prepared statements that it executes and the cursors that it fetches from.
func (f *frontend) resolve(t *trace, script *sql.Script) *trace {
	if t.denied != "" {
		return t
	}
	if len(t.statements) != len(script.Statements) {
		return &trace{applied: t.applied, text: t.text, denied: "the statements of the text can not be told apart"}
	}
	var resolved *trace
	for i, st := range script.Statements {
		var with lineage.Statement
		switch own := &t.statements[i]; {
		case st.Executes != "":
			with = f.executedTrace(t, script, i)
		case own.Fetches != "":
			with = f.fetched(t, i)
		default:
			continue
		}
		if resolved == nil {
			resolved = &trace{applied: t.applied, text: t.text, view: t.view, at: t.at, statements: append([]lineage.Statement(nil), t.statements...)}
		}
		resolved.statements[i] = with
	}
	if resolved == nil {
		return t
	}
	resolved.judge()
	return resolved
}

// executedTrace is what the EXECUTE at i does: what was prepared, with arguments that may read something too.
func (f *frontend) executedTrace(t *trace, script *sql.Script, i int) lineage.Statement {
	name, own := script.Statements[i].Executes, t.statements[i]
	inner := lineage.Statement{Opaque: true, Reach: t.view.picture.schema(t.rules).Masks(), Denied: fmt.Sprintf("prepared statement %q was prepared before there were masks; prepare it again", quoteName(name))}
	prepared := false
	for j := i - 1; j >= 0 && !prepared; j-- { // the last in the same text is what counts
		if prepared = script.Statements[j].Prepares == name; prepared {
			inner = t.statements[j]
		}
	}
	if b := f.statements.find([]byte(name)); !prepared && b != nil {
		if p, known := f.statements.now(b, f.batch); known && p != nil && p.source != nil {
			of := f.masks.traces[*p.source]
			if of == nil {
				of = t.applied.analyse(*p.source, t.view.picture, t.view, lineage.Session{SearchPath: f.pathWith(p.script), Changed: f.masks.changed})
				f.masks.remember(of)
			}
			if p.index < len(of.statements) {
				inner = of.statements[p.index]
			}
			if of.denied != "" {
				inner.Denied = of.denied
			}
		}
	}
	reads := !inner.Reach.Empty()
	inner.Reach = inner.Reach.Union(own.Reach)
	inner.Uses = append(append([]lineage.Use(nil), inner.Uses...), own.Uses...)
	inner.Changes, inner.Changed = inner.Changes || own.Changes, inner.Changed.Union(own.Changed)
	inner.Missing, inner.Declares, inner.Fetches = false, "", ""
	switch verb := script.Statements[i].Units[0].Verb; {
	case own.Denied != "":
		inner.Denied = own.Denied
	case verb != "EXECUTE" && reads: // EXPLAIN, CREATE TABLE AS
		inner.Denied = verb + " of a prepared statement that reads masked columns"
	case verb != "EXECUTE":
		inner.Columns, inner.Opaque = own.Columns, own.Opaque
	case !own.Reach.Empty(): // an argument is a value of the statement's
		inner.Columns, inner.Opaque = nil, true
	}
	return inner
}

// fetched is what the FETCH at i gives.
func (f *frontend) fetched(t *trace, i int) lineage.Statement {
	with := t.statements[i]
	name := with.Fetches
	known := f.masks.cursors[name]
	for j := i - 1; j >= 0; j-- { // one that the same text declares
		if t.statements[j].Declares == name {
			known = known.or(&t.statements[j])
		}
	}
	if known == nil || !certainName(name) {
		with.Columns, with.Opaque, with.Reach = nil, true, t.view.picture.schema(t.rules).Masks()
		return with
	}
	with.Columns, with.Opaque, with.Reach, with.Added = known.Columns, known.Opaque, known.Reach, known.Added
	return with
}

// or is what is known of a cursor when the name may stand for another one as well.
func (c *cursor) or(st *lineage.Statement) *cursor {
	switch {
	case c == nil:
		return &cursor{lineage.Statement{Columns: st.Columns, Opaque: st.Opaque, Reach: st.Reach, Added: st.Added}}
	case reflect.DeepEqual(c.Columns, st.Columns) && reflect.DeepEqual(c.Reach, st.Reach) && reflect.DeepEqual(c.Added, st.Added):
		return c
	}
	return &cursor{lineage.Statement{Opaque: true, Reach: c.Reach.Union(st.Reach), Added: c.Added.Union(st.Added)}}
}

// names notes what FETCH from a cursor, or from a portal of that name, gives from now on.
func (k *masking) names(name string, st *lineage.Statement) {
	if before := k.cursors[name]; before != nil || len(k.cursors) < maxCursors {
		k.cursors[name] = before.or(st)
	}
}

// runs notes what the statements of a trace may change when they reach the server.
func (m *machine) runs(t *trace) {
	if t == nil {
		return
	}
	k := m.masks
	for i := range t.statements {
		st := &t.statements[i]
		if st.Declares != "" {
			k.names(st.Declares, st)
		}
		if st.Changes {
			k.altered, k.changed, k.traces = true, k.changed.Union(st.Changed), nil
		}
	}
}
