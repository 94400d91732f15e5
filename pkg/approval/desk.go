package approval

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxPending is how many requests one workload may have waiting.
	maxPending = 64
	// burst and refill bound how many requests a workload makes: one that asks and goes away again tires approvers.
	burst  = 64
	refill = 5 * time.Second
	// cleanEvery is how often old files are looked for.
	cleanEvery = time.Hour
	// maxReason is how long a decision's reason may be, bytes.
	maxReason = 1024
)

// Options are what a Desk is made of.
type Options struct {
	// Dir is where the files are; it is made if it is not there.
	Dir string
	// Changed is told of each request that was made or has ended, by the process that holds the operation, or by the one that finds
	// that it has ended. It must not block. May be nil.
	Changed func(Request)
}

// A Desk takes requests, and decisions on them. It is safe for concurrent use, and beside other processes' on the same directory.
type Desk struct {
	options Options
	store   *store
	owner   string
	held    *os.File

	mu      sync.Mutex
	tickets map[string]*Ticket // of this process, pending or approved and not yet used
	rates   map[string]*rate   // by cgroup
	cleaned time.Time
	closed  bool
}

// rate is a bucket of requests that a workload may make.
type rate struct {
	tokens float64
	seen   time.Time
}

// Open opens or makes a directory of approvals, and withdraws what processes that are gone have left.
func Open(o Options) (*Desk, error) {
	s, err := openStore(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the approvals: %w", err)
	}
	d := &Desk{options: o, store: s, tickets: map[string]*Ticket{}, rates: map[string]*rate{}, cleaned: time.Now()}
	var withdrawn []Request
	err = s.locked(func() (err error) {
		if d.owner, d.held, err = s.become(); err != nil {
			return err
		}
		withdrawn, err = s.bury(d.owner, time.Now())
		return errors.Join(err, s.clean(time.Now()))
	})
	d.tell(withdrawn...)
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("open the approvals: %w", err)
	}
	return d, nil
}

// Close withdraws what is pending of this process and takes no more requests.
func (d *Desk) Close() error {
	d.mu.Lock()
	d.closed = true
	var left []*Ticket
	for _, t := range d.tickets {
		left = append(left, t)
	}
	d.mu.Unlock()
	for _, t := range left {
		t.Withdraw("the proxy ends")
	}
	var err error
	if d.held != nil {
		err = d.held.Close()
	}
	return errors.Join(err, d.store.lock.Close())
}

func (d *Desk) tell(requests ...Request) {
	if d.options.Changed == nil {
		return
	}
	for _, r := range requests {
		d.options.Changed(r)
	}
}

// Waiting is how many requests of this process are pending.
func (d *Desk) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, t := range d.tickets {
		if t.request.State == Pending {
			n++
		}
	}
	return n
}

// Ask makes a request that expires after timeout, or finds an approval of the same hash that is left to be used: then the ticket is
// approved already, and its request is the earlier one. The caller fills r but for ID, State, Created, Expires, Decision and
// Owner. The error is ErrTooMany, ErrClosed, or one of the file system; there is no ticket then, and the operation is to be denied.
// It writes to the disk.
func (d *Desk) Ask(r Request, timeout time.Duration) (*Ticket, error) {
	now := time.Now()
	var found *Request
	err := d.store.locked(func() error {
		id, err := d.store.findGrant(r.Hash, now, d.kept)
		if err != nil || id == "" {
			return err
		}
		if ok, err := d.store.use(r.Hash, id, now); err != nil || !ok {
			return err
		}
		found, err = d.store.find(id)
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("look for an approval: %w", err)
	case found != nil:
		t := &Ticket{desk: d, request: *found, done: make(chan struct{}), earlier: true, used: true}
		close(t.done)
		return t, nil
	}
	return d.ask(r, timeout, now)
}

// kept is true for an approval whose own operation still waits to use it.
func (d *Desk) kept(g grant) bool {
	if g.Owner == d.owner {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.tickets[g.Request] != nil && g.Once
	}
	return g.Once && d.store.lives(g.Owner)
}

func (d *Desk) ask(r Request, timeout time.Duration, now time.Time) (*Ticket, error) {
	r.State, r.Created, r.Expires, r.Owner = Pending, now.UTC(), now.Add(timeout).UTC(), d.owner
	t := &Ticket{desk: d, done: make(chan struct{})}
	err := d.store.locked(func() error {
		for r.ID = newID(); ; r.ID = newID() {
			if _, err := d.store.find(r.ID); errors.Is(err, fs.ErrNotExist) {
				break
			} else if err != nil {
				return err
			}
		}
		t.request = r
		if err := d.admit(t, now); err != nil {
			return err
		}
		if err := d.store.write(pendingDir, r.ID, r); err != nil {
			d.forget(r.ID)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ask for an approval: %w", err)
	}
	d.tell(r)
	t.watch()
	d.cleanNow(now)
	return t, nil
}

// admit counts a ticket against what its workload may have.
func (d *Desk) admit(t *Ticket, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	cgroup, waiting := t.request.Workload.Cgroup, 0
	for _, other := range d.tickets {
		if other.request.Workload.Cgroup == cgroup {
			waiting++
		}
	}
	if waiting >= maxPending {
		return fmt.Errorf("%w: %d", ErrTooMany, waiting)
	}
	bucket := d.rates[cgroup]
	if bucket == nil {
		bucket = &rate{tokens: burst, seen: now}
		d.rates[cgroup] = bucket
	}
	bucket.tokens = min(burst, bucket.tokens+float64(now.Sub(bucket.seen))/float64(refill))
	bucket.seen = now
	if bucket.tokens < 1 {
		return fmt.Errorf("%w in a short time", ErrTooMany)
	}
	bucket.tokens--
	d.tickets[t.request.ID] = t
	return nil
}

func (d *Desk) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.tickets, id)
}

// cleanNow removes what nobody needs, once in a while.
func (d *Desk) cleanNow(now time.Time) {
	d.mu.Lock()
	due := now.Sub(d.cleaned) > cleanEvery
	if due {
		d.cleaned = now
		for cgroup, bucket := range d.rates {
			if now.Sub(bucket.seen) > burst*refill {
				delete(d.rates, cgroup)
			}
		}
	}
	d.mu.Unlock()
	if due {
		// What stays is looked at again in an hour.
		_ = d.store.locked(func() error { return d.store.clean(now) })
	}
}

// Decide approves or denies a request. The first decision wins. The errors are those of the package, or of the file system; then nothing was
// decided.
func (d *Desk) Decide(who Person, id string, approve bool, reason string) (Request, error) {
	var decided Request
	err := d.change(func(now time.Time) error {
		if !ValidID(id) {
			return ErrNotFound
		}
		r, err := d.store.find(id)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && !who.MaySee(r):
			return ErrNotFound
		case err != nil:
			return err
		}
		if err := who.MayDecide(r); err != nil {
			return err
		}
		if r.State == Pending && now.After(r.Expires) {
			return fmt.Errorf("%w: its time is over", ErrDecided)
		}
		if r.State != Pending {
			return fmt.Errorf("%w: it is %s", ErrDecided, r.State)
		}
		reason = strings.TrimSpace(reason)
		if len(reason) > maxReason {
			reason = reason[:maxReason]
		}
		if r.NeedsReason && reason == "" {
			return ErrNeedsReason
		}
		state := Denied
		if approve {
			state = Approved
		}
		r.finish(state, Decision{Time: now.UTC(), By: who.by(), Reason: strings.ToValidUTF8(reason, "?")})
		if approve {
			// Before it counts as decided, so that who waits finds it.
			if err := d.store.give(r); err != nil {
				return err
			}
		}
		if err := d.store.conclude(r); err != nil {
			if approve {
				err = errors.Join(err, d.store.remove(grantsDir, grantName(r.Hash, r.ID)))
			}
			return err
		}
		decided = *r
		return nil
	})
	if err != nil {
		return Request{}, fmt.Errorf("request %.16q: %w", id, err)
	}
	d.mu.Lock()
	t := d.tickets[id]
	d.mu.Unlock()
	if t != nil {
		t.resolve(decided)
	}
	return decided, nil
}

// change calls f with the files locked, after what processes that are gone have left is withdrawn.
func (d *Desk) change(f func(now time.Time) error) error {
	var withdrawn []Request
	err := d.store.locked(func() (err error) {
		now := time.Now()
		if withdrawn, err = d.store.bury(d.owner, now); err != nil {
			return err
		}
		return f(now)
	})
	d.tell(withdrawn...)
	return err
}

// Get is a request that the person may see; else the error is ErrNotFound.
func (d *Desk) Get(who Person, id string) (Request, error) {
	var found Request
	err := d.change(func(time.Time) error {
		if !ValidID(id) {
			return ErrNotFound
		}
		r, err := d.store.find(id)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && !who.MaySee(r):
			return ErrNotFound
		case err != nil:
			return err
		}
		found = *r
		return nil
	})
	if err != nil {
		return Request{}, fmt.Errorf("request %.16q: %w", id, err)
	}
	return found, nil
}

// List is the requests that the person may see, in the order in which they were made: those that are pending, or all that are kept.
func (d *Desk) List(who Person, all bool) ([]Request, error) {
	list := []Request{}
	err := d.change(func(time.Time) error {
		dirs := []string{pendingDir}
		if all {
			dirs = append(dirs, doneDir)
		}
		for _, dir := range dirs {
			names, err := d.store.names(dir)
			if err != nil {
				return err
			}
			for _, name := range names {
				var r Request
				if err := d.store.read(dir, name, &r); err != nil {
					return err
				}
				if who.MaySee(&r) {
					list = append(list, r)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the requests: %w", err)
	}
	slices.SortFunc(list, func(a, b Request) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return list, nil
}
