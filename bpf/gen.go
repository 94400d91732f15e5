// Package bpf holds the kernel's side of capture: C programs, and what bpf2go makes of them (the compiled object, the
// structs that are shared with Go, and a loader). The output is committed, so that a build needs no clang.
//
// Only pkg/capture imports it.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -go-package bpf -target bpfel -output-stem capture -type origin -type dial -type workload -type target4 -type target6 -type flow -type reason -type usage -type listener_port -type event -type port_set -type slot Capture capture.c -- -O2 -g -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu -Wall -Wextra -Wpadded -Werror
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -go-package bpf -target bpfel -output-stem packet -no-global-types Packet packet.c -- -O2 -g -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu -Wall -Wextra -Wpadded -Werror
