package approval

import (
	"errors"
	"time"
)

// lookEvery is how often a ticket's file is looked at: another process, which replaces this one, may have taken the decision.
const lookEvery = 250 * time.Millisecond

// A Ticket is for one held operation.
type Ticket struct {
	desk *Desk
	done chan struct{} // closed when the request is final

	// Guarded by desk.mu.
	request Request
	earlier bool // it is approved by an earlier request's approval
	used    bool // the approval was taken for the operation
	timer   *time.Timer
}

// Request is the request as it is now; once Done is closed it is final.
func (t *Ticket) Request() Request {
	t.desk.mu.Lock()
	defer t.desk.mu.Unlock()
	return t.request
}

// Earlier is true when the approval of an earlier request serves: nobody is asked.
func (t *Ticket) Earlier() bool { return t.earlier }

// Done is closed when the request is final.
func (t *Ticket) Done() <-chan struct{} { return t.done }

// Use takes the approval of a final request for the operation, and is nil only when the operation may go ahead, now and once. It writes to the disk.
func (t *Ticket) Use() error {
	t.desk.mu.Lock()
	r, used := t.request, t.used
	t.desk.mu.Unlock()
	switch {
	case r.State != Approved:
		return errors.New("it is not approved")
	case used:
		return nil
	}
	defer t.desk.forget(r.ID)
	var ok bool
	err := t.desk.store.locked(func() (err error) {
		ok, err = t.desk.store.use(r.Hash, r.ID, time.Now())
		return err
	})
	if err == nil && !ok {
		err = errors.New("its approval was used already")
	}
	if err != nil {
		return err
	}
	t.desk.mu.Lock()
	t.used = true
	t.desk.mu.Unlock()
	return nil
}

// Withdraw says that nobody waits any more. It is false when the request was final already; an approval that came before it is left
// for the same operation to use.
func (t *Ticket) Withdraw(reason string) bool {
	withdrawn := t.end(Withdrawn, reason)
	t.desk.forget(t.Request().ID)
	return withdrawn
}

// end makes the request final, unless it is.
func (t *Ticket) end(s State, reason string) bool {
	id := t.Request().ID
	var ended *Request
	err := t.desk.store.locked(func() error {
		r, err := t.desk.store.pending(id)
		if err != nil {
			return err
		}
		r.finish(s, Decision{Time: time.Now().UTC(), Reason: reason})
		ended = r
		return t.desk.store.conclude(r)
	})
	if err == nil {
		t.resolve(*ended) // or the timer has, which found it in the file
		return true
	}
	t.look()
	select {
	case <-t.done:
		return false
	default:
	}
	// The disk does not take it. The operation is not forwarded in any case; what is pending there is withdrawn with this process.
	r := t.Request()
	r.finish(s, Decision{Time: time.Now().UTC(), Reason: reason})
	return t.resolve(r)
}

// resolve takes a final request; only the first counts.
func (t *Ticket) resolve(r Request) bool {
	d := t.desk
	d.mu.Lock()
	select {
	case <-t.done:
		d.mu.Unlock()
		return false
	default:
	}
	t.request = r
	if t.timer != nil {
		t.timer.Stop()
	}
	if r.State != Approved {
		delete(d.tickets, r.ID)
	}
	close(t.done)
	d.mu.Unlock()
	d.tell(r)
	return true
}

// watch has the request expire in time, and looks for decisions of other processes until then.
func (t *Ticket) watch() {
	d := t.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-t.done: // decided already
		return
	default:
	}
	left := time.Until(t.request.Expires)
	t.timer = time.AfterFunc(max(0, min(left, lookEvery)), func() {
		t.look()
		if time.Until(t.Request().Expires) <= 0 {
			t.end(Expired, "")
			return
		}
		t.watch()
	})
}

// look takes a decision that another process has stored. Without the lock: a file is replaced whole.
func (t *Ticket) look() {
	var r Request
	if t.desk.store.read(doneDir, t.Request().ID, &r) == nil {
		t.resolve(r)
	}
}
