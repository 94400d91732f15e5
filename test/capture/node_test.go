package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/capture/control"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// node is a run directory, documents, cgroups and a database.
type node struct {
	t                 *testing.T
	hierarchy         *cgroup.Hierarchy
	base, config, run string
	database          string
}

func newNode(t *testing.T) *node {
	t.Helper()
	hierarchy, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{
		t: t, hierarchy: hierarchy, config: t.TempDir(), run: t.TempDir(),
		base: "/sallyport-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36),
	}
	n.mkdir("")
	listener, err := net.Listen("tcp", "127.9.8.7:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	n.database = listener.Addr().String()
	go answer(listener, "database")
	n.document(n.base + "/named/*")
	t.Cleanup(func() {
		if out, err := exec.Command(program, "release", "--run-dir="+n.run).CombinedOutput(); err != nil {
			t.Errorf("release: %v: %s", err, out)
		}
	})
	return n
}

// answer says a word to who connects.
func answer(listener net.Listener, word string) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		conn.Write([]byte(word))
		conn.Close()
	}
}

// document writes the documents: the database as a target, and a policy for a cgroup selector.
func (n *node) document(selector string) {
	n.t.Helper()
	host, port, err := net.SplitHostPort(n.database)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(fmt.Sprintf(`apiVersion: sallyport.dev/v1alpha1
kind: Target
metadata: {name: db}
spec:
  protocol: postgres
  endpoints:
  - {host: %q, port: %s}
  - {cidr: 192.0.2.0/24, port: 5432}
  upstream: {tls: {mode: disable}}
  credential: app
---
apiVersion: sallyport.dev/v1alpha1
kind: CredentialSource
metadata: {name: app}
spec:
  static: {username: app, password: {file: %s/password}}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec:
  workloads: [{cgroup: %q}]
  targets: [db]
  rules: [{name: rest, action: allow}]
`, host, port, n.config, selector))
}

func (n *node) write(content string) {
	n.t.Helper()
	temporary := filepath.Join(n.config, ".new")
	if err := os.WriteFile(temporary, []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(n.config, "a.yaml")); err != nil {
		n.t.Fatal(err)
	}
}

// mkdir makes a cgroup below the base and yields its name.
func (n *node) mkdir(name string) string {
	n.t.Helper()
	name = n.base + name
	dir := n.hierarchy.Dir(name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		n.wait("the cgroup to be empty", func() bool {
			err := os.Remove(dir)
			return err == nil || errors.Is(err, os.ErrNotExist)
		})
	})
	return name
}

func (n *node) wait(what string, done func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// dial dials from a cgroup, and yields what is said to it, or the error.
func (n *node) dial(name, address string) string {
	n.t.Helper()
	dir, err := os.Open(n.hierarchy.Dir(name))
	if err != nil {
		n.t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), dialVariable+"="+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// start starts the program, with further flags, and returns when it answers.
func (n *node) start(flags ...string) *exec.Cmd {
	n.t.Helper()
	cmd := exec.Command(program, append([]string{"--config=" + n.config, "--run-dir=" + n.run, "--proxy-uid=0", "--log-level=debug"}, flags...)...)
	cmd.Stderr = n.t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { stop(cmd, syscall.SIGKILL) })
	n.wait("the control socket", func() bool {
		_, err := control.GetStatus(n.t.Context(), n.run)
		return err == nil
	})
	return cmd
}

func stop(cmd *exec.Cmd, signal syscall.Signal) error {
	cmd.Process.Signal(signal)
	return cmd.Wait()
}

func (n *node) status() control.Status {
	n.t.Helper()
	status, err := control.GetStatus(n.t.Context(), n.run)
	if err != nil {
		n.t.Fatal(err)
	}
	return status
}

// proxy stands for sallyport-proxy: it says "proxy" to captured connections, and closes others.
type proxy struct {
	*handoff.Client
	mu        sync.Mutex
	documents handoff.Documents
	origin    handoff.Origin
	status    handoff.CaptureStatus
	events    []handoff.CaptureEvent
	listeners map[uint64][]*net.TCPListener
	done      chan error
}

func (n *node) proxy() *proxy {
	n.t.Helper()
	p := &proxy{listeners: map[uint64][]*net.TCPListener{}, done: make(chan error, 1)}
	client, err := handoff.Dial(n.t.Context(), filepath.Join(n.run, "handoff.sock"), zap.NewNop())
	if err != nil {
		n.t.Fatal(err)
	}
	p.Client = client
	go func() { p.done <- client.Run(context.Background(), p) }()
	n.t.Cleanup(func() { p.stop() })
	return p
}

// stop ends the proxy, with its listeners.
func (p *proxy) stop() {
	p.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.listeners {
		p.drop(id)
	}
}

func (p *proxy) drop(id uint64) {
	for _, l := range p.listeners[id] {
		l.Close()
	}
	delete(p.listeners, id)
}

func (p *proxy) Documents(d handoff.Documents) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.documents = d
	return nil
}

func (p *proxy) Enroll(w handoff.Workload, listeners []*net.TCPListener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(w.ID)
	p.listeners[w.ID] = listeners
	for _, l := range listeners {
		go p.serve(w, l)
	}
}

func (p *proxy) Withdraw(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(id)
}

func (p *proxy) CaptureStatus(s handoff.CaptureStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = s
}

func (p *proxy) CaptureEvent(e handoff.CaptureEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
}

func (p *proxy) Person(_ handoff.Person, conn net.Conn) { conn.Close() }

func (p *proxy) serve(w handoff.Workload, l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return
		}
		if origin, err := w.OriginOf(conn); err == nil {
			p.mu.Lock()
			p.origin = origin
			p.mu.Unlock()
			conn.Write([]byte("proxy"))
		}
		conn.Close()
	}
}

// get reads a field under the lock.
func get[T any](p *proxy, field func() T) T {
	p.mu.Lock()
	defer p.mu.Unlock()
	return field()
}
