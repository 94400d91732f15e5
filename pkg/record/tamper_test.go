package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// smallStore is a closed store with two sessions and a refused connection.
func smallStore(t *testing.T) (dir string, ids []string) { return makeSmallStore(t, false) }

func makeSmallStore(t *testing.T, shared bool) (dir string, ids []string) {
	t.Helper()
	dir = t.TempDir()
	store := openTestStore(t, dir)
	if shared {
		store.shareAll()
	}
	store.Refuse("no_policy", testMeta)
	for range 2 {
		session := begin(t, store)
		ids = append(ids, session.ID())
		session.Result(&Result{Operation: operate(t, session, query("SELECT 1")), Rows: 1})
		operate(t, session, &Operation{Kind: "query", Statement: NewFragment(stated{Text: "DROP TABLE t"}), Decision: denied})
		must(t, session.Close("client closed"))
	}
	must(t, store.Close())
	wantSound(t, dir)
	return dir, ids
}

// Signatures are slow with the race detector; without it, all bytes take seconds.
const (
	flipEach = 5
	cutEach  = 11
)

func TestEveryFlippedByteIsFound(t *testing.T) {
	for name, shared := range placements {
		t.Run(name, func(t *testing.T) { flipEveryByte(t, shared) })
	}
}

func flipEveryByte(t *testing.T, shared bool) {
	dir, _ := makeSmallStore(t, shared)
	flipped := 0
	for path, whole := range tree(t, dir) {
		if filepath.Base(path) == keyName {
			continue // Verify must not need it
		}
		for i := len(path) % flipEach; i < len(whole); i += flipEach {
			b := []byte(whole)
			b[i] ^= 1 << (i % 8)
			must(t, os.WriteFile(path, b, 0o600))
			report, err := Verify(dir, VerifyOptions{})
			if err != nil || len(report.Faults) == 0 {
				t.Errorf("%s: the flipped byte %d is not found (%v)", path, i, err)
			}
			flipped++
		}
		must(t, os.WriteFile(path, []byte(whole), 0o600))
	}
	wantSound(t, dir)
	t.Logf("%d bytes flipped", flipped)
}

func TestEveryCutIsFound(t *testing.T) {
	for name, shared := range placements {
		t.Run(name, func(t *testing.T) { cutEverywhere(t, shared) })
	}
}

func cutEverywhere(t *testing.T, shared bool) {
	dir, _ := makeSmallStore(t, shared)
	for path, whole := range tree(t, dir) {
		if filepath.Base(path) == keyName {
			continue
		}
		for length := 0; length < len(whole); length += cutEach {
			must(t, os.WriteFile(path, []byte(whole[:length]), 0o600))
			report, err := Verify(dir, VerifyOptions{})
			if err != nil || len(report.Faults) == 0 {
				t.Errorf("%s: cut to %d bytes it is sound (%v)", path, length, err)
			}
		}
		must(t, os.WriteFile(path, []byte(whole), 0o600))
	}
}

// forge is what somebody without the key can make of a store: chains that fit.
func forge(t *testing.T, ledger []byte, typ string, members any) []byte {
	t.Helper()
	c := ledgerChain()
	for line := range bytes.Lines(ledger) {
		_, err := c.follow(line)
		must(t, err)
	}
	return appendEvent(ledger, &c, testTime, &event{typ: typ, head: NewFragment(members)})
}

// rechain makes lines follow each other again.
func rechain(t *testing.T, c chain, lines []byte) (out []byte) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		h, err := parseHead(line)
		must(t, err)
		start := len(out)
		out = append(c.begin(out, h.time, h.typ), bytes.TrimSuffix(h.rest, []byte("}\n"))...)
		out = c.end(out, start)
	}
	return out
}

func removeLine(b []byte, n int) []byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	return bytes.Join(append(lines[:n:n], lines[n+1:]...), nil)
}

func TestTamperingIsFound(t *testing.T) {
	change := func(t *testing.T, path string, f func([]byte) []byte) {
		must(t, os.WriteFile(path, f(content(t, path)), 0o600))
	}
	ledgerOf := func(dir string) string { return filepath.Join(dir, ledgerName) }
	for _, test := range []struct {
		name   string
		tamper func(t *testing.T, dir string, ids []string)
		file   string // of the first fault; ID1 stands for the first session
		what   string
	}{
		{"an event was removed", func(t *testing.T, dir string, ids []string) {
			change(t, sessionPath(dir, ids[0]), func(b []byte) []byte { return removeLine(b, 2) })
		}, "sessions/ID1/events.jsonl:3", "its number is 4, expected 3"},
		{"an event was removed, and the chain made to fit", func(t *testing.T, dir string, ids []string) {
			change(t, sessionPath(dir, ids[0]), func(b []byte) []byte { return rechain(t, sessionChain(ids[0]), removeLine(b, 2)) })
		}, "sessions/ID1/events.jsonl:5", "the seal does not fit"},
		{"an event was changed, and the chain and the seal made to fit", func(t *testing.T, dir string, ids []string) {
			change(t, sessionPath(dir, ids[0]), func(b []byte) []byte {
				lines := bytes.SplitAfter(b, []byte("\n"))
				b = bytes.Replace(bytes.Join(lines[:5], nil), []byte("DROP TABLE t"), []byte("SELECT 1"), 1)
				b = rechain(t, sessionChain(ids[0]), b)
				c := sessionChain(ids[0])
				for line := range bytes.Lines(b) {
					c.advance(line)
				}
				var seal sealEvent
				must(t, decodeLine(lines[5], &seal))
				h, err := parseHead(lines[5])
				must(t, err)
				return appendSeal(b, &c, h.time, seal.Signature)
			})
		}, "sessions/ID1/events.jsonl:6", "the signature of the seal"},
		{"the seal was removed", func(t *testing.T, dir string, ids []string) {
			change(t, sessionPath(dir, ids[0]), func(b []byte) []byte { return removeLine(b, 5) })
		}, "sessions/ID1/events.jsonl:6", "its seal is missing"},
		{"an event was added behind the seal", func(t *testing.T, dir string, ids []string) {
			change(t, sessionPath(dir, ids[0]), func(b []byte) []byte {
				c := sessionChain(ids[0])
				for line := range bytes.Lines(b) {
					c.advance(line)
				}
				return appendEvent(b, &c, testTime, &event{typ: "added"})
			})
		}, "sessions/ID1/events.jsonl:7", "something follows the seal"},
		{"a session was removed", func(t *testing.T, dir string, ids []string) {
			must(t, os.RemoveAll(filepath.Join(dir, sessionsName, ids[0])))
		}, "sessions/ID1/events.jsonl", "it is missing; line 4"},
		{"a session was put in the place of another", func(t *testing.T, dir string, ids []string) {
			change(t, sessionPath(dir, ids[0]), func([]byte) []byte { return content(t, sessionPath(dir, ids[1])) })
		}, "sessions/ID1/events.jsonl:1", "prev is not the hash"},
		{"a session was added", func(t *testing.T, dir string, ids []string) {
			id := "0" + ids[0][1:] // of another time
			if id == ids[0] {
				id = "1" + ids[0][1:]
			}
			must(t, os.Mkdir(filepath.Join(dir, sessionsName, id), 0o700))
			must(t, os.WriteFile(sessionPath(dir, id), content(t, sessionPath(dir, ids[0])), 0o600))
		}, "sessions/", "the ledger does not have this session"},
		{"a session was added, and to the ledger", func(t *testing.T, dir string, ids []string) {
			id := ids[1][:idLength-1] + "Z"
			must(t, os.Mkdir(filepath.Join(dir, sessionsName, id), 0o700))
			c := sessionChain(id)
			must(t, os.WriteFile(sessionPath(dir, id), appendEvent(nil, &c, testTime,
				&event{typ: typeOpen, head: NewFragment(openEvent{Version: 1, Session: id, Meta: testMeta})}), 0o600))
			change(t, ledgerOf(dir), func(b []byte) []byte {
				return forge(t, b, typeOpen, openLine{Session: id, First: c.hash.String(), Meta: testMeta, Signature: make([]byte, 64)})
			})
		}, "ledger.jsonl:9", "it stands behind the end of the last writer"},
		{"a file was added among the sessions", func(t *testing.T, dir string, _ []string) {
			must(t, os.WriteFile(filepath.Join(dir, sessionsName, "notes.txt"), nil, 0o600))
		}, "sessions/notes.txt", "it is no session"},
		{"a line of the ledger was removed", func(t *testing.T, dir string, _ []string) {
			change(t, ledgerOf(dir), func(b []byte) []byte { return removeLine(b, 2) })
		}, "ledger.jsonl:3", "its number is 4, expected 3"},
		{"a line of the ledger was removed, and the chain made to fit", func(t *testing.T, dir string, _ []string) {
			change(t, ledgerOf(dir), func(b []byte) []byte { return rechain(t, ledgerChain(), removeLine(b, 2)) })
		}, "ledger.head", "the ledger was cut short"},
		{"lines of the ledger changed places", func(t *testing.T, dir string, _ []string) {
			change(t, ledgerOf(dir), func(b []byte) []byte {
				lines := bytes.SplitAfter(b, []byte("\n"))
				lines[3], lines[5] = lines[5], lines[3]
				return bytes.Join(lines, nil)
			})
		}, "ledger.jsonl:4", "its number is 6, expected 4"},
		{"lines of the ledger changed places, and the chain made to fit", func(t *testing.T, dir string, _ []string) {
			change(t, ledgerOf(dir), func(b []byte) []byte {
				lines := bytes.SplitAfter(b, []byte("\n"))
				lines[4], lines[5] = lines[5], lines[4]
				return rechain(t, ledgerChain(), bytes.Join(lines, nil))
			})
		}, "ledger.head", "the ledger was written anew"},
		{"the ledger was cut short", func(t *testing.T, dir string, _ []string) {
			change(t, ledgerOf(dir), func(b []byte) []byte { return removeLine(b, 7) })
		}, "ledger.head", "the ledger was cut short"},
		{"a session was removed from the store and the ledger", func(t *testing.T, dir string, ids []string) {
			must(t, os.RemoveAll(filepath.Join(dir, sessionsName, ids[1])))
			change(t, ledgerOf(dir), func(b []byte) []byte {
				return rechain(t, ledgerChain(), removeLine(removeLine(b, 6), 5))
			})
		}, "ledger.head", "the ledger was cut short"},
		{"the head was removed", func(t *testing.T, dir string, _ []string) {
			must(t, os.Remove(filepath.Join(dir, headName)))
		}, "ledger.head", "it is missing"},
		{"the head is by another key", func(t *testing.T, dir string, _ []string) {
			_, key, err := ed25519.GenerateKey(nil)
			must(t, err)
			change(t, filepath.Join(dir, headName), func(b []byte) []byte {
				h, err := ParseHead(b)
				must(t, err)
				last, err := parseHash(h.Last)
				must(t, err)
				return newHead(key, chain{seq: h.Count, hash: last}, h.Time).encode()
			})
		}, "ledger.head", "its signature is not by the record's key"},
		{"the public key was replaced", func(t *testing.T, dir string, _ []string) {
			other, _, err := ed25519.GenerateKey(nil)
			must(t, err)
			change(t, filepath.Join(dir, publicName), func([]byte) []byte {
				b, err := encodePublicKey(other)
				must(t, err)
				return b
			})
		}, "record.pub", "it is not the key that the ledger begins with"},
		{"the key of the ledger was replaced, and the chain made to fit", func(t *testing.T, dir string, _ []string) {
			other, _, err := ed25519.GenerateKey(nil)
			must(t, err)
			change(t, ledgerOf(dir), func(b []byte) []byte {
				c := ledgerChain()
				first := appendEvent(nil, &c, testTime, &event{typ: typeKey, head: NewFragment(keyLine{Version: formatVersion, Key: other})})
				return rechain(t, ledgerChain(), append(first, removeLine(b, 0)...))
			})
		}, "ledger.jsonl:2", "its signature is not by the record's key"},
		{"the ledger is empty", func(t *testing.T, dir string, _ []string) {
			change(t, ledgerOf(dir), func([]byte) []byte { return nil })
		}, "ledger.head", "its signature is not by the record's key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, ids := smallStore(t)
			test.tamper(t, dir, ids)
			report := verify(t, dir)
			if len(report.Faults) == 0 {
				t.Fatal("it is not found")
			}
			file := strings.ReplaceAll(test.file, "ID1", ids[0])
			for _, f := range report.Faults {
				if strings.HasPrefix(f.Error(), file) && strings.Contains(f.What, test.what) {
					return
				}
			}
			t.Errorf("the faults are %+v, want one of %s with %q", report.Faults, file, test.what)
		})
	}
}

func TestStoreWrittenAnewNeedsWhatIsKeptElsewhere(t *testing.T) {
	dir, _ := smallStore(t)
	key, err := ParsePublicKey(content(t, dir, publicName))
	must(t, err)
	head, err := ParseHead(content(t, dir, headName))
	must(t, err)
	kept := VerifyOptions{Key: key, Head: &head}

	store := openTestStore(t, dir)
	must(t, begin(t, store).Close("later"))
	must(t, store.Close())
	report, err := Verify(dir, kept)
	must(t, err)
	if len(report.Faults) > 0 {
		t.Errorf("a record that went on is at fault: %+v", report.Faults)
	}

	other, _ := smallStore(t)
	wantSound(t, other)
	report, err = Verify(other, kept)
	must(t, err)
	if len(report.Faults) != 2 {
		t.Errorf("another record in its place has the faults %+v", report.Faults)
	}

	// With the key, the ledger can be cut and its head made anew; only the kept head shows it.
	dir, ids := smallStore(t)
	head, err = ParseHead(content(t, dir, headName))
	must(t, err)
	private, err := loadKey(dir)
	must(t, err)
	ledger := bytes.Join(bytes.SplitAfter(content(t, dir, ledgerName), []byte("\n"))[:5], nil)
	c := chain{seq: 5, hash: sha256.Sum256(bytes.SplitAfter(ledger, []byte("\n"))[4])}
	must(t, os.WriteFile(filepath.Join(dir, ledgerName), ledger, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, headName), newHead(private, c, testTime).encode(), 0o600))
	must(t, os.RemoveAll(filepath.Join(dir, sessionsName, ids[1])))
	wantSound(t, dir)
	report, err = Verify(dir, VerifyOptions{Head: &head})
	must(t, err)
	if len(report.Faults) != 1 || !strings.Contains(report.Faults[0].What, "cut short") {
		t.Errorf("a record that was cut has the faults %+v", report.Faults)
	}
}

func TestOneSessionIsVerified(t *testing.T) {
	dir, ids := smallStore(t)
	must(t, os.RemoveAll(filepath.Join(dir, sessionsName, ids[1])))
	for i, faults := range []int{0, 1} {
		report, err := Verify(dir, VerifyOptions{Sessions: ids[i : i+1]})
		must(t, err)
		if len(report.Faults) != faults || report.Sessions != 1 {
			t.Errorf("session %d: the report is %+v", i, report)
		}
	}
	if _, err := Verify(dir, VerifyOptions{Sessions: []string{"01HF7YAT000000000000000000"}}); err == nil {
		t.Error("a session that never was is sound")
	}
	if _, err := Verify(t.TempDir(), VerifyOptions{}); err == nil {
		t.Error("a store that is not there is sound")
	}
}

func TestOpenSessionIsCheckedSoFarAsItGoes(t *testing.T) {
	dir := t.TempDir()
	store := openTestStore(t, dir)
	session := begin(t, store)
	for i := range 5 {
		operate(t, session, query(fmt.Sprintf("SELECT %d", i)))
	}
	if report := wantSound(t, dir); report.Open != 1 || report.Events != 6 {
		t.Errorf("the report is %+v", report)
	}
	list, err := List(dir)
	must(t, err)
	if len(list) != 1 || !list[0].Open || list[0].Operations != 5 || list[0].Duration <= 0 {
		t.Errorf("the list is %+v", list)
	}
	path := sessionPath(dir, session.ID())
	must(t, os.WriteFile(path, bytes.Replace(content(t, path), []byte("SELECT 3"), []byte("SELECT 8"), 1), 0o600))
	if report := verify(t, dir); len(report.Faults) != 1 || report.Faults[0].Line != 6 {
		t.Errorf("the report is %+v", report)
	}
}
