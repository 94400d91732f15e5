package handoff

import (
	"net/netip"
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
}

// CaptureStatus is what the proxy is told of the kernel's side, for its metrics and readiness.
type CaptureStatus struct {
	// Effective is true when every workload is captured for every target.
	Effective bool `json:"effective"`
	// Reason is why not; "" when effective.
	Reason string `json:"reason"`
	// Counters are connections since the pins were made, by reason: "captured", "denied_netns" …
	Counters map[string]uint64 `json:"counters"`
}
