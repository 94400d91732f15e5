package sql

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
)

// lightTokens is up to how many tokens a text is light: its tree takes a few megabytes.
const lightTokens = 8192

// Parsers wait here for their turn, so that the memory of all parse trees at one time has a bound: that of the process, and so
// there is one for the process.
var (
	lightParsers = make(chan struct{}, max(4, runtime.GOMAXPROCS(0)))
	heavyParsers = make(chan struct{}, 1)
)

// A SyntaxError is why PostgreSQL's parser does not read a text. As an error it is safe to log: it holds nothing of the text but a
// position.
type SyntaxError struct {
	// Message is the parser's, as the server would say it. It may quote the text, so it is for who sent that alone.
	Message string
	// Position is where in the text, in characters from 1; 0 when not known.
	Position int
	logged   string
}

func (e *SyntaxError) Error() string { return e.logged }

// Parse says what a text does. It is safe for concurrent use; a text that is long waits for others that are. The error, a
// SyntaxError where it is the parser's, is safe to log.
func Parse(text string) (*Script, error) {
	s, err := shapeOf(text)
	if err != nil {
		return nil, err
	}
	tree, err := parse(text, s.tokens)
	if err != nil {
		return nil, err
	}
	script := &Script{plain: true}
	for _, raw := range tree.Stmts {
		script.Statements = append(script.Statements, analyse(script, raw.Stmt))
	}
	if s.foreign {
		script.plain = false
		for _, st := range script.Statements {
			st.deny("a name that is not UTF-8 can not be compared with the names of a policy")
		}
	}
	marks := secrets(text, script)
	script.Normalised, script.Fingerprint = normalise(text, marks)
	if len(marks) > 0 {
		script.plain = false
		script.redacted = redact(text, marks)
	}
	return script, nil
}

// parse runs the parser when it is the text's turn.
func parse(text string, tokens int) (*pg.ParseResult, error) {
	turn := lightParsers
	if tokens > lightTokens {
		turn = heavyParsers
	}
	turn <- struct{}{}
	defer func() { <-turn }()
	tree, err := pg.Parse(asUTF8(text))
	if err != nil {
		return nil, safeError(text, err)
	}
	return tree, nil
}

// asUTF8 makes a text UTF-8 that is not, because the parse tree can hold nothing else: each byte becomes the character of that
// number. The server's lexer takes all bytes beyond ASCII alike, so the text is read the same; names that change by it are denied.
func asUTF8(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text) + len(text)/4)
	for i := range len(text) {
		b.WriteRune(rune(text[i]))
	}
	return b.String()
}

// safeError is a parser's error without what it quotes from the text.
func safeError(text string, err error) error {
	var e *parser.Error
	if !errors.As(err, &e) {
		return errors.New("the text nests too deeply") // the encoded tree is beyond the decoder's limits
	}
	message, _, _ := strings.Cut(e.Message, " at or near ")
	message, _, _ = strings.Cut(message, " at end of input")
	if strings.ContainsAny(message, "\"'\\") || !isASCII(message) {
		message = "syntax error"
	}
	syntax := &SyntaxError{Message: e.Message, Position: e.Cursorpos, logged: message}
	if e.Cursorpos > 0 {
		syntax.logged = fmt.Sprintf("%s at character %d", message, e.Cursorpos)
	}
	if !utf8.ValidString(text) {
		syntax.Message = message // what it quotes is not what the client wrote
	}
	return syntax
}

// Tree is the parse tree of a text, within the bounds of Parse and with its errors: for packages that look for what a Script does not
// tell. foreign is true when a name has bytes that are not UTF-8, so that it is not what it seems.
func Tree(text string) (tree *pg.ParseResult, foreign bool, err error) {
	s, err := shapeOf(text)
	if err != nil {
		return nil, false, err
	}
	tree, err = parse(text, s.tokens)
	return tree, s.foreign, err
}
