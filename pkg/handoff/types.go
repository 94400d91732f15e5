package handoff

import (
	"net/netip"
	"time"
)

// Workload is what the privileged half knows of an enrolled workload.
type Workload struct {
	// ID is the cgroup id: the inode of the cgroup's directory.
	ID uint64 `json:"id"`
	// Generation grows with each enrolment, so that a reused id is not taken for its predecessor.
	Generation uint64 `json:"generation"`
	// Cgroup is the path below the root of the cgroup v2 hierarchy, such as /sallyport/demo.
	Cgroup string `json:"cgroup"`
	// Name is short and for people: the last element of the path.
	Name string `json:"name"`
	// NetnsCookie is the network namespace's cookie (SO_NETNS_COOKIE).
	NetnsCookie uint64 `json:"netnsCookie"`
	// Mode is how it is captured: ModeBPF, also when it is "", or ModeNFT.
	Mode string `json:"mode,omitempty"`
}

// Endpoint is one resolved destination of a target. The most specific prefix wins.
type Endpoint struct {
	Target string       `json:"target"`
	Prefix netip.Prefix `json:"prefix"`
	Port   uint16       `json:"port"`
}

// Documents are the configuration in force: the files as they were read and validated, and what their endpoints resolve to.
type Documents struct {
	// Revision grows with every change of files or endpoints.
	Revision  uint64     `json:"revision"`
	Files     []File     `json:"files"`
	Endpoints []Endpoint `json:"endpoints"`
}

// File is one document file.
type File struct {
	Path    string `json:"path"`
	Content []byte `json:"content"`
}

// Origin is what the kernel remembers of a captured connection; read from the accepted socket.
type Origin struct {
	// Destination is where the workload meant to connect; a v4-mapped address is given as IPv4.
	Destination netip.AddrPort
	// WorkloadID and Generation are those of the enrolled cgroup; CgroupID is the dialling task's own cgroup (itself or a descendant).
	WorkloadID, Generation, CgroupID uint64
	NetnsCookie                      uint64
	PID, UID                         uint32
	Comm                             string
	// ProcessUnknown is true where the kernel does not say who dialled: then CgroupID is the workload's own, and PID, UID and
	// Comm mean nothing.
	ProcessUnknown bool
}

// CaptureStatus is what the proxy is told of the kernel's side, for its metrics and readiness.
type CaptureStatus struct {
	// Effective is true when every workload is captured for every target.
	Effective bool `json:"effective"`
	// Reason is why not; "" when effective.
	Reason string `json:"reason"`
	// Counters are connections since the pins were made, by reason: "captured", "denied_netns" …
	Counters map[string]uint64 `json:"counters"`
	// Supervision is what the supervisor last told capture; nil where there is none.
	Supervision *Supervision `json:"supervision,omitempty"`
	// Guards are all guards, those that this kernel can not run too.
	Guards []Guard `json:"guards,omitempty"`
	// Mode is how workloads are captured: ModeBPF or ModeNFT. ModeReason is why, where it was not asked for.
	Mode       string `json:"mode,omitempty"`
	ModeReason string `json:"modeReason,omitempty"`
}

// Supervision is what the supervisor of both halves has counted since it was started.
type Supervision struct {
	// Starts are those of each program, by its name and by why it was started: "start", "crash" or "upgrade".
	Starts map[string]map[string]uint64 `json:"starts,omitempty"`
	// Upgrades were completed, FailedUpgrades were not.
	Upgrades       uint64 `json:"upgrades"`
	FailedUpgrades uint64 `json:"failedUpgrades"`
}

// Guard is one of the kernel's guards: what denies where nothing can be redirected.
type Guard struct {
	// Name is "connect", "socket", "udp", "bind", "egress", "device" or "family"; by nftables "output", "forward", "owner" or "device".
	Name string `json:"name"`
	// Active is true when the kernel runs it for every workload.
	Active bool `json:"active"`
	// Reason is why not; "" when active.
	Reason string `json:"reason,omitempty"`
}

// CaptureEvent is one denial by the kernel.
type CaptureEvent struct {
	// Time is when capture read of it, a moment after it happened.
	Time time.Time `json:"time"`
	// Reason is that of the counter: "denied_udp", "denied_socket" …
	Reason string `json:"reason"`
	// WorkloadID and Cgroup are the workload's; 0 and "" when it is no workload's in particular.
	WorkloadID uint64 `json:"workloadID"`
	Cgroup     string `json:"cgroup,omitempty"`
	// CgroupID is the task's own cgroup, or the socket's for a packet.
	CgroupID uint64 `json:"cgroupID"`
	// NetnsCookie is the network namespace of the socket; 0 for a packet.
	NetnsCookie uint64 `json:"netnsCookie,omitempty"`
	// Destination is invalid where there is none, as for a socket that was not made.
	Destination netip.AddrPort `json:"destination"`
	// Protocol is "tcp", "udp" …, a number where it has no name here.
	Protocol string `json:"protocol"`
	// PID, UID and Comm are the task's, in the initial namespaces; 0 and "" for a packet, whose sender is not known.
	PID  uint32 `json:"pid,omitempty"`
	UID  uint32 `json:"uid,omitempty"`
	Comm string `json:"comm,omitempty"`
	// Suppressed are the workload's denials since its enrolment of which no event was sent: a flood is counted, not told.
	Suppressed uint64 `json:"suppressed,omitempty"`
}
