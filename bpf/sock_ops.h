/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * sock_ops: carries an origin from the client's socket to the accepted one. It is attached to the root of the cgroup
 * hierarchy, because the two sockets belong to different cgroups. It never changes what a connection does: where it
 * fails, the accepted socket has no origin and the proxy refuses it.
 */
#ifndef SALLYPORT_SOCK_OPS_H
#define SALLYPORT_SOCK_OPS_H

#include <bpf/bpf_endian.h>
#include "dial.h"
#include "maps.h"

#define AF_INET 2
#define AF_INET6 10

/*
 * The flow of a socket, from the client's side. False for what is not IP. An AF_INET6 socket that is connected to a
 * v4-mapped address speaks IPv4, and its peer may be an AF_INET one: both give the same flow.
 */
static __always_inline bool flow_of(struct bpf_sock_ops *ctx, bool client, struct flow *f)
{
	__be32 local[4] = {0, 0, bpf_htonl(0xffff), 0}, remote[4] = {0, 0, bpf_htonl(0xffff), 0};
	__u32 remote_port = bpf_ntohl(ctx->remote_port), local_port = ctx->local_port;
	__be32 local4 = ctx->local_ip4, remote4 = ctx->remote_ip4;

	/* The verifier refuses a context pointer that the compiler computed; these are loads of their own. */
	barrier_var(local4);
	barrier_var(remote4);
	if (ctx->family == AF_INET6 && (ctx->remote_ip6[0] || ctx->remote_ip6[1] || ctx->remote_ip6[2] != remote[2])) {
		local[0] = ctx->local_ip6[0];
		local[1] = ctx->local_ip6[1];
		local[2] = ctx->local_ip6[2];
		local[3] = ctx->local_ip6[3];
		remote[0] = ctx->remote_ip6[0];
		remote[1] = ctx->remote_ip6[1];
		remote[2] = ctx->remote_ip6[2];
		remote[3] = ctx->remote_ip6[3];
	} else if (ctx->family == AF_INET || ctx->family == AF_INET6) {
		local[3] = local4;
		remote[3] = remote4;
	} else {
		return false;
	}
	f->netns_cookie = bpf_get_netns_cookie(ctx);
	__builtin_memcpy(f->saddr, client ? local : remote, sizeof(f->saddr));
	__builtin_memcpy(f->daddr, client ? remote : local, sizeof(f->daddr));
	f->sport = client ? local_port : remote_port;
	f->dport = client ? remote_port : local_port;
	return true;
}

/* Gives back the room that an origin took while it waited for its handshake's end. */
static __always_inline void give_back(const struct origin *o)
{
	__u64 workload_id = o->workload_id, nobody = 0;
	struct usage *u = bpf_map_lookup_elem(&usages, &workload_id);

	/* 0: the workload was withdrawn meanwhile, and enrolled again. */
	if (!o->pooled) {
		if (u && u->own)
			__sync_fetch_and_add(&u->own, -1);
		return;
	}
	if (u && u->pooled)
		__sync_fetch_and_add(&u->pooled, -1);
	u = bpf_map_lookup_elem(&usages, &nobody);
	if (u)
		__sync_fetch_and_add(&u->pooled, -1);
}

/* Takes one of what is limited. Of several that take the last ones at once all may fail, but never too many succeed. */
static __always_inline bool take(__u32 *used, __u32 limit)
{
	__sync_fetch_and_add(used, 1);
	if (*(volatile __u32 *)used <= limit)
		return true;
	__sync_fetch_and_add(used, -1);
	return false;
}

/*
 * Takes a flow's origin out of pending. False when there is none: what was copied is nothing then, as somebody else may
 * have taken it out at the same time, and the entry have become another flow's.
 */
static __always_inline bool take_out(const struct flow *f, struct origin *o)
{
	struct origin *there = bpf_map_lookup_elem(&pending, f);

	if (!there)
		return false;
	*o = *there;
	return !bpf_map_delete_elem(&pending, f);
}

/* Puts an origin into pending. One of the same flow is a dead connection's. */
static __always_inline bool put_in(const struct flow *f, const struct origin *o)
{
	struct origin dead;

	if (!bpf_map_update_elem(&pending, f, o, BPF_NOEXIST))
		return true;
	if (!take_out(f, &dead))
		return false;
	give_back(&dead);
	return !bpf_map_update_elem(&pending, f, o, BPF_NOEXIST);
}

/* Keeps an origin for its handshake, which takes room of the workload's own share, or of what all share. */
static __always_inline bool keep(const struct flow *f, struct origin *o)
{
	struct usage *u = bpf_map_lookup_elem(&usages, &o->workload_id), *all;
	__u64 nobody = 0;

	if (!u)
		return false;
	if (take(&u->own, PENDING_SHARE)) {
		o->pooled = 0;
		if (put_in(f, o))
			return true;
		__sync_fetch_and_add(&u->own, -1);
		return false;
	}
	all = bpf_map_lookup_elem(&usages, &nobody);
	if (!all || !take(&u->pooled, pending_quota))
		return false;
	if (take(&all->pooled, pending_pool)) {
		o->pooled = 1;
		if (put_in(f, o))
			return true;
		__sync_fetch_and_add(&all->pooled, -1);
	}
	__sync_fetch_and_add(&u->pooled, -1);
	return false;
}

/* Takes out the origin of a socket that is about to send its SYN; false when it was not captured. */
static __always_inline bool take_dial(struct bpf_sock_ops *ctx, struct origin *o)
{
	struct bpf_sock *sk = ctx->sk;
	struct dial *d;

	if (!sk)
		return false;
	if (read_slot(bpf_get_socket_cookie(ctx), o, true))
		return true;
	d = bpf_sk_storage_get(&dials, sk, NULL, 0);
	if (!d || d->state != DIAL_REDIRECTED)
		return false;
	d->state = DIAL_SENT;
	*o = d->origin;
	return true;
}

/* A client is about to send its SYN; its local port is chosen. */
static __always_inline void dialled(struct bpf_sock_ops *ctx)
{
	struct origin o;
	struct flow f;

	if (!take_dial(ctx, &o))
		return;
	/* Without the call at its close an origin could outlive its connection. */
	if (flow_of(ctx, true, &f) &&
	    !bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG) && keep(&f, &o))
		return;
	count(REASON_LOST_PENDING);
}

/* A listener's side is established; accept() can not return the socket before this is done. */
static __always_inline void accepted(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct origin *o, *there, from;
	struct flow f;
	bool fits;

	if (!sk)
		return;
	o = bpf_sk_storage_get(&origins, sk, NULL, 0);
	/* No listener of ours. */
	if (!o || !flow_of(ctx, false, &f))
		return;
	there = bpf_map_lookup_elem(&pending, &f);
	/* Dialled directly. */
	if (!there)
		return;
	from = *there;
	fits = from.workload_id == o->workload_id;
	/* Before the entry goes: getpeername4 and getpeername6 find the origin at one place or the other. */
	if (fits)
		*o = from;
	if (bpf_map_delete_elem(&pending, &f)) {
		/* The client's close took it out at the same time, and it may have been another flow's when it was
		 * copied. */
		o->port = 0;
		return;
	}
	if (!fits)
		count(REASON_LOST_ACCEPTED);
	give_back(&from);
}

/* A captured client's socket closes: refused, timed out, or after its connection's life. */
static __always_inline void closed(struct bpf_sock_ops *ctx)
{
	struct origin o;
	struct flow f;

	if (flow_of(ctx, true, &f) && take_out(&f, &o))
		give_back(&o);
}

SEC("sockops")
int sock_ops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		dialled(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		accepted(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			closed(ctx);
		break;
	}
	return 1;
}

#endif
