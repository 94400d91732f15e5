package sql

// Marks that stand for literals in a blind key; a text that has such bytes gets no key.
const (
	markInteger = 1
	markNumeric = 2
	markString  = 3
)

// classes tell what the blind scanner does with a byte outside of literals.
var classes = func() (table [256]class) {
	for c := range table {
		switch b := byte(c); {
		case c >= 0x80, c < ' ' && !isSpace(b), b == '\\':
			table[c] = classStop
		case isIdentStart(b):
			table[c] = classWord
		case isDigit(b):
			table[c] = classDigit
		case b == '\'':
			table[c] = classString
		case b == '"', b == '$', b == '.', b == '-', b == '/':
			table[c] = classLook
		}
	}
	return table
}()

type class uint8

const (
	classCopy   class = iota // as it is
	classStop                // no key
	classWord                // an identifier begins
	classDigit               // a number begins
	classString              // a string begins
	classLook                // it depends on what is around
)

// blind appends to dst the text with its plain literals replaced by marks of their kind, so that texts which differ in such
// literals alone have one key. It gives up, with ok false, at whatever might be read in another way than it seems: comments, dollar
// quotes, backslashes, strings with a prefix or in several parts, numbers that touch a name or a dot, or are beyond 32 bits, and
// float(n), which is another type for another n. marked is false when nothing was replaced.
func blind(dst, text []byte) (key []byte, marked, ok bool) {
	copied := 0 // text[:copied] is in dst
	for i := 0; i < len(text); {
		c := text[i]
		n, mark := 1, byte(0)
		switch classes[c] {
		case classCopy:
		case classStop:
			return dst, false, false
		case classWord:
			for i+n < len(text) && partOfName[text[i+n]] {
				n++
			}
			if i+n < len(text) && (text[i+n] >= 0x80 || text[i+n] == '\'' || text[i+n] == '$') || n == 5 && isFloat(text[i:i+n]) {
				return dst, false, false
			}
		case classDigit:
			n, mark = plainNumber(text[i:])
		case classString:
			n, mark = plainString(text[i:]), markString
		case classLook:
			n = plainOther(text[i:])
		}
		if n == 0 || i > 0 && text[i-1] == '&' && (c == '\'' || c == '"') {
			return dst, false, false
		}
		if mark != 0 {
			dst = append(dst, text[copied:i]...)
			dst = append(dst, mark)
			copied = i + n
			marked = true
		}
		i += n
	}
	return append(dst, text[copied:]...), marked, true
}

// plainOther is the length of what p begins with: a quoted name, $1, a dot, minus or slash. It is 0 when that is not plain.
func plainOther(p []byte) int {
	next := byte(0)
	if len(p) > 1 {
		next = p[1]
	}
	switch c := p[0]; {
	case c == '"':
		return plainQuoted(p)
	case c == '$':
		return plainParam(p)
	case c == '.' && (isDigit(next) || next == '.'), c == '-' && next == '-', c == '/' && next == '*':
		return 0
	}
	return 1
}

// partOfName are the bytes of plain identifiers.
var partOfName = func() (table [256]bool) {
	for c := range 0x80 {
		table[c] = isIdentPart(byte(c)) && c != '$'
	}
	return table
}()

func isFloat(word []byte) bool { return equalFold(string(word), "float") }

// plainNumber is the length of the number that p begins with, and its mark; 0 when it is not plain.
func plainNumber(p []byte) (n int, mark byte) {
	value := 0
	for n < len(p) && isDigit(p[n]) {
		if value = value*10 + int(p[n]-'0'); value > 1<<31-1 {
			return 0, 0
		}
		n++
	}
	mark = markInteger
	if n < len(p) && p[n] == '.' {
		whole := n
		for n++; n < len(p) && isDigit(p[n]); n++ {
		}
		if n == whole+1 {
			return 0, 0
		}
		mark = markNumeric
	}
	if n < len(p) && (p[n] == '.' || isIdentPart(p[n])) {
		return 0, 0
	}
	return n, mark
}

// plainString is the length of the string that p begins with; 0 when it is not plain.
func plainString(p []byte) int {
	for i := 1; i < len(p); i++ {
		switch c := p[i]; {
		case c == '\\', c < ' ' && !isSpace(c):
			return 0
		case c != '\'':
		case i+1 < len(p) && p[i+1] == '\'':
			i++
		default:
			for j := i + 1; j < len(p); j++ {
				if p[j] == '\'' {
					return 0
				}
				if !isSpace(p[j]) {
					break
				}
			}
			return i + 1
		}
	}
	return 0
}

// plainQuoted is the length of the quoted identifier that p begins with; 0 when it is not plain.
func plainQuoted(p []byte) int {
	for i := 1; i < len(p); i++ {
		switch c := p[i]; {
		case c == '\\', c < ' ', c >= 0x80:
			return 0
		case c != '"':
		case i+1 < len(p) && p[i+1] == '"':
			i++
		default:
			return i + 1
		}
	}
	return 0
}

// plainParam is the length of $1; 0 for another use of the dollar.
func plainParam(p []byte) int {
	n := 1
	for n < len(p) && isDigit(p[n]) {
		n++
	}
	if n == 1 || n < len(p) && isIdentPart(p[n]) {
		return 0
	}
	return n
}
