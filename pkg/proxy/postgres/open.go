package postgres

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/sallyport-dev/sallyport/pkg/api/v1alpha1"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/proxy/relay"
)

// Open implements proxy.Opener. A client that sends its StartupMessage at once, and for whom a connection was kept, becomes a
// session without a goroutine. All that takes longer is served by Serve, or by what Serve does.
func (p *Protocol) Open(ctx context.Context, c *proxy.Connection, caller *relay.Caller) {
	caller.Await(startupTimeout, func(first []byte, err error) {
		defer func() {
			if v := recover(); v != nil {
				c.Panicked(v)
				caller.Close()
				c.Detach()()
			}
		}()
		if err != nil {
			client := caller.Leave()
			c.Go(func() { p.refuse(c, client, startupReadError(err)) })
			return
		}
		st := wholeStartup(first, c.Target.Spec.ClientTLS)
		if st == nil {
			c.Client = &replayed{caller.Leave(), bytes.Clone(first)}
			c.Go(func() { p.Serve(ctx, c) })
			return
		}
		p.open(ctx, c, caller, st)
	})
}

// wholeStartup is the startup that a client's first bytes are, or nil: where they are anything else, are not complete or are refused,
// and where policy has to decide on them.
func wholeStartup(first []byte, mode string) *startup {
	if len(first) < 8 || len(first) > maxStartup || int(binary.BigEndian.Uint32(first)) != len(first) {
		return nil
	}
	code := binary.BigEndian.Uint32(first[4:])
	if code>>16 != 3 || mode == v1alpha1.ClientTLSAlways {
		return nil
	}
	st, err := parseStartup(code, first[8:])
	if err != nil {
		return nil
	}
	if settings, err := st.settings(); err != nil || len(settings) > 0 {
		return nil
	}
	return st
}

// open makes a session of a caller whose startup sets nothing that policy has to decide on.
func (p *Protocol) open(ctx context.Context, c *proxy.Connection, caller *relay.Caller, st *startup) {
	s, failed := authorize(c, st, nil)
	if failed != nil {
		client := caller.Leave()
		c.Go(func() { p.refuse(c, client, failed) })
		return
	}
	key := poolKeyOf(s, st, nil)
	u := p.pool.take(key)
	if !u.proved() || u.tls != nil {
		client := caller.Leave()
		c.Go(func() { p.serve(ctx, s, client, u, key, st) })
		return
	}
	r := p.prepare(s, u, key, st)
	client, server := r.legs()
	link, err := caller.Start(welcome(st, u, r.key), client, server, r.finish)
	if err != nil {
		r.finish(caller.Leave(), u.conn, err)
		return
	}
	r.began(ctx, link)
}
