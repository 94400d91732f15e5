package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A ledger is the chained list of all sessions, open for writing.
type ledger struct {
	dir string
	key ed25519.PrivateKey

	mu    sync.Mutex
	file  appendFile
	chain chain
	buf   []byte
	head  chain // the end that the head on disk covers
	// unsigned says that lines were written behind the last signature.
	unsigned bool
	// others are the sessions that another process began and that are not sealed.
	others map[string]other
	lines  *lineReader
}

// The ledger's lines, without what every line starts with. The order of fields is the order in the file.

// keyLine is the first line: it says for good which key the record is sealed with.
type keyLine struct {
	Version int    `json:"version"`
	Key     []byte `json:"key"` // the 32 bytes of RFC 8032
}

// openLine says that a session began. Its signature is over openText; where the session shares a file it has none.
type openLine struct {
	Session string `json:"session"`
	First   string `json:"first"`          // the hash of the session's first event
	File    string `json:"file,omitempty"` // that the session shares, relative to the state directory
	Meta
	Signature []byte `json:"signature,omitempty"`
}

// sealLine repeats a session's close and seal. Its signature is the seal's, if that has one.
type sealLine struct {
	Session string `json:"session"`
	Ending
	Events    uint64 `json:"events"`
	Last      string `json:"last"`
	Sealed    string `json:"sealed"` // the seal's time, which its signature covers
	Signature []byte `json:"signature,omitempty"`
}

// signedLine signs all lines before it: the signature is over ledgerText.
type signedLine struct {
	Signature []byte `json:"signature"`
}

// startLine says that a process began to write, and what it found.
type startLine struct {
	// Interrupted are the sessions that were found unsealed and were sealed.
	Interrupted int `json:"interrupted,omitempty"`
	// DroppedBytes are those of an incomplete last line of the ledger that were cut off.
	DroppedBytes int64 `json:"droppedBytes,omitempty"`
	// Uncovered are the lines that no signed head covered.
	Uncovered uint64 `json:"uncovered,omitempty"`
	// Signature is as in a signedLine. Versions that had no shared files wrote none.
	Signature []byte `json:"signature,omitempty"`
}

// stopLine says that a process ended.
type stopLine struct {
	// Last says that no other process wrote: only a start can follow.
	Last bool `json:"last,omitempty"`
}

// abandonedLine is about a session's directory whose Begin was cut short before the ledger had it.
type abandonedLine struct {
	Session string `json:"session"`
}

// damagedLine is about a session that can not be sealed.
type damagedLine struct {
	Session string `json:"session"`
	Reason  string `json:"reason"`
}

// refusedLine is about a connection that became no session.
type refusedLine struct {
	Reason string `json:"reason"`
	Meta
}

// suppressedLine is about refused connections of one workload that had no line of their own.
type suppressedLine struct {
	Count    uint64            `json:"count"`
	Reasons  map[string]uint64 `json:"reasons"`
	Workload Workload          `json:"workload"`
}

// An entry is a line of the ledger before it is chained.
type entry struct {
	typ      string
	members  Fragment
	unsigned bool // it needs a signature of the ledger
}

// write appends one line. The line is in the file when write returns without an error.
func (l *ledger) write(now time.Time, typ string, members any) error {
	return l.append(now, entry{typ: typ, members: NewFragment(members)})
}

// append appends lines, all or none.
func (l *ledger) append(now time.Time, entries ...entry) error {
	for _, e := range entries {
		if len(e.members) > maxInline {
			return fmt.Errorf("write a line to the ledger: it has %d bytes, more than %d", len(e.members), maxInline)
		}
	}
	if err := l.exclusively(func() error { return l.appendLocked(now, entries) }); err != nil {
		return fmt.Errorf("write a line to the ledger: %w", err)
	}
	return nil
}

// appendLocked is append for who has the ledger already.
func (l *ledger) appendLocked(now time.Time, entries []entry) error {
	before, unsigned := l.chain, l.unsigned
	l.buf = l.buf[:0]
	for _, e := range entries {
		unsigned = unsigned || e.unsigned
		start := len(l.buf)
		l.buf = appendMembers(l.chain.begin(l.buf, now, e.typ), e.members)
		l.buf = l.chain.end(l.buf, start)
	}
	err := l.file.append(l.buf)
	if err != nil {
		l.chain = before
	} else {
		l.unsigned = unsigned
	}
	if cap(l.buf) > maxKept {
		l.buf = nil
	}
	return err
}

// sign writes a line that signs those before it, where there are such without a signature.
func (l *ledger) sign(now time.Time) error {
	l.mu.Lock()
	unsigned := l.unsigned
	l.mu.Unlock()
	if !unsigned {
		return nil
	}
	return l.appendSigned(now, typeSigned, func(signature []byte) any { return signedLine{Signature: signature} })
}

// appendSigned appends a line that signs all before it.
func (l *ledger) appendSigned(now time.Time, typ string, members func(signature []byte) any) error {
	err := l.exclusively(func() error {
		line := members(ed25519.Sign(l.key, ledgerText(l.chain)))
		if err := l.appendLocked(now, []entry{{typ: typ, members: NewFragment(line)}}); err != nil {
			return err
		}
		l.unsigned = false
		return nil
	})
	if err != nil {
		return fmt.Errorf("sign the ledger: %w", err)
	}
	return nil
}

// writeHead puts the ledger on disk, and then a head that covers it. It does nothing when the head does already.
func (l *ledger) writeHead(now time.Time) error {
	l.mu.Lock()
	end, covered := l.chain, l.head
	l.mu.Unlock()
	if end == covered {
		return nil
	}
	// In this order: after a loss of power the head must not say more than the ledger.
	if err := l.file.file.Sync(); err != nil {
		return fmt.Errorf("put the ledger on disk: %w", err)
	}
	path := filepath.Join(l.dir, headName)
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	err := writeFile(temporary, newHead(l.key, end, now).encode(), 0o600)
	if err == nil {
		err = l.exclusively(func() error {
			l.head = end
			// Another process may have written one that covers more.
			if there, ok, err := readHead(l.dir); err == nil && ok && there.Count > end.seq {
				return os.Remove(temporary)
			}
			return os.Rename(temporary, path)
		})
	}
	if err != nil {
		return fmt.Errorf("write the ledger's head: %w", err)
	}
	return nil
}

// sessionOf is the session that a line of the ledger is about, and "" for those that are about none. Lines about a session name
// it first.
func sessionOf(h lineHead) string {
	rest, ok := bytes.CutPrefix(h.rest, []byte(`,"session":"`))
	if !ok || len(rest) < idLength || !ValidID(string(rest[:idLength])) {
		return ""
	}
	return string(rest[:idLength])
}

// An other is a session of another process.
type other struct {
	first hash   // of its first event
	file  string // that it shares, or ""
}

// otherOf is what an open line says of its session.
func otherOf(h lineHead) (o other, err error) {
	if o.first, err = firstOf(h); err != nil {
		return o, err
	}
	const before = len(`,"session":"`) + idLength + len(`","first":"`) + 2*sha256.Size + len(`"`)
	if rest, ok := bytes.CutPrefix(h.rest[min(before, len(h.rest)):], []byte(`,"file":"`)); ok {
		name, _, _ := bytes.Cut(rest, []byte{'"'})
		if o.file = string(name); !validShared(o.file) {
			return o, errForm
		}
	}
	return o, nil
}

// firstOf is the hash of the first event, of an open line: what stands behind the session.
func firstOf(h lineHead) (hash, error) {
	const before, digits = len(`,"session":"`) + idLength + len(`","first":"`), 2 * sha256.Size
	if len(h.rest) < before+digits {
		return hash{}, errForm
	}
	return parseHash(h.rest[before : before+digits])
}

// decodeLine decodes a line's members into v.
func decodeLine(line []byte, v any) error {
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("its members are not those of its type: %w", err)
	}
	return nil
}
