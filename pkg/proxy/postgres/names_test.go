package postgres

import (
	"fmt"
	"testing"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

func somePlan() *plan { return &plan{script: &sql.Script{Normalised: "SELECT 1"}} }

// means fails unless the name stands for want, and that is known when it has to be.
func means(t *testing.T, n *names[*plan], b *binding[*plan], batch uint64, want *plan, known bool, why string) {
	t.Helper()
	v, k := n.now(b, batch)
	if k != known || known && v != want {
		t.Errorf("%s: got %p, %v; want %p, %v", why, v, k, want, known)
	}
}

func TestNamesFollowTheServer(t *testing.T) {
	a, b := somePlan(), somePlan()
	var n names[*plan]
	s := n.get([]byte("s"))
	n.send(s, a, 1)
	means(t, &n, s, 1, a, true, "within its batch, what was sent last holds")
	means(t, &n, s, 2, nil, false, "in a later batch, the answer decides")
	n.confirm(s, a)
	means(t, &n, s, 2, a, true, "what is confirmed holds")
	n.send(s, nil, 2) // Close …
	n.send(s, b, 2)   // … and Parse, of which the server refuses the second
	n.unset(s)
	n.settle(s)
	means(t, &n, s, 3, nil, true, "what was refused does not hold")
	if n.find([]byte("other")) != nil || n.find([]byte("s")) != nil || n.find(nil) != &n.unnamed {
		t.Error("what stands for nothing is kept")
	}
	if n.bytes != 0 {
		t.Errorf("%d bytes are counted for nothing", n.bytes)
	}
}

func TestSweepDropsWhatWasSentBeforeItAndNothingElse(t *testing.T) {
	a, b := somePlan(), somePlan()
	var n names[*plan]
	old, early, late := n.get([]byte("old")), n.get([]byte("early")), n.get([]byte("late"))
	n.send(old, a, 1)
	n.confirm(old, a)
	n.send(early, a, 2)
	n.sendSweep(2)
	n.send(late, b, 2)
	n.send(&n.unnamed, a, 2)
	means(t, &n, old, 2, nil, true, "in its batch the sweep holds")
	means(t, &n, old, 3, nil, false, "later its answer decides")
	means(t, &n, early, 2, nil, true, "what was sent before it is swept")
	means(t, &n, late, 2, b, true, "what was sent after it is not")
	means(t, &n, &n.unnamed, 2, a, true, "nor is the unnamed one")
	n.confirm(early, a)
	n.settleSweep(true)
	means(t, &n, early, 3, nil, true, "confirmed before the sweep")
	means(t, &n, late, 3, nil, false, "not yet confirmed")
	n.confirm(late, b)
	means(t, &n, late, 3, b, true, "confirmed after the sweep")
	n.sendSweep(4)
	n.settleSweep(false)
	means(t, &n, late, 5, b, true, "a sweep that failed changes nothing")
}

func TestNamesAreBoundedAndMakeRoomAgain(t *testing.T) {
	var n names[*plan]
	p := somePlan()
	for i := range maxNames {
		b := n.get(fmt.Append(nil, i))
		n.send(b, p, 1)
		n.confirm(b, p)
	}
	if n.get([]byte("one more")) != nil {
		t.Fatal("there is no bound")
	}
	n.sweep()
	b := n.get([]byte("one more"))
	if b == nil || len(n.named) != 1 {
		t.Fatalf("%d names are left after all were dropped", len(n.named))
	}
	big := &plan{script: p.script, text: string(make([]byte, maxNamedBytes))}
	n.send(b, big, 1)
	n.confirm(b, big)
	if n.get([]byte("too much")) != nil {
		t.Error("memory has no bound")
	}
	n.send(b, nil, 1)
	n.unset(b)
	if n.get([]byte("too much")) == nil || n.bytes != 0 {
		t.Errorf("%d bytes are left", n.bytes)
	}
}

func TestRefusedNamesAreNotKept(t *testing.T) {
	var n names[*plan]
	for i := range 3 * maxNames {
		b := n.get(fmt.Append(nil, i))
		if b == nil {
			t.Fatalf("full after %d that the server refused", i)
		}
		n.send(b, somePlan(), uint64(i))
		n.settle(b)
	}
}
