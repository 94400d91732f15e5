package sql

import "strings"

// A tokenKind says what a token is, as far as this package needs to tell.
type tokenKind uint8

const (
	tokenEnd     tokenKind = iota
	tokenIdent             // an identifier or key word without quotes
	tokenQuoted            // "…" or U&"…"
	tokenString            // '…', E'…', U&'…', with all parts that continue it
	tokenEscaped           // the same where an escape may hide characters: E'…' and U&'…'
	tokenDollar            // $$…$$
	tokenBits              // B'…' or X'…'
	tokenNumber            // an integer or numeric constant
	tokenParam             // $1
	tokenSymbol            // an operator, a bracket, or anything else
	tokenUnknown           // something that has no end, or junk after a number: the server refuses it too
)

// literal is true for tokens that are constants.
func (k tokenKind) literal() bool { return k >= tokenString && k <= tokenNumber }

// A token is text[start:end].
type token struct {
	kind       tokenKind
	start, end int
}

// A lexer splits a text as the server's lexer does (scan.l of PostgreSQL 17) with standard_conforming_strings on. A run of
// operator characters is one token here, where the server may see more.
type lexer struct {
	text string
	pos  int
	// commented is true once a comment stood between two parts of a string.
	commented bool
}

// next gives the next token; comments and white space are passed over.
func (l *lexer) next() token {
	l.skipSpace()
	t := token{start: l.pos}
	if l.pos < 0 { // a comment without an end
		return token{kind: tokenUnknown, start: len(l.text), end: len(l.text)}
	}
	if l.pos == len(l.text) {
		t.end = t.start
		return t
	}
	switch c := l.text[l.pos]; {
	case isIdentStart(c):
		t.kind = l.word()
	case isDigit(c), c == '.' && isDigit(l.at(1)):
		t.kind = l.number()
	case c == '\'':
		t.kind = l.quoted(tokenString, false)
	case c == '"':
		t.kind = l.doubleQuoted()
	case c == '$':
		t.kind = l.dollar()
	case c == '.' && l.at(1) == '.':
		t.kind = tokenSymbol
		l.pos += 2
	case isOperator(c):
		t.kind = tokenSymbol
		for l.pos++; l.pos < len(l.text) && isOperator(l.text[l.pos]) && !l.commentStarts(); l.pos++ {
		}
	default:
		t.kind = tokenSymbol
		l.pos++
	}
	if t.kind == tokenUnknown {
		l.pos = len(l.text)
	}
	t.end = l.pos
	return t
}

// at is the byte n after the current one; 0 after the end.
func (l *lexer) at(n int) byte {
	if l.pos+n < len(l.text) {
		return l.text[l.pos+n]
	}
	return 0
}

func (l *lexer) commentStarts() bool {
	return l.at(0) == '-' && l.at(1) == '-' || l.at(0) == '/' && l.at(1) == '*'
}

// skipSpace passes over white space and comments. The position is -1 after a comment without an end.
func (l *lexer) skipSpace() {
	for l.pos < len(l.text) {
		switch {
		case isSpace(l.text[l.pos]):
			l.pos++
		case !l.commentStarts():
			return
		case l.text[l.pos] == '-':
			l.pos = lineEnd(l.text, l.pos)
		default:
			l.pos = blockEnd(l.text, l.pos)
			if l.pos < 0 {
				return
			}
		}
	}
}

// lineEnd is where the line that pos is in ends.
func lineEnd(text string, pos int) int {
	if n := strings.IndexAny(text[pos:], "\r\n"); n >= 0 {
		return pos + n
	}
	return len(text)
}

// blockEnd is the position after the comment that begins at pos, which may hold others; -1 when it does not end.
func blockEnd(text string, pos int) int {
	depth := 0
	for i := pos; i+1 < len(text); {
		switch {
		case text[i] == '/' && text[i+1] == '*':
			depth++
			i += 2
		case text[i] == '*' && text[i+1] == '/':
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return -1
}

// word reads an identifier, or a string whose prefix looks like one.
func (l *lexer) word() tokenKind {
	switch c := l.text[l.pos] | 0x20; {
	case l.at(1) == '\'' && c == 'e':
		l.pos++
		return l.quoted(tokenEscaped, true)
	case l.at(1) == '\'' && (c == 'b' || c == 'x'):
		l.pos++
		return l.quoted(tokenBits, false)
	case c == 'u' && l.at(1) == '&' && l.at(2) == '\'':
		l.pos += 2
		return l.quoted(tokenEscaped, false)
	case c == 'u' && l.at(1) == '&' && l.at(2) == '"':
		l.pos += 2
		return l.doubleQuoted()
	}
	for l.pos++; l.pos < len(l.text) && isIdentPart(l.text[l.pos]); l.pos++ {
	}
	return tokenIdent
}

// quoted reads a string from its opening quote on, with the parts that continue it on later lines. Two quotes within it are one, but
// not in a bit string.
func (l *lexer) quoted(kind tokenKind, escapes bool) tokenKind {
	for {
		l.pos++
		for {
			stop := "'"
			if escapes {
				stop = "'\\"
			}
			n := strings.IndexAny(l.text[l.pos:], stop)
			if n < 0 {
				return tokenUnknown
			}
			l.pos += n
			if l.text[l.pos] == '\'' && (l.at(1) != '\'' || kind == tokenBits) {
				break
			}
			if l.pos += 2; l.pos > len(l.text) {
				return tokenUnknown
			}
		}
		l.pos++
		next, commented := continuation(l.text, l.pos)
		if next < 0 {
			return kind
		}
		l.pos = next
		l.commented = l.commented || commented
	}
}

// continuation is the position of the quote that continues a string that was closed before pos, or -1: there must be a
// newline in the white space between them, in which line comments may stand ("String Constants" in the PostgreSQL manual).
func continuation(text string, pos int) (next int, commented bool) {
	newline := false
	for pos < len(text) {
		switch c := text[pos]; {
		case c == '\n', c == '\r':
			newline = true
			pos++
		case isSpace(c):
			pos++
		case c == '-' && pos+1 < len(text) && text[pos+1] == '-':
			pos = lineEnd(text, pos)
			commented = true
		case c == '\'' && newline:
			return pos, commented
		default:
			return -1, false
		}
	}
	return -1, false
}

// doubleQuoted reads a quoted identifier from its opening quote on.
func (l *lexer) doubleQuoted() tokenKind {
	for {
		n := strings.IndexByte(l.text[l.pos+1:], '"')
		if n < 0 {
			return tokenUnknown
		}
		l.pos += n + 2
		if l.at(0) != '"' {
			return tokenQuoted
		}
	}
}

// dollar reads a dollar-quoted string, a parameter, or a lone dollar.
func (l *lexer) dollar() tokenKind {
	if isDigit(l.at(1)) {
		for l.pos++; isDigit(l.at(0)); l.pos++ {
		}
		if isIdentStart(l.at(0)) {
			return tokenUnknown
		}
		return tokenParam
	}
	end := l.pos + 1
	if end < len(l.text) && isIdentStart(l.text[end]) {
		for end++; end < len(l.text) && isIdentPart(l.text[end]) && l.text[end] != '$'; end++ {
		}
	}
	if end == len(l.text) || l.text[end] != '$' {
		l.pos++
		return tokenSymbol
	}
	delimiter := l.text[l.pos : end+1]
	n := strings.Index(l.text[end+1:], delimiter)
	if n < 0 {
		return tokenUnknown
	}
	l.pos = end + 1 + n + len(delimiter)
	return tokenDollar
}

// number reads a numeric constant ("Numeric Constants" in the PostgreSQL manual).
func (l *lexer) number() tokenKind {
	based := false
	if l.at(0) == '0' {
		switch l.at(1) | 0x20 {
		case 'x':
			based = l.digits(2, isHex, true)
		case 'o':
			based = l.digits(2, func(c byte) bool { return c >= '0' && c <= '7' }, true)
		case 'b':
			based = l.digits(2, func(c byte) bool { return c == '0' || c == '1' }, true)
		}
	}
	if !based {
		l.decimal()
	}
	if l.pos < len(l.text) && isIdentStart(l.text[l.pos]) {
		return tokenUnknown
	}
	return tokenNumber
}

// decimal reads digits, a fraction and an exponent.
func (l *lexer) decimal() {
	l.digits(0, isDigit, false)
	if l.at(0) == '.' && l.at(1) != '.' { // 1..10 is a range
		l.pos++
		l.digits(0, isDigit, false)
	}
	if l.at(0)|0x20 == 'e' {
		skip := 1
		if l.at(1) == '+' || l.at(1) == '-' {
			skip = 2
		}
		l.digits(skip, isDigit, false)
	}
}

// digits reads digits that begin skip bytes further, with single underscores between them, and before them where leading is true.
// Without a digit it reads nothing.
func (l *lexer) digits(skip int, is func(byte) bool, leading bool) bool {
	start := l.pos + skip
	for pos := start; ; pos++ {
		if pos < len(l.text) && l.text[pos] == '_' && (leading || pos > start) {
			pos++
			if pos == len(l.text) || !is(l.text[pos]) {
				pos--
			}
		}
		if pos >= len(l.text) || !is(l.text[pos]) {
			if pos > start {
				l.pos = pos
			}
			return pos > start
		}
	}
}

// Classes of bytes; scan.l of PostgreSQL 17.

func isSpace(c byte) bool  { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isHex(c byte) bool    { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func isIdentStart(c byte) bool { return isLetter(c) || c == '_' || c >= 0x80 }
func isIdentPart(c byte) bool  { return isIdentStart(c) || isDigit(c) || c == '$' }
func isOperator(c byte) bool   { return strings.IndexByte("~!@#^&|`?+-*/%<>=", c) >= 0 }
