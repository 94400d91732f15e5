/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* How a denial is told: counted always, and sent as an event unless its workload has sent too many. */
#ifndef SALLYPORT_DENY_H
#define SALLYPORT_DENY_H

#include "maps.h"

#define ALLOW 1
#define DENY 0 /* the system call fails with EPERM */

#define EVENT_WINDOW 1000000000ULL /* nanoseconds */

/* Events that one workload may cause in each window. Set before load. */
volatile const __u32 event_quota = 8;

/* False when the workload of an event has sent its share. */
static __always_inline bool may_tell(struct event *e)
{
	struct usage *u = bpf_map_lookup_elem(&usages, &e->workload_id);
	__u64 now = bpf_ktime_get_ns();

	/* Withdrawn: the counter has to do. */
	if (!u)
		return false;
	if (now - u->window > EVENT_WINDOW) {
		u->window = now;
		u->events = 0;
	}
	if (u->events >= event_quota) {
		__sync_fetch_and_add(&u->suppressed, 1);
		return false;
	}
	__sync_fetch_and_add(&u->events, 1);
	e->suppressed = u->suppressed;
	return true;
}

static __always_inline int tell(struct event *e)
{
	if (bpf_ringbuf_output(&events, e, sizeof(*e), 0))
		count(REASON_LOST_EVENT);
	return DENY;
}

/* Denies what the current task does. The caller fills in the rest of the event. */
static __noinline int deny(struct event *e, enum reason why)
{
	count(why);
	if (!e || !may_tell(e))
		return DENY;
	e->reason = why;
	e->cgroup_id = bpf_get_current_cgroup_id();
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->uid = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	return tell(e);
}

#endif
