package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
)

// A cancelKey is what BackendKeyData gives and CancelRequest shows.
type cancelKey struct{ pid, secret uint32 }

func parseCancel(body []byte) (*cancelKey, bool) {
	r := reader{p: body}
	k := &cancelKey{r.uint32(), r.uint32()}
	return k, r.end()
}

// cancels finds the session that a CancelRequest means. A client gets its server's process id, which it may look for in
// pg_stat_activity, with a secret of the proxy's own, never the server's.
type cancels struct {
	mu sync.Mutex
	by map[cancelKey]*cancelable
}

// A cancelable is a session that can be canceled, by its own workload alone.
type cancelable struct {
	workload, generation uint64
	cancel               func(ctx context.Context)
}

// add gives a new key to a session whose server's process is pid; remove takes it back.
func (c *cancels) add(s *cancelable, pid uint32) (key cancelKey, remove func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[cancelKey]*cancelable{}
	}
	for {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		key = cancelKey{pid, binary.BigEndian.Uint32(b[:])}
		if _, taken := c.by[key]; !taken {
			break
		}
	}
	c.by[key] = s
	return key, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.by, key)
	}
}

// find is nil for a key of no session, or of another workload's.
func (c *cancels) find(key cancelKey, workload, generation uint64) *cancelable {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.by[key]; s != nil && s.workload == workload && s.generation == generation {
		return s
	}
	return nil
}

// cancelUpstream asks the server to cancel what u is doing, on a connection of its own ("Canceling Requests in Progress" in the
// manual), and waits until the server has taken note.
func cancelUpstream(ctx context.Context, dial func(context.Context) (net.Conn, error), u *upstream, log *zap.Logger) {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	conn, err := dial(ctx)
	if err != nil {
		log.Warn("cancel request", zap.Error(err))
		return
	}
	defer func() { conn.Close() }()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if u.tls != nil {
		if conn, err = secure(ctx, conn, u.tls); err != nil {
			log.Warn("cancel request", zap.Error(err))
			return
		}
	}
	request := binary.BigEndian.AppendUint32(nil, 16)
	for _, v := range []uint32{codeCancelRequest, u.key.pid, u.key.secret} {
		request = binary.BigEndian.AppendUint32(request, v)
	}
	if _, err := conn.Write(request); err != nil {
		log.Warn("cancel request", zap.Error(err))
		return
	}
	var none [1]byte
	_, _ = conn.Read(none[:]) // the server closes without an answer
}
