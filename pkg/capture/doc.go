// Package capture is the kernel's side of the agent: it loads the BPF programs, enrols workloads, opens their listeners,
// and says whether capture is effective. Capture is its one type; Open is its one door.
//
// Everything that makes capture work is pinned in bpffs, below sallyport/v3/INSTANCE: when the process stops or dies, the
// workloads stay captured and are refused; the next Open adopts what is pinned. Release alone ends capture.
//
// Programs at the workloads' cgroups redirect; guards at the root, at the workloads' cgroups and on their devices deny what can not
// be redirected. Denials are counted and told of: Events. A canary proves that all of it works: Prove.
//
// Invariants: an enrolled workload's connection to a target is redirected or denied, never let through; pins are updated in
// place, so that there is no moment without a program; the layout of pinned maps never changes under one version of the
// path.
//
// Only this package and package bpf import cilium/ebpf. Nothing here parses a protocol or sees a connection.
package capture
