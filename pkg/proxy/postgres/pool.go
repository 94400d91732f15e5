package postgres

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// resetQuery undoes all that a session can have left behind ("DISCARD ALL" in the manual says what it does).
const resetQuery = "DISCARD ALL\x00"

// resetTimeout bounds the reset of a connection between two sessions.
const resetTimeout = 5 * time.Second

// A poolKey is everything that two sessions must have in common to use one connection in turn: the same workload, the same
// target and credential, the same startup. Zero Size means that the target keeps no connections.
type poolKey struct {
	id   string
	size int
	idle time.Duration
}

// poolKeyOf hashes, so that no password is kept here.
func poolKeyOf(s *proxy.Session, st *startup, settings []sql.Unit) poolKey {
	size, idle := s.Pool()
	if size == 0 || len(settings) > 0 { // a setting of the startup survives no reset exactly as it was
		return poolKey{}
	}
	h := sha256.New()
	write := func(parts ...string) {
		for _, p := range parts {
			h.Write([]byte(strings.ReplaceAll(p, "\x00", "\x00\x01")))
			h.Write([]byte{0, 0})
		}
	}
	write(s.PoolIdentity()...)
	h.Write(s.Lease.Password.Reveal())
	var parameters []string
	for name, value := range st.parameters {
		if name != "user" {
			parameters = append(parameters, name+"="+value)
		}
	}
	slices.Sort(parameters)
	write(parameters...)
	write(st.database())
	return poolKey{id: hex.EncodeToString(h.Sum(nil)), size: size, idle: idle}
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

// take is a connection that was used under the same key, or nil. Its lease's password is not needed any more.
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
		if last.timer.Stop() && last.quiet() {
			return last.upstream
		}
	}
	return nil
}

// quiet is true when the server has said nothing since the reset: neither goodbye nor a notice to somebody else.
func (u *upstream) quiet() bool {
	if !socketQuiet(u.conn) {
		u.conn.Close()
		return false
	}
	// Nothing came from the network; but TLS may hold what came before.
	_ = u.conn.SetReadDeadline(time.Unix(1, 0))
	if _, err := u.in.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		u.conn.Close()
		return false
	}
	_ = u.conn.SetReadDeadline(time.Time{})
	u.in.Reset(u.conn) // the error is sticky
	return true
}

// socketQuiet is true when the socket has nothing to be read, not even its end. A deadline that has passed would not tell: with it
// the socket is not looked at.
func socketQuiet(conn net.Conn) bool {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(err, unix.EAGAIN)
	})
	return err == nil && quiet
}

// put resets a connection whose session has ended cleanly and keeps it, if the target wants that; else it is closed.
func (p *pool) put(key poolKey, u *upstream, reported map[string]string) {
	if key.size == 0 || !u.reset(reported) {
		u.close()
		return
	}
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

// reset makes the connection as good as new. What the server reports on the way becomes what the next client is told.
func (u *upstream) reset(reported map[string]string) bool {
	for name, value := range reported {
		for i := range u.parameters {
			if u.parameters[i].name == name {
				u.parameters[i].value = value
			}
		}
	}
	_ = u.conn.SetDeadline(time.Now().Add(resetTimeout))
	u.in = bufio.NewReaderSize(u.conn, 8<<10)
	if _, err := u.query(resetQuery); err != nil {
		return false
	}
	_ = u.conn.SetDeadline(time.Time{})
	return true
}
