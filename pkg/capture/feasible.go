package capture

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"

	"github.com/sallyport-dev/sallyport/pkg/workload/cgroup"
)

// ErrInfeasible says that this kernel can not run the programs.
var ErrInfeasible = errors.New("the kernel can not run the programs")

// Feasible is nil when nothing is known that keeps capture from being effective for some cgroups, which need not be there yet. The
// error is ErrInfeasible for a kernel that lacks something, ErrForeign where somebody's program stands in the way.
func Feasible(h *cgroup.Hierarchy, names []string) error {
	for _, kind := range []ebpf.ProgramType{ebpf.CGroupSockAddr, ebpf.SockOps, ebpf.CGroupSockopt, ebpf.CGroupSKB, ebpf.CGroupSock} {
		if err := features.HaveProgramType(kind); errors.Is(err, ebpf.ErrNotSupported) {
			return fmt.Errorf("%w: %s: %w", ErrInfeasible, kind, err)
		}
	}
	programs := slices.Concat(workloadPrograms, rootPrograms, rootGuards, workloadGuards)
	for above := range ancestors(names) {
		if _, err := h.ID(above); err != nil {
			continue
		}
		if err := checkForeign(h.Dir(above), programs...); err != nil {
			return err
		}
	}
	return nil
}

// ancestors are cgroups and all above them.
func ancestors(names []string) map[string]bool {
	all := map[string]bool{"/": true}
	for _, name := range names {
		for ; !all[name]; name = path.Dir(name) {
			all[name] = true
		}
	}
	return all
}

// Hopeless is whether an error of Open or Feasible will come again however often one tries, so that another way of capturing is
// needed.
func Hopeless(err error) bool {
	var verifier *ebpf.VerifierError
	return errors.Is(err, ErrInfeasible) || errors.Is(err, ErrForeign) || errors.Is(err, ebpf.ErrNotSupported) || errors.As(err, &verifier)
}
