package handoff

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// unixPair is both ends of a connection.
func unixPair(t *testing.T) (outer, inner *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if outer, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if inner, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outer.Close(); inner.Close() })
	return outer, inner
}

func TestPersonsConnectionReachesTheProxy(t *testing.T) {
	s := newSeam(t)
	outer, inner := unixPair(t)
	want := Person{UID: 1000, PID: 7, User: "alice", Groups: []string{"dba"}, Cgroup: "/user.slice"}
	if err := s.Person(want, inner); !errors.Is(err, ErrNoProxy) {
		t.Fatalf("without a proxy: %v", err)
	}
	p := s.connect(nil)
	waitFor(t, func() bool { return s.Proxy().Connected })
	if err := s.Person(want, inner); err != nil {
		t.Fatal(err)
	}
	got := p.next()
	if diff := cmp.Diff(&want, got.person); diff != "" {
		t.Error(diff)
	}
	if _, err := got.conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	// The proxy's is the only end that is open: when it closes, the person sees the end.
	got.conn.Close()
	_ = outer.SetReadDeadline(time.Now().Add(10 * time.Second))
	if text, err := io.ReadAll(outer); err != nil || string(text) != "hello" {
		t.Errorf("the person reads %q, %v", text, err)
	}
}

func TestPersonIsNotLeftHangingByAProxyThatGoes(t *testing.T) {
	_, inner := unixPair(t)
	outer, ours := unixPair(t)
	p := newProxy(inner, 1)
	p.put(outgoing{message: &message{Kind: kindPerson, Person: &Person{}}, person: ours})
	p.stop()
	_ = outer.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(outer); err != nil {
		t.Errorf("queued when the proxy went: %v", err)
	}
	outer, ours = unixPair(t)
	p.put(outgoing{message: &message{Kind: kindPerson, Person: &Person{}}, person: ours})
	_ = outer.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(outer); err != nil {
		t.Errorf("queued after it went: %v", err)
	}
}
