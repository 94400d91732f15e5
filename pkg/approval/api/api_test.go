package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/approval"
	"github.com/sallyport-dev/sallyport/pkg/localhttp"
)

var (
	alice = approval.Person{UID: 1001, User: "alice", Cgroup: "/user.slice"}
	bob   = approval.Person{UID: 1002, User: "bob", Cgroup: "/user.slice"}
	root  = approval.Person{UID: 0, User: "root", Cgroup: "/user.slice"}
)

// An office is a desk that is served on a socket, where whoever connects is who the test says.
type office struct {
	*approval.Desk
	dir     string
	who     atomic.Pointer[approval.Person]
	refused atomic.Int32
}

func open(t *testing.T) *office {
	t.Helper()
	o := &office{dir: t.TempDir()}
	var err error
	if o.Desk, err = approval.Open(approval.Options{Dir: filepath.Join(t.TempDir(), "approvals")}); err != nil {
		t.Fatal(err)
	}
	server := NewServer(o.Desk, func() { o.refused.Add(1) }, zap.NewNop())
	listener, err := net.Listen("unix", filepath.Join(o.dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			server.Accept(*o.who.Load(), conn)
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if server.all != 0 || len(server.open) != 0 {
			t.Errorf("%d connections are left", server.all)
		}
	})
	return o
}

func (o *office) as(who approval.Person) *office {
	o.who.Store(&who)
	return o
}

func (o *office) ask(t *testing.T) *approval.Ticket {
	t.Helper()
	ticket, err := o.Ask(approval.Request{Hash: approval.Hash(t.Name()), Workload: approval.Workload{Name: "shop", Cgroup: "/sallyport/shop", UID: 1000},
		Approvers: []string{"user:alice"}, Rule: "big", Text: "DELETE FROM t"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

func status(err error) int {
	var refusal *localhttp.Refusal
	if errors.As(err, &refusal) {
		return refusal.Status
	}
	return 0
}

func TestPersonsSeeAndDecideWhatIsTheirs(t *testing.T) {
	o := open(t)
	ticket := o.ask(t)
	id := ticket.Request().ID
	for _, test := range []struct {
		who                  approval.Person
		sees, may            bool
		getStatus, decStatus int
	}{
		{bob, false, false, http.StatusNotFound, http.StatusNotFound},
		{root, true, false, 0, http.StatusForbidden},
		{alice, true, true, 0, 0},
	} {
		o.as(test.who)
		list, err := List(t.Context(), o.dir, false)
		if err != nil || (len(list) == 1) != test.sees || test.sees && list[0].MayDecide != test.may {
			t.Errorf("%s lists %+v, %v", test.who.User, list, err)
		}
		if _, err := Get(t.Context(), o.dir, id); status(err) != test.getStatus {
			t.Errorf("%s gets %v", test.who.User, err)
		}
		got, err := Decide(t.Context(), o.dir, id, true, "it is fine")
		if status(err) != test.decStatus {
			t.Errorf("%s decides: %v", test.who.User, err)
		}
		if err == nil && (got.State != approval.Approved || got.Decision.By.User != "alice" || got.Decision.Reason != "it is fine" || got.MayDecide) {
			t.Errorf("decided is %+v", got)
		}
	}
	<-ticket.Done()
	if ticket.Use() != nil {
		t.Error("it can not be used")
	}
	if _, err := Decide(t.Context(), o.dir, id, false, ""); status(err) != http.StatusConflict {
		t.Errorf("twice: %v", err)
	}
	if list, err := List(t.Context(), o.dir, false); err != nil || len(list) != 0 {
		t.Errorf("still pending: %+v %v", list, err)
	}
	if list, err := List(t.Context(), o.dir, true); err != nil || len(list) != 1 {
		t.Errorf("all: %+v %v", list, err)
	}
	if n := o.refused.Load(); n != 3 {
		t.Errorf("%d refusals are counted", n)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	o := open(t).as(alice)
	id := o.ask(t).Request().ID
	for _, test := range []struct {
		name, method, path string
		body               any
		want               int
	}{
		{"no such request", http.MethodGet, "/v1/requests/00000000", nil, http.StatusNotFound},
		{"a path for an id", http.MethodGet, "/v1/requests/..%2flock", nil, http.StatusNotFound},
		{"an unknown state", http.MethodGet, "/v1/requests?state=none", nil, http.StatusBadRequest},
		{"a body of another form", http.MethodPost, "/v1/requests/" + id + "/approve", "yes", http.StatusBadRequest},
		{"a field that is not known", http.MethodPost, "/v1/requests/" + id + "/approve", map[string]string{"as": "root"}, http.StatusBadRequest},
		{"a body that is too long", http.MethodPost, "/v1/requests/" + id + "/approve", verdict{Reason: strings.Repeat("x", maxRequestBytes)}, http.StatusBadRequest},
		{"another method", http.MethodDelete, "/v1/requests/" + id, nil, http.StatusMethodNotAllowed},
		{"another path", http.MethodGet, "/", nil, http.StatusNotFound},
	} {
		if err := localhttp.Do(t.Context(), filepath.Join(o.dir, socketName), test.method, test.path, test.body, nil); status(err) != test.want {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if got, err := Get(t.Context(), o.dir, id); err != nil || got.State != approval.Pending {
		t.Errorf("it is %s now, %v", got.State, err)
	}
}

func TestOneUserCanNotTakeAllConnections(t *testing.T) {
	o := open(t).as(bob)
	for range maxOfOne {
		conn, err := net.Dial("unix", filepath.Join(o.dir, socketName))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if _, err := List(t.Context(), o.dir, false); err == nil {
		t.Error("bob has one more")
	}
	o.as(alice)
	if _, err := List(t.Context(), o.dir, false); err != nil {
		t.Errorf("alice has none: %v", err)
	}
}

func TestNobodyThereIsSaidSo(t *testing.T) {
	if _, err := List(t.Context(), t.TempDir(), false); !errors.Is(err, localhttp.ErrNobody) {
		t.Errorf("got %v", err)
	}
}
