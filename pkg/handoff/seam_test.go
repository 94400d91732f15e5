package handoff

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// dialVariable makes the test binary a client that says how its Dial went; listenVariable makes it a server.
const (
	dialVariable   = "SALLYPORT_TEST_DIAL"
	listenVariable = "SALLYPORT_TEST_LISTEN"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(listenVariable); path != "" {
		server, err := Listen(path, uint32(os.Getuid()), zap.NewNop())
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString("ready\n")
		server.Serve(context.Background())
		return
	}
	path := os.Getenv(dialVariable)
	if path == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0") // For the processes that tests start.
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := Dial(ctx, path, zap.NewNop()); err != nil {
		os.Stdout.WriteString(err.Error())
		return
	}
	os.Stdout.WriteString("connected")
}

// seam is a server under test.
type seam struct {
	*Server
	t    *testing.T
	path string
}

func newSeam(t *testing.T) *seam {
	t.Helper()
	path := filepath.Join(t.TempDir(), "handoff.sock")
	server, err := Listen(path, uint32(os.Getuid()), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &seam{Server: server, t: t, path: path}
}

// event is a call of a Handler.
type event struct {
	documents *Documents
	enroll    *Workload
	listeners []*net.TCPListener
	withdraw  uint64
	status    *CaptureStatus
	event     *CaptureEvent
	person    *Person
	conn      net.Conn
}

// handler sends each call to a channel.
type handler struct {
	events chan event
	apply  func(Documents) error
}

func (h *handler) Documents(d Documents) error {
	h.events <- event{documents: &d}
	if h.apply != nil {
		return h.apply(d)
	}
	return nil
}
func (h *handler) Enroll(w Workload, l []*net.TCPListener) {
	h.events <- event{enroll: &w, listeners: l}
}
func (h *handler) Withdraw(id uint64)            { h.events <- event{withdraw: id} }
func (h *handler) CaptureStatus(s CaptureStatus) { h.events <- event{status: &s} }
func (h *handler) CaptureEvent(e CaptureEvent)   { h.events <- event{event: &e} }
func (h *handler) Person(p Person, c net.Conn)   { h.events <- event{person: &p, conn: c} }

// proxyUnderTest is a connected client whose Run runs.
type proxyUnderTest struct {
	*Client
	*handler
	t    *testing.T
	done chan error
}

func (s *seam) connect(apply func(Documents) error) *proxyUnderTest {
	s.t.Helper()
	client, err := Dial(s.t.Context(), s.path, zap.NewNop())
	if err != nil {
		s.t.Fatal(err)
	}
	p := &proxyUnderTest{Client: client, handler: &handler{events: make(chan event, 100), apply: apply}, t: s.t, done: make(chan error, 1)}
	go func() { p.done <- client.Run(context.Background(), p.handler) }()
	s.t.Cleanup(func() { client.Close() })
	return p
}

func (p *proxyUnderTest) next() event {
	p.t.Helper()
	select {
	case e := <-p.events:
		for _, l := range e.listeners {
			p.t.Cleanup(func() { l.Close() })
		}
		return e
	case <-time.After(10 * time.Second):
		p.t.Fatal("waited in vain for a message")
		return event{}
	}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func listener(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestNewProxyIsGivenAllThereIsAndThenChanges(t *testing.T) {
	s := newSeam(t)
	documents := Documents{
		Revision:  3,
		Files:     []File{{Path: "/etc/a.yaml", Content: bytes.Repeat([]byte("x"), 3<<20)}}, // More than one message holds.
		Endpoints: []Endpoint{{Target: "db", Prefix: netip.MustParsePrefix("10.0.0.0/8"), Port: 5432}},
	}
	shop := Workload{ID: 7, Generation: 1, Cgroup: "/a/shop", Name: "shop", NetnsCookie: 9}
	own := listener(t)
	s.Publish(documents, nil)
	s.Enroll(shop, []*net.TCPListener{own})
	p := s.connect(nil)
	if diff := cmp.Diff(documents, *p.next().documents, cmp.Comparer(bytes.Equal), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	got := p.next()
	if *got.enroll != shop || len(got.listeners) != 1 || got.listeners[0].Addr().String() != own.Addr().String() {
		t.Errorf("got %+v", got)
	}
	if err := s.AwaitEnrolled(soon(t), shop.ID, shop.Generation); err != nil {
		t.Error(err)
	}
	if err := s.AwaitDocuments(soon(t), 3); err != nil {
		t.Error(err)
	}
	if state := s.Proxy(); !state.Connected || state.Revision != 3 || state.Error != "" || state.PID != uint32(os.Getpid()) {
		t.Errorf("got %+v", state)
	}

	bare := Workload{ID: 8, Generation: 2, Cgroup: "/a/b"}
	s.Enroll(bare, []*net.TCPListener{listener(t), listener(t)})
	if got := p.next(); *got.enroll != bare || len(got.listeners) != 2 {
		t.Errorf("got %+v", got)
	}
	s.Withdraw(7)
	if got := p.next(); got.withdraw != 7 {
		t.Errorf("got %+v", got)
	}
	s.Status(CaptureStatus{Effective: true, Counters: map[string]uint64{"captured": 1}})
	if got := p.next(); !got.status.Effective || got.status.Counters["captured"] != 1 {
		t.Errorf("got %+v", got)
	}
	denied := CaptureEvent{Reason: "denied_udp", WorkloadID: 8, Destination: netip.MustParseAddrPort("192.0.2.1:443"), Protocol: "udp", PID: 9}
	s.Event(denied)
	if got := p.next(); *got.event != denied {
		t.Errorf("got %+v: want %+v", got.event, denied)
	}
	s.Event(CaptureEvent{Reason: "denied_socket"})
	if got := p.next(); got.event.Destination.IsValid() {
		t.Errorf("got %+v: want no destination", got.event)
	}
}

func TestEventsBeyondWhatMayWaitAreDropped(t *testing.T) {
	p := newProxy(nil, 0)
	for range 2 * maxQueuedEvents {
		p.put(outgoing{message: &message{Kind: kindEvent, Event: &CaptureEvent{}}})
	}
	p.put(outgoing{message: &message{Kind: kindWithdraw, ID: 1}})
	if got := len(p.queue); got != maxQueuedEvents+1 {
		t.Errorf("%d messages wait: want %d events and what came after", got, maxQueuedEvents)
	}
}

func TestBacklogSurvivesADeadProxy(t *testing.T) {
	s := newSeam(t)
	own := listener(t)
	s.Enroll(Workload{ID: 7, Generation: 1}, []*net.TCPListener{own})
	first := s.connect(nil)
	first.next().listeners[0].Close()
	first.Close()
	<-first.done
	// Nobody accepts now.
	client, err := net.Dial("tcp", own.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	second := s.connect(nil)
	conn, err := second.next().listeners[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buffer := make([]byte, 5)
	if _, err := io.ReadFull(conn, buffer); err != nil || string(buffer) != "hello" {
		t.Errorf("%q, %v", buffer, err)
	}
}

func TestNewestProxyAloneIsGivenWorkloads(t *testing.T) {
	s := newSeam(t)
	older := s.connect(nil)
	s.Enroll(Workload{ID: 1, Generation: 1}, []*net.TCPListener{listener(t)})
	older.next()
	newer := s.connect(nil)
	newer.next()
	s.Enroll(Workload{ID: 2, Generation: 2}, []*net.TCPListener{listener(t)})
	if got := newer.next(); got.enroll.ID != 2 {
		t.Errorf("got %+v", got)
	}
	s.Withdraw(1)
	if got := older.next(); got.withdraw != 1 {
		t.Errorf("older: got %+v: want the withdrawal and no enrolment", got)
	}
	if got := newer.next(); got.withdraw != 1 {
		t.Errorf("newer: got %+v", got)
	}
	newer.Close()
	<-newer.done
	if got := older.next(); got.enroll.ID != 2 {
		t.Errorf("the only one left: got %+v", got)
	}
}

func TestDocumentsAreAnsweredByAckOrError(t *testing.T) {
	s := newSeam(t)
	p := s.connect(func(d Documents) error {
		if d.Revision == 2 {
			return errors.New("no such thing")
		}
		return nil
	})
	for _, test := range []struct {
		revision uint64
		want     string
		state    ProxyState
	}{
		{1, "", ProxyState{Connected: true, Revision: 1, Ready: true}},
		{2, "the proxy refused the documents: no such thing", ProxyState{Connected: true, Revision: 1, Error: "no such thing"}},
		{3, "", ProxyState{Connected: true, Revision: 3, Ready: true}},
	} {
		s.Publish(Documents{Revision: test.revision}, nil)
		err := s.AwaitDocuments(soon(t), test.revision)
		if got := text(err); got != test.want {
			t.Errorf("revision %d: %q: want %q", test.revision, got, test.want)
		}
		test.state.PID = uint32(os.Getpid())
		if got := s.Proxy(); got != test.state {
			t.Errorf("revision %d: got %+v: want %+v", test.revision, got, test.state)
		}
	}
	p.Close()
	<-p.done
	waitFor(t, func() bool { return !s.Proxy().Connected })
	if err := s.AwaitDocuments(soon(t), 4); !errors.Is(err, ErrNoProxy) {
		t.Errorf("got %v: want %v", err, ErrNoProxy)
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestAwaitEnrolledEnds(t *testing.T) {
	s := newSeam(t)
	s.Enroll(Workload{ID: 1, Generation: 1}, []*net.TCPListener{listener(t)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.AwaitEnrolled(ctx, 1, 1); !errors.Is(err, ErrNoProxy) || !errors.Is(err, context.Canceled) {
		t.Errorf("with no proxy: %v", err)
	}
	if err := s.AwaitEnrolled(soon(t), 1, 2); err == nil || !strings.Contains(err.Error(), "withdrawn") {
		t.Errorf("with another generation: %v", err)
	}
}

func TestReadFileGivesNamedRegularFilesAlone(t *testing.T) {
	s := newSeam(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(at(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("password", []byte("one"))
	write("empty", nil)
	write("full", make([]byte, maxFileBytes))
	write("large", make([]byte, maxFileBytes+1))
	write("unnamed", []byte("secret"))
	if err := unix.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("password"), at("link")); err != nil {
		t.Fatal(err)
	}
	named := map[string]struct{}{dir: {}}
	for _, name := range []string{"password", "empty", "full", "large", "fifo", "link", "missing"} {
		named[at(name)] = struct{}{}
	}
	s.Publish(Documents{Revision: 1}, named)
	p := s.connect(nil)
	for _, test := range []struct {
		name, path, want string
		err              string
	}{
		{"a named file", at("password"), "one", ""},
		{"a link that is named", at("link"), "one", ""},
		{"an empty file", at("empty"), "", ""},
		{"a file of just the limit", at("full"), string(make([]byte, maxFileBytes)), ""},
		{"a file that no document names", at("unnamed"), "", "no document names it"},
		{"another spelling of a named file", dir + "/./password", "", "no document names it"},
		{"a file that is too large", at("large"), "", "more than 1048576 bytes"},
		{"a FIFO", at("fifo"), "", "no regular file"},
		{"a directory", dir, "", "no regular file"},
		{"a file that is missing", at("missing"), "", "no such file"},
	} {
		got, err := p.ReadFile(soon(t), test.path)
		if string(got) != test.want || !strings.Contains(text(err), test.err) || (err == nil) != (test.err == "") {
			t.Errorf("%s: %d bytes, %v: want %d bytes, %q", test.name, len(got), err, len(test.want), test.err)
		}
	}
	write("password", []byte("two"))
	if got, err := p.ReadFile(soon(t), at("password")); string(got) != "two" || err != nil {
		t.Errorf("read anew: %q, %v", got, err)
	}
	s.Publish(Documents{Revision: 2}, nil)
	if _, err := p.ReadFile(soon(t), at("password")); err == nil {
		t.Error("a file was read that documents name no more")
	}
}

func TestHandlerCanReadFilesWhileItAppliesDocuments(t *testing.T) {
	s := newSeam(t)
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, []byte("pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Publish(Documents{Revision: 1}, map[string]struct{}{path: {}})
	client := make(chan *Client, 1)
	p := s.connect(func(Documents) error {
		got, err := (<-client).ReadFile(soon(t), path)
		if err == nil && string(got) != "pem" {
			err = errors.New("read " + string(got))
		}
		return err
	})
	client <- p.Client
	waitFor(t, func() bool { return s.Proxy().Connected })
	if err := s.AwaitDocuments(soon(t), 1); err != nil {
		t.Error(err)
	}
}

func TestBrokenSocketEndsRunAndWaitingReads(t *testing.T) {
	s := newSeam(t)
	p := s.connect(nil)
	waitFor(t, func() bool { return s.Proxy().Connected })
	s.mu.Lock()
	s.proxies[0].conn.Close()
	s.mu.Unlock()
	if err := <-p.done; err == nil {
		t.Error("Run returned nil for a broken socket")
	}
	if _, err := p.ReadFile(soon(t), "/x"); err == nil {
		t.Error("ReadFile returned nil for a broken socket")
	}
}

func TestRunReturnsNilWhenItsContextEnds(t *testing.T) {
	s := newSeam(t)
	client, err := Dial(t.Context(), s.path, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := client.Run(ctx, &handler{events: make(chan event, 10)}); err != nil {
		t.Error(err)
	}
}

func TestProxyOfAnotherUserIsRefused(t *testing.T) {
	s := newSeam(t)
	// Even where the file's mode would let it connect.
	for dir := filepath.Dir(s.path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		mode os.FileMode
		want string
	}{
		{"by the socket's mode", 0o600, "permission denied"},
		{"by its user id", 0o666, "hello"},
	} {
		if err := os.Chmod(s.path, test.mode); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), dialVariable+"="+s.path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("become another user (this test needs root): %v", err)
		}
		if !strings.Contains(string(said), test.want) {
			t.Errorf("%s: %s: want %q", test.name, said, test.want)
		}
	}
	if s.Proxy().Connected {
		t.Error("it counts as connected")
	}
}

func TestServerOfAnotherUserIsRefused(t *testing.T) {
	dir, err := os.MkdirTemp("", "seam")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "handoff.sock")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), listenVariable+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("become another user (this test needs root): %v", err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	if said, err := bufio.NewReader(out).ReadString('\n'); said != "ready\n" {
		t.Fatalf("%q, %v", said, err)
	}
	if _, err := Dial(soon(t), path, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "is of user 65534: want root or user 0") {
		t.Errorf("got %v", err)
	}
}
