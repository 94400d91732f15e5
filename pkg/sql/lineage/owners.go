package lineage

import (
	"strings"
	"unicode/utf8"

	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
)

// fires notes what rules and triggers do beside a change of r. They are its owner's, who may let them read and store what he likes;
// but what they say in notices and errors, and put into the rows that RETURNING shows, is shown to whoever makes the change.
// It is true where a rule or an INSTEAD OF trigger may have the rows of any query come in the place of those.
func (a *analyzer) fires(r *catalog.Relation, seen map[uint32]bool) (ruled bool) {
	if seen[r.OID] {
		return false
	}
	seen[r.OID] = true
	if r.Rules && (r.Schema != "pg_catalog" || r.OID >= catalog.FirstUserOID) {
		a.reach = a.reach.Union(a.s.masks)
		ruled = true
	}
	for _, t := range r.Triggers {
		told := a.s.masks
		if f := a.catalog.Function(t.Function); f != nil {
			told = a.told(f, map[uint32]bool{})
		}
		if t.Instead {
			told, ruled = a.s.masks, true
		}
		a.reach = a.reach.Union(told)
		if t.Before || t.Instead {
			a.spilled = a.spilled.Union(told)
		}
	}
	for _, oid := range r.Children {
		if child := a.catalog.Relation(oid); child != nil {
			a.fires(child, seen)
		}
	}
	return ruled
}

// told are the masks of all that the body of a trigger's function names, and the functions that it names in turn. A body that
// makes statements of text, or is in another language, may name anything.
func (a *analyzer) told(f *catalog.Function, seen map[uint32]bool) (masks Set) {
	switch {
	case f.Builtin(), seen[f.OID], a.s.options.Trusted(f.Schema, f.Name):
		return nil
	case f.Language != "plpgsql" && f.Language != "sql":
		if harmless[f.Extension] || !a.s.options.Strict {
			return nil
		}
		return a.s.masks
	}
	seen[f.OID] = true
	eachName(f.Body+" "+f.SQLBody, func(name string) bool {
		if name == "execute" && a.s.options.Strict || a.changed.dirty(name) || !a.spend() {
			masks = a.s.masks
			return false
		}
		for _, r := range a.catalog.RelationsNamed(name) {
			masks = masks.Union(rowValue(a.relation(r)).masks)
		}
		for _, g := range a.catalog.FunctionsNamed(name) {
			if g.Builtin() && isRefused(name) {
				masks = a.s.masks
				return false
			}
			masks = masks.Union(a.told(g, seen))
		}
		return true
	})
	return masks
}

// eachName calls f with every word of a text as the catalog would spell it, and with what is in double quotes, until f is false.
// Comments and constants are not left out: a name too many does no harm.
func eachName(text string, f func(name string) bool) {
	for len(text) > 0 {
		if quoted, ok := strings.CutPrefix(text, `"`); ok {
			// The words in it are found too: the quote may be one of a constant.
			if name, _, ok := strings.Cut(quoted, `"`); ok && !f(name) {
				return
			}
			text = quoted
			continue
		}
		n := 0
		for n < len(text) && isWord(text[n]) {
			n++
		}
		if n > 0 && !f(strings.ToLower(text[:n])) {
			return
		}
		text = text[max(n, 1):]
	}
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf
}
