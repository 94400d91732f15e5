package mask

import (
	"strings"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// detect makes what looks for the detectors' finds in text that no mask names; nil for types without text.
func (b *builder) detect(t *Type, mod int32, depth int) rewrite {
	if !b.rules.Detects() {
		return nil
	}
	if depth > maxDepth {
		return null
	}
	switch {
	case t == nil:
		return b.scanned()
	case t.Kind == Domain:
		if mod < 0 {
			mod = t.Mod
		}
		return b.build(Contents{}, t.Element, mod, depth+1)
	case t.Kind == Array:
		return b.array(b.build(Contents{}, t.Element, mod, depth+1), t)
	case t.Kind == Composite:
		return b.composite(Contents{}, t, depth)
	case t.Kind == Range || t.Kind == Multirange:
		if t.Element == nil || b.build(Contents{}, t.Element, -1, depth+1) != nil {
			return b.scanned()
		}
		return nil
	case isText(t):
		return fit(b.found(false), limitOf(t, mod), t.OID == oidBpchar && mod > 4)
	case isJSON(t):
		j := &jsonText{str: b.found(false), number: b.scannedNumber()}
		return b.versioned(j.rewrite, t)
	case t.OID == oidXML:
		return b.found(true)
	case t.OID == oidTsvector || t.OID == oidTsquery || t.OID >= firstNormalOID && t.Kind == Base:
		return b.scanned()
	}
	return nil
}

// scanned makes a value NULL that has something in it: for types whose layout is not known.
func (b *builder) scanned() rewrite {
	f := b.found(false)
	return func(dst, value []byte) ([]byte, bool) {
		before := len(dst)
		made, isNull := f(dst, value)
		return made, isNull || string(made[before:]) != string(value)
	}
}

// scannedNumber makes a number of JSON 0 that is one of those that are looked for.
func (b *builder) scannedNumber() rewrite {
	f := b.scanned()
	return func(dst, value []byte) ([]byte, bool) {
		if made, isNull := f(dst, value); !isNull {
			return made, false
		}
		return append(dst, '0'), false
	}
}

// found replaces what detectors find. markup has what is put in place of it stay well-formed.
func (b *builder) found(markup bool) rewrite {
	enabled := b.rules.detects
	replace := make([]rewrite, len(b.rules.masks))
	for i := range b.rules.masks {
		m := &b.rules.masks[i]
		switch m.with {
		case v1alpha1.MaskPartial:
			replace[i] = partialText
		case v1alpha1.MaskHash:
			replace[i] = hashText(m.key, 0, false)
		case v1alpha1.MaskFixed:
			replace[i] = always(m.value)
			if markup && strings.ContainsAny(m.value, "<>&") {
				replace[i] = null
			}
		case v1alpha1.MaskNull:
			replace[i] = null
		default:
			replace[i] = always(redacted)
		}
	}
	return func(dst, value []byte) ([]byte, bool) {
		copied := 0
		for at := 0; ; {
			f, ok := find(value, at, copied, enabled)
			if !ok {
				return append(dst, value[copied:]...), false
			}
			i := b.rules.detecting(f.detector)
			if b.options.Tally != nil {
				b.options.Tally[i]++
			}
			dst = append(dst, value[copied:f.start]...)
			replacement := replace[i]
			if f.detector&secrets != 0 && b.rules.masks[i].with == v1alpha1.MaskPartial {
				replacement = always(redacted) // no part of a key is for anybody
			}
			made, isNull := replacement(dst, value[f.start:f.end])
			if isNull {
				return nil, true
			}
			dst, copied, at = made, f.end, f.end
		}
	}
}
