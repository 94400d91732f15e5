package postgres

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// proofAge is how old the knowledge may be that a kept connection's credential is still the source's.
const proofAge = time.Second

// A poolKey is everything that two sessions must have in common to use one connection in turn: the same workload, target,
// credential source and documents, the same startup. The zero size means that the target keeps no connections.
type poolKey struct {
	id   string
	size int
	idle time.Duration
}

func poolKeyOf(s *proxy.Session, st *startup, settings []sql.Unit) poolKey {
	size, idle := s.Pool()
	if size == 0 || len(settings) > 0 { // what policy had to decide on is not handed on
		return poolKey{}
	}
	parts := append(s.PoolIdentity(), st.database())
	var parameters []string
	for name, value := range st.parameters {
		if name != "user" && name != "database" {
			parameters = append(parameters, name+"="+value)
		}
	}
	slices.Sort(parameters)
	return poolKey{id: strings.Join(append(parts, parameters...), "\x00"), size: size, idle: idle} // none of them can hold a NUL
}

// A pool keeps connections between sessions for a short while.
type pool struct {
	mu sync.Mutex
	by map[string][]*parked
}

type parked struct {
	*upstream
	timer *time.Timer
}

// take is a connection that was used under the same key, or nil.
func (p *pool) take(key poolKey) *upstream {
	for key.size > 0 {
		p.mu.Lock()
		list := p.by[key.id]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil
		}
		last := list[len(list)-1]
		p.by[key.id] = list[:len(list)-1]
		p.mu.Unlock()
		if !last.timer.Stop() {
			continue // it is being closed
		}
		if last.quiet() {
			return last.upstream
		}
		// Without a goodbye, which would have to wait for a server that speaks.
		last.conn.Close()
		go last.lease.Close()
	}
	return nil
}

// put keeps a connection that was reset, if there is room; else it is closed.
func (p *pool) put(key poolKey, u *upstream) {
	u.in = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.by[key.id]) >= key.size {
		go u.close()
		return
	}
	if p.by == nil {
		p.by = map[string][]*parked{}
	}
	e := &parked{upstream: u}
	e.timer = time.AfterFunc(key.idle, func() { p.expire(key.id, e) })
	p.by[key.id] = append(p.by[key.id], e)
}

func (p *pool) expire(id string, e *parked) {
	p.mu.Lock()
	if i := slices.Index(p.by[id], e); i >= 0 {
		p.by[id] = slices.Delete(p.by[id], i, i+1)
	}
	if len(p.by[id]) == 0 {
		delete(p.by, id)
	}
	p.mu.Unlock()
	e.close()
}

// proved is true for a kept connection whose credential was the source's a moment ago.
func (u *upstream) proved() bool { return u != nil && time.Since(u.proven) < proofAge }

// quiet is true when the server has said nothing since the reset: neither goodbye nor a notice to somebody else.
func (u *upstream) quiet() bool {
	secured, ok := u.conn.(*tls.Conn)
	if !ok {
		return relay.Quiet(u.conn)
	}
	if !relay.Quiet(secured.NetConn()) {
		return false
	}
	// Nothing came from the network; but TLS may hold what came before.
	in := bufio.NewReader(u.conn)
	_ = u.conn.SetReadDeadline(time.Unix(1, 0))
	_, err := in.Peek(1)
	_ = u.conn.SetReadDeadline(time.Time{})
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// reported makes what the server reported during a session, and during its reset, what the next client is told.
func (u *upstream) reported(parameters map[string]string) {
	for i := range u.parameters {
		if v, ok := parameters[u.parameters[i].name]; ok {
			u.parameters[i].value = v
		}
	}
}

var proofKey = func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return key
}()

// proofOf lets two leases be compared without keeping a password: a MAC under a key of this process.
func proofOf(l *proxy.Lease) (proof [sha256.Size]byte) {
	mac := hmac.New(sha256.New, proofKey)
	mac.Write([]byte(l.Username + "\x00"))
	mac.Write(l.Password.Reveal())
	mac.Sum(proof[:0])
	return proof
}
