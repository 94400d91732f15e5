// clang-format off
//go:build ignore
// clang-format on

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * guard_family: lets a workload make sockets of those address families alone that capture knows. It hangs on the LSM
 * hook socket_create, which sees what no cgroup hook does, packet sockets above all. It is an object of its own,
 * because many kernels do not run BPF as an LSM; the maps are capture.c's.
 */
#include <stdbool.h>
#include <stddef.h>

#include "maps.h"
#include "deny.h"
#include "workload.h"

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16

#define EPERM 1

/* The arguments are those of the hook, then what earlier programs returned. */
SEC("lsm/socket_create")
int guard_family(__u64 *args)
{
	int family = args[0], kern = args[3], ret = args[4];
	struct event e = {.protocol = family};
	struct workload *w;

	/* An earlier program has denied. */
	if (ret)
		return ret;
	/* The kernel's own sockets, and the families that capture knows. */
	if (kern || family == AF_INET || family == AF_INET6 || family == AF_UNIX || family == AF_NETLINK)
		return 0;
	/* Not a workload's: not ours to judge. */
	w = current_workload(&e.workload_id);
	if (!w)
		return 0;
	/* The canary asks for it, to see that the kernel runs this. */
	if (w->canary)
		return -EPERM;
	deny(&e, REASON_DENIED_FAMILY);
	return -EPERM;
}

char _license[] SEC("license") = "GPL";
