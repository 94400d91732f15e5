package mask

import (
	"bytes"
	"unicode/utf8"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// text masks values whose text is the value in both formats. The longest that the type takes is kept to, by characters.
func (b *builder) text(with string, m *rule, t *Type, mod int32) rewrite {
	limit := limitOf(t, mod)
	var f rewrite
	switch with {
	case v1alpha1.MaskHash:
		f = hashText(m.key, limit, t.OID == oidBpchar)
	case v1alpha1.MaskPartial:
		f = partialText
	default:
		f = always(redacted)
	}
	return fit(f, limit, t.OID == oidBpchar && limit > 0)
}

// limitOf is how many characters a type takes, 0 for any number. PostgreSQL's modifier of strings counts a header of 4 bytes in.
func limitOf(t *Type, mod int32) int {
	switch t.OID {
	case oidVarchar, oidBpchar:
		if mod > 4 {
			return int(mod) - 4
		}
	case oidName:
		return 63 // NAMEDATALEN - 1, in bytes; what is made here is shorter in both
	}
	return 0
}

// fit cuts what f makes to the limit, and fills it up with spaces where the type has one length.
func fit(f rewrite, limit int, pad bool) rewrite {
	if limit == 0 {
		return f
	}
	return func(dst, value []byte) ([]byte, bool) {
		start := len(dst)
		dst, null := f(dst, value)
		if null {
			return dst, true
		}
		dst, n := cut(dst, start, limit)
		for ; pad && n < limit; n++ {
			dst = append(dst, ' ')
		}
		return dst, false
	}
}

// cut shortens what follows start to at most limit characters, and says how many they are.
func cut(dst []byte, start, limit int) ([]byte, int) {
	n := 0
	for i := start; i < len(dst); n++ {
		if n == limit {
			return dst[:i], n
		}
		_, size := utf8.DecodeRune(dst[i:])
		i += size
	}
	return dst, n
}

// partialText shows as much as tells one value from another to who knows it: of an e-mail address the first characters of name and
// domain, of a card's number the last four digits, of a phone's the last two to four, of other text of at least 8 characters the first
// and the last. How long the value is does not show, but for cards and phones, whose digits are replaced one by one.
func partialText(dst, value []byte) ([]byte, bool) {
	value = bytes.TrimRight(value, " ") // bpchar
	if at := bytes.IndexByte(value, '@'); at > 0 {
		if start, end, ok := emailAt(value, at, 0); ok && start == 0 && end == len(value) {
			return partialEmail(dst, value, at), false
		}
	}
	if digits, ok := digitsIn(value); ok {
		if visible := visibleDigits(value, digits); visible > 0 {
			return partialDigits(dst, value, digits-visible), false
		}
		return append(dst, redacted...), false
	}
	if utf8.RuneCount(value) < 8 {
		return append(dst, redacted...), false
	}
	_, first := utf8.DecodeRune(value)
	_, last := utf8.DecodeLastRune(value)
	dst = append(dst, value[:first]...)
	dst = append(dst, "******"...)
	return append(dst, value[len(value)-last:]...), false
}

// partialEmail gives j***@e******.com. A name or label of one or two characters would be told by its first.
func partialEmail(dst, value []byte, at int) []byte {
	dst = append(firstOf(dst, value[:at]), "***@"...)
	domain := value[at+1:]
	dot := bytes.IndexByte(domain, '.')
	dst = append(firstOf(dst, domain[:dot]), "******"...)
	return append(dst, domain[bytes.LastIndexByte(domain, '.'):]...)
}

func firstOf(dst, value []byte) []byte {
	if utf8.RuneCount(value) < 3 {
		return append(dst, '*')
	}
	_, size := utf8.DecodeRune(value)
	return append(dst, value[:size]...)
}

// digitsIn counts the digits of what has nothing else but the signs that people put between them.
func digitsIn(value []byte) (digits int, ok bool) {
	for _, c := range value {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case bytes.IndexByte([]byte("+-./() "), c) < 0:
			return 0, false
		}
	}
	return digits, digits > 0
}

// visibleDigits is how many of the last digits of a number partial shows; 0 for what is neither a card's nor a phone's.
func visibleDigits(value []byte, digits int) int {
	switch {
	case digits >= 10 && digits <= 19:
		return 4
	case digits >= 7 && digits < 10:
		return 2
	}
	return 0
}

// partialDigits replaces the first so many digits.
func partialDigits(dst, value []byte, hidden int) []byte {
	for _, c := range value {
		if c >= '0' && c <= '9' && hidden > 0 {
			c = '*'
			hidden--
		}
		dst = append(dst, c)
	}
	return dst
}
