/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * connect4 and connect6: redirect. They are attached to each enrolled cgroup and run for sockets that were made in it
 * or below it, for connect(), sendto(MSG_FASTOPEN), TCP_FASTOPEN_CONNECT and the first subflow of MPTCP alike, before a
 * packet leaves.
 */
#ifndef SALLYPORT_CONNECT_H
#define SALLYPORT_CONNECT_H

#include "deny.h"
#include "dial.h"
#include "target.h"
#include "workload.h"

/*
 * Connections in their handshake that one workload may have beyond its own share, and all of them together. Set before
 * load.
 */
volatile const __u32 pending_quota = 1024;
volatile const __u32 pending_pool = PENDING_POOL;

/* Whether this very task has dialled a socket and was redirected, and the SYN is still to come; the origin then. */
static __always_inline bool redirected(struct bpf_sock_addr *ctx, struct dial *d, struct origin *o)
{
	return read_dial(bpf_get_socket_cookie(ctx), d, o) && o->cgroup_id == bpf_get_current_cgroup_id() &&
	       o->pid == bpf_get_current_pid_tgid() >> 32;
}

/*
 * With one enrolled cgroup inside another, the program runs twice for one connect(), first for the inner. True when
 * this run sees the inner one's redirection: the socket's origin was stored by this process, in this cgroup, for the
 * very listener that is dialled now.
 */
static __always_inline bool captured_within(struct bpf_sock_addr *ctx, struct dial *d, __u32 port, bool v4)
{
	struct workload *w;
	struct origin o;

	if (!redirected(ctx, d, &o))
		return false;
	w = bpf_map_lookup_elem(&workloads, &o.workload_id);
	return w && w->generation == o.generation && port == (v4 ? w->port4 : w->port6);
}

/* Whose socket is where a listener should be. */
enum listening {
	LISTENING_NOBODY,
	LISTENING_WORKLOAD, /* a workload's listener */
	LISTENING_STRANGER, /* the listener is dead, and somebody took its port */
};

/* Who listens at a port of loopback in the caller's network namespace; of a workload's listener, which workload's. */
static __always_inline enum listening listening(struct bpf_sock_addr *ctx, __u16 port, bool v4, __u64 *workload_id)
{
	enum listening who = LISTENING_STRANGER;
	struct bpf_sock_tuple at = {};
	__u32 size = sizeof(at.ipv4);
	struct bpf_sock *there;
	struct origin *o;

	if (v4) {
		at.ipv4.daddr = LOOPBACK4;
		at.ipv4.dport = bpf_htons(port);
	} else {
		at.ipv6.daddr[3] = bpf_htonl(1);
		at.ipv6.dport = bpf_htons(port);
		size = sizeof(at.ipv6);
	}
	there = bpf_sk_lookup_tcp(ctx, &at, size, BPF_F_CURRENT_NETNS, 0);
	if (!there)
		return LISTENING_NOBODY;
	o = bpf_sk_storage_get(&origins, there, NULL, 0);
	if (o) {
		*workload_id = o->workload_id;
		who = LISTENING_WORKLOAD;
	}
	bpf_sk_release(there);
	return who;
}

/*
 * True when the socket at a listener's address is not the workload's listener. Nobody there is fine: the kernel refuses
 * the connection.
 */
static __always_inline bool squatted(struct bpf_sock_addr *ctx, __u64 workload_id, __u16 port, bool v4)
{
	__u64 owner = 0;

	switch (listening(ctx, port, v4, &owner)) {
	case LISTENING_NOBODY:
		return false;
	case LISTENING_WORKLOAD:
		return owner != workload_id;
	case LISTENING_STRANGER:
		break;
	}
	return true;
}

/*
 * What an earlier connect() left must not pass for this one's. A denial is this one's, by the program of a cgroup
 * inside this one, and stands: the guard, which runs yet, takes it back.
 */
static __always_inline bool is_denied(struct bpf_sock_addr *ctx, struct dial *d)
{
	struct origin o;

	read_slot(bpf_get_socket_cookie(ctx), &o, true);
	if (!d)
		return false;
	if (d->state == DIAL_DENIED)
		return true;
	d->state = DIAL_NONE;
	return false;
}

/* Whether a workload has no room for one more handshake. */
static __always_inline bool is_full(__u64 workload_id)
{
	struct usage *u = bpf_map_lookup_elem(&usages, &workload_id), *all;
	__u64 nobody = 0;

	if (!u)
		return true;
	if (u->own < PENDING_SHARE)
		return false;
	all = bpf_map_lookup_elem(&usages, &nobody);
	return !all || u->pooled >= pending_quota || all->pooled >= pending_pool;
}

/* Denies, so that the guard knows: the kernel runs it nevertheless. */
static __noinline __u16 refuse(struct bpf_sock_addr *ctx, struct event *e, enum reason why)
{
	struct bpf_sock *sk = ctx->sk;
	struct dial *d;

	if (!sk || !e)
		return 0;
	d = bpf_sk_storage_get(&dials, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (d)
		d->state = DIAL_DENIED;
	e->protocol = ctx->protocol;
	e->netns_cookie = bpf_get_netns_cookie(ctx);
	current_workload(&e->workload_id);
	return deny(e, why);
}

/*
 * Stores the origin of a dial of a protected destination and yields the port to redirect it to; 0 is a denial. Every
 * failure denies.
 */
static __always_inline __u16 remember(struct bpf_sock_addr *ctx, struct bpf_sock *sk, const __be32 addr[4], __u32 port,
				      bool v4)
{
	struct event e = {.addr = {addr[0], addr[1], addr[2], addr[3]}, .port = port};
	__u64 workload_id, netns_cookie = bpf_get_netns_cookie(ctx);
	struct origin o = {};
	struct workload *w;
	__u16 listener;
	struct dial *d;

	w = own_workload(&workload_id);
	if (!w)
		return refuse(ctx, &e, REASON_DENIED_OUTSIDE);
	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_MPTCP)
		return refuse(ctx, &e, REASON_DENIED_PROTOCOL);
	if (netns_cookie != w->netns_cookie)
		return refuse(ctx, &e, REASON_DENIED_NETNS);
	listener = v4 ? w->port4 : w->port6;
	if (!listener)
		return refuse(ctx, &e, REASON_DENIED_NO_LISTENER);
	if (squatted(ctx, workload_id, listener, v4))
		return refuse(ctx, &e, REASON_DENIED_SQUATTED);
	if (is_full(workload_id))
		return refuse(ctx, &e, REASON_DENIED_QUOTA);

	__builtin_memcpy(o.addr, addr, sizeof(o.addr));
	o.port = port;
	o.workload_id = workload_id;
	o.generation = w->generation;
	o.netns_cookie = netns_cookie;
	o.cgroup_id = bpf_get_current_cgroup_id();
	o.pid = bpf_get_current_pid_tgid() >> 32;
	o.uid = (__u32)bpf_get_current_uid_gid();
	if (bpf_get_current_comm(o.comm, sizeof(o.comm)))
		return refuse(ctx, &e, REASON_DENIED_STORAGE);
	if (!put_slot(bpf_get_socket_cookie(ctx), &o)) {
		d = bpf_sk_storage_get(&dials, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (!d)
			return refuse(ctx, &e, REASON_DENIED_STORAGE);
		d->origin = o;
		d->state = DIAL_REDIRECTED;
	}
	count(w->canary ? REASON_CANARY : REASON_CAPTURED);
	return listener;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u32 port = bpf_ntohs((__u16)ctx->user_port);
	struct bpf_sock *sk = ctx->sk;
	__be32 addr[4] = {0, 0, MAPPED, 0};
	__u16 listener;
	struct dial *d;

	/* UDP is not captured, but denied: see guard_connect4. */
	if (ctx->type != SOCK_STREAM)
		return ALLOW;
	if (!sk)
		return DENY;
	d = bpf_sk_storage_get(&dials, sk, NULL, 0);
	if (ctx->user_ip4 == LOOPBACK4 && captured_within(ctx, d, port, true))
		return ALLOW;
	if (is_denied(ctx, d))
		return DENY;

	addr[3] = effective4(sk, ctx->user_ip4);
	/* Not a protected destination: not ours to judge. */
	if (!is_target4(addr[3], port))
		return ALLOW;
	listener = remember(ctx, sk, addr, port, true);
	if (!listener)
		return DENY;
	ctx->user_ip4 = LOOPBACK4;
	ctx->user_port = bpf_htons(listener);
	return ALLOW;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	__u32 port = bpf_ntohs((__u16)ctx->user_port);
	struct bpf_sock *sk = ctx->sk;
	__be32 addr[4];
	__u16 listener;
	struct dial *d;
	bool v4;

	/* UDP is not captured, but denied: see guard_connect6. */
	if (ctx->type != SOCK_STREAM)
		return ALLOW;
	if (!sk)
		return DENY;
	addr[0] = ctx->user_ip6[0];
	addr[1] = ctx->user_ip6[1];
	addr[2] = ctx->user_ip6[2];
	addr[3] = ctx->user_ip6[3];
	d = bpf_sk_storage_get(&dials, sk, NULL, 0);
	if (is_mapped(addr) && addr[3] == LOOPBACK4 && captured_within(ctx, d, port, true))
		return ALLOW;
	if (is_loopback6(addr) && captured_within(ctx, d, port, false))
		return ALLOW;
	if (is_denied(ctx, d))
		return DENY;

	/* Not a protected destination: not ours to judge. */
	if (!reaches_target6(sk, addr, port))
		return ALLOW;
	v4 = is_mapped(addr);
	listener = remember(ctx, sk, addr, port, v4);
	if (!listener)
		return DENY;
	ctx->user_ip6[0] = 0;
	ctx->user_ip6[1] = 0;
	ctx->user_ip6[2] = v4 ? MAPPED : 0;
	ctx->user_ip6[3] = v4 ? LOOPBACK4 : bpf_htonl(1);
	ctx->user_port = bpf_htons(listener);
	return ALLOW;
}

#endif
