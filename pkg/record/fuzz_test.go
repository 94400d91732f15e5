package record

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
)

// FuzzReading gives the readers any bytes as a session's file and as the ledger: they may say what they like, within bounds.
func FuzzReading(f *testing.F) {
	const id = "01HF7YAT000000000000000000"
	c := sessionChain(id)
	events := appendEvent(nil, &c, testTime, &event{typ: typeOpen, head: NewFragment(openEvent{Version: 1, Session: id, Meta: testMeta})})
	events = appendEvent(events, &c, testTime, &event{typ: typeOperation, kind: "query", head: allowed, body: Fragment(`"text":"SELECT 1"`)})
	events = appendResult(events, &c, testTime, &Result{Operation: 2, Rows: 1})
	events = appendEvent(events, &c, testTime, &event{typ: typeClose, head: NewFragment(Ending{Reason: "done"})})
	events = appendSeal(events, &c, testTime, make([]byte, 64))
	l := ledgerChain()
	ledger := appendEvent(nil, &l, testTime, &event{typ: typeKey, head: NewFragment(keyLine{Version: 1, Key: make([]byte, 32)})})
	ledger = appendEvent(ledger, &l, testTime, &event{typ: typeOpen, head: NewFragment(openLine{Session: id, First: c.hash.String()})})
	ledger = appendEvent(ledger, &l, testTime, &event{typ: typeSeal, head: NewFragment(sealLine{Session: id})})
	f.Add(events, ledger, []byte(`{"count":1,"last":"","time":"2023-11-14T22:13:20Z","signature":""}`))
	f.Add([]byte("{}\n\n{"), []byte(`{"seq":1,"time":"`), []byte("null"))
	f.Add([]byte(`{"seq":1,"time":"2023-11-14T22:13:20.000000000Z","type":"text","prev":"`+c.hash.String()+`","event":0,"part":1}`+"\n"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, events, ledger, head []byte) {
		dir := t.TempDir()
		must(t, os.MkdirAll(filepath.Join(dir, sessionsName, id), 0o700))
		must(t, os.WriteFile(sessionPath(dir, id), events, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, ledgerName), ledger, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, headName), head, 0o600))
		for e, err := range Read(dir, id) {
			if err == nil && !json.Valid(e.JSON) {
				t.Errorf("an event reads as %q", e.JSON)
			}
		}
		if report, err := Verify(dir, VerifyOptions{}); err != nil || len(report.Faults) == 0 {
			t.Errorf("garbage is sound: %+v %v", report, err)
		}
		if _, err := List(dir); err == nil && len(ledger) == 0 {
			if list, _ := List(dir); len(list) != 0 {
				t.Errorf("an empty ledger lists %+v", list)
			}
		}
		if store, err := OpenStore(dir, zap.NewNop()); err == nil {
			store.Close()
			t.Error("garbage is opened for writing")
		}
	})
}

// FuzzStrings asks that every string survives in a fragment, and that what is appended without allocating is the same.
func FuzzStrings(f *testing.F) {
	for _, s := range []string{"", "plain", "\xff\xfe", "\U0010f880", "\x00\n\x1b\x7f", "<&>\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fragment := NewFragment(map[string]string{"s": s})
		if bytes.IndexByte(fragment, '\n') >= 0 {
			t.Errorf("%q makes the fragment %q", s, fragment)
		}
		var encoded struct{ S string }
		must(t, json.Unmarshal([]byte("{"+string(fragment)+"}"), &encoded))
		var appended string
		must(t, json.Unmarshal(appendString(nil, s), &appended))
		if Unescape(encoded.S) != s || encoded.S != appended {
			t.Errorf("%q comes back as %q, appended as %q", s, encoded.S, appended)
		}
	})
}
