package openfiles

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// variable makes the test binary a process that raises its limit and says so.
const variable = "SALLYPORT_TEST_RAISE"

func TestMain(m *testing.M) {
	if os.Getenv(variable) == "" {
		os.Exit(m.Run())
	}
	limit := unix.Rlimit{Cur: 200, Max: 400}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		panic(err)
	}
	want := map[string]uint64{"less": 100, "soft": 300, "hard": 500, "nr_open": 1 << 62}[os.Getenv(variable)]
	got, err := Raise(want)
	if err != nil {
		panic(err)
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur != got {
		panic("the limit is not what Raise says")
	}
	ceiling, err := nrOpen()
	if err != nil {
		panic(err)
	}
	switch got {
	case want:
		os.Stdout.WriteString("as wanted")
	case ceiling:
		os.Stdout.WriteString("the ceiling")
	case 400:
		os.Stdout.WriteString("the hard limit")
	case 200:
		os.Stdout.WriteString("as before")
	}
}

func TestLimitIsRaisedAsFarAsTheProcessMay(t *testing.T) {
	beyond, ceiling := "the hard limit", "the hard limit"
	// Root in a container may lack it.
	if capable(t, unix.CAP_SYS_RESOURCE) {
		beyond, ceiling = "as wanted", "the ceiling"
	}
	for _, test := range []struct {
		want string
		uid  uint32
		said string
	}{
		{"less", 0, "as before"},
		{"soft", 0, "as wanted"},
		{"hard", 0, beyond},
		{"nr_open", 0, ceiling},
		{"soft", 65534, "as wanted"},
		{"hard", 65534, "the hard limit"},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), variable+"="+test.want)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: test.uid, Gid: test.uid}}
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != test.said {
			t.Errorf("%s as user %d (root is needed): %q, %v: want %q", test.want, test.uid, got, err, test.said)
		}
	}
}

// capable is whether this process has a capability.
func capable(t *testing.T, capability int) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[capability/32].Effective>>(capability%32)&1 == 1
}
