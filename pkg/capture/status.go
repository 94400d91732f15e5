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

// Status is whether capture does what it promises, as the kernel says.
type Status struct {
	// Effective is true when the programs run for every workload and would outlive the process.
	Effective bool
	// Reason is why not; "" when effective.
	Reason string
	// Workloads are all that are enrolled or should be, by the names of their cgroups.
	Workloads []WorkloadStatus
}

// WorkloadStatus is Status for one workload.
type WorkloadStatus struct {
	handoff.Workload
	Effective bool
	Reason    string
}

// Status asks the kernel which programs run for each workload, and whether all pins are there.
func (c *Capture) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	var status Status
	if err := c.rootEffective(); err != nil {
		status.Reason = err.Error()
	}
	for id, w := range c.workloads {
		one := WorkloadStatus{Workload: w.facts}
		if err := c.workloadEffective(id, w); err != nil {
			one.Reason = err.Error()
		}
		status.Workloads = append(status.Workloads, one)
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

// rootEffective checks what carries origins, where the agent's listeners are.
func (c *Capture) rootEffective() error {
	own, err := c.hierarchy.Own()
	if err != nil {
		return err
	}
	for _, name := range rootPrograms {
		if err := c.runs(name, c.hierarchy.Dir(own)); err != nil {
			return err
		}
		if err := exists(c.pins.root(name)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Capture) workloadEffective(id uint64, w *workload) error {
	if now, err := c.hierarchy.ID(w.facts.Cgroup); err != nil {
		return err
	} else if now != id {
		return errors.New("another cgroup has its name now")
	}
	for _, name := range workloadPrograms {
		if err := exists(c.pins.link(id, name)); err != nil {
			return err
		}
	}
	return c.effective(w.facts.Cgroup)
}

// effective checks that all programs run for a cgroup.
func (c *Capture) effective(name string) error {
	for _, program := range slices.Concat(workloadPrograms, rootPrograms) {
		if err := c.runs(program, c.hierarchy.Dir(name)); err != nil {
			return err
		}
	}
	return nil
}

// runs checks that a program of ours is among those that the kernel runs for a cgroup.
func (c *Capture) runs(name, dir string) error {
	there, err := query(dir, attachTypes[name], true)
	if err != nil {
		return err
	}
	if !slices.Contains(there.programs, c.ids[name]) {
		return fmt.Errorf("%s does not run for %s", name, dir)
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
