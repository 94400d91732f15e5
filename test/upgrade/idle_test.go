package upgrade

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

// sessions are how many the idle test opens.
var sessions = flag.Int("sessions", 1000, "idle sessions")

// idleKiB is what an idle session may cost: 5,000 of them have to fit in 200 MiB, with the proxy itself.
const idleKiB = 34

func TestIdleSessionsCostLittleMemory(t *testing.T) {
	n := newNode(t)
	_, proxy := n.children()
	before := residentKiB(t, proxy)
	defer n.Kill()                                            // or the client would wait for ever
	n.client(fmt.Sprintf("%s=%d", idleVariable, *sessions-1)) // one more is in a transaction
	after := residentKiB(t, proxy)
	t.Logf("the proxy has %d MiB, and %d MiB with %d sessions that have asked something and are idle", before>>10, after>>10, *sessions)
	if got := n.server.logins.Load(); got < int64(*sessions) {
		t.Errorf("the server has seen %d sessions, want %d", got, *sessions)
	}
	if each := (after - before) / *sessions; each > idleKiB {
		t.Errorf("%d KiB for each, want at most %d", each, idleKiB)
	}
}

// residentKiB is what a process has in memory: VmRSS of proc_pid_status(5).
func residentKiB(t *testing.T, pid int) (kib int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(status), "\nVmRSS:")
	if _, err := fmt.Sscanf(text, "%d kB", &kib); err != nil {
		t.Fatalf("VmRSS of process %d: %v", pid, err)
	}
	return kib
}
