package capture

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/sallyport-dev/sallyport/bpf"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// Status is whether capture does what it promises, as the kernel said when it was asked last.
type Status struct {
	// Effective is true when the programs run for every workload and would outlive the process, and the canary was captured.
	Effective bool
	// Reason is why not; "" when effective.
	Reason string
	// Guards are all guards; capture is effective without those named device and family.
	Guards []handoff.Guard
	// Workloads are all that are enrolled or should be, by the names of their cgroups.
	Workloads []WorkloadStatus
}

// WorkloadStatus is Status for one workload.
type WorkloadStatus struct {
	handoff.Workload
	Effective bool
	Reason    string
}

// Status is what Check, Enroll and Prove found last.
func (c *Capture) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	status := Status{Guards: c.guardStatus()}
	for _, reason := range []string{c.rootReason, c.unguarded(), c.unproven} {
		if status.Reason == "" {
			status.Reason = reason
		}
	}
	for _, w := range c.workloads {
		status.Workloads = append(status.Workloads, WorkloadStatus{Workload: w.facts, Reason: w.reason})
	}
	for id, s := range c.stranded {
		status.Workloads = append(status.Workloads, WorkloadStatus{
			Workload: handoff.Workload{ID: id, Cgroup: s.name},
			Reason:   s.reason,
		})
	}
	slices.SortFunc(status.Workloads, func(a, b WorkloadStatus) int { return compareNames(a.Cgroup, b.Cgroup) })
	for i := range status.Workloads {
		one := &status.Workloads[i]
		one.Effective = one.Reason == ""
		if !one.Effective && status.Reason == "" {
			status.Reason = fmt.Sprintf("workload %s: %s", one.Cgroup, one.Reason)
		}
	}
	status.Effective = status.Reason == ""
	return status
}

func compareNames(a, b string) int { return strings.Compare(a, b) }

// Check asks the kernel which programs run for each workload, and whether all pins are there. Status says what it found.
func (c *Capture) Check() Status {
	c.mu.Lock()
	asked := c.all()
	c.mu.Unlock()
	root := words(c.rootEffective())
	found := make([]string, len(asked))
	for i, w := range asked {
		found[i] = words(c.workloadEffective(w))
	}
	c.mu.Lock()
	c.rootReason = root
	for i, w := range asked {
		w.reason = found[i]
	}
	c.mu.Unlock()
	return c.Status()
}

// words are an error's, on one line; "" for none.
func words(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// running are those of the root's programs that could be attached.
func (c *Capture) running() []string {
	running := slices.Clone(rootPrograms)
	for _, name := range rootGuards {
		if c.missing[name] == "" {
			running = append(running, name)
		}
	}
	return running
}

// rootEffective checks the programs of the root where the agent's listeners are.
func (c *Capture) rootEffective() error {
	own, err := c.hierarchy.Own()
	if err != nil {
		return err
	}
	for _, name := range c.running() {
		if err := exists(c.pins.root(name)); err != nil {
			return err
		}
	}
	return c.run(own, c.running())
}

func (c *Capture) workloadEffective(w *workload) error {
	if now, err := c.hierarchy.ID(w.facts.Cgroup); err != nil {
		return err
	} else if now != w.facts.ID {
		return errors.New("another cgroup has its name now")
	}
	for _, name := range slices.Concat(workloadPrograms, workloadGuards) {
		if err := exists(c.pins.link(w.facts.ID, name)); err != nil && w.unguarded == nil {
			return err
		}
	}
	return errors.Join(c.effective(w), w.unguarded)
}

// effective checks that all programs run for a workload, but a guard that could not be attached.
func (c *Capture) effective(w *workload) error {
	programs := slices.Concat(workloadPrograms, c.running())
	if w.unguarded == nil {
		programs = append(programs, workloadGuards...)
	}
	return c.run(w.facts.Cgroup, programs)
}

// run checks that programs of ours are among those that the kernel runs for a cgroup.
func (c *Capture) run(name string, programs []string) error {
	cgroup, err := os.Open(c.hierarchy.Dir(name))
	if err != nil {
		return fmt.Errorf("query %s: %w", name, err)
	}
	defer cgroup.Close()
	for _, program := range programs {
		there, err := query(cgroup, attachTypes[program], true)
		if err != nil {
			return err
		}
		if !slices.Contains(there.programs, c.ids[program]) {
			return fmt.Errorf("%s does not run for %s", program, name)
		}
	}
	return nil
}

func exists(pin string) error {
	if _, err := os.Stat(pin); err != nil {
		return fmt.Errorf("capture would end with this process: %w", err)
	}
	return nil
}

// reasons are the names of enum reason in bpf/maps.h.
var reasons = map[bpf.CaptureReason]string{
	bpf.CaptureReasonREASON_CAPTURED:           "captured",
	bpf.CaptureReasonREASON_DENIED_OUTSIDE:     "denied_outside",
	bpf.CaptureReasonREASON_DENIED_NETNS:       "denied_netns",
	bpf.CaptureReasonREASON_DENIED_NO_LISTENER: "denied_no_listener",
	bpf.CaptureReasonREASON_DENIED_PROTOCOL:    "denied_protocol",
	bpf.CaptureReasonREASON_DENIED_STORAGE:     "denied_storage",
	bpf.CaptureReasonREASON_LOST_PENDING:       "lost_pending",
	bpf.CaptureReasonREASON_LOST_ACCEPTED:      "lost_accepted",
	bpf.CaptureReasonREASON_DENIED_SOCKET:      "denied_socket",
	bpf.CaptureReasonREASON_DENIED_PASSED:      "denied_passed",
	bpf.CaptureReasonREASON_DENIED_UDP:         "denied_udp",
	bpf.CaptureReasonREASON_DENIED_PACKET:      "denied_packet",
	bpf.CaptureReasonREASON_DENIED_HEADER:      "denied_header",
	bpf.CaptureReasonREASON_DENIED_BIND:        "denied_bind",
	bpf.CaptureReasonREASON_DENIED_LISTENER:    "denied_listener",
	bpf.CaptureReasonREASON_DENIED_SQUATTED:    "denied_squatted",
	bpf.CaptureReasonREASON_DENIED_QUOTA:       "denied_quota",
	bpf.CaptureReasonREASON_DENIED_FAMILY:      "denied_family",
	bpf.CaptureReasonREASON_LOST_EVENT:         "lost_event",
	bpf.CaptureReasonREASON_CANARY:             "canary",
}

// Counters are connections since the pins were made, by reason.
func (c *Capture) Counters() (map[string]uint64, error) {
	counters := make(map[string]uint64, len(reasons))
	for reason, name := range reasons {
		perCPU := make([]uint64, ebpf.MustPossibleCPU())
		if err := c.objects.Counters.Lookup(uint32(reason), &perCPU); err != nil {
			return nil, fmt.Errorf("read counter %s: %w", name, err)
		}
		for _, n := range perCPU {
			counters[name] += n
		}
	}
	return counters, nil
}
