package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	// formatVersion is in the first line of each file.
	formatVersion = 1
	// maxInline is how many bytes of fragments one event holds; longer ones go into text events.
	maxInline = 60 << 10
	// pieceSize is how many bytes of a fragment a text event holds, before they are escaped.
	pieceSize = 30 << 10
	// maxLine bounds a line when reading. Lines are written of at most 64 KiB.
	maxLine = 128 << 10
)

// timeLayout is RFC 3339 in UTC with all nine digits, so that times have one form.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

type hash [sha256.Size]byte

// String is the hash in lower-case hexadecimal.
func (h hash) String() string { return hex.EncodeToString(h[:]) }

// parseHash reads a hash in the form of String, and no other: it does not take upper-case digits.
func parseHash[T string | []byte](digits T) (h hash, err error) {
	if len(digits) != hex.EncodedLen(len(h)) {
		return h, errHash
	}
	for i := range len(digits) {
		if c := digits[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return h, errHash
		}
	}
	_, err = hex.Decode(h[:], []byte(digits))
	return h, err
}

var errHash = errors.New("a hash in it is no SHA-256 hash in hexadecimal")

// A chain is the end of a hash chain: the last line's number and hash. Before the first line the hash is of a constant, so
// that no file can stand for another.
type chain struct {
	session string // whose lines they are, where lines name it
	seq     uint64
	hash    hash
	// second is the last one that was written, in Unix time, and stamp its text: most lines follow in the same one.
	second int64
	stamp  [len("2006-01-02T15:04:05")]byte
}

func sessionChain(id string) chain {
	return chain{hash: sha256.Sum256([]byte("sallyport record v1 session " + id + "\n"))}
}

// sharedChain is sessionChain for lines that name their session.
func sharedChain(id string) chain {
	c := sessionChain(id)
	c.session = id
	return c
}

func ledgerChain() chain {
	return chain{hash: sha256.Sum256([]byte("sallyport record v1 ledger\n"))}
}

// begin appends the members that every line starts with.
func (c *chain) begin(buf []byte, now time.Time, typ string) []byte {
	if c.session == "" {
		buf = append(buf, `{"seq":`...)
	} else {
		buf = append(append(append(buf, ownerPrefix...), c.session...), `","seq":`...)
	}
	buf = strconv.AppendUint(buf, c.seq+1, 10)
	buf = append(buf, `,"time":"`...)
	if second := now.Unix(); second == c.second && c.stamp[0] != 0 {
		buf = appendFraction(append(buf, c.stamp[:]...), now)
	} else {
		start := len(buf)
		buf = appendTime(buf, now)
		c.second = second
		copy(c.stamp[:], buf[start:])
	}
	buf = append(buf, `","type":"`...)
	buf = append(buf, typ...)
	buf = append(buf, `","prev":"`...)
	buf = hex.AppendEncode(buf, c.hash[:])
	return append(buf, '"')
}

// end closes the line that begins at start, and moves the chain to it.
func (c *chain) end(buf []byte, start int) []byte {
	buf = append(buf, '}', '\n')
	c.advance(buf[start:])
	return buf
}

func (c *chain) advance(line []byte) {
	c.seq++
	c.hash = sha256.Sum256(line)
}

// follow moves the chain to a line that was read; it is an error when the line does not follow.
func (c *chain) follow(line []byte) (lineHead, error) {
	h, err := parseHead(line)
	switch {
	case err != nil:
		return h, err
	case h.session != c.session:
		return h, errForm
	case h.seq != c.seq+1:
		return h, fmt.Errorf("its number is %d, expected %d", h.seq, c.seq+1)
	case h.prev != c.hash:
		return h, errors.New("its prev is not the hash of the line before")
	}
	c.advance(line)
	return h, nil
}

// appendTime appends now in timeLayout. AppendFormat is fast for RFC 3339 only.
func appendTime(buf []byte, now time.Time) []byte {
	buf = now.UTC().AppendFormat(buf, time.RFC3339)
	return appendFraction(buf[:len(buf)-1], now) // without Z
}

// appendFraction appends what is behind the second.
func appendFraction(buf []byte, now time.Time) []byte {
	buf = append(buf, '.')
	nanoseconds := now.Nanosecond()
	for unit := 100_000_000; unit > 0; unit /= 10 {
		buf = append(buf, '0'+byte(nanoseconds/unit%10))
	}
	return append(buf, 'Z')
}

// A lineHead is what every line starts with.
type lineHead struct {
	session string // where lines name it
	seq     uint64
	time    time.Time
	typ     string
	prev    hash
	rest    []byte // of the line: `,"member":…}` and the newline
}

var errForm = errors.New("it has not the form of a line of the record")

// parseHead accepts the form that begin writes and no other.
func parseHead(line []byte) (h lineHead, err error) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"seq":`))
	if h.session = ownerOf(line); h.session != "" {
		rest, ok = bytes.CutPrefix(line[len(ownerPrefix)+idLength:], []byte(`","seq":`))
	}
	if !ok || !bytes.HasSuffix(line, []byte("}\n")) {
		return h, errForm
	}
	number, rest, ok := bytes.Cut(rest, []byte(`,"time":"`))
	if !ok || len(number) > 20 {
		return h, errForm
	}
	if h.seq, err = strconv.ParseUint(string(number), 10, 64); err != nil {
		return h, errForm
	}
	if len(rest) < len(timeLayout) {
		return h, errForm
	}
	if h.time, err = time.Parse(timeLayout, string(rest[:len(timeLayout)])); err != nil {
		return h, errForm
	}
	if rest, ok = bytes.CutPrefix(rest[len(timeLayout):], []byte(`","type":"`)); !ok {
		return h, errForm
	}
	typ, rest, ok := bytes.Cut(rest, []byte(`","prev":"`))
	if !ok || !validType(typ) || len(rest) < hex.EncodedLen(sha256.Size)+1 {
		return h, errForm
	}
	h.typ = string(typ)
	digits := rest[:hex.EncodedLen(sha256.Size)]
	if h.prev, err = parseHash(digits); err != nil || rest[len(digits)] != '"' {
		return h, errForm
	}
	h.rest = rest[len(digits)+1:]
	return h, nil
}

// ownerPrefix begins a line that names its session.
const ownerPrefix = `{"session":"`

// ownerOf is the session that a line names, or "".
func ownerOf(line []byte) string {
	rest, ok := bytes.CutPrefix(line, []byte(ownerPrefix))
	if !ok || len(rest) < idLength || !ValidID(string(rest[:idLength])) {
		return ""
	}
	return string(rest[:idLength])
}

// validType is true for 1 to 32 lower-case letters, digits and dashes.
func validType[T string | []byte](typ T) bool {
	for i := range len(typ) {
		if c := typ[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(typ) > 0 && len(typ) <= 32
}
