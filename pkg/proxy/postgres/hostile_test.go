package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// recorded is converse for conversations of which the record matters.
func recorded(t *testing.T, prepare func(*wire), turns []turn, want ...string) *wire {
	t.Helper()
	w := converse(t, prepare, turns)
	if diff := cmp.Diff(want, w.judge.ops); diff != "" {
		t.Errorf("operations: %s", diff)
	}
	return w
}

func TestRecordNamesWhatRuns(t *testing.T) {
	begun := []turn{c("Q", qry("BEGIN")), s("C Z(T)", tag("BEGIN"), inTx)}
	for _, test := range []struct {
		name  string
		turns []turn
		ops   []string
	}{
		{
			"EXECUTE of what a Parse message prepared",
			[]turn{c("P S", prs("s", "UPDATE t SET a = 1"), syn), s("1 Z(I)", parseOK, idleNow), c("Q", qry("EXECUTE s"))},
			[]string{"query allow EXECUTE s → UPDATE t SET a = $1"},
		},
		{
			"EXECUTE in the string that prepares",
			[]turn{c("Q", qry("PREPARE s AS SELECT 1; DEALLOCATE s; PREPARE s AS SELECT 2, 3; EXECUTE s"))},
			[]string{"query allow PREPARE s AS SELECT $1; DEALLOCATE s; PREPARE s AS SELECT $2, $3; EXECUTE s → " +
				"PREPARE s AS SELECT $1; DEALLOCATE s; PREPARE s AS SELECT $2, $3; EXECUTE s"},
		},
		{
			"FETCH from a portal that was bound and never executed",
			append(begun[:2:2], c("P B S", prs("", "INSERT INTO t VALUES (1) RETURNING a"), bnd("p", ""), syn), s("1 2 Z(T)", parseOK, bindOK, inTx),
				c("Q", qry("FETCH ALL FROM p"))),
			[]string{"query allow BEGIN", "bind allow INSERT INTO t VALUES ($1) RETURNING a", "query allow FETCH ALL FROM p"},
		},
		{
			"… and by a pipeline",
			[]turn{c("P B P B E S", prs("a", "INSERT INTO t VALUES (1) RETURNING a"), bnd("", "a"), prs("", "SELECT cursor_to_xml('', 9, true, true, '')"), bnd("x", ""), exe("x"), syn)},
			[]string{"bind allow INSERT INTO t VALUES ($1) RETURNING a", "execute allow SELECT cursor_to_xml($1, $2, true, true, $3)"},
		},
		{
			"a portal bound over another that stays",
			append(begun[:2:2], c("P B S", prs("a", "SELECT a FROM t"), bnd("p", "a"), syn), s("1 2 Z(T)", parseOK, bindOK, inTx),
				c("P B S Q", prs("b", "SELECT b FROM t"), bnd("p", "b"), syn, qry("FETCH p"))),
			[]string{"query allow BEGIN", "bind allow SELECT a FROM t", "bind allow SELECT b FROM t", "query allow FETCH p"},
		},
		{
			"a portal that was executed is not recorded again",
			append(begun[:2:2], c("P B E S", prs("a", "SELECT 1"), bnd("p", "a"), exe("p"), syn), s("1 2 C Z(T)", parseOK, bindOK, tag("SELECT 0"), inTx),
				c("Q", qry("SELECT 2"))),
			[]string{"query allow BEGIN", "execute allow SELECT $1", "query allow SELECT $1"},
		},
		{
			"nor one that was closed",
			[]turn{c("P B C Q", prs("a", "SELECT 1"), bnd("p", "a"), cls("P", "p"), qry("SELECT 2"))},
			[]string{"query allow SELECT $1"},
		},
	} {
		t.Run(test.name, func(t *testing.T) { recorded(t, nil, test.turns, test.ops...) })
	}
}

func TestExecuteOfAPortalWhoseNameACursorMayHaveTakenIsRefused(t *testing.T) {
	recorded(t, nil, []turn{
		c("Q P B S", qry("BEGIN"), prs("a", "SELECT 1"), bnd("p", "a"), syn), s("C Z(T) 1 2 Z(T)", tag("BEGIN"), inTx, parseOK, bindOK, inTx),
		c("Q P! S", qry("CLOSE p; DECLARE p CURSOR FOR SELECT secret FROM t"), exe("p"), syn),
		s("C C Z(T) E(0A000) Z(E)", tag("CLOSE CURSOR"), tag("DECLARE CURSOR"), inTx, errMsg("42601"), aborted),
	}, "query allow BEGIN", "bind allow SELECT $1", "query allow CLOSE p; DECLARE p CURSOR FOR SELECT secret FROM t")
}

func TestNamesThatTheServerReadsInAnotherWayAreRefused(t *testing.T) {
	long := strings.Repeat("x", 63)
	for name, send := range map[string]string{
		"a name that the server cuts":            prs(long+"A", "SELECT 1"),
		"a name that depends on the encoding":    prs("\xe9", "SELECT 1"),
		"… of a portal":                          bnd("\xc3\xa9", ""),
		"… to close":                             cls("S", long+"B"),
		"a statement's name in Bind":             bnd("", long+"B"),
		"an Execute of a portal that can not be": exe(long + "B"),
	} {
		t.Run(name, func(t *testing.T) {
			if w := converse(t, nil, []turn{c("P! S", send, syn)}); w.err != nil {
				t.Error(w.err)
			}
		})
	}
	converse(t, nil, []turn{c("P", prs(long, "SELECT 1"))})
	for _, text := range []string{"PREPARE é AS SELECT 1", "PREPARE " + long[:60] + " AS SELECT 1", "EXECUTE é"} {
		converse(t, nil, []turn{c("Q!", qry(text))})
	}
}

func TestNamesAcrossBatches(t *testing.T) {
	prepared := []turn{c("P S", prs("s", "SELECT 1"), syn), s("1 Z(I)", parseOK, idleNow)}
	for _, test := range []struct {
		name  string
		turns []turn
	}{
		{
			"a Query that prepares is not believed before it is answered",
			[]turn{c("Q Q", qry("DEALLOCATE s; PREPARE s AS SELECT a FROM t"), qry("SELECT 1")), c("", bnd("", "s")),
				{'s', errMsg("22012") + idleNow, "E(22012) Z(I)", "P!"}},
		},
		{
			"… and is when it is",
			[]turn{c("Q", qry("DEALLOCATE s; PREPARE s AS SELECT a FROM t")), c("", bnd("", "s"), exe("")),
				{'s', tag("DEALLOCATE") + tag("PREPARE") + idleNow, "C C Z(I)", "B E"}},
		},
		{
			"a Parse sent after DEALLOCATE ALL outlives it",
			[]turn{c("Q P S", qry("DEALLOCATE ALL"), prs("n", "SELECT 2"), syn), s("C Z(I) 1 Z(I)", tag("DEALLOCATE ALL"), idleNow, parseOK, idleNow),
				c("B P!", bnd("", "n"), bnd("", "s"))},
		},
		{
			"a DEALLOCATE ALL that fails changes nothing",
			[]turn{c("Q P S", qry("DISCARD ALL"), prs("n", "SELECT 2"), syn), s("E(25001) Z(T) 1 Z(T)", errMsg("25001"), inTx, parseOK, inTx),
				c("B B", bnd("", "n"), bnd("", "s"))},
		},
		{
			"in a batch, DEALLOCATE ALL holds at once",
			[]turn{c("P B E P!", prs("", "DEALLOCATE ALL"), bnd("", ""), exe(""), bnd("", "s"))},
		},
		{
			"a string that fails half way leaves its names uncertain",
			[]turn{c("Q", qry("DEALLOCATE s; PREPARE s AS SELECT 1/0; SELECT 1/0")), s("C E(22012) Z(I)", tag("DEALLOCATE"), errMsg("22012"), idleNow),
				c("Q!", qry("EXECUTE s"))},
		},
		{
			"a single PREPARE that fails leaves what was there",
			[]turn{c("Q", qry("PREPARE s AS SELECT a FROM t")), s("E(42P05) Z(I)", errMsg("42P05"), idleNow), c("Q", qry("EXECUTE s"))},
		},
		{
			"closing what another name's Parse follows",
			[]turn{c("C P S", cls("S", "s"), prs("s", "SELECT 2, 3"), syn), s("3 1 Z(I)", closeOK, parseOK, idleNow), c("Q", qry("EXECUTE s"))},
		},
		{
			"an EXECUTE that was itself prepared by Parse can not be decided on",
			[]turn{c("P S", prs("e", "EXECUTE s"), syn), s("1 Z(I)", parseOK, idleNow), c("Q!", qry("EXECUTE e"))},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if w := converse(t, nil, append(prepared[:2:2], test.turns...)); w.err != nil {
				t.Error(w.err)
			}
		})
	}
}

func TestSearchPathHoldsFromTheStatementThatSetsIt(t *testing.T) {
	hidden := func(w *wire) {
		w.judge.forbidden = func(u *sql.Unit, path []string) bool {
			for _, o := range u.Reads {
				for _, schema := range path {
					if o.Schema == "" && schema+"."+o.Name == "hidden.t" {
						return true
					}
				}
			}
			return false
		}
	}
	for name, turns := range map[string][]turn{
		"in one string":              {c("Q!", qry("SET search_path = hidden; SELECT * FROM t"))},
		"by set_config":              {c("Q!", qry("SELECT set_config('search_path', 'hidden', true); SELECT * FROM t"))},
		"by a role, which is $user":  {c("Q!", qry("SET ROLE hidden; TABLE t"))},
		"in a pipeline":              {c("Q Q!", qry("SET search_path = a, hidden"), qry("SELECT * FROM t"))},
		"for what was bound before":  {c("P B S", prs("", "SELECT * FROM t"), bnd("p", ""), syn), c("Q", qry("SET search_path = hidden")), c("P!", prs("", "SELECT * FROM t"))},
		"and even when it is undone": {c("Q Q Q!", qry("SET search_path = hidden"), qry("RESET search_path"), qry("SELECT * FROM t"))},
	} {
		t.Run(name, func(t *testing.T) { converse(t, hidden, turns) })
	}
	w := newWire()
	for range 40 {
		w.client(qry("SET search_path = a, b, c"))
	}
	if got := w.forwarded(); strings.Contains(got, "!") {
		t.Error("the same path again and again is refused")
	}
	var text strings.Builder
	for i := range maxSchemas + 1 {
		text.WriteString("SET search_path = a" + strings.Repeat("b", i) + ";")
	}
	w.forwarded()
	w.client(qry(text.String()))
	if got := w.forwarded(); got != "Q!" {
		t.Errorf("a search path without end: the server got %q", got)
	}
}

func TestNewDocumentsDecideAgain(t *testing.T) {
	w := newWire()
	w.client(prs("s", "SELECT a FROM t") + bnd("p", "s") + syn)
	w.server(parseOK + bindOK + inTx)
	w.judge.revision++
	w.judge.forbidden = func(u *sql.Unit, _ []string) bool { return len(u.Reads) > 0 }
	w.forwarded()
	w.client(exe("p") + syn + bnd("q", "s") + syn + qry("EXECUTE s"))
	if got := w.forwarded(); got != "P! S P! S Q!" {
		t.Errorf("the server got %q", got)
	}
	want := []string{"execute deny SELECT a FROM t", "bind deny SELECT a FROM t", "query deny EXECUTE s → SELECT a FROM t"}
	if diff := cmp.Diff(want, w.judge.ops); diff != "" {
		t.Error(diff)
	}
}

func TestClientThatBreaksTheProtocolIsToldAndCutOff(t *testing.T) {
	copying := []turn{c("Q", qry("COPY t FROM STDIN")), s("G", copyIn)}
	for _, test := range []struct {
		name   string
		before []turn
		send   string
	}{
		{"a length of 0", nil, "Q\x00\x00\x00\x00"},
		{"a length of 3", nil, "S\x00\x00\x00\x03"},
		{"a length that is negative", nil, "Q\xff\xff\xff\xff"},
		{"a length of a GiB", nil, "d\x40\x00\x00\x00"},
		{"an unknown message", nil, mk('~')},
		{"a message of the server's", nil, mk('Z', "I")},
		{"a password", nil, mk('p', "secret\x00")},
		{"an empty Query body", nil, mk('Q')},
		{"a Query without end", nil, mk('Q', "SELECT 1")},
		{"a Query with more behind its end", nil, mk('Q', "SELECT 1\x00DROP TABLE t\x00")},
		{"a Parse cut short", nil, mk('P', "s\x00SELECT 1\x00\x00")},
		{"a Parse with fewer types than it says", nil, mk('P', "s\x00SELECT 1\x00\xff\xff")},
		{"a Parse with more behind its end", nil, mk('P', "\x00SELECT 1\x00\x00\x00\x00")},
		{"a Bind cut short", nil, mk('B', "p")},
		{"an Execute cut short", nil, mk('E', "p\x00\x00")},
		{"a Close cut short", nil, mk('C', "S")},
		{"a Sync with a body", nil, mk('S', "x")},
		{"a Flush with a body", nil, mk('H', "x")},
		{"a Query during COPY", copying, qry("SELECT 1")},
		{"a Parse during COPY", copying, prs("", "SELECT 1")},
		{"an Execute during COPY", copying, exe("")},
		{"a FunctionCall during COPY", copying, mk('F', "\x00\x00\x00\x00")},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := converse(t, nil, append(test.before[:len(test.before):len(test.before)], turn{'c', test.send, "", "E(08P01)"}))
			if !errors.Is(w.err, errProtocol) {
				t.Errorf("ended by %v", w.err)
			}
		})
	}
}

func TestServerThatAnswersWhatNobodyAskedIsCutOff(t *testing.T) {
	for _, test := range []struct{ name, client, server string }{
		{"rows for nobody", "", row},
		{"ReadyForQuery without a batch", "", idleNow},
		{"rows in the place of a refusal", qry("DELETE FROM t"), row},
		{"success in the place of a refusal", qry("DELETE FROM t"), tag("DELETE 1")},
		{"no error in the place of a refusal", qry("DELETE FROM t"), idleNow},
		{"a Parse accepted that was to be refused", prs("", "DELETE FROM t"), parseOK},
		{"another answer than is due", prs("", "SELECT 1"), bindOK},
		{"rows in answer to Parse", prs("", "SELECT 1"), row},
		{"COPY while other answers are due", qry("COPY t FROM STDIN") + qry("SELECT 1"), copyIn},
		{"an impossible length", qry("SELECT 1"), "D\x00\x00\x00\x01"},
		{"an unknown message", qry("SELECT 1"), mk('~')},
		{"replication", qry("SELECT 1"), mk('W', "\x00\x00\x00")},
		{"strings with escapes", qry("SELECT 1"), mk('S', "standard_conforming_strings\x00off\x00")},
		{"an encoding that hides quotes", qry("SELECT 1"), mk('S', "client_encoding\x00SJIS\x00")},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWire()
			w.client(test.client)
			w.server(test.server)
			if !errors.Is(w.err, errMismatch) || w.answered() != "E(08P01)" {
				t.Errorf("ended by %v", w.err)
			}
		})
	}
}

func TestTextParsedElsewhereServesNoOtherMessage(t *testing.T) {
	w := newWire()
	long := "/*" + strings.Repeat("x", asyncText) + "*/"
	w.client(prs("s", "SELECT 1"))
	var out = &interrupted{w: w, at: errMsg("42P05")}
	w.parser = out
	w.client(prs("a", "SELECT a FROM t"+long) + syn)
	w.parser = sharedParser
	w.client(qry("SELECT b FROM t"))
	if got := w.forwarded(); got != "P S Q" {
		t.Errorf("the server got %q", got)
	}
	if diff := cmp.Diff([]string{"query allow SELECT b FROM t"}, w.judge.ops); diff != "" {
		t.Error(diff)
	}
}

// interrupted is a parser in the course of which the server answers.
type interrupted struct {
	w  *wire
	at string
}

func (i *interrupted) Get(text []byte) (*sql.Script, error) {
	i.w.server(i.at)
	return sharedParser.Get(text)
}

func TestLongStringsLetOthersHaveTheirTurn(t *testing.T) {
	w := newWire()
	turns := 0
	text := strings.Repeat("SELECT 1;", 20*unitsAtOnce)
	in := []byte(qry(text))
	for len(in) > 0 {
		decided := w.judge.decided
		n, out := w.process(w.f, &in)
		w.toServer = append(w.toServer, out.Forwarded()...)
		if w.judge.decided-decided > unitsAtOnce {
			t.Fatalf("%d decisions at once", w.judge.decided-decided)
		}
		if n == 0 && out.Async == nil {
			t.Fatal("it would wait for ever")
		}
		if out.Async != nil {
			out.Async()
			turns++
		}
	}
	if got := w.forwarded(); got != "Q" || turns < 20 || w.judge.decided != 20*unitsAtOnce {
		t.Errorf("the server got %q after %d turns and %d decisions", got, turns, w.judge.decided)
	}
}

func TestClientDoesNotWaitWhenTooManyAnswersAreDue(t *testing.T) {
	w := newWire()
	w.client(strings.Repeat(dsc("S", ""), maxInflight+10))
	if w.due.n != maxInflight || !w.paused {
		t.Fatalf("%d answers are due, paused %v", w.due.n, w.paused)
	}
	w.server(errMsg("26000"))
	w.client(syn)
	w.server(idleNow)
	if w.due.n != 0 || w.paused || len(w.fromC) != 0 || w.err != nil {
		t.Errorf("%d answers are due, paused %v, %d bytes wait: %v", w.due.n, w.paused, len(w.fromC), w.err)
	}
}
