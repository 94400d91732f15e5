package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/pkg/record"
	"github.com/sallyport-dev/sallyport/test/env"
)

// metric is the sum of the samples whose name and labels begin with prefix.
func (w *world) metric(prefix string) float64 {
	w.t.Helper()
	sum := 0.0
	for line := range strings.Lines(w.Metrics()) {
		if strings.HasPrefix(line, prefix) {
			fields := strings.Fields(line)
			n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				w.t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// proxyPID is the process id of the proxy, as "sallyport status" knows it.
func (w *world) proxyPID() int {
	w.t.Helper()
	status := w.status()
	return status.Agent.Proxy.PID
}

// A status is what the tests need of "sallyport status -o json".
type status struct {
	Ready  bool
	Faults []string
	Agent  struct {
		Revision uint64
		Proxy    struct{ PID int }
	}
}

func (w *world) status() status {
	w.t.Helper()
	result := env.Execute(w.t, w.Command("status", "--run-dir", w.RunDir, "-o", "json"))
	var s status
	if err := json.Unmarshal([]byte(result.Stdout), &s); err != nil {
		w.t.Fatalf("%v in the output of status: %s%s", err, result.Stdout, result.Stderr)
	}
	return s
}

var residentLine = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peakMemory is the most memory that the proxy has had resident so far, in MiB; proc_pid_status(5), VmHWM.
func (w *world) peakMemory() int {
	w.t.Helper()
	text := readFile(w.t, fmt.Sprintf("/proc/%d/status", w.proxyPID()))
	found := residentLine.FindStringSubmatch(text)
	if found == nil {
		w.t.Fatalf("no VmHWM in %s", text)
	}
	kib, err := strconv.Atoi(found[1])
	if err != nil {
		w.t.Fatal(err)
	}
	return kib >> 10
}

// sessions are the world's records, the latest last.
func (w *world) sessions() []record.Summary {
	w.t.Helper()
	list, err := record.List(w.StateDir)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// sealed waits until no session is open and gives the last one's events.
func (w *world) sealed() []record.Entry {
	w.t.Helper()
	await(w.t, "every session is sealed", func() bool {
		list := w.sessions()
		for _, s := range list {
			if s.Open {
				return false
			}
		}
		return len(list) > 0
	})
	list := w.sessions()
	return w.events(list[len(list)-1].ID)
}

func (w *world) events(id string) []record.Entry {
	w.t.Helper()
	var entries []record.Entry
	for e, err := range record.Read(w.StateDir, id) {
		if err != nil {
			w.t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries
}

// operations are "kind decision text" of the operations among the events.
func operations(entries []record.Entry) []string {
	var list []string
	for _, e := range entries {
		if o := e.Operation; o != nil {
			list = append(list, fmt.Sprintf("%s %s %s", o.Kind, o.Decision, o.Text))
		}
	}
	return list
}

// sqlstate is the SQLSTATE of a server's error, or the error itself.
func sqlstate(err error) string {
	var own *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &own):
		return own.Code
	}
	return err.Error()
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// timeout is a context for something that should take a second.
func timeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// await polls until the condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// listenerOf is the address of a workload's IPv4 listener: a socket of the proxy that listens, and does not serve metrics.
func listenerOf(t testing.TB, w *world) string {
	t.Helper()
	held := map[string]bool{}
	directory := fmt.Sprintf("/proc/%d/fd", w.proxyPID())
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(directory, e.Name())); err == nil {
			held[target] = true
		}
	}
	for _, line := range strings.Split(readFile(t, "/proc/net/tcp"), "\n") {
		fields := strings.Fields(line) // proc_net_tcp: 1 is the local address, 3 the state, 9 the inode
		if len(fields) < 10 || fields[3] != "0A" || !held["socket:["+fields[9]+"]"] {
			continue
		}
		address, port, _ := strings.Cut(fields[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if err != nil || address != "0100007F" {
			continue
		}
		if found := fmt.Sprintf("127.0.0.1:%d", n); !strings.Contains(w.MetricsURL, found) {
			return found
		}
	}
	t.Fatal("the proxy has no listener")
	return ""
}

// openDescriptors is how many descriptors a process has open.
func openDescriptors(t testing.TB, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
