package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/test/env"
)

// insideVariable makes this test's program the process inside a workload.
const insideVariable = "SALLYPORT_E2E_INSIDE"

// A workload is an enrolled cgroup with one process of the test's own in it, which connects sockets and starts commands for the test.
// A socket that it has connected is handed to the test: the kernel captured it where it was made, and the test speaks on it.
type workload struct {
	// Name is the workload's; its cgroup is /sallyport/Name.
	Name string

	t       testing.TB
	control *net.UnixConn
}

// A request is what the process inside is asked for; with it come the socket for the answer and, for a command, its input and outputs.
type request struct {
	// Dial is an address to connect to.
	Dial string
	// Argv is a command to run, Env what is added to its environment.
	Argv, Env []string
}

// An answer is how a request ended; with it comes the connected socket.
type answer struct {
	Error  string
	Status int
}

// enter starts the process inside the workload name. It ends with the test.
func enter(t testing.TB, agent *env.Agent, name string) *workload {
	t.Helper()
	ours, theirs := socketPair(t)
	command := agent.Workload(name, os.Args[0])
	// A program with the race detector sleeps a second at its end, unless told not to.
	command.Env = append(os.Environ(), insideVariable+"=1", "GORACE=atexit_sleep_ms=0")
	var output bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = theirs, &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	w := &workload{Name: name, t: t, control: ours}
	t.Cleanup(func() {
		ours.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("workload %s: %v\n%s", name, err, &output)
		}
	})
	// Not before it runs is the workload enrolled.
	if result := w.run(invocation{argv: []string{"true"}}); result.Status != 0 {
		t.Fatalf("workload %s does not start: %s", name, &output)
	}
	return w
}

// dial connects a socket inside the workload.
func (w *workload) dial(_ context.Context, _, address string) (net.Conn, error) {
	reply, err := w.ask(request{Dial: address})
	if err != nil {
		return nil, err
	}
	defer reply.Close()
	got, files, err := receive(reply)
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	defer closeAll(files)
	if got.Error != "" {
		return nil, errors.New(got.Error)
	}
	return net.FileConn(files[0])
}

// mustDial is dial, whose error fails the test.
func (w *workload) mustDial(address string) net.Conn {
	w.t.Helper()
	c, err := w.dial(context.Background(), "tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// An invocation is a command to be run inside a workload.
type invocation struct {
	argv, env []string
	stdin     string
}

// run runs a command inside the workload and waits for its end.
func (w *workload) run(i invocation) env.Result {
	w.t.Helper()
	dir := w.t.TempDir()
	files := make([]*os.File, 3)
	for n, name := range []string{"stdin", "stdout", "stderr"} {
		path := filepath.Join(dir, name)
		content := ""
		if n == 0 {
			content = i.stdin
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			w.t.Fatal(err)
		}
		var err error
		if files[n], err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			w.t.Fatal(err)
		}
		defer files[n].Close()
	}
	reply, err := w.ask(request{Argv: i.argv, Env: i.env}, files...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer reply.Close()
	got, _, err := receive(reply)
	if err == nil && got.Error != "" {
		err = errors.New(got.Error)
	}
	if err != nil {
		w.t.Fatalf("workload %s: %v: %v", w.Name, i.argv, err)
	}
	result := env.Result{Status: got.Status}
	for n, text := range map[int]*string{1: &result.Stdout, 2: &result.Stderr} {
		all, err := os.ReadFile(files[n].Name())
		if err != nil {
			w.t.Fatal(err)
		}
		*text = string(all)
	}
	return result
}

// ask sends a request and returns the socket on which it is answered.
func (w *workload) ask(r request, files ...*os.File) (*net.UnixConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "answer")
	defer theirs.Close()
	ours, err := unixConn(fds[0])
	if err != nil {
		return nil, err
	}
	if err := send(w.control, r, append([]*os.File{theirs}, files...)...); err != nil {
		ours.Close()
		return nil, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	// Commands may take their time, but not for ever.
	return ours, ours.SetDeadline(time.Now().Add(2 * patience))
}

// serveInside is the process inside a workload; it ends when the test closes its standard input.
func serveInside() {
	control, err := unixConn(0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := os.Unsetenv(insideVariable); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var running sync.WaitGroup
	defer running.Wait()
	for {
		var r request
		files, err := receiveInto(control, &r)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		running.Go(func() {
			defer closeAll(files)
			if err := r.serve(files); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
}

func (r *request) serve(files []*os.File) error {
	reply, err := net.FileConn(files[0])
	if err != nil {
		return err
	}
	defer reply.Close()
	var got answer
	var socket []*os.File
	if r.Dial != "" {
		var f *os.File
		if f, err = dialFile(r.Dial); err == nil {
			defer f.Close()
			socket = append(socket, f)
		}
	} else {
		got.Status, err = runCommand(r, files[1:])
	}
	if err != nil {
		got.Error = err.Error()
	}
	return send(reply.(*net.UnixConn), got, socket...)
}

func dialFile(address string) (*os.File, error) {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*net.TCPConn).File()
}

func runCommand(r *request, files []*os.File) (status int, err error) {
	command := exec.Command(r.Argv[0], r.Argv[1:]...)
	command.Env = append(os.Environ(), r.Env...)
	command.Stdin, command.Stdout, command.Stderr = files[0], files[1], files[2]
	err = command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return command.ProcessState.ExitCode(), nil
}

// socketPair is two ends of one conversation, of which theirs is for a child.
func socketPair(t testing.TB) (ours *net.UnixConn, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if ours, err = unixConn(fds[0]); err != nil {
		t.Fatal(err)
	}
	return ours, os.NewFile(uintptr(fds[1]), "inside")
}

func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func send(c *net.UnixConn, message any, files ...*os.File) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	_, _, err = c.WriteMsgUnix(body, unix.UnixRights(fds...), nil)
	return err
}

func receive(c *net.UnixConn) (a answer, files []*os.File, err error) {
	files, err = receiveInto(c, &a)
	return a, files, err
}

func receiveInto(c *net.UnixConn, message any) ([]*os.File, error) {
	body, rights := make([]byte, 128<<10), make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := c.ReadMsgUnix(body, rights)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	var files []*os.File
	controls, err := unix.ParseSocketControlMessage(rights[:oobn])
	if err != nil {
		return nil, err
	}
	for i := range controls {
		fds, err := unix.ParseUnixRights(&controls[i])
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, json.Unmarshal(body[:n], message)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
