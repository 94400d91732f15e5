// Package control is how people's commands talk to sallyport-capture: HTTP over a Unix socket in the run directory, for root
// alone. Server is capture's side; GetStatus, Enroll and Reload are the commands'.
//
// It imports nothing that touches the kernel's BPF, so that commands stay small.
package control

import (
	"path/filepath"

	"github.com/sallyport-dev/sallyport/pkg/config"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// SocketName is the socket's name in the run directory.
const SocketName = "control.sock"

// Status is how capture is: GET /status.
type Status struct {
	// Version is that of the running sallyport-capture.
	Version string `json:"version"`
	// Effective is true when every workload is captured for every target.
	Effective bool `json:"effective"`
	// Reason is why not; "" when effective.
	Reason string `json:"reason,omitempty"`
	// Mode is how workloads are captured, "ebpf" or "nft"; ModeReason is why, where nobody asked for it.
	Mode       string `json:"mode"`
	ModeReason string `json:"modeReason,omitempty"`
	// Limits are what this way of capturing does not promise.
	Limits []string `json:"limits,omitempty"`
	// Guards are all guards, those that this kernel can not run too, with the reason.
	Guards []handoff.Guard `json:"guards"`
	// Workloads are those that are enrolled or should be, by the names of their cgroups.
	Workloads []Workload `json:"workloads"`
	// Revision is that of the documents in force.
	Revision uint64 `json:"revision"`
	// Problems are why the documents in the directory are not the ones in force; none when they are.
	Problems []config.Problem `json:"problems,omitempty"`
	// Proxy is the state of the proxy that serves.
	Proxy handoff.ProxyState `json:"proxy"`
	// Proxies are the states of all that are connected, the newest last: more than one while one replaces another.
	Proxies []handoff.ProxyState `json:"proxies"`
	// Counters are connections since the pins were made, by reason.
	Counters map[string]uint64 `json:"counters"`
	// Pins is the directory in bpffs that holds the kernel's part.
	Pins string `json:"pins"`
}

// Workload is one workload in a Status.
type Workload struct {
	handoff.Workload
	// Effective is true when the kernel runs the programs for it; Reason is why not.
	Effective bool   `json:"effective"`
	Reason    string `json:"reason,omitempty"`
}

// enrolRequest is the body of POST /workloads.
type enrolRequest struct {
	Cgroup string `json:"cgroup"`
}

// failure is the body of every answer that is not 2xx.
type failure struct {
	Error string `json:"error"`
}

func socket(runDir string) string { return filepath.Join(runDir, SocketName) }
