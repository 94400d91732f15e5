package mask

import (
	"bytes"
	"strconv"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
)

// hstore masks the values of an hstore; its keys are treated as those of JSON.
func (b *builder) hstore(with string, m *rule, unchanged bool) rewrite {
	h := &hstoreValue{keep: b.keeper(unchanged)}
	switch with {
	case v1alpha1.MaskHash:
		h.value = hashText(m.key, 0, false)
	case v1alpha1.MaskPartial:
		h.value = partialText
	default:
		h.value = always(redacted)
	}
	if b.format == formatBinary {
		return h.binary
	}
	return h.text
}

type hstoreValue struct {
	keep    func(key []byte) bool
	value   rewrite
	keys    int
	scratch []byte
}

func (h *hstoreValue) key(dst, key []byte) []byte {
	if h.keep(key) {
		return append(dst, key...)
	}
	h.keys++
	return strconv.AppendInt(append(dst, 'k'), int64(h.keys), 10)
}

// binary rewrites hstore_send's layout: the number of pairs; of each the key with its length, and the value with its, -1 for NULL.
func (h *hstoreValue) binary(dst, value []byte) ([]byte, bool) {
	h.keys = 0
	r := reader{value}
	n := r.int32()
	if r.bad() || n < 0 || int(n) > len(value) {
		return nil, true
	}
	dst = appendInt32(dst, n)
	for range n {
		key, isNull, ok := r.field()
		if !ok || isNull {
			return nil, true
		}
		content, isNull, ok := r.field()
		if !ok {
			return nil, true
		}
		dst, _ = appendField(dst, key, func(dst, key []byte) ([]byte, bool) { return h.key(dst, key), false })
		if isNull {
			dst = appendInt32(dst, -1)
			continue
		}
		dst, _ = appendField(dst, content, h.value)
	}
	return dst, r.bad() || len(r.rest) > 0
}

// text rewrites hstore_out's text: "key"=>"value" or "key"=>NULL, with ", " between pairs.
func (h *hstoreValue) text(dst, value []byte) ([]byte, bool) {
	h.keys = 0
	for rest := value; len(rest) > 0; {
		key, after, ok := h.quoted(rest)
		if !ok || !bytes.HasPrefix(after, []byte("=>")) {
			return nil, true
		}
		at := len(dst)
		dst = append(quoteFrom(h.key(dst, key), at, '\\'), "=>"...)
		rest = after[2:]
		if after, ok := bytes.CutPrefix(rest, []byte("NULL")); ok {
			dst, rest = append(dst, "NULL"...), after
		} else {
			content, after, ok := h.quoted(rest)
			if !ok {
				return nil, true
			}
			at := len(dst)
			if made, isNull := h.value(dst, content); isNull {
				dst = append(dst, "NULL"...)
			} else {
				dst = quoteFrom(made, at, '\\')
			}
			rest = after
		}
		if len(rest) == 0 {
			break
		}
		if rest, ok = bytes.CutPrefix(rest, []byte(", ")); !ok || len(rest) == 0 {
			return nil, true
		}
		dst = append(dst, ", "...)
	}
	return dst, false
}

// quoted cuts a quoted string off.
func (h *hstoreValue) quoted(text []byte) (content, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		return nil, nil, false
	}
	element, _, n := cutElement(h.scratch[:0], text, ',')
	if n < 0 {
		return nil, nil, false
	}
	h.scratch = element
	return element, text[n:], true
}
