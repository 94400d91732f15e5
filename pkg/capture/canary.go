package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// The canary's targets: addresses of documentation, RFC 5737 and RFC 3849, at a port that nobody serves. They are targets for
// as long as capture is.
var (
	canary4 = netip.MustParseAddrPort("192.0.2.1:1")
	canary6 = netip.MustParseAddrPort("[2001:db8::1]:1")
)

// canaryTimeout bounds one dial of the canary.
const canaryTimeout = 5 * time.Second

// canaryParent is the cgroup that holds the canaries of all instances.
const canaryParent = "/sallyport.canary"

// canaryName is the cgroup of the instance's canary.
func (c *Capture) canaryName() string { return CanaryName(path.Base(c.pins.dir)) }

// CanaryName is the cgroup of an instance's canary.
func CanaryName(instance string) string { return path.Join(canaryParent, instance) }

// canaryTargets are the keys of the canary's addresses.
func canaryTargets() (map[bpf.CaptureTarget4]bool, map[bpf.CaptureTarget6]bool) {
	return map[bpf.CaptureTarget4]bool{key4(netip.PrefixFrom(canary4.Addr(), 32), canary4.Port()): true},
		map[bpf.CaptureTarget6]bool{key6(netip.PrefixFrom(canary6.Addr(), 128), canary6.Port()): true}
}

// protectCanary makes the canary's addresses targets; SetTargets keeps them.
func (c *Capture) protectCanary() error {
	want4, want6 := canaryTargets()
	if err := c.protectPorts(portsOf(want4, want6), true); err != nil {
		return err
	}
	_, _, err4 := add(c.objects.Targets4, want4)
	_, _, err6 := add(c.objects.Targets6, want6)
	return errors.Join(err4, err6)
}

// enrollCanary makes the canary's cgroup, and captures it as any other.
func (c *Capture) enrollCanary() error {
	name := c.canaryName()
	id, err := MakeCanary(c.hierarchy, name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canary, err = c.enroll(name, id, true); err != nil {
		return fmt.Errorf("enrol the canary: %w", err)
	}
	return nil
}

// MakeCanary makes the canary's cgroup, if there is none, and returns its id.
func MakeCanary(h *cgroup.Hierarchy, name string) (uint64, error) {
	if err := os.MkdirAll(h.Dir(name), 0o755); err != nil {
		return 0, fmt.Errorf("make the canary's cgroup: %w", err)
	}
	return h.ID(name)
}

// RemoveCanary removes the cgroup of an instance's canary, and the one that holds it if that was the last.
func RemoveCanary(instance string) error {
	hierarchy, err := cgroup.Find()
	if errors.Is(err, cgroup.ErrNotMounted) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := hierarchy.Dir(CanaryName(instance))
	// A canary may be left of an agent that was killed; cgroup.kill is Linux 5.14.
	if err := os.WriteFile(path.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end the canary: %w", err)
	}
	for deadline := time.Now().Add(canaryTimeout); ; time.Sleep(time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			break
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove the canary's cgroup: %w", err)
		}
	}
	if err := os.Remove(hierarchy.Dir(canaryParent)); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove the canaries' cgroup: %w", err)
	}
	return nil
}

// Prove starts processes in the canary's cgroup that dial reserved targets, and checks that they reach capture's own listeners
// with their exact origins. What it finds is part of Status from then on.
func (c *Capture) Prove(ctx context.Context) error {
	c.proving.Lock()
	defer c.proving.Unlock()
	c.mu.Lock()
	canary := c.canary
	c.mu.Unlock()
	if canary == nil {
		return errors.New("capture is closed")
	}
	var err error
	for _, one := range []struct {
		listener *net.TCPListener
		to       netip.AddrPort
	}{{canary.listeners.v4, canary4}, {canary.listeners.v6, canary6}} {
		if one.listener == nil {
			continue
		}
		if failure := c.prove(ctx, canary, one.listener, one.to); failure != nil {
			err = errors.Join(err, fmt.Errorf("the canary's dial of %s: %w", one.to, failure))
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unproven = ""
	if err != nil {
		c.unproven = words(err)
	}
	return err
}

// prove dials once.
func (c *Capture) prove(ctx context.Context, w *workload, listener *net.TCPListener, to netip.AddrPort) error {
	origin, pid, denied, err := DialCanary(ctx, c.hierarchy, c.command, w.facts, listener, to)
	if err != nil {
		return err
	}
	want := handoff.Origin{
		Destination: to, WorkloadID: w.facts.ID, Generation: w.facts.Generation, CgroupID: w.facts.ID,
		NetnsCookie: w.facts.NetnsCookie, PID: uint32(pid), UID: origin.UID, Comm: origin.Comm,
	}
	if origin != want {
		return fmt.Errorf("its origin is %+v, not %+v", origin, want)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !denied && c.family == "" {
		c.family = "the kernel does not run BPF programs as an LSM"
	}
	return nil
}

// DialCanary starts a process in the canary's cgroup that dials an address, and accepts it on the canary's listener. It returns the
// connection's origin, the process's number, and whether the process was denied a socket of a strange family.
func DialCanary(
	ctx context.Context, h *cgroup.Hierarchy, command []string, canary handoff.Workload, listener *net.TCPListener, to netip.AddrPort,
) (origin handoff.Origin, pid int, denied bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, canaryTimeout)
	defer cancel()
	dir, err := os.Open(h.Dir(canary.Cgroup))
	if err != nil {
		return handoff.Origin{}, 0, false, err
	}
	defer dir.Close()
	if err := listener.SetDeadline(time.Now().Add(canaryTimeout)); err != nil {
		return handoff.Origin{}, 0, false, err
	}
	process := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], to.String())...)
	process.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	process.Stderr = &said
	if err := process.Start(); err != nil {
		return handoff.Origin{}, 0, false, fmt.Errorf("start the canary: %w", err)
	}
	ended := make(chan error, 1)
	go func() {
		err := process.Wait()
		if err != nil {
			// Nobody will come.
			err = errors.Join(err, listener.SetDeadline(time.Now()))
		}
		ended <- err
	}()
	origin, denied, err = acceptOne(canary, listener)
	// Without a connection it would wait for one.
	if err != nil {
		cancel()
	}
	if failure := <-ended; failure != nil {
		// When it failed by itself, that nobody came follows.
		if words := strings.TrimSpace(said.String()); words != "" {
			return handoff.Origin{}, 0, false, fmt.Errorf("it was not redirected: %w: %s", failure, words)
		}
		return handoff.Origin{}, 0, false, errors.Join(fmt.Errorf("it was not redirected: %w", failure), err)
	}
	return origin, process.Process.Pid, denied, err
}

// acceptOne takes one connection of the canary: its origin, and whether it was denied a socket of a strange family.
func acceptOne(canary handoff.Workload, listener *net.TCPListener) (origin handoff.Origin, denied bool, err error) {
	conn, err := listener.AcceptTCP()
	if err != nil {
		return handoff.Origin{}, false, err
	}
	defer conn.Close()
	if origin, err = canary.OriginOf(conn); err != nil {
		return handoff.Origin{}, false, err
	}
	if err := conn.SetDeadline(time.Now().Add(canaryTimeout)); err != nil {
		return handoff.Origin{}, false, err
	}
	var said [1]byte
	if _, err := io.ReadFull(conn, said[:]); err != nil {
		return handoff.Origin{}, false, fmt.Errorf("hear of the canary: %w", err)
	}
	return origin, said[0] == 1, nil
}

// RunCanary is what the canary's process does: it dials an address, says whether it may not make a socket of a family that
// workloads have no use for, and waits for the other side to close.
func RunCanary(address string) error {
	conn, err := net.DialTimeout("tcp", address, canaryTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(canaryTimeout)); err != nil {
		return err
	}
	// Denied, this is EPERM even where the kernel does not know the family.
	socket, err := unix.Socket(unix.AF_APPLETALK, unix.SOCK_DGRAM, 0)
	if err == nil {
		unix.Close(socket)
	}
	said := []byte{0}
	if errors.Is(err, unix.EPERM) {
		said[0] = 1
	}
	if _, err := conn.Write(said); err != nil {
		return err
	}
	// The end of the connection, however it comes, is the answer.
	_, _ = conn.Read(said)
	return nil
}
