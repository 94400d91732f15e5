/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * sock_ops: carries an origin from the client's socket to the accepted one. It is attached to the root of the cgroup
 * hierarchy, because the two sockets belong to different cgroups. It never changes what a connection does: where it
 * fails, the accepted socket has no origin and the proxy refuses it.
 */
#ifndef SALLYPORT_SOCK_OPS_H
#define SALLYPORT_SOCK_OPS_H

#include <bpf/bpf_endian.h>
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

/* Takes a flow's entry out of pending; exactly one caller does, and gives back what the workload used. */
static __always_inline void settle(const struct flow *f, __u64 workload_id)
{
	struct usage *u;

	if (bpf_map_delete_elem(&pending, f))
		return;
	u = bpf_map_lookup_elem(&usages, &workload_id);
	/* 0: the workload was withdrawn meanwhile, and enrolled again. */
	if (u && u->pending)
		__sync_fetch_and_add(&u->pending, -1);
}

/* Puts an origin into pending. */
static __always_inline bool keep(struct bpf_sock_ops *ctx, struct flow *f, struct origin *o)
{
	struct usage *u = bpf_map_lookup_elem(&usages, &o->workload_id);
	struct origin *dead;

	if (!u)
		return false;
	/* Without the call at its close an entry could outlive its connection. */
	if (bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG))
		return false;
	/* An entry of the same flow is a dead one's. */
	dead = bpf_map_lookup_elem(&pending, f);
	if (dead)
		settle(f, dead->workload_id);
	/* connect4 and connect6 looked already, but not for all processors at once. */
	__sync_fetch_and_add(&u->pending, 1);
	if (u->pending <= pending_quota && !bpf_map_update_elem(&pending, f, o, BPF_NOEXIST))
		return true;
	__sync_fetch_and_add(&u->pending, -1);
	return false;
}

/* A client is about to send its SYN; its local port is chosen. */
static __always_inline void dialled(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct origin *o;
	struct flow f;

	if (!sk)
		return;
	o = bpf_sk_storage_get(&dialling, sk, NULL, 0);
	/* Not captured. */
	if (!o)
		return;
	if (!flow_of(ctx, true, &f) || !keep(ctx, &f, o))
		count(REASON_LOST_PENDING);
	bpf_sk_storage_delete(&dialling, sk);
}

/* A listener's side is established; accept() can not return the socket before this is done. */
static __always_inline void accepted(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct origin *o;
	struct flow f;

	if (!sk || !flow_of(ctx, false, &f))
		return;
	o = bpf_map_lookup_elem(&pending, &f);
	/* Not captured, or dialled directly. */
	if (!o)
		return;
	if (!bpf_sk_storage_get(&origins, sk, o, BPF_SK_STORAGE_GET_F_CREATE))
		count(REASON_LOST_ACCEPTED);
	settle(&f, o->workload_id);
}

/* A captured client's socket closes: refused, timed out, or after its connection's life. */
static __always_inline void closed(struct bpf_sock_ops *ctx)
{
	struct origin *o;
	struct flow f;

	if (!flow_of(ctx, true, &f))
		return;
	o = bpf_map_lookup_elem(&pending, &f);
	if (o)
		settle(&f, o->workload_id);
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
