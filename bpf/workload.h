/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Who dials. */
#ifndef SALLYPORT_WORKLOAD_H
#define SALLYPORT_WORKLOAD_H

#include "maps.h"

/* Enrolment refuses a cgroup deeper than this, so that no enrolled ancestor is ever out of the loop's reach. */
#define MAX_DEPTH 32

/*
 * The workload of the current task: the innermost of its cgroup and that one's ancestors that is enrolled. NULL when
 * there is none. The task decides, not the socket: a socket can be passed on, and the act of dialling can not.
 */
static __always_inline struct workload *current_workload(__u64 *id)
{
	struct workload *found = NULL;

	for (int level = 0; level <= MAX_DEPTH; level++) {
		__u64 ancestor = bpf_get_current_ancestor_cgroup_id(level);
		struct workload *w;

		/* Deeper than the task's own cgroup. */
		if (!ancestor)
			break;
		w = bpf_map_lookup_elem(&workloads, &ancestor);
		if (w) {
			found = w;
			*id = ancestor;
		}
	}
	return found;
}

/*
 * The workload that a program of its cgroup runs for, if the current task is its task. NULL when there is none: the
 * socket was made in the workload, and the task is another workload's, one inside it, or nobody's.
 */
static __always_inline struct workload *own_workload(__u64 *id)
{
	__u64 own = *(__u64 *)bpf_get_local_storage(&attached, 0);
	bool within = false;

	for (int level = 0; level <= MAX_DEPTH; level++) {
		__u64 ancestor = bpf_get_current_ancestor_cgroup_id(level);

		/* Deeper than the task's own cgroup. */
		if (!ancestor)
			break;
		if (within && bpf_map_lookup_elem(&workloads, &ancestor))
			return NULL;
		if (ancestor == own)
			within = true;
	}
	*id = own;
	return within ? bpf_map_lookup_elem(&workloads, &own) : NULL;
}

#endif
