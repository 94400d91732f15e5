package mask

import (
	"slices"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// MaxValueBytes is the length up to which a value is rewritten; what is longer is replaced as a whole.
const MaxValueBytes = 1 << 20

// Format codes, as in Bind and RowDescription.
const (
	formatText   = 0
	formatBinary = 1
)

// maxDepth bounds how deep values lie in each other.
const maxDepth = 32

// Contents are what a column of a result contains.
type Contents struct {
	// Masks are those of the columns that the values are made of.
	Masks []int
	// Unchanged is true for the values of one masked column, as they are stored. What is made of values is redacted.
	Unchanged bool
	// Fields are those of a composite; nil when all of them are as the whole.
	Fields []Contents
}

// Options are of use to some Rewriters.
type Options struct {
	// Types finds the types of the fields of records, beside those of Builtin; it may be nil.
	Types func(oid uint32) *Type
	// Tally counts each value that was rewritten under the masks it was rewritten for; it is nil or as long as there are masks.
	Tally []uint64
	// Keep is true for keys of JSON objects and hstores that may stay in a value that is made of others: names and constants of the
	// statement. Without it none stay.
	Keep func(key []byte) bool
}

// A Rewriter masks the values of one column of a result. It is not for concurrent use.
type Rewriter struct {
	rewrite  rewrite
	oversize rewrite
}

// rewrite appends what becomes of a value to dst; it is true for NULL, and dst is of no meaning then.
type rewrite func(dst, value []byte) ([]byte, bool)

// Rewriter makes what masks the values of a column; it is nil when they pass as they are. t is the column's type, nil when it is
// not known, mod its modifier as RowDescription has it, format its format code.
func (r *Rules) Rewriter(c Contents, t *Type, mod int32, format int16, o Options) *Rewriter {
	if r == nil {
		return nil
	}
	if format != formatText && format != formatBinary {
		return &Rewriter{null, null}
	}
	b := &builder{rules: r, format: format, options: o}
	made := b.build(c, t, mod, 0)
	if made == nil {
		return nil
	}
	w := &Rewriter{rewrite: made, oversize: null}
	masks := c.all(nil)
	if len(masks) > 0 {
		w.rewrite, w.oversize = b.tallied(made, masks), b.tallied(null, masks)
	}
	return w
}

// Append appends what becomes of a value, which is not NULL, to dst. With null it is NULL, and dst comes back as it was.
func (w *Rewriter) Append(dst, value []byte) (out []byte, null bool) {
	out, null = w.rewrite(dst, value)
	if null {
		return dst, true
	}
	return out, false
}

// Oversize is what becomes of a value longer than MaxValueBytes, whatever it is.
func (w *Rewriter) Oversize(dst []byte) (out []byte, null bool) {
	out, null = w.oversize(dst, nil)
	if null {
		return dst, true
	}
	return out, false
}

// all are the distinct masks of the whole and its fields.
func (c Contents) all(masks []int) []int {
	for _, m := range c.Masks {
		if !slices.Contains(masks, m) {
			masks = append(masks, m)
		}
	}
	for _, f := range c.Fields {
		masks = f.all(masks)
	}
	return masks
}

func null([]byte, []byte) ([]byte, bool) { return nil, true }

// always gives the same, whatever the value.
func always(value string) rewrite {
	return func(dst, _ []byte) ([]byte, bool) { return append(dst, value...), false }
}

type builder struct {
	rules   *Rules
	format  int16
	options Options
}

func (b *builder) tallied(f rewrite, masks []int) rewrite {
	tally := b.options.Tally
	if tally == nil {
		return f
	}
	return func(dst, value []byte) ([]byte, bool) {
		for _, m := range masks {
			tally[m]++
		}
		return f(dst, value)
	}
}

// method is how a value of the contents is rewritten.
func (b *builder) method(c Contents) (with string, m *rule) {
	if len(c.Masks) == 1 {
		m = &b.rules.masks[c.Masks[0]]
		if c.Unchanged || m.with == v1alpha1.MaskNull || m.with == v1alpha1.MaskFixed {
			return m.with, m
		}
	}
	for _, i := range c.Masks {
		if b.rules.masks[i].with == v1alpha1.MaskNull {
			return v1alpha1.MaskNull, nil
		}
	}
	return v1alpha1.MaskRedact, m
}

// build makes the rewrite of values of a type; nil leaves them as they are.
func (b *builder) build(c Contents, t *Type, mod int32, depth int) rewrite {
	if depth > maxDepth {
		return null
	}
	if len(c.Fields) > 0 && t != nil && t.Kind != Composite && t.Kind != Domain {
		// Fields of what has none: whatever it is, it contains all of them.
		c = Contents{Masks: c.all(nil)}
	}
	if len(c.all(nil)) == 0 {
		return b.detect(t, mod, depth)
	}
	if len(c.Fields) == 0 {
		if with, _ := b.method(c); with == v1alpha1.MaskNull || t == nil {
			return null
		}
	}
	switch {
	case t == nil:
		return null
	case t.Kind == Domain:
		if mod < 0 {
			mod = t.Mod
		}
		return b.build(c, t.Element, mod, depth+1)
	case t.Kind == Array:
		return b.array(b.build(c, t.Element, mod, depth+1), t)
	case t.Kind == Composite:
		return b.composite(c, t, depth)
	}
	return b.leaf(c, t, mod)
}

// leaf makes the rewrite of values that have no parts.
func (b *builder) leaf(c Contents, t *Type, mod int32) rewrite {
	with, m := b.method(c)
	switch {
	case with == v1alpha1.MaskNull:
		return null
	case with == v1alpha1.MaskFixed:
		return b.fixed(m.value, t, mod)
	case isText(t):
		return b.text(with, m, t, mod)
	case isJSON(t):
		return b.json(with, m, c.Unchanged, t)
	case isHstore(t):
		return b.hstore(with, m, c.Unchanged)
	case with == v1alpha1.MaskPartial:
		return b.partial(t, mod)
	case with == v1alpha1.MaskHash:
		return b.hash(m.key, t, mod)
	}
	return b.redact(t, mod)
}

// redact gives the neutral value of a type.
func (b *builder) redact(t *Type, mod int32) rewrite {
	switch {
	case t.Kind == Range:
		return always(emptyRange.in(b.format))
	case t.Kind == Multirange:
		return always(emptyMultirange.in(b.format))
	case t.Kind == Enum:
		return null
	case t.OID == oidNumeric:
		return always(string(b.appendNumeric(nil, 0, scaleOf(mod))))
	case t.OID == oidBit:
		// bit(n) has n bits. Without a modifier the number is the value's, of which nothing may be told when it was computed.
		if mod > 0 && mod <= 8*MaxValueBytes {
			return always(zeroBits(int(mod)).in(b.format))
		}
		return null
	case t.OID == oidVarbit:
		return always(zeroBits(0).in(b.format))
	}
	if value, ok := neutral[t.OID]; ok {
		return always(value.in(b.format))
	}
	return null
}
