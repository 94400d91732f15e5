package sql

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"
)

// normalise replaces every constant of a text, and the given tokens, by parameters that it does not use yet, and drops comments. The
// fingerprint is that of the normalised text without regard to the case of words, white space, and how many constants or rows
// of constants a list has.
func normalise(text string, hidden []token) (normalised, fingerprint string) {
	var (
		b     strings.Builder
		p     print
		l     = lexer{text: text}
		next  = lastParam(text) + 1
		end   = 0
		first = true
	)
	for {
		t := l.next()
		if t.kind == tokenEnd {
			break
		}
		if t.start > end && !first {
			b.WriteByte(' ')
		}
		first, end = false, t.end
		word := text[t.start:t.end]
		hide := len(hidden) > 0 && hidden[0].start == t.start
		if hide {
			hidden = hidden[1:]
		}
		switch {
		case hide, t.kind.literal():
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(next))
			next++
			p.add("?")
		case t.kind == tokenParam:
			b.WriteString(word)
			p.add("?")
		case t.kind == tokenIdent:
			b.WriteString(word)
			p.add(lowerASCII(word))
		default:
			b.WriteString(word)
			p.add(word)
		}
	}
	normalised = b.String()
	if !utf8.ValidString(normalised) {
		normalised = strings.ToValidUTF8(normalised, "\uFFFD")
	}
	return normalised, p.sum()
}

// lastParam is the highest number of a parameter in the text.
func lastParam(text string) int {
	last := 0
	for l := (lexer{text: text}); ; {
		switch t := l.next(); t.kind {
		case tokenParam:
			if n, err := strconv.Atoi(text[t.start+1 : t.end]); err == nil {
				last = max(last, n)
			}
		case tokenEnd:
			return last
		}
	}
}

// A print is the words of a text from which its fingerprint is made.
type print struct{ words []string }

// add adds a word. Of a list of constants, and of a list of such lists in brackets, one is kept.
func (p *print) add(word string) {
	p.words = append(p.words, word)
	if !p.drop("?", ",", "?") {
		p.drop("(", "?", ")", ",", "(", "?", ")")
	}
}

// drop shortens a repetition at the end: x , x becomes x.
func (p *print) drop(tail ...string) bool {
	n := len(p.words) - len(tail)
	if n < 0 {
		return false
	}
	for i, word := range tail {
		if p.words[n+i] != word {
			return false
		}
	}
	p.words = p.words[:n+len(tail)/2]
	return true
}

// sum is the fingerprint.
func (p *print) sum() string {
	h := sha256.Sum256([]byte(strings.Join(p.words, " ")))
	return hex.EncodeToString(h[:8])
}
