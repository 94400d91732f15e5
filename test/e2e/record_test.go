package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/test/env"
)

// sessionsCommand runs "sallyport sessions" on the world's records.
func (w *world) sessionsCommand(arguments ...string) env.Result {
	w.t.Helper()
	return env.Execute(w.t, w.Command(append([]string{"sessions", arguments[0], "--state-dir", w.StateDir}, arguments[1:]...)...))
}

func TestEachExecutionIsOneOperation(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	c := w.connect()
	if _, err := c.Prepare(timeout(t), "lookup", "SELECT $1::int + 1"); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if got := scan(t, c, "lookup", i); got != fmt.Sprint(i+1) {
			t.Errorf("%d: %s", i, got)
		}
	}
	if _, err := c.Exec(timeout(t), "SELECT 1; SELECT 2 WHERE false"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(timeout(t), "DROP TABLE t"); sqlstate(err) != "42501" {
		t.Fatal(err)
	}
	if _, err := c.Exec(timeout(t), "SELECT * FROM nowhere"); sqlstate(err) != "42P01" {
		t.Fatal(err)
	}
	if err := c.Close(timeout(t)); err != nil {
		t.Fatal(err)
	}
	entries := w.sealed()
	want := append(slices.Repeat([]string{"execute allow SELECT $1::int + $2"}, 5), "query allow SELECT $1; SELECT $2 WHERE false")
	var got []string
	for _, line := range operations(entries) {
		// pgx describes before it executes, so what is denied or fails stops at its Parse.
		if !strings.Contains(line, "DROP TABLE") && !strings.Contains(line, "nowhere") {
			got = append(got, line)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	for _, e := range entries {
		o := e.Operation
		if o == nil {
			continue
		}
		switch {
		case o.Kind == "execute" && (o.Result == nil || o.Result.Rows != 1 || o.Result.Bytes == 0 || o.Result.Duration <= 0 || o.Rule != "rest" || o.Policy != "orders"):
			t.Errorf("the execution is recorded as %+v, %+v", o, o.Result)
		case strings.HasPrefix(o.Text, "DROP") && (o.Decision != "deny" || o.Rule != "no-ddl"):
			t.Errorf("the denial is recorded as %+v", o)
		}
	}
	list := w.sessions()
	last := list[len(list)-1]
	if last.Reason != "terminated" || last.Denied != 1 || last.Target != "orders-db" || last.Workload.Name != w.name ||
		last.Workload.ProcessUnknown != env.ByNFT() || !env.ByNFT() && last.Workload.Comm != "e2e.test" || last.Destination != w.address() {
		t.Errorf("the session is recorded as %+v", last)
	}
}

func TestRecordHoldsAsMuchAsPolicySays(t *testing.T) {
	t.Parallel()
	const secret, number = "correct-horse-battery", "4711"
	tests := []struct {
		name, record    string
		texts, literals bool // whether the record may hold literals of a text, and parameters
	}{
		{"by default nothing that was said", "{}", false, false},
		{"full text", "{text: full}", true, false},
		{"full parameters", "{parameters: full}", false, true},
		{"everything", "{text: full, parameters: full}", true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{record: tt.record})
			c := w.wire()
			c.query("SELECT 'literal-" + number + "'")
			c.send(parse("", "SELECT $1::text, $2::text"), bind("", "", "parameter-"+number, "x"), execute(""), syncMessage())
			c.batch()
			// What is a password is nobody's to read, whatever the policy says.
			for _, text := range []string{
				"CREATE ROLE NAME LOGIN PASSWORD 'secret'", "ALTER ROLE NAME PASSWORD 'secret'", "ALTER USER NAME WITH ENCRYPTED PASSWORD 'secret'",
				"CREATE ROLE NAME PASSWORD 'secret' nonsense", "DO $$BEGIN EXECUTE 'ALTER ROLE NAME PASSWORD ''secret'''; END$$",
			} {
				text = strings.NewReplacer("NAME", w.other(), "secret", secret).Replace(text)
				c.query(text)
				c.send(append(unnamed(text), syncMessage())...)
				c.batch()
			}
			c.close()
			w.sealed()
			list := w.sessions()
			events := readFile(t, filepath.Join(w.StateDir, "sessions", list[0].ID, "events.jsonl"))
			for _, found := range []struct {
				text string
				want bool
			}{{"literal-" + number, tt.texts}, {"parameter-" + number, tt.literals}, {secret, false}, {w.other(), true}} {
				if got := strings.Contains(events, found.text); got != found.want {
					t.Errorf("%q is in the record: %t, want %t", found.text, got, found.want)
				}
			}
		})
	}
}

func TestRecordOfALongStatementIsWhole(t *testing.T) {
	t.Parallel()
	w := start(t, options{record: "{text: full}"})
	text := "SELECT 1 -- " + strings.Repeat("0123456789", 100_000)
	c := w.wire()
	if diff := cmp.Diff(selected, c.query(text)); diff != "" {
		t.Fatal(diff)
	}
	c.close()
	if diff := cmp.Diff([]string{"query allow " + text}, operations(w.sealed())); diff != "" {
		t.Errorf("it is not the text that was sent: %d bytes of difference", len(diff))
	}
}

func TestAuditorListsShowsAndVerifiesSessions(t *testing.T) {
	t.Parallel()
	w := start(t, options{rules: guarded})
	w.psql("SELECT 1", "DROP TABLE t")
	w.psql("SELECT 2")
	w.sealed()
	var list []record.Summary
	if err := json.Unmarshal([]byte(w.sessionsCommand("list", "-o", "json").Stdout), &list); err != nil || len(list) != 2 {
		t.Fatalf("%d sessions are listed, %v", len(list), err)
	}
	if denied := w.sessionsCommand("list", "--denied"); !strings.Contains(denied.Stdout, list[0].ID) || strings.Contains(denied.Stdout, list[1].ID) {
		t.Errorf("the sessions with denials are\n%s", denied.Stdout)
	}
	show := w.sessionsCommand("show", list[0].ID)
	for _, text := range []string{w.name, "SELECT $1", "DROP TABLE t", "no-ddl", "deny"} {
		if !strings.Contains(show.Stdout, text) {
			t.Errorf("show does not say %q:\n%s%s", text, show.Stdout, show.Stderr)
		}
	}
	if replay := w.sessionsCommand("replay", list[0].ID, "--speed", "0"); replay.Status != 0 || !strings.Contains(replay.Stdout, "DROP TABLE t") {
		t.Errorf("replay ended with %d:\n%s%s", replay.Status, replay.Stdout, replay.Stderr)
	}
	verify := func() env.Result { return w.sessionsCommand("verify") }
	if got := verify(); got.Status != 0 {
		t.Fatalf("verify ended with %d:\n%s%s", got.Status, got.Stdout, got.Stderr)
	}
	w.Stop()
	events := filepath.Join(w.StateDir, "sessions", list[0].ID, "events.jsonl")
	original := readFile(t, events)
	lines := strings.SplitAfter(original, "\n")
	tampered := []struct {
		name, content string
	}{
		{"one flipped bit", strings.Replace(original, `"decision":"deny"`, `"decision":"denx"`, 1)},
		{"a removed event", strings.Join(append(slices.Clone(lines[:2]), lines[3:]...), "")},
		{"two events in the other order", strings.Join(append([]string{lines[0], lines[2], lines[1]}, lines[3:]...), "")},
		{"a cut end", strings.Join(lines[:len(lines)-2], "")},
	}
	for _, tt := range tampered {
		if tt.content == original {
			t.Fatalf("%s changes nothing", tt.name)
		}
		if err := os.WriteFile(events, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := verify(); got.Status != 1 || !strings.Contains(got.Stdout, list[0].ID) {
			t.Errorf("after %s verify ended with %d:\n%s%s", tt.name, got.Status, got.Stdout, got.Stderr)
		}
	}
	if err := os.WriteFile(events, []byte(original), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := verify(); got.Status != 0 {
		t.Errorf("with everything in its place verify ended with %d:\n%s", got.Status, got.Stdout)
	}
	if err := os.RemoveAll(filepath.Dir(events)); err != nil {
		t.Fatal(err)
	}
	if got := verify(); got.Status != 1 {
		t.Errorf("after a session was removed verify ended with %d:\n%s", got.Status, got.Stdout)
	}
}

func TestNothingIsForwardedThatCanNotBeRecorded(t *testing.T) {
	t.Parallel()
	dir := smallFileSystem(t)
	w := start(t, options{stateDir: dir})
	if _, err := w.admin().Exec(timeout(t), "CREATE TABLE t (n int)"); err != nil {
		t.Fatal(err)
	}
	c := w.wire()
	filler := fill(t, dir)
	// A page of the session's own file may have room still.
	inserted := 0
	insert := func() []string { return c.query("INSERT INTO t VALUES (1)") }
	for ; inserted < 100; inserted++ {
		if got := insert(); got[0] != "INSERT 0 1" {
			if diff := cmp.Diff([]string{"Error 53100", "Ready I"}, got); diff != "" {
				t.Fatalf("(-want +got):\n%s", diff)
			}
			break
		}
	}
	c.send(append(unnamed("INSERT INTO t VALUES (2)"), syncMessage())...)
	if diff := cmp.Diff([]string{"ParseComplete", "Error 53100", "Ready I"}, withoutBind(c.batch())); diff != "" {
		t.Errorf("extended (-want +got):\n%s", diff)
	}
	c.send(&pgproto3.FunctionCall{Function: 957, ArgFormatCodes: []uint16{1}, Arguments: [][]byte{{0, 0, 0, 0}}, ResultFormatCode: 1})
	if diff := cmp.Diff([]string{"Error 53100", "Ready I"}, c.batch()); diff != "" {
		t.Errorf("a function call (-want +got):\n%s", diff)
	}
	if got := w.value("SELECT count(*) FROM t"); got != fmt.Sprint(inserted) {
		t.Errorf("%s rows are there, %d are recorded", got, inserted)
	}
	refused := newWire(t, w.workload().mustDial(w.address()))
	if err := refused.write(startupBytes(t, map[string]string{"user": "a", "database": w.database()})); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(refused.rest(), ", "); got != "FATAL 53100" {
		t.Errorf("a new session: %s", got)
	}
	if n := w.metric("sallyport_record_errors_total"); n < 4 {
		t.Errorf("%v record errors are counted", n)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if got := insert(); got[0] != "INSERT 0 1" {
		t.Errorf("with room again: %v", got)
	}
	c.close()
	w.sealed()
	if got := w.sessionsCommand("verify"); got.Status != 0 {
		t.Errorf("verify ended with %d:\n%s%s", got.Status, got.Stdout, got.Stderr)
	}
}

// withoutBind drops BindComplete: whether Bind or Execute is refused is the proxy's to choose.
func withoutBind(words []string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return w == "BindComplete" })
}

// smallFileSystem is a directory with room for a few sessions.
func smallFileSystem(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=2m,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	// The proxy must reach it.
	for parent := dir; parent != "/tmp" && parent != "/"; parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fill takes all the room that is left, and returns the file that holds it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return path
}
