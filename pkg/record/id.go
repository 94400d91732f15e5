package record

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"
)

// A session's id is a ULID: 48 bits of milliseconds since 1970 and 80 random bits, as 26 characters of Crockford's base 32.
// Ids of one process sort as they were made.
const idLength = 26

const idAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// ids makes ids; its zero value is ready.
type ids struct {
	mu           sync.Mutex
	milliseconds uint64
	high         uint16 // of the 80 bits
	low          uint64
}

func (g *ids) next(now time.Time) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ms := uint64(now.UnixMilli()); ms > g.milliseconds {
		var random [10]byte
		rand.Read(random[:]) // never fails; crypto/rand
		g.milliseconds = ms
		g.high, g.low = binary.BigEndian.Uint16(random[:]), binary.BigEndian.Uint64(random[2:])
	} else {
		// The same millisecond, or a clock that was set back: one more than the last. Stepping by a random number would
		// hide how many there were; nothing here is secret.
		if g.low++; g.low == 0 {
			if g.high++; g.high == 0 {
				g.milliseconds++
			}
		}
	}
	return encodeID(g.milliseconds<<16|uint64(g.high), g.low)
}

func encodeID(high, low uint64) string {
	var id [idLength]byte
	for i := idLength - 1; i >= 0; i-- {
		id[i] = idAlphabet[low&31]
		low = low>>5 | high<<59
		high >>= 5
	}
	return string(id[:])
}

// ValidID is true for what can be a session's id; it is then safe as the name of a file.
func ValidID(id string) bool {
	return len(id) == idLength && id[0] <= '7' && validIDPrefix(id)
}

func validIDPrefix(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > 'Z' || (c > '9' && c < 'A') || c == 'I' || c == 'L' || c == 'O' || c == 'U' {
			return false
		}
	}
	return len(s) <= idLength
}
