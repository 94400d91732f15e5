package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport-dev/sallyport/pkg/capture/control"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// TestMain gives scripts and tests the command itself, and stand-ins for its two children that speak their part of the seams.
func TestMain(m *testing.M) {
	// A program with the race detector sleeps for a second before it exits, and these tests start many.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"sallyport":         main,
		"sallyport-capture": standInCapture,
		"sallyport-proxy":   standInProxy,
	})
}

// TestCommandScripts runs the scripts about commands that need no agent.
func TestCommandScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/cli_*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts %v, %v", scripts, err)
	}
	testscript.Run(t, testscript.Params{Files: scripts})
}

// standInCapture serves control.sock. What it does is said by files in its configuration directory: "bad" ends it at start,
// "refuse" makes it refuse workloads. It notes what it was asked in the file "log" of the run directory.
func standInCapture() {
	flags := flag.NewFlagSet("sallyport-capture", flag.ExitOnError)
	config, runDir := flags.String("config", "", ""), flags.String("run-dir", "", "")
	flags.Int("proxy-uid", 0, "")
	addLogFlags(flags)
	if os.Args[1] == "--version" {
		return
	}
	if os.Args[1] == "release" {
		must(flags.Parse(os.Args[2:]))
		fmt.Println("released", *runDir)
		return
	}
	must(flags.Parse(os.Args[1:]))
	if says(*config, "bad") {
		fmt.Fprintln(os.Stderr, "policy.yaml:3:1: unknown field")
		os.Exit(1)
	}
	note(*runDir, "capture started "+strconv.Itoa(os.Getpid()))
	path := filepath.Join(*runDir, control.SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		must(err)
	}
	listener, err := net.Listen("unix", path)
	must(err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		status := control.Status{Effective: true, Revision: 1, Proxy: handoff.ProxyState{Revision: 1}}
		for _, pid := range pids(*runDir, "proxy") {
			if !alive(pid) {
				continue
			}
			state := handoff.ProxyState{Connected: true, PID: uint32(pid), Revision: 1, Ready: true}
			if says(*config, "picky") && len(status.Proxies) > 0 {
				state.Ready, state.Error = false, "unknown field"
			} else {
				status.Proxy = state
			}
			status.Proxies = append(status.Proxies, state)
		}
		must(json.NewEncoder(w).Encode(status))
	})
	mux.HandleFunc("POST /workloads", func(w http.ResponseWriter, _ *http.Request) {
		if says(*config, "refuse") {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"error":"the kernel says no"}`)
		}
	})
	mux.HandleFunc("POST /reload", func(http.ResponseWriter, *http.Request) { note(*runDir, "reloaded") })
	go func() { must(http.Serve(listener, mux)) }()
	awaitTerm()
	note(*runDir, "capture stopped")
	os.Exit(0)
}

// standInProxy does nothing until it is asked to stop.
func standInProxy() {
	flags := flag.NewFlagSet("sallyport-proxy", flag.ExitOnError)
	runDir := flags.String("run-dir", "", "")
	for _, name := range []string{"user", "state-dir", "metrics", "drain", "sessions-per-workload"} {
		flags.String(name, "", "")
	}
	replaces := flags.Bool("replaces", false, "")
	addLogFlags(flags)
	if os.Args[1] == "--version" {
		return
	}
	must(flags.Parse(os.Args[1:]))
	note(*runDir, "proxy started "+strconv.Itoa(os.Getpid()))
	if *replaces {
		note(*runDir, "proxy replaces")
	}
	awaitTerm()
	note(*runDir, "proxy stopped")
}

func addLogFlags(flags *flag.FlagSet) {
	flags.String("log-format", "", "")
	flags.String("log-level", "", "")
}

func awaitTerm() {
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	<-terms
}

func says(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

func note(runDir, line string) {
	file, err := os.OpenFile(filepath.Join(runDir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	must(err)
	_, err = file.WriteString(line + "\n")
	must(err)
	must(file.Close())
}

func notes(runDir string) string {
	text, err := os.ReadFile(filepath.Join(runDir, "log"))
	if err != nil {
		return ""
	}
	return string(text)
}

// lastPID is the process that a stand-in noted last, 0 for none.
func lastPID(runDir, who string) int {
	all := pids(runDir, who)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1]
}

// pids are all processes that a stand-in noted, the newest last.
func pids(runDir, who string) (all []int) {
	for line := range strings.Lines(notes(runDir)) {
		if text, ok := strings.CutPrefix(line, who+" started "); ok {
			pid, _ := strconv.Atoi(strings.TrimSpace(text))
			all = append(all, pid)
		}
	}
	return all
}

func alive(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(status), ") Z ")
}

// A testAgent is "sallyport up" with stand-ins.
type testAgent struct {
	t                *testing.T
	config, run, dir string
	process          *exec.Cmd
	stderr           *safeBuffer
	done             chan struct{}
}

// startAgent starts it with files of these names in its configuration directory. It is stopped at the end of the test.
func startAgent(t *testing.T, files ...string) *testAgent {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	dir := t.TempDir()
	a := &testAgent{t: t, dir: dir, config: filepath.Join(dir, "config"), run: filepath.Join(dir, "run"), stderr: &safeBuffer{}}
	if err := os.Mkdir(a.config, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if err := os.WriteFile(filepath.Join(a.config, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a.start()
	return a
}

func (a *testAgent) start() {
	a.t.Helper()
	a.process = exec.Command("sallyport", "up", "--config", a.config, "--run-dir", a.run, "--state-dir", filepath.Join(a.dir, "state"),
		"--libexec-dir", programs(a.t), "--proxy-user", "64817")
	a.process.Stderr = a.stderr
	a.done = make(chan struct{})
	if err := a.process.Start(); err != nil {
		a.t.Fatal(err)
	}
	process, done := a.process, a.done
	go func() {
		defer close(done)
		_ = process.Wait() // Its state says how it ended.
	}()
	a.t.Cleanup(func() {
		_ = process.Process.Kill()
		<-done
	})
}

// programs is the directory where testscript.Main put the commands.
func programs(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("sallyport-capture")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(program)
}

func (a *testAgent) await(what string, condition func() bool) {
	a.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Fatalf("%s: did not happen; log:\n%s\nnotes:\n%s", what, a.stderr, notes(a.run))
		}
	}
}

func (a *testAgent) awaitReady() {
	a.t.Helper()
	a.await("ready", func() bool { return strings.Contains(a.stderr.String(), "\tready\t") })
}

// stop sends a signal and awaits the end.
func (a *testAgent) stop(s syscall.Signal) int {
	a.t.Helper()
	if err := a.process.Process.Signal(s); err != nil {
		a.t.Fatal(err)
	}
	return a.awaitEnd()
}

func (a *testAgent) awaitEnd() int {
	a.t.Helper()
	select {
	case <-a.done:
		return a.process.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		a.t.Fatalf("up does not end; log:\n%s", a.stderr)
		return 0
	}
}

// safeBuffer is written by a process's copier and read by its test.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write appends.
func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// String is what was written so far.
func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
