package lineage

import (
	"slices"

	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

const (
	// maxDepth is how deeply views and functions may be made of each other.
	maxDepth = 48
	// maxWork bounds how many nodes are read for one statement, with all that it is expanded to.
	maxWork = 1_000_000
	// maxNesting bounds the recursion over one tree; the parser has let no deeper one pass.
	maxNesting = 10_000
)

// An analyzer reads one statement.
type analyzer struct {
	s       *Schema
	catalog *catalog.Catalog
	memo    *memo
	// path are the schemas of names in what is read; runtime is the search path with which bodies of functions run.
	path, runtime []string
	changed       Changed

	effects
	uses map[Use]struct{}
	// spilled are the masks of what the owner's triggers may put into rows.
	spilled Set
	// touched are the masks of the columns named since it was emptied; touchedUnknown is true after an unknown one.
	touched        Set
	touchedUnknown bool
	unknownUses    map[string]struct{}
	// within is above 0 inside of views and functions, whose own clauses are their owner's business.
	within int
	// made is what the statement changes itself; morePath are schemas that it adds to the search path.
	made     Changed
	morePath []string
	// declares and fetches are the names of cursors.
	declares, fetches string

	depth, work, nesting int
	// functions are those whose bodies are being read, to stop at recursion; views too.
	functions, views []uint32
	// writes are the relations whose defaults and constraints were read.
	writes []uint32
	// cut is true after something was left out because of recursion or a bound: what is remembered must not come of it.
	cut bool
	// A function that can not be read is not the statement's fault inside of what belongs to the database's owner: there views, whose columns
	// it makes unknown, and tables, whose defaults, constraints and generated columns are taken to use no more than they are given.
	owner, tables int
}

// effects are what reading something does to the statement around it.
type effects struct {
	reach Set
	// called are the masks that functions reach by their bodies: a plan may show what they gave.
	called  Set
	denied  string
	pending string // denied for, if the statement reaches any mask at all
	changes bool
	missing bool
}

// add joins the effects of a part.
func (e *effects) add(other effects) {
	e.reach = e.reach.Union(other.reach)
	e.called = e.called.Union(other.called)
	if e.denied == "" {
		e.denied = other.denied
	}
	if e.pending == "" {
		e.pending = other.pending
	}
	e.changes = e.changes || other.changes
	e.missing = e.missing || other.missing
}

// deny keeps the first reason.
func (a *analyzer) deny(reason string) {
	if a.denied == "" {
		a.denied = reason
	}
}

// unknown is a value of which nothing is known.
func (a *analyzer) unknown() value { return value{unknown: true} }

// anything is a value that may contain every masked column of the database.
func (a *analyzer) anything() value {
	a.reach = a.reach.Union(a.s.masks)
	return value{unknown: true, masks: a.s.masks}
}

// absent is for a name that the catalog does not have.
func (a *analyzer) absent() value {
	a.missing = true
	return a.anything()
}

// store notes that a value goes where it is not masked.
func (a *analyzer) store(v value, where string) {
	switch {
	case len(v.masks) > 0:
		a.deny("a masked value would be " + where)
	case v.unknown && a.pending == "":
		a.pending = "a value that may be masked would be " + where
	}
}

// touch notes that a column is named.
func (a *analyzer) touch(v value) {
	if len(v.masks) > 0 {
		a.touched = a.touched.Union(v.masks)
	}
	a.touchedUnknown = a.touchedUnknown || v.unknown
}

// using runs f and notes the masked columns that it names as used in a place.
func (a *analyzer) using(place string, f func()) {
	touched, unknown := a.touched, a.touchedUnknown
	a.touched, a.touchedUnknown = nil, false
	f()
	a.use(place, a.touched, a.touchedUnknown)
	a.touched, a.touchedUnknown = touched.Union(a.touched), unknown || a.touchedUnknown
}

func (a *analyzer) use(place string, masks Set, unknown bool) {
	if a.within > 0 {
		return
	}
	for _, mask := range masks {
		a.uses[Use{mask, place}] = struct{}{}
	}
	if unknown {
		a.unknownUses[place] = struct{}{}
	}
}

// spend counts a node; it is false when the statement has had its share.
func (a *analyzer) spend() bool {
	a.work++
	if a.work <= maxWork && a.nesting < maxNesting {
		return true
	}
	a.cut = true
	a.deny("the statement is too complex to tell what it shows of masked columns")
	return false
}

// inside reads a view or function: with its own search path, not in sight of the statement's clauses. It is false, and f is not called,
// at the bound.
func (a *analyzer) inside(path []string, f func()) bool {
	if a.depth >= maxDepth {
		a.cut = true
		a.deny("views and functions nest too deeply to tell what they show of masked columns")
		return false
	}
	outer, touched, unknown := a.path, a.touched, a.touchedUnknown
	a.path = path
	a.depth++
	a.within++
	f()
	a.within--
	a.depth--
	a.path, a.touched, a.touchedUnknown = outer, touched, unknown
	return true
}

// implicitCasts has the functions of casts read that the server may apply to a masked value without being asked.
func (a *analyzer) implicitCasts() {
	if len(a.touched) == 0 {
		return
	}
	v := value{masks: a.touched}
	for _, c := range a.catalog.Casts() {
		f := a.catalog.Function(c.Function)
		if !c.Implicit || f == nil || f.Builtin() || f.Language == "c" {
			continue
		}
		if made := a.invoke(f, []value{v}, callShape{cast: true}); !v.masks.contains(made.masks) || made.unknown {
			a.deny("the function of an implicit cast reads masked columns")
		}
	}
}

// finish makes the statement of what was found.
func (a *analyzer) finish(columns row) Statement {
	a.reach = a.reach.Union(rowValue(columns).masks)
	st := Statement{Reach: a.reach, Added: a.spilled, Denied: a.denied, Changes: a.changes, Missing: a.missing, Opaque: columns.open,
		Declares: a.declares, Fetches: a.fetches, Changed: a.made}
	if st.Denied == "" && a.pending != "" && !a.reach.Empty() && a.s.options.Strict {
		st.Denied = a.pending
	}
	if !columns.open {
		st.Columns = make([]Value, len(columns.fields))
		for i, f := range columns.fields {
			st.Columns[i] = f.value.export(a.reach)
		}
	}
	for place := range a.unknownUses {
		for _, mask := range a.reach {
			a.uses[Use{mask, place}] = struct{}{}
		}
	}
	for use := range a.uses {
		st.Uses = append(st.Uses, use)
	}
	slices.SortFunc(st.Uses, func(x, y Use) int {
		if x.Mask != y.Mask {
			return x.Mask - y.Mask
		}
		if x.Place < y.Place {
			return -1
		}
		return 1
	})
	return st
}
