package postgres

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/pkg/mask"
	"github.com/sallyport-dev/sallyport/pkg/proxy"
	"github.com/sallyport-dev/sallyport/pkg/sql/catalog"
	"github.com/sallyport-dev/sallyport/pkg/sql/lineage"
)

const (
	// catalogAge is how long a picture of a catalog is used before it is compared with the catalog again.
	catalogAge = 5 * time.Second
	// catalogTimeout bounds one look at a catalog, with the login.
	catalogTimeout = 30 * time.Second
	// catalogIdle is how long the connection for it is kept after its last use.
	catalogIdle = time.Minute
)

// A picture is a database's catalog as it was at one time.
type picture struct {
	catalog *catalog.Catalog
	began   time.Time // what was committed before is in it
	ended   time.Time

	shared *readings
}

// readings are what is made of a catalog; pictures that are the same share them.
type readings struct {
	id uint64 // of no others

	mu      sync.Mutex
	schemas map[*mask.Rules]*lineage.Schema
	types   map[uint32]*mask.Type
	texts   map[analysed][]lineage.Statement
	bytes   int // of texts
}

var readingsMade atomic.Uint64

// An analysed is a text whose lineage is known, with what it depends on.
type analysed struct {
	rules      *mask.Rules
	searchPath string
	text       string
}

// maxAnalysed and maxAnalysedBytes bound what readings keep, maxAnalysedText the length of a text that is kept.
const (
	maxAnalysed      = 4096
	maxAnalysedBytes = 4 << 20
	maxAnalysedText  = 32 << 10
)

// analyse is the lineage of a text, which is remembered for all sessions unless it depends on one's open transaction.
func (p *picture) analyse(text string, rules *mask.Rules, at lineage.Session) ([]lineage.Statement, error) {
	if len(text) > maxAnalysedText || !at.Changed.Empty() {
		return p.schema(rules).Analyze(text, at)
	}
	r, key := p.shared, analysed{rules, strings.Join(at.SearchPath, "\x00"), text}
	r.mu.Lock()
	found, ok := r.texts[key]
	r.mu.Unlock()
	if ok {
		return found, nil
	}
	statements, err := p.schema(rules).Analyze(text, at)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.texts == nil || len(r.texts) >= maxAnalysed || r.bytes >= maxAnalysedBytes {
		r.texts, r.bytes = map[analysed][]lineage.Statement{}, 0
	}
	r.texts[key] = statements
	r.bytes += len(text)
	return statements, nil
}

// schema is the catalog as the masks of a policy see it.
func (p *picture) schema(rules *mask.Rules) *lineage.Schema {
	r := p.shared
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.schemas[rules]
	if s == nil {
		s = lineage.New(p.catalog, func(relation *catalog.Relation, column string) (int, bool) {
			return rules.Column(relation.Schema, relation.Name, column)
		}, lineage.Options{Strict: rules.Strict(), Trusted: rules.Trusted})
		if len(r.schemas) >= 64 { // documents come and go
			clear(r.schemas)
		}
		r.schemas[rules] = s
	}
	return s
}

// pictures are where a session has its picture of the catalog from.
type pictures interface {
	// Now is a picture that shows what was committed at a time, or nil when one has to be taken. It does not wait.
	Now(after time.Time) *picture
	// Take takes one. It may be called from any goroutine.
	Take(after time.Time) (*picture, error)
	// Changed says that what was committed up to now may have changed the catalog.
	Changed()
}

// catalogs are the pictures of all databases in use; sessions share them.
type catalogs struct {
	mu sync.Mutex
	by map[string]*database
}

// database is the one of a key.
func (c *catalogs) database(key string) *database {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.by[key]
	if d == nil {
		d = &database{}
		d.idle = time.AfterFunc(catalogIdle, func() { c.expire(key, d) })
		if c.by == nil {
			c.by = map[string]*database{}
		}
		c.by[key] = d
	}
	return d
}

// known is the database of a key, nil when nobody has looked at it.
func (c *catalogs) known(key string) *database {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by[key]
}

// expire forgets a database that was not looked at for a while. A session that has it still goes on with it.
func (c *catalogs) expire(key string, d *database) {
	c.mu.Lock()
	if c.by[key] == d {
		delete(c.by, key)
	}
	c.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last.Store(nil)
	d.disconnect()
}

// A database is one whose catalog is looked at, with a connection of the proxy's own.
type database struct {
	last    atomic.Pointer[picture]
	changed atomic.Pointer[time.Time] // older pictures do not count

	mu   sync.Mutex // held while a picture is taken
	conn *pgconn.PgConn
	up   *upstream
	idle *time.Timer
}

// A sessionDatabase is a session's database. Where the proxy needs a connection to it, it logs in as the session does.
type sessionDatabase struct {
	catalogs *catalogs
	session  *proxy.Session
	name     string
	found    atomic.Pointer[database] // nil until a picture is taken
}

// Now implements pictures.
func (s *sessionDatabase) Now(after time.Time) *picture {
	d := s.found.Load()
	if d == nil {
		if d = s.catalogs.known(s.key()); d == nil {
			return nil
		}
		s.found.Store(d)
	}
	return d.now(after)
}

func (s *sessionDatabase) key() string {
	return strings.Join(append(s.session.TargetIdentity(), s.name), "\x00")
}

// Changed implements pictures.
func (s *sessionDatabase) Changed() {
	if d := s.found.Load(); d != nil {
		now := time.Now()
		d.changed.Store(&now)
	}
}

// Take implements pictures.
func (s *sessionDatabase) Take(after time.Time) (*picture, error) {
	d := s.catalogs.database(s.key())
	s.found.Store(d)
	return d.newer(after, s.session, &startup{parameters: map[string]string{
		"user": s.name, "database": s.name, "client_encoding": "UTF8", "application_name": "sallyport catalog",
	}})
}

func (d *database) now(after time.Time) *picture {
	p := d.last.Load()
	if p == nil || p.began.Before(after) || time.Since(p.ended) > catalogAge {
		return nil
	}
	if changed := d.changed.Load(); changed != nil && p.began.Before(*changed) {
		return nil
	}
	return p
}

// newer takes a picture; the login, if there has to be one, is as the session's.
func (d *database) newer(after time.Time, s *proxy.Session, st *startup) (*picture, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.now(after); p != nil { // another session was faster
		return p, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), catalogTimeout)
	defer cancel()
	if d.expired() {
		d.disconnect()
	}
	p, err := d.take(ctx, s, st)
	if err != nil && d.up != nil { // the connection may have been lost since its last use
		d.disconnect()
		p, err = d.take(ctx, s, st)
	}
	if err != nil {
		d.disconnect()
		return nil, err
	}
	p.ended = time.Now()
	d.last.Store(p)
	kept := catalogIdle
	if d.up != nil && !d.up.lease.Expires.IsZero() {
		kept = min(kept, time.Until(d.up.lease.Expires))
	}
	d.idle.Reset(kept)
	return p, nil
}

// expired is true when the lease of the proxy's connection has ended.
func (d *database) expired() bool {
	return d.up != nil && !d.up.lease.Expires.IsZero() && !time.Now().Before(d.up.lease.Expires)
}

func (d *database) take(ctx context.Context, s *proxy.Session, st *startup) (*picture, error) {
	if d.conn == nil {
		if err := d.connect(ctx, s, st); err != nil {
			return nil, err
		}
	}
	p := &picture{began: time.Now()}
	if last := d.last.Load(); last != nil {
		same, err := last.catalog.Current(ctx, d.conn)
		if err != nil {
			return nil, err
		}
		if same {
			p.catalog, p.shared = last.catalog, last.shared
			return p, nil
		}
	}
	var err error
	p.catalog, err = catalog.Load(ctx, d.conn)
	p.shared = &readings{id: readingsMade.Add(1), schemas: map[*mask.Rules]*lineage.Schema{}, types: map[uint32]*mask.Type{}}
	return p, err
}

// connect logs in as a session does, with a lease of the connection's own.
func (d *database) connect(ctx context.Context, s *proxy.Session, st *startup) error {
	lease, refusal := s.Issue(ctx)
	if refusal != nil {
		return refusal
	}
	up, failed := login(ctx, s, st, lease)
	if failed != nil {
		return failed
	}
	_ = up.conn.SetDeadline(time.Time{})
	// The configuration is of no use to a connection that exists, but there has to be one.
	config, err := pgconn.ParseConfig("host=localhost sslmode=disable")
	if err != nil {
		up.close()
		return err
	}
	statuses := map[string]string{}
	for _, p := range up.parameters {
		statuses[p.name] = p.value
	}
	d.conn, err = pgconn.Construct(&pgconn.HijackedConn{
		Conn: buffered{up.conn, up.in}, PID: up.key.pid, ParameterStatuses: statuses, TxStatus: 'I', Config: config,
	})
	if err != nil {
		up.close()
		return fmt.Errorf("connection for the catalog: %w", err)
	}
	d.up = up
	return nil
}

// disconnect ends the proxy's connection, if there is one.
func (d *database) disconnect() {
	if d.up != nil {
		d.up.close()
	}
	d.up, d.conn = nil, nil
}

// buffered is a connection of which something was read ahead.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

// Read implements net.Conn.
func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }
