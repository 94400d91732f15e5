package postgres

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
)

// A relaying is a session in its steady state. No goroutine waits for its end: the relay calls finish.
type relaying struct {
	*machine
	protocol *Protocol
	session  *proxy.Session
	upstream *upstream
	pooled   poolKey
	key      cancelKey // the client's
	remove   func()    // takes the key back
	done     func()

	mu       sync.Mutex
	finished bool
	stop     func() bool
	expiry   *time.Timer
}

// prepare makes what relays a session; finish must be called at its end.
func (p *Protocol) prepare(s *proxy.Session, u *upstream, pooled poolKey, st *startup) *relaying {
	r := &relaying{
		machine: &machine{
			judge: s, parser: p.parser, session: s.ID, status: 'I',
			searchPath: slices.Clone(u.schemas), role: u.lease.Username, parameters: map[string]string{},
			keep: pooled.size > 0, holding: &holding{}, pictures: &sessionDatabase{catalogs: &p.catalogs, session: s, name: st.database()},
		},
		protocol: p, session: s, upstream: u, pooled: pooled, done: s.Detach(),
	}
	r.key, r.remove = p.cancels.add(&cancelable{
		workload: s.Workload.ID, generation: s.Workload.Generation,
		cancel: func(ctx context.Context) {
			if !r.holding.cancel() {
				cancelUpstream(ctx, s.Dial, u, p.log.With(zap.String("session", s.ID)))
			}
		},
	}, u.key.pid)
	s.Ready()
	return r
}

// legs are the two sides of the link; the client's has no connection yet.
func (r *relaying) legs() (client, server relay.Leg) {
	return relay.Leg{Half: &frontend{machine: r.machine}, Received: r.session.FromClient()},
		relay.Leg{Conn: r.upstream.conn, Half: &backend{machine: r.machine}, Received: r.session.FromServer()}
}

// began has the session drained, cut off when ctx ends, and ended when its lease does.
func (r *relaying) began(ctx context.Context, link relay.Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return
	}
	r.session.OnDrain(func() { link.Inject(r.Drain) })
	r.stop = context.AfterFunc(ctx, func() { link.Inject(r.Cut) })
	if expires := r.upstream.lease.Expires; !expires.IsZero() {
		r.expiry = time.AfterFunc(time.Until(expires), func() { link.Inject(r.Expire) })
	}
}

// finish ends the session with its connections. It is called once, on a loop's thread mostly, so it does not block.
func (r *relaying) finish(client, server net.Conn, cause error) {
	s, u := r.session, r.upstream
	defer r.done()
	defer func() {
		if v := recover(); v != nil {
			s.Connection.Panicked(v)
			s.Close("internal")
		}
	}()
	r.mu.Lock()
	r.finished = true
	if r.stop != nil {
		r.stop()
	}
	if r.expiry != nil {
		r.expiry.Stop()
	}
	r.mu.Unlock()
	r.remove() // before another session has the connection
	client.Close()
	u.conn = server
	r.endHold(withdrawnBecause(cause))
	r.Abandon()
	if u.reported(r.parameters); r.reset == wasReset {
		r.protocol.pool.put(r.pooled, u)
	} else {
		go u.close()
	}
	reason := reasonOf(cause, r.ended)
	if r.expired && errors.Is(cause, relay.ErrDone) {
		reason = "lease_expired"
	}
	log := r.protocol.log.With(zap.String("session", s.ID))
	if panicked := (*relay.PanicError)(nil); errors.As(cause, &panicked) {
		log.Error("panic in a session", zap.Any("panic", panicked.Value), zap.ByteString("stack", panicked.Stack))
		s.HalfPanicked()
	}
	if reason == "protocol" {
		log.Warn("session ended", zap.Error(cause))
	}
	s.Close(reason)
}
