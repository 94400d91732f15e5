package postgres

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConversations(t *testing.T) {
	const del = "DELETE FROM t"
	for _, test := range []struct {
		name    string
		turns   []turn
		ops     []string
		results []string
	}{
		{
			"a query", []turn{c("Q", qry("SELECT 1")), s("T D D C Z(I)", rows, row, row, tag("SELECT 2"), idleNow)},
			[]string{"query allow SELECT $1"}, []string{"1 2 "},
		},
		{
			"a denied query is refused by the server and answered in its place",
			[]turn{
				c("Q Q! Q", qry("SELECT 1"), qry(del), qry("SELECT 2")),
				s("C Z(I)", tag("SELECT 0"), idleNow), s("E(42501) Z(I)", errMsg("42601"), idleNow), s("C Z(I)", tag("SELECT 0"), idleNow),
			},
			[]string{"query allow SELECT $1", "query deny " + del, "query allow SELECT $1"}, []string{"1 0 ", "3 0 "},
		},
		{
			"a denied one of several denies all", []turn{c("Q!", qry("SELECT 1; "+del))},
			[]string{"query deny SELECT $1; " + del}, nil,
		},
		{
			"an empty query", []turn{c("Q", qry("")), s("I Z(I)", mk(msgEmptyQuery), idleNow)},
			[]string{"query allow "}, []string{"1 0 "},
		},
		{
			"the extended protocol",
			[]turn{c("P B D E S", prs("", "SELECT $1"), bnd("", ""), dsc("P", ""), exe(""), syn), s("1 2 T D C Z(I)", parseOK, bindOK, rows, row, tag("SELECT 1"), idleNow)},
			[]string{"execute allow SELECT $1"}, []string{"1 1 "},
		},
		{
			"a denied Parse skips to Sync",
			[]turn{
				c("P! S P B E S", prs("", del), bnd("", ""), exe(""), syn, prs("", "SELECT 1"), bnd("", ""), exe(""), syn),
				s("E(42501) Z(I) 1 2 C Z(I)", errMsg("42601"), idleNow, parseOK, bindOK, tag("SELECT 0"), idleNow),
			},
			[]string{"parse deny " + del, "execute allow SELECT $1"}, []string{"2 0 "},
		},
		{
			"notices and parameters may come before a denial's error",
			[]turn{c("P! S", prs("s", del), syn), s("N S E(42501) N Z(E)", notice, setting1, errMsg("42601"), notice, aborted)},
			[]string{"parse deny " + del}, nil,
		},
		{
			"what the client sends after an error and before its Sync is skipped, however late it comes",
			[]turn{
				c("P", prs("s", "SELECT 1")), s("E(42P05)", errMsg("42P05")),
				c("", bnd("", "s"), exe(""), qry("SELECT 2")), c("S Q", syn, qry("SELECT 3")),
				s("Z(I) C Z(I)", idleNow, tag("SELECT 0"), idleNow),
			},
			[]string{"query allow SELECT $1"}, []string{"1 0 "},
		},
		{
			"so is it after an error that answers nothing, between a batch's messages",
			[]turn{
				c("P H", prs("s", "SELECT 1"), flsh), s("1 E(57014)", parseOK, errMsg("57014")),
				c("S Q", bnd("", "s"), exe(""), syn, qry("SELECT 2")), s("Z(I) C Z(I)", idleNow, tag("SELECT 0"), idleNow),
			},
			[]string{"query allow SELECT $1"}, []string{"1 0 "},
		},
		{
			"a Query in a batch that fails is skipped as the server skips it",
			[]turn{
				c("P Q S Q", prs("s", "SELECT 1"), qry("SELECT 2"), syn, qry("SELECT 3")),
				s("E(42P05) Z(I) C Z(I)", errMsg("42P05"), idleNow, tag("SELECT 0"), idleNow),
			},
			[]string{"query allow SELECT $1", "query allow SELECT $1"}, []string{"1 0 skipped", "2 0 "},
		},
		{
			"a failed Query in a batch skips nothing",
			[]turn{
				c("P S", prs("s", "SELECT 1"), syn), s("1 Z(I)", parseOK, idleNow),
				c("B Q B E S", bnd("", "s"), qry("SELECT 2"), bnd("", "s"), exe(""), syn),
				s("2 E(22012) Z(I) 2 C Z(I)", bindOK, errMsg("22012"), idleNow, bindOK, tag("SELECT 0"), idleNow),
			},
			[]string{"bind allow SELECT $1", "query allow SELECT $1", "execute allow SELECT $1"}, []string{"2 0 22012", "3 0 "},
		},
		{
			"COPY in",
			[]turn{c("Q", qry("COPY t FROM STDIN")), s("G", copyIn), c("d d c", data, syn, data, dn), s("C Z(I)", tag("COPY 2"), idleNow)},
			[]string{"query allow COPY t FROM STDIN"}, []string{"1 2 "},
		},
		{
			"COPY in that is pipelined, with the Sync that the server ignores",
			[]turn{
				c("P B E S d d c S Q", prs("", "COPY t FROM STDIN"), bnd("", ""), exe(""), syn, data, data, dn, syn, qry("SELECT 1")),
				s("1 2 G C Z(I) C Z(I)", parseOK, bindOK, copyIn, tag("COPY 2"), idleNow, tag("SELECT 0"), idleNow),
			},
			[]string{"execute allow COPY t FROM STDIN", "query allow SELECT $1"}, []string{"1 2 ", "2 0 "},
		},
		{
			"COPY in that is pipelined and fails before it asks for data",
			[]turn{
				c("Q d c Q", qry("COPY t FROM STDIN"), data, dn, qry("SELECT 1")),
				s("E(42P01) Z(I) C Z(I)", errMsg("42P01"), idleNow, tag("SELECT 0"), idleNow),
			},
			[]string{"query allow COPY t FROM STDIN", "query allow SELECT $1"}, []string{"1 0 42P01", "2 0 "},
		},
		{
			"COPY in that fails half way, by the extended protocol",
			[]turn{
				c("P B E", prs("", "COPY t FROM STDIN"), bnd("", ""), exe("")), s("1 2 G", parseOK, bindOK, copyIn),
				c("d", data), s("E(22P02)", errMsg("22P02")), c("S", data, dn, syn), s("Z(I)", idleNow),
			},
			[]string{"execute allow COPY t FROM STDIN"}, []string{"1 0 22P02"},
		},
		{
			"two COPYs in one string",
			[]turn{
				c("Q d c d f", qry("COPY a FROM STDIN; COPY b FROM STDIN"), data, dn, data, fail),
				s("G C G E(57014) Z(I)", copyIn, tag("COPY 1"), copyIn, errMsg("57014"), idleNow),
			},
			[]string{"query allow COPY a FROM STDIN; COPY b FROM STDIN"}, []string{"1 1 57014"},
		},
		{
			"CopyDone that belongs to no COPY is ignored, as the server does",
			[]turn{
				c("P B E c B E S", prs("", "SELECT 1"), bnd("", ""), exe(""), dn, bnd("", ""), exe(""), syn),
				s("1 2 C 2 C Z(I)", parseOK, bindOK, tag("SELECT 0"), bindOK, tag("SELECT 0"), idleNow),
			},
			[]string{"execute allow SELECT $1", "execute allow SELECT $1"}, []string{"1 0 ", "2 0 "},
		},
		{
			"a statement of an earlier batch waits for its answer",
			[]turn{
				c("P S", prs("s", "SELECT 1"), syn, bnd("", "s"), exe(""), syn),
				{'s', parseOK + idleNow, "1 Z(I)", "B E S"}, s("2 C Z(I)", bindOK, tag("SELECT 0"), idleNow),
			},
			[]string{"execute allow SELECT $1"}, []string{"1 0 "},
		},
		{
			"a statement that the server refused in an earlier batch does not exist",
			[]turn{
				c("P S", prs("s", "SELECT 1"), syn, bnd("", "s"), exe(""), syn),
				{'s', errMsg("42P05") + idleNow, "E(42P05) Z(I)", "P! S"}, s("E(26000) Z(I)", errMsg("42601"), idleNow),
			},
			nil, nil,
		},
		{
			"function calls are known by name or denied",
			[]turn{
				c("F Q! S", mk(msgFunctionCall, uint32Bytes(953), "\x00\x00\x00\x00\x00\x00"), mk(msgFunctionCall, uint32Bytes(4711), "\x00\x00\x00\x00\x00\x00"), syn),
				s("V Z(I) E(42501) Z(I) Z(I)", mk(msgFunctionCallResponse, "\xff\xff\xff\xff"), idleNow, errMsg("42601"), idleNow, idleNow),
			},
			[]string{"function-call allow lo_close (oid 953)", "function-call deny  (oid 4711)"}, []string{"1 0 "},
		},
		{
			"an error at Sync, of a deferred constraint",
			[]turn{
				c("P B E S Q", prs("", "SELECT 1"), bnd("", ""), exe(""), syn, qry("SELECT 2")),
				s("1 2 C E(23505) Z(I) C Z(I)", parseOK, bindOK, tag("SELECT 0"), errMsg("23505"), idleNow, tag("SELECT 0"), idleNow),
			},
			[]string{"execute allow SELECT $1", "query allow SELECT $1"}, []string{"1 0 ", "2 0 "},
		},
		{
			"the server says goodbye in the middle",
			[]turn{
				c("Q P!", qry("SELECT 1"), prs("", del)),
				s("E(57P01)", mk(msgErrorResponse, "SFATAL\x00VFATAL\x00C57P01\x00Mbye\x00\x00")),
			},
			[]string{"query allow SELECT $1", "parse deny " + del}, nil,
		},
		{
			"a portal that is suspended and goes on",
			[]turn{
				c("Q P B E E S", qry("BEGIN"), prs("", "SELECT 1"), bnd("p", ""), exe("p"), exe("p"), syn),
				s("C Z(T) 1 2 D s D C Z(T)", tag("BEGIN"), inTx, parseOK, bindOK, row, mk(msgPortalSuspended), row, tag("SELECT 1"), inTx),
				c("E S", exe("p"), syn), s("C Z(T)", tag("SELECT 0"), inTx),
			},
			[]string{"query allow BEGIN", "execute allow SELECT $1", "execute allow SELECT $1", "execute allow SELECT $1"},
			[]string{"1 0 ", "2 1 ", "3 1 ", "4 0 "},
		},
		{
			"a portal ends with its transaction",
			[]turn{
				c("P B S", prs("s", "SELECT 1"), bnd("p", "s"), syn), s("1 2 Z(I)", parseOK, bindOK, idleNow),
				c("P! S", exe("p"), syn), s("E(34000) Z(I)", errMsg("42601"), idleNow),
			},
			nil, nil,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := converse(t, nil, test.turns)
			if w.err != nil {
				t.Errorf("the session ended: %v", w.err)
			}
			if diff := cmp.Diff(test.ops, w.judge.ops); diff != "" {
				t.Errorf("operations: %s", diff)
			}
			if diff := cmp.Diff(test.results, w.judge.results); diff != "" {
				t.Errorf("results: %s", diff)
			}
		})
	}
}

func TestTerminateEndsTheSessionCleanly(t *testing.T) {
	w := converse(t, nil, []turn{c("Q", qry("SELECT 1")), s("C Z(I)", tag("SELECT 0"), idleNow), c("", term)})
	if !w.ended || !w.idle() {
		t.Errorf("ended %v, idle %v", w.ended, w.idle())
	}
}

func TestConnectionIsNotUsedAgainWhenSomethingIsUnfinished(t *testing.T) {
	for name, turns := range map[string][]turn{
		"an answer is due":                    {c("Q", qry("SELECT 1"), term)},
		"a transaction is open":               {c("Q", qry("BEGIN")), s("C Z(T)", tag("BEGIN"), inTx), c("", term)},
		"an implicit transaction is open":     {c("P B E", prs("", "SELECT 1"), bnd("", ""), exe("")), s("1 2 C", parseOK, bindOK, tag("SELECT 0")), c("", term)},
		"the server skips to Sync":            {c("P!", prs("", "DELETE FROM t")), s("E(42501)", errMsg("42601")), c("", term)},
		"the server reads CopyData":           {c("Q", qry("COPY t FROM STDIN")), s("G", copyIn), c("", term)},
		"half a message of the server's came": {s("N…", notice[:9]), c("", term)},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "half a message of the server's came" {
				w := newWire()
				w.server(notice[:9])
				w.client(term)
				if w.idle() {
					t.Error("it is idle")
				}
				return
			}
			if w := converse(t, nil, turns); w.idle() {
				t.Error("it is idle")
			}
		})
	}
}

func TestDrainLosesNothing(t *testing.T) {
	for _, test := range []struct {
		name  string
		turns []turn // before
		now   string // what the client gets at once
		then  []turn
	}{
		{"an idle session ends at once", nil, "E(57P01)", nil},
		{"a query is answered first", []turn{c("Q", qry("SELECT 1"))}, "", []turn{s("C Z(I) E(57P01)", tag("SELECT 0"), idleNow)}},
		{
			"a transaction ends first",
			[]turn{c("Q", qry("BEGIN")), s("C Z(T)", tag("BEGIN"), inTx)}, "",
			[]turn{c("Q", qry("COMMIT")), s("C Z(I) E(57P01)", tag("COMMIT"), idleNow)},
		},
		{
			"so does one that only Sync ends",
			[]turn{c("P B E", prs("", "SELECT 1"), bnd("", ""), exe("")), s("1 2 C", parseOK, bindOK, tag("SELECT 0"))}, "",
			[]turn{c("S", syn), s("Z(I) E(57P01)", idleNow)},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWire()
			play := func(turns []turn) {
				for _, turn := range turns {
					if turn.from == 'c' {
						w.client(turn.send)
						continue
					}
					w.server(turn.send)
					if got := w.answered(); got != turn.want {
						t.Errorf("the client got %q, want %q", got, turn.want)
					}
				}
			}
			play(test.turns)
			_, out := w.process(drainer{w.machine}, &[]byte{})
			w.toConn = append(w.toConn, out.Forwarded()...)
			if got := w.answered(); got != test.now {
				t.Errorf("the client got %q, want %q", got, test.now)
			}
			play(test.then)
			if w.err == nil {
				t.Error("the session goes on")
			}
		})
	}
}

func TestFullRecordForwardsNothing(t *testing.T) {
	broken := func(w *wire) { w.judge.broken = true }
	converse(t, broken, []turn{
		c("Q!", qry("SELECT 1")), s("E(53100) Z(I)", errMsg("42601"), idleNow),
		c("P B P! S", prs("", "SELECT 1"), bnd("", ""), exe(""), syn), s("1 2 E(53100) Z(I)", parseOK, bindOK, errMsg("42601"), idleNow),
		c("Q!", mk(msgFunctionCall, uint32Bytes(953), "\x00\x00\x00\x00\x00\x00")), s("E(53100) Z(I)", errMsg("42601"), idleNow),
	})
}

func TestLongStatementsAreParsedElsewhereAndForwardedWhole(t *testing.T) {
	long := "SELECT 1 /*" + strings.Repeat("x", asyncText) + "*/"
	w := newWire()
	w.client(qry(long) + prs("", "DELETE FROM t /*"+strings.Repeat("x", asyncText)+"*/") + syn + qry("SELECT 2"))
	if got := w.forwarded(); got != "Q P! S Q" {
		t.Errorf("the server got %q", got)
	}
	w.server(tag("SELECT 0") + idleNow + errMsg("42601") + idleNow + tag("SELECT 0") + idleNow)
	if got := w.answered(); got != "C Z(I) E(42501) Z(I) C Z(I)" {
		t.Errorf("the client got %q", got)
	}
}
