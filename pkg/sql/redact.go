package sql

import (
	"fmt"
	"strings"
)

// redacted stands in the place of a secret.
const redacted = "'<redacted>'"

// secretFunctions is how the names of functions begin that take connection strings: dblink, dblink_connect, dblink_exec ….
const secretFunctions = "dblink"

// secretNames are parts of names whose value is taken for a secret.
var secretNames = []string{"passw", "passphrase", "pwd", "secret", "token", "credential", "apikey", "api_key", "private_key", "access_key", "conninfo"}

// secretWords are parts of texts within which a secret is likely.
var secretWords = []string{"passw", "passphrase", "pwd=", "secret"}

// RedactUnparsed is what may be recorded of a text that does not parse, and in which secrets can not be found therefore: its length in
// bytes and, if it begins like a statement, its first word.
func RedactUnparsed(text string) string {
	l := lexer{text: text}
	t := l.next()
	word := strings.ToUpper(text[t.start:t.end])
	if t.kind != tokenIdent || !firstWords[word] {
		word = "unknown"
	}
	return fmt.Sprintf("<unparsed: %s, %d bytes>", word, len(text))
}

// firstWords are words that statements begin with.
var firstWords = func() map[string]bool {
	words := map[string]bool{}
	for word := range strings.FieldsSeq(`ABORT ALTER ANALYZE BEGIN CALL CHECKPOINT CLOSE CLUSTER COMMENT COMMIT COPY CREATE DEALLOCATE DECLARE
		DELETE DISCARD DO DROP END EXECUTE EXPLAIN FETCH GRANT IMPORT INSERT LISTEN LOAD LOCK MERGE MOVE NOTIFY PREPARE REASSIGN REFRESH
		REINDEX RELEASE RESET REVOKE ROLLBACK SAVEPOINT SECURITY SELECT SET SHOW START TABLE TRUNCATE UNLISTEN UPDATE VACUUM VALUES
		WITH`) {
		words[word] = true
	}
	return words
}()

// secrets are the tokens of a text that may hold a secret, in order. A plain script has none. It errs on the side of more.
func secrets(text string, script *Script) []token {
	if script.plain {
		return nil
	}
	f := finder{text: text}
	for l := (lexer{text: text}); ; {
		t := l.next()
		if t.kind == tokenEnd {
			break
		}
		f.tokens = append(f.tokens, t)
	}
	f.hide = make([]bool, len(f.tokens))
	for i := range f.tokens {
		f.look(i)
	}
	var found []token
	for i, t := range f.tokens {
		if f.hide[i] {
			found = append(found, t)
		}
	}
	return found
}

// A finder looks for secrets in a text.
type finder struct {
	text   string
	tokens []token
	hide   []bool // the tokens to be hidden
	done   int    // up to where the value of a SET was hidden
}

// longestSetting is how many tokens may stand between SET and the value: LOCAL, and a name of several parts.
const longestSetting = 12

// is is true when token i is the word or symbol, which is in lower case.
func (f *finder) is(i int, word string) bool {
	if i >= len(f.tokens) {
		return false
	}
	t := f.tokens[i]
	return (t.kind == tokenIdent || t.kind == tokenSymbol) && equalFold(f.text[t.start:t.end], word)
}

func (f *finder) literal(i int) bool { return i < len(f.tokens) && f.tokens[i].kind.literal() }

// look hides what token i tells to hide.
func (f *finder) look(i int) {
	t := f.tokens[i]
	content := lowerASCII(f.text[t.start:t.end])
	switch {
	case t.kind.literal():
		escaped := t.kind == tokenEscaped && strings.Contains(content, `\`)
		if escaped || containsAny(content, secretWords) || hasURLPassword(content) {
			f.hide[i] = true
		}
	case t.kind != tokenIdent && t.kind != tokenQuoted:
	case strings.HasPrefix(strings.TrimPrefix(content, `"`), secretFunctions) && f.is(i+1, "("):
		f.arguments(i+2, 0)
	case strings.Trim(content, `"`) == "set_config" && f.is(i+1, "("):
		if f.literal(i+2) && containsAny(lowerASCII(f.text[f.tokens[i+2].start:f.tokens[i+2].end]), secretNames) {
			f.arguments(i+3, 0)
		}
	case content == "set" && t.kind == tokenIdent:
		f.set(i + 1)
	case content == "connection" || containsAny(content, secretNames):
		i++
		for f.is(i, "=") || f.is(i, ":=") || f.is(i, "=>") || f.is(i, ":") || f.is(i, "to") {
			i++
		}
		if f.literal(i) {
			f.hide[i] = true
		}
	}
}

// arguments hides the literals of a call's arguments, up to the bracket that closes it.
func (f *finder) arguments(i, depth int) {
	for ; i < len(f.tokens) && depth >= 0; i++ {
		switch {
		case f.literal(i):
			f.hide[i] = true
		case f.is(i, "("):
			depth++
		case f.is(i, ")"):
			depth--
		}
	}
}

// set hides the value that SET gives to a setting with a secret's name, whatever it is written like.
func (f *finder) set(i int) {
	name := ""
	for end := min(i+longestSetting, len(f.tokens)); i < end && !f.is(i, "=") && !f.is(i, "to") && !f.is(i, ";"); i++ {
		name += lowerASCII(f.text[f.tokens[i].start:f.tokens[i].end])
	}
	if !containsAny(name, secretNames) || i < f.done {
		return
	}
	if !f.is(i, ";") {
		i++
	}
	for ; i < len(f.tokens) && !f.is(i, ";"); i++ {
		if k := f.tokens[i].kind; k.literal() || k == tokenIdent || k == tokenQuoted {
			f.hide[i] = true
		}
	}
	f.done = i
}

func containsAny(s string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// hasURLPassword is true for a text with a URL like postgres://user:password@host.
func hasURLPassword(s string) bool {
	_, rest, _ := strings.Cut(s, "://")
	user, _, found := strings.Cut(rest, "@")
	return found && strings.Contains(user, ":")
}

// redact is the text with the given tokens hidden.
func redact(text string, hidden []token) string {
	var b strings.Builder
	pos := 0
	for _, t := range hidden {
		b.WriteString(text[pos:t.start])
		b.WriteString(redacted)
		pos = t.end
	}
	b.WriteString(text[pos:])
	return b.String()
}
