package sql

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// MaxText is the longest text that is parsed, in bytes.
	MaxText = 4 << 20
	// maxTokens bounds the memory of one parse tree: some 600 bytes a token.
	maxTokens = 500_000
	// maxDepth bounds how deeply a parse tree may nest, counted as shape.depth does, where a level makes up to two messages within
	// messages. The C code that encodes the tree takes 180 bytes of stack for each of them, and a thread has 2 MiB or more.
	maxDepth = 2500
	// maxWork bounds tokens times depth: encoding moves every subtree once for each tree that it is in.
	maxWork = 40_000_000
)

var (
	errTooLong    = fmt.Errorf("the text is longer than %d bytes", MaxText)
	errTooMany    = fmt.Errorf("the text has more than %d tokens", maxTokens)
	errTooDeep    = fmt.Errorf("the text nests more than %d levels deep", maxDepth)
	errTooComplex = errors.New("the text is too long for how deeply it nests")
	errNUL        = errors.New("the text has a NUL byte")
	errContinued  = errors.New("a comment stands between two parts of a string constant, where the parser and servers differ")
	errNoEnd      = errors.New("syntax error: a quoted text or comment does not end, or a number runs into a name")
)

// A shape is what must be known of a text before a parser written in C may see it, because that parser recurses without a bound.
type shape struct {
	tokens int
	// depth is no less than how deeply the parse tree nests, in tokens: within one pair of brackets, tokens between two commas
	// may each add a level; so may every token of nesting for the pair as a whole.
	depth int
	// foreign is true when a name has bytes beyond ASCII and the text is not UTF-8: the name is not what it seems.
	foreign bool
}

// A level is one pair of brackets while shapeOf is inside it.
type level struct {
	run    int // tokens since the last separator
	child  int // depth of the deepest brackets since then
	best   int // the most that run and child came to
	sticky int // tokens that nest across separators
}

func (l *level) separate() {
	l.best = max(l.best, l.run+l.child)
	l.run, l.child = 0, 0
}

func (l *level) depth() int {
	l.separate()
	return l.best + l.sticky
}

// nesting are key words of which each may hold all that is left or right of it, commas, AND and OR included: chains of
// them nest.
var nesting = map[string]bool{
	"atomic": true, "between": true, "case": true, "else": true, "except": true, "intersect": true, "join": true, "not": true,
	"then": true, "union": true, "when": true,
}

// shapeOf measures a text; an error says which bound it exceeds, or that no server would read it.
func shapeOf(text string) (s shape, err error) {
	switch {
	case len(text) > MaxText:
		return s, errTooLong
	case strings.IndexByte(text, 0) >= 0:
		return s, errNUL
	}
	var (
		l      = lexer{text: text}
		levels = make([]level, 1, 16)
		atomic = false // in a function's body, which holds statements
		names  = false
		dotted = false // the last token was a dot, after which a key word is a name
	)
	for {
		t := l.next()
		if t.kind == tokenEnd {
			break
		}
		if s.tokens++; s.tokens > maxTokens {
			return s, errTooMany
		}
		top := &levels[len(levels)-1]
		top.run++
		switch t.kind {
		case tokenUnknown:
			return s, errNoEnd
		case tokenQuoted:
			names = names || !isASCII(text[t.start:t.end])
		case tokenIdent:
			word := text[t.start:t.end]
			names = names || !isASCII(word)
			switch {
			case !dotted && (equalFold(word, "and") || equalFold(word, "or")):
				top.separate()
			case isNesting(word):
				top.sticky++
				switch {
				case equalFold(word, "atomic"):
					atomic = true
				case !dotted && (equalFold(word, "union") || equalFold(word, "intersect") || equalFold(word, "except")):
					top.separate()
				}
			}
		case tokenSymbol:
			top.run += t.end - t.start - 1 // the server may see each character as an operator
			switch text[t.start] {
			case '(', '[':
				if len(levels) > maxDepth {
					return s, errTooDeep
				}
				levels = append(levels, level{})
			case ')', ']':
				if len(levels) > 1 {
					d := top.depth()
					levels = levels[:len(levels)-1]
					outer := &levels[len(levels)-1]
					outer.child = max(outer.child, d)
				}
			case ',':
				top.separate()
			case ';':
				if len(levels) == 1 && !atomic {
					s.depth = max(s.depth, top.depth())
					*top = level{}
				} else {
					top.separate()
				}
			}
		}
		dotted = t.end == t.start+1 && text[t.start] == '.'
	}
	for i := len(levels) - 1; i > 0; i-- {
		levels[i-1].child = max(levels[i-1].child, levels[i].depth())
	}
	s.depth = max(s.depth, levels[0].depth())
	switch {
	case l.commented:
		return s, errContinued
	case s.depth > maxDepth:
		return s, errTooDeep
	case s.depth*s.tokens > maxWork:
		return s, errTooComplex
	}
	s.foreign = names && !utf8.ValidString(text)
	return s, nil
}

func isNesting(word string) bool {
	var lower [9]byte // the longest key word
	if len(word) > len(lower) {
		return false
	}
	for i := range len(word) {
		lower[i] = word[i] | 0x20
	}
	return nesting[string(lower[:len(word)])]
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// equalFold compares ASCII letters without case; lower is in lower case.
func equalFold(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
