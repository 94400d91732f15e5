// Package nft captures by rules of nftables, where BPF programs can not: in the network namespaces that workloads live in it
// redirects their TCP connections to targets to their listeners, and refuses what else they send there. Capture is its one type,
// Open its one door; it does what capture.Capture does, for the same callers.
//
// Each such namespace has one table. Where a workload has the namespace for itself, everything in it is the workload's; in the
// agent's namespace, and where several live in one, a packet is the workload's in whose cgroup its socket was made. Nothing is
// exempt: no mark, no user, no loopback. A packet that should have been redirected and was not is refused by the same table, so
// that without the redirection there is no connection.
//
// A table changes in one transaction, or is replaced by another one in one. Where the kernel lets a table have an owner (Linux
// 6.9), it is capture's: nobody else can change it while the process lives, and it stays when the process ends. Elsewhere, and
// after that, what is changed is noticed and put back.
//
// Which workloads there are is kept in files, so that the next Open adopts them. Release alone ends capture.
package nft
