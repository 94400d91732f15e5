package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// runWorkload runs a shell script through "sallyport run" and returns its output, what run says, and the exit status.
func (a *testAgent) runWorkload(flags []string, script string) (stdout, stderr string, status int) {
	a.t.Helper()
	var out, said bytes.Buffer
	command := exec.Command("sallyport", append(append([]string{"run", "--run-dir", a.run}, flags...), "--", "sh", "-c", script)...)
	command.Stdout, command.Stderr = &out, &said
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		a.t.Fatal(err)
	}
	return out.String(), said.String(), command.ProcessState.ExitCode()
}

func cgroupDir(t *testing.T, name string) string {
	t.Helper()
	hierarchy, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	return hierarchy.Dir(name)
}

func TestRunPassesOnTheExitStatus(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	tests := []struct {
		name, script string
		want         int
	}{
		{"success", "exit 0", 0},
		{"a status of its own", "exit 42", 42},
		{"a signal", "kill -TERM $$", 128 + 15},
		{"another signal", "kill -KILL $$", 128 + 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, stderr, status := a.runWorkload(nil, tt.script); status != tt.want || stderr != "" {
				t.Errorf("exit status %d, want %d; stderr %q", status, tt.want, stderr)
			}
		})
	}
	err := exec.Command("sallyport", "run", "--run-dir", a.run, "--", "/etc/hostname").Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 126 {
		t.Errorf("a file that is no program: %v, want exit status 126", err)
	}
}

func TestRunStartsTheCommandInItsCgroupAndRemovesIt(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	stdout, stderr, _ := a.runWorkload([]string{"--name", "run-test-place"}, "cat /proc/self/cgroup; mkdir "+
		cgroupDir(t, "/sallyport/run-test-place/below"))
	if !strings.Contains(stdout, "0::/sallyport/run-test-place\n") {
		t.Errorf("cgroups %q; %s", stdout, stderr)
	}
	if _, err := os.Stat(cgroupDir(t, "/sallyport/run-test-place")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup is still there: %v", err)
	}
}

func TestRunDoesNotStartWhatIsNotCaptured(t *testing.T) {
	a := startAgent(t, "refuse")
	a.awaitReady()
	mark := filepath.Join(a.dir, "mark")
	_, stderr, status := a.runWorkload([]string{"--name", "run-test-refused"}, "touch "+mark)
	if want := "sallyport: workload /sallyport/run-test-refused is not captured, so sh was not started: the kernel says no\n"; stderr != want || status != 125 {
		t.Errorf("says %q with status %d, want %q with 125", stderr, status, want)
	}
	for _, path := range []string{mark, cgroupDir(t, "/sallyport/run-test-refused")} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
}

func TestRunSetsTrustVariablesThatAreUnset(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	t.Setenv("CURL_CA_BUNDLE", "/mine")
	t.Setenv("SSL_CERT_FILE", "")
	if err := os.Unsetenv("SSL_CERT_FILE"); err != nil {
		t.Fatal(err)
	}
	stdout, _, _ := a.runWorkload(nil, `echo "$SSL_CERT_FILE $CURL_CA_BUNDLE"`)
	if want := filepath.Join(a.run, "trust", "bundle.pem") + " /mine\n"; stdout != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
}

func TestRunChangesTheUser(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	stdout, stderr, status := a.runWorkload([]string{"--user", "nobody"}, `id -un; echo "$USER"; grep CapEff /proc/self/status`)
	if want := "nobody\nnobody\nCapEff:\t0000000000000000\n"; stdout != want || status != 0 {
		t.Errorf("got %q, want %q; %s", stdout, want, stderr)
	}
}

func TestRunLeavesBackgroundProcessesCaptured(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	dir := cgroupDir(t, "/sallyport/run-test-background")
	stdout, stderr, status := a.runWorkload([]string{"--name", "run-test-background"}, "sleep 1000 >/dev/null 2>&1 & echo $!")
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
			t.Error(err)
		}
		a.await("the cgroup to empty", func() bool { return removeEmptyCgroups(dir) == nil })
	})
	if status != 0 || !strings.Contains(stderr, "/sallyport/run-test-background still has processes, which stay captured") {
		t.Errorf("status %d, says %q", status, stderr)
	}
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil || string(procs) != stdout {
		t.Errorf("in the cgroup: %q, %v; want %q", procs, err, stdout)
	}
	if _, stderr, status := a.runWorkload([]string{"--name", "run-test-background"}, "true"); status != 125 || !strings.Contains(stderr, "already runs") {
		t.Errorf("a second run: status %d, says %q", status, stderr)
	}
}

func TestRunClosesInheritedSocketsAndKeepsFiles(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket, other := os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "other")
	defer socket.Close()
	defer other.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	command := exec.Command("sallyport", "run", "--run-dir", a.run, "--", "sh", "-c", "readlink /proc/$$/fd/3; readlink /proc/$$/fd/4")
	command.ExtraFiles = []*os.File{socket, file}
	out, _ := command.Output()
	if want := file.Name() + "\n"; string(out) != want {
		t.Errorf("descriptors 3 and 4 are %q, want only %q", out, want)
	}
}

func TestRunForwardsSignals(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
		t.Run(unix.SignalName(s), func(t *testing.T) {
			out := &safeBuffer{}
			command := exec.Command("sallyport", "run", "--run-dir", a.run, "--", "sh", "-c",
				fmt.Sprintf("trap 'echo got; exit 7' %d; echo ready; while :; do sleep 0.01; done", s))
			command.Stdout = out
			// Without a terminal in the foreground, whoever runs the tests.
			command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			a.await("the command", func() bool { return out.String() == "ready\n" })
			if err := command.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			err := command.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 7 || out.String() != "ready\ngot\n" {
				t.Errorf("ended with %v and printed %q", err, out)
			}
		})
	}
}

// openTerminal makes a pseudoterminal; pty(7).
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestTerminalInterruptReachesTheCommandOnce(t *testing.T) {
	a := startAgent(t)
	a.awaitReady()
	master, slave := openTerminal(t)
	screen := &safeBuffer{}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			if err != nil {
				return // Closed at the end of the test.
			}
			_, _ = screen.Write(buffer[:n])
		}
	}()
	// The command reads from the terminal, which only a foreground process may do.
	command := exec.Command("sallyport", "run", "--run-dir", a.run, "--", "bash", "-c",
		`trap 'n=$((n+1)); echo interrupt $n' INT; echo ready; until read -r line; do :; done; echo "line $line after $n"`)
	command.Stdin, command.Stdout, command.Stderr = slave, slave, slave
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	press := func(keys string) {
		if _, err := master.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	a.await("the command", func() bool { return strings.Contains(screen.String(), "ready") })
	press("\x03")
	a.await("the interrupt", func() bool { return strings.Contains(screen.String(), "interrupt 1") })
	press("hello\n")
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = command.Process.Kill()
		t.Errorf("does not end; screen:\n%s", screen)
	}
	a.await("the last line", func() bool { return strings.Contains(screen.String(), "line hello after 1") })
}

func TestWorkloadNames(t *testing.T) {
	tests := []struct {
		name, asked, command string
		want                 string // a prefix when made of the command
		wantErr              bool
	}{
		{name: "asked for", asked: "shop-1.a_B", want: "shop-1.a_B"},
		{name: "made of the command", command: "/usr/bin/psql", want: "psql-"},
		{name: "made of a command with odd characters", command: "./my tool (1)", want: "my-tool--1--"},
		{name: "made of dots", command: "...", want: "run-"},
		{name: "a path", asked: "a/b", wantErr: true},
		{name: "up", asked: "..", wantErr: true},
		{name: "too long", asked: strings.Repeat("a", 64), wantErr: true},
		{name: "a newline", asked: "a\n", wantErr: true},
		{name: "a leading dash", asked: "-x", wantErr: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := workloadName(tt.asked, tt.command)
			if (err != nil) != tt.wantErr {
				t.Fatalf("error %v, want an error: %v", err, tt.wantErr)
			}
			if tt.asked != "" && got != tt.want && err == nil || !strings.HasPrefix(got, tt.want) || err == nil && !validName.MatchString(got) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
