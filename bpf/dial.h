/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Where the origin of a dial waits between connect4 or connect6 and its SYN. */
#ifndef SALLYPORT_DIAL_H
#define SALLYPORT_DIAL_H

#include <stdbool.h>
#include "maps.h"

static __always_inline struct slot *slot_of(__u64 cookie)
{
	__u32 index = cookie & (SLOTS - 1);

	return cookie ? bpf_map_lookup_elem(&slots, &index) : NULL;
}

/* Puts an origin into its socket's slot; false when another one's is there. */
static __always_inline bool put_slot(__u64 cookie, const struct origin *o)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct slot *s = slot_of(cookie);
	bool mine;

	if (!s)
		return false;
	bpf_spin_lock(&s->lock);
	mine = !s->cookie || s->cookie == cookie || now - s->since > SLOT_AGE;
	if (mine) {
		s->cookie = cookie;
		s->since = now;
		s->origin = *o;
	}
	bpf_spin_unlock(&s->lock);
	return mine;
}

/* Reads a socket's origin from its slot, and empties that if asked to; false when it is not there. */
static __always_inline bool read_slot(__u64 cookie, struct origin *o, bool empty)
{
	struct slot *s = slot_of(cookie);
	bool mine;

	/* This look needs no lock: a socket's cookie is written by its own connect() alone. */
	if (!s || s->cookie != cookie)
		return false;
	bpf_spin_lock(&s->lock);
	mine = s->cookie == cookie;
	if (mine) {
		*o = s->origin;
		if (empty)
			s->cookie = 0;
	}
	bpf_spin_unlock(&s->lock);
	return mine;
}

/*
 * The origin of a socket that was redirected, and whose SYN is still to come: in its slot, or in d, its storage if it
 * has any.
 */
static __always_inline bool read_dial(__u64 cookie, struct dial *d, struct origin *o)
{
	if (read_slot(cookie, o, false))
		return true;
	if (!d || d->state != DIAL_REDIRECTED)
		return false;
	*o = d->origin;
	return true;
}

#endif
