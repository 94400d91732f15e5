package postgres

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/mask"
	"github.com/sallyport-dev/sallyport/pkg/policy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// A fakeJudge denies what forbidden says, and remembers what it is told.
type fakeJudge struct {
	forbidden    func(u *sql.Unit, searchPath []string) bool
	held         func(u *sql.Unit) *policy.Approval // nil, or what holds a unit
	revision     uint64
	full, broken bool
	asker
	ops            []string // "kind decision text [parameters]" for each operation
	results        []string // "number rows error"
	notes          []string
	masks          *mask.Rules
	decided, bytes int64
}

func (j *fakeJudge) Decide(units []sql.Unit, searchPath []string) policy.Decision {
	j.decided++
	for i := range units {
		if j.forbidden(&units[i], searchPath) {
			return policy.Decision{Policy: "p", Rule: "no", Message: "not here"}
		}
	}
	if d := j.holds(units); d.Action == policy.Hold {
		return d
	}
	return policy.Decision{Action: policy.Allow, Policy: "p", Rule: "yes"}
}

func (j *fakeJudge) Admit(op *record.Operation, d policy.Decision) (uint64, error) {
	if j.broken {
		return 0, errors.New("disk full")
	}
	var what struct {
		Text     string
		Executes []string
	}
	if err := json.Unmarshal([]byte("{"+string(op.Statement)+"}"), &what); err != nil {
		panic(err)
	}
	line := op.Kind + " " + d.Action.String() + " " + what.Text
	if what.Executes != nil {
		line += " → " + strings.Join(what.Executes, "; ")
	}
	j.ops = append(j.ops, line)
	if !strings.Contains(string(op.Decision), `"decision":"`+d.Action.String()+`"`) {
		panic("the record has another decision than the judge's")
	}
	return uint64(len(j.ops)), nil
}

func (j *fakeJudge) Finish(r *record.Result) {
	j.results = append(j.results, fmt.Sprintf("%d %d %s", r.Operation, r.Rows, r.Error))
	j.bytes += r.Bytes
}
func (j *fakeJudge) Note(kind string, _ record.Fragment) { j.notes = append(j.notes, kind) }
func (j *fakeJudge) Revision() uint64                    { return j.revision }
func (j *fakeJudge) Masks() *mask.Rules                  { return j.masks }
func (j *fakeJudge) Masked(policy, mask string, values uint64) {
	j.notes = append(j.notes, fmt.Sprintf("%d of %s/%s", values, policy, mask))
}
func (j *fakeJudge) Added(time.Duration)   {}
func (j *fakeJudge) Options() (bool, bool) { return j.full, j.full }

// noDeletes forbids DELETE and every DDL command.
func noDeletes(u *sql.Unit, _ []string) bool { return u.Verb == "DELETE" || u.Kind == sql.KindDDL }

// A wire drives both halves of a machine as a relay does.
type wire struct {
	*machine
	f                *frontend
	b                *backend
	judge            *fakeJudge
	fromC, fromS     []byte // offered and not consumed
	toServer, toConn []byte
	paused           bool
	awaited          func(done <-chan struct{}) // work for which the client's half waits
	err              error
	bytewise         bool
	sent             int // how much of toServer, toConn was looked at
	told             int
}

func newWire() *wire {
	j := &fakeJudge{forbidden: noDeletes, asker: nobodyAsks{}}
	m := &machine{judge: j, parser: sharedParser, session: "s1", status: 'I', searchPath: []string{"public"}, role: "app", parameters: map[string]string{}}
	return &wire{machine: m, f: &frontend{machine: m}, b: &backend{machine: m}, judge: j}
}

var sharedParser = sql.NewCache()

func (w *wire) client(p string) { w.feed(&w.fromC, p, w.pumpClient) }
func (w *wire) server(p string) { w.feed(&w.fromS, p, w.pumpServer) }

func (w *wire) feed(to *[]byte, p string, pump func()) {
	step := len(p)
	if w.bytewise {
		step = 1
	}
	for len(p) > 0 && w.err == nil {
		// A copy that is overwritten after use, as the relay's shared buffer is.
		*to = append(*to, p[:step]...)
		p = p[step:]
		pump()
	}
}

func (w *wire) pumpClient() {
	for len(w.fromC) > 0 && w.err == nil && !w.paused && w.awaited == nil {
		n, out := w.process(w.f, &w.fromC)
		w.toServer = append(w.toServer, out.Forwarded()...)
		w.toConn = append(w.toConn, out.Replied()...)
		w.paused = out.Pause
		if out.Async != nil {
			out.Async()
			continue
		}
		if w.awaited = out.Await; w.awaited != nil {
			return
		}
		if n == 0 || !w.paused {
			return
		}
	}
}

func (w *wire) pumpServer() {
	n, out := w.process(w.b, &w.fromS)
	w.toConn = append(w.toConn, out.Forwarded()...)
	w.toServer = append(w.toServer, out.Replied()...)
	if n > 0 && w.paused {
		w.paused = false
		w.pumpClient()
	}
}

func (w *wire) process(h relay.Half, in *[]byte) (int, *relay.Output) {
	out := &relay.Output{}
	shared := append([]byte(nil), *in...)
	n, err := h.Process(shared, out)
	if n < 0 || n > len(shared) {
		panic(fmt.Sprintf("%d of %d bytes consumed", n, len(shared)))
	}
	copied := &relay.Output{Need: out.Need, Pause: out.Pause, Async: out.Async, Await: out.Await}
	copied.Forward(out.Forwarded())
	copied.Reply(out.Replied())
	for i := range shared {
		shared[i] = 0xaa
	}
	h.(relay.Settler).Settle()
	*in = (*in)[n:]
	if out.Deaf {
		*in = nil
	}
	w.err = err
	return n, copied
}

// forwarded is what the server has got since the last call, in short: types of messages, with "!" for what it refuses.
func (w *wire) forwarded() string {
	s := summary(w.toServer[w.sent:], false)
	w.sent = len(w.toServer)
	return s
}

// answered is what the client has got since the last call: types of messages, ErrorResponse with its code, ReadyForQuery with its status.
func (w *wire) answered() string {
	s := summary(w.toConn[w.told:], true)
	w.told = len(w.toConn)
	return s
}

func summary(p []byte, fromServer bool) string {
	var words []string
	for len(p) > 0 {
		if len(p) < headerSize {
			return strings.Join(append(words, "…"), " ")
		}
		typ, size, ok := header(p)
		if !ok {
			return strings.Join(append(words, "?"), " ")
		}
		word, body := string(typ), p[headerSize:min(size, len(p))]
		switch {
		case size > len(p):
			word, size = word+"…", len(p)
		case fromServer && typ == msgErrorResponse:
			word += "(" + string(errorField(body, 'C')) + ")"
		case fromServer && typ == msgReadyForQuery:
			word += "(" + string(body) + ")"
		case !fromServer && strings.Contains(string(body), "sallyport: denied"):
			word += "!"
		}
		words = append(words, word)
		p = p[size:]
	}
	return strings.Join(words, " ")
}

// Messages of the client.
func mk(typ byte, parts ...string) string { return string(appendMessage(nil, typ, parts...)) }

func qry(text string) string       { return mk(msgQuery, text, "\x00") }
func prs(name, text string) string { return mk(msgParse, name, "\x00", text, "\x00\x00\x00") }
func bnd(portal, name string) string {
	return mk(msgBind, portal, "\x00", name, "\x00\x00\x00\x00\x00\x00\x00")
}
func exe(portal string) string     { return mk(msgExecute, portal, "\x00\x00\x00\x00\x00") }
func dsc(what, name string) string { return mk(msgDescribe, what, name, "\x00") }
func cls(what, name string) string { return mk(msgClose, what, name, "\x00") }

var (
	syn  = mk(msgSync)
	flsh = mk(msgFlush)
	term = mk(msgTerminate)
	data = mk(msgCopyData, "1\n")
	dn   = mk(msgCopyDone)
	fail = mk(msgCopyFail, "no\x00")
)

// Messages of the server.
var (
	parseOK  = mk(msgParseComplete)
	bindOK   = mk(msgBindComplete)
	closeOK  = mk(msgCloseComplete)
	row      = mk(msgDataRow, "\x00\x01\x00\x00\x00\x011")
	rows     = mk(msgRowDescription, "\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00")
	copyIn   = mk(msgCopyInResponse, "\x00\x00\x00")
	notice   = mk(msgNoticeResponse, "SNOTICE\x00C00000\x00Mhm\x00\x00")
	setting1 = mk(msgParameterStatus, "application_name\x00x\x00")
	idleNow  = mk(msgReadyForQuery, "I")
	inTx     = mk(msgReadyForQuery, "T")
	aborted  = mk(msgReadyForQuery, "E")
)

func tag(s string) string { return mk(msgCommandComplete, s, "\x00") }
func errMsg(code string) string {
	return mk(msgErrorResponse, "SERROR\x00VERROR\x00C"+code+"\x00Mbad\x00\x00")
}

// A turn is what one side sends, and what the other then gets ("" is nothing).
type turn struct {
	from rune // 'c' or 's'
	send string
	want string
	back string // what the sender gets
}

func c(want string, send ...string) turn { return turn{'c', strings.Join(send, ""), want, ""} }
func s(want string, send ...string) turn { return turn{'s', strings.Join(send, ""), want, ""} }

// converse plays a conversation, whole and byte by byte.
func converse(t *testing.T, prepare func(*wire), turns []turn) *wire {
	t.Helper()
	var last *wire
	for _, bytewise := range []bool{true, false} {
		w := newWire()
		w.bytewise = bytewise
		if prepare != nil {
			prepare(w)
		}
		for i, turn := range turns {
			if turn.from == 'c' {
				w.client(turn.send)
			} else {
				w.server(turn.send)
			}
			server, client := w.forwarded(), w.answered()
			want, back := turn.want, turn.back
			if turn.from == 's' {
				want, back = turn.back, turn.want
				// What the client sent may go on because of an answer.
				if server != "" && want == "" {
					t.Errorf("turn %d (bytewise %v): the server got %q", i, bytewise, server)
				}
			}
			if server != want {
				t.Errorf("turn %d (bytewise %v): the server got %q, want %q", i, bytewise, server, want)
			}
			if client != back {
				t.Errorf("turn %d (bytewise %v): the client got %q, want %q", i, bytewise, client, back)
			}
			w.check(t)
		}
		last = w
	}
	return last
}

// check looks for what must hold between any two messages.
func (w *wire) check(t testing.TB) {
	t.Helper()
	if w.due.n < 0 || w.due.n > maxInflight {
		t.Fatalf("%d answers are due", w.due.n)
	}
	statements, portals := map[*binding[*plan]]int{}, map[*binding[portal]]int{}
	for i := range w.due.n {
		e := w.due.at(i)
		if e.statement != nil {
			statements[e.statement]++
		}
		if e.portal != nil {
			portals[e.portal]++
		}
		for _, change := range e.changes {
			statements[change.binding]++
		}
	}
	for _, b := range w.statements.named {
		if b.pending != statements[b] {
			t.Fatalf("statement %q: %d changes are pending, %d due", b.name, b.pending, statements[b])
		}
	}
	for _, b := range w.portals.named {
		if b.pending != portals[b] {
			t.Fatalf("portal %q: %d changes are pending, %d due", b.name, b.pending, portals[b])
		}
	}
	if w.statements.unnamed.pending != statements[&w.statements.unnamed] || w.portals.unnamed.pending != portals[&w.portals.unnamed] {
		t.Fatal("pending changes of unnamed ones do not match what is due")
	}
	if w.err == nil && w.paused && w.due.n == 0 {
		t.Fatal("the client waits for an answer, and none is due")
	}
}

func uint32Bytes(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }

// A drainer calls Drain where a relay's Inject would.
type drainer struct{ *machine }

func (d drainer) Process(_ []byte, out *relay.Output) (int, error) { return 0, d.Drain(out) }
