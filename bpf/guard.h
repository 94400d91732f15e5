/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Guards: they deny and never redirect. They are attached to the root of the cgroup hierarchy, where they run for every
 * socket and after the programs of all cgroups below, and they judge the current task: a socket that was made elsewhere
 * and handed in does not run connect4 and connect6 of the workload.
 */
#ifndef SALLYPORT_GUARD_H
#define SALLYPORT_GUARD_H

#include "connect.h"

/* The workload of the listener, dead or alive, that has a port on loopback. */
static __always_inline __u64 *listener_owner(struct bpf_sock_addr *ctx, __u32 port, bool v4)
{
	struct listener_port key = {.netns_cookie = bpf_get_netns_cookie(ctx), .port = port, .v6 = !v4};

	return bpf_map_lookup_elem(&listener_ports, &key);
}

/* Denies a task of a workload what reaches a target. Other tasks are not ours to judge. */
static __always_inline int judge(struct bpf_sock_addr *ctx, const __be32 addr[4], __u32 port)
{
	struct event e = {.addr = {addr[0], addr[1], addr[2], addr[3]}, .port = port, .protocol = ctx->protocol};
	struct workload *w = current_workload(&e.workload_id);

	if (!w)
		return ALLOW;
	e.netns_cookie = bpf_get_netns_cookie(ctx);
	if (ctx->type == SOCK_DGRAM)
		return deny(&e, REASON_DENIED_UDP);
	if (e.netns_cookie != w->netns_cookie)
		return deny(&e, REASON_DENIED_NETNS);
	return deny(&e, REASON_DENIED_PASSED);
}

#define UNJUDGED (-1)

/*
 * Judges a dial of loopback. A listener is for redirected connections alone: others would take room in its backlog. Who
 * else has the port now, because the listener is dead, is not ours to judge: nobody is redirected to a stranger.
 */
static __always_inline int judge_loopback(struct bpf_sock_addr *ctx, struct dial *d, const __be32 addr[4], __u32 port,
					  bool v4)
{
	struct event e = {.addr = {addr[0], addr[1], addr[2], addr[3]}, .port = port, .protocol = ctx->protocol};
	__u64 *owner = listener_owner(ctx, port, v4), there = 0;
	struct origin o;

	if (!owner)
		return UNJUDGED;
	/* The generation is not asked for: Go may have replaced the listener since, and this one refuses by itself. */
	if (redirected(ctx, d, &o) && o.workload_id == *owner)
		return ALLOW;
	if (listening(ctx, port, v4, &there) != LISTENING_WORKLOAD)
		return UNJUDGED;
	current_workload(&e.workload_id);
	e.netns_cookie = bpf_get_netns_cookie(ctx);
	return deny(&e, REASON_DENIED_LISTENER);
}

/* Judges the dial of a stream socket, as far as what connect4 and connect6 made of it tells. */
static __always_inline int judge_dial(struct bpf_sock_addr *ctx, struct bpf_sock *sk, const __be32 addr[4], __u32 port,
				      bool v4)
{
	struct dial *d = bpf_sk_storage_get(&dials, sk, NULL, 0);

	/* They have denied it in this very call, and told of it. */
	if (d && d->state == DIAL_DENIED) {
		d->state = DIAL_NONE;
		return DENY;
	}
	if (v4 ? addr[3] != LOOPBACK4 : !is_loopback6(addr))
		return UNJUDGED;
	return judge_loopback(ctx, d, addr, port, v4);
}

static __always_inline int guard4(struct bpf_sock_addr *ctx, bool connects)
{
	__u32 port = bpf_ntohs((__u16)ctx->user_port);
	struct bpf_sock *sk = ctx->sk;
	__be32 addr[4] = {0, 0, MAPPED, 0};
	int verdict = UNJUDGED;

	if (!sk)
		return DENY;
	addr[3] = effective4(sk, ctx->user_ip4);
	if (connects && ctx->type == SOCK_STREAM)
		verdict = judge_dial(ctx, sk, addr, port, true);
	if (verdict != UNJUDGED)
		return verdict;
	return is_target4(addr[3], port) ? judge(ctx, addr, port) : ALLOW;
}

static __always_inline int guard6(struct bpf_sock_addr *ctx, bool connects)
{
	__u32 port = bpf_ntohs((__u16)ctx->user_port);
	struct bpf_sock *sk = ctx->sk;
	__be32 addr[4];
	int verdict = UNJUDGED;
	bool target, v4;

	if (!sk)
		return DENY;
	addr[0] = ctx->user_ip6[0];
	addr[1] = ctx->user_ip6[1];
	addr[2] = ctx->user_ip6[2];
	addr[3] = ctx->user_ip6[3];
	target = reaches_target6(sk, addr, port);
	v4 = is_mapped(addr);
	if (connects && ctx->type == SOCK_STREAM)
		verdict = judge_dial(ctx, sk, addr, port, v4);
	if (verdict != UNJUDGED)
		return verdict;
	return target ? judge(ctx, addr, port) : ALLOW;
}

SEC("cgroup/connect4")
int guard_connect4(struct bpf_sock_addr *ctx)
{
	return guard4(ctx, true);
}

SEC("cgroup/connect6")
int guard_connect6(struct bpf_sock_addr *ctx)
{
	return guard6(ctx, true);
}

/* sendto() and sendmsg() of UDP with an address. */
SEC("cgroup/sendmsg4")
int guard_sendmsg4(struct bpf_sock_addr *ctx)
{
	return guard4(ctx, false);
}

SEC("cgroup/sendmsg6")
int guard_sendmsg6(struct bpf_sock_addr *ctx)
{
	return guard6(ctx, false);
}

/* Sockets that are captured or judged by address; all others could carry a connection past both. */
SEC("cgroup/sock_create")
int guard_socket(struct bpf_sock *ctx)
{
	struct event e = {.protocol = ctx->protocol};

	if (ctx->type == SOCK_STREAM && (ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_MPTCP))
		return ALLOW;
	if (ctx->type == SOCK_DGRAM &&
	    (ctx->protocol == IPPROTO_UDP || ctx->protocol == IPPROTO_ICMP || ctx->protocol == IPPROTO_ICMPV6))
		return ALLOW;
	/* Not a workload's: not ours to judge. */
	if (!current_workload(&e.workload_id))
		return ALLOW;
	e.netns_cookie = bpf_get_netns_cookie(ctx);
	return deny(&e, REASON_DENIED_SOCKET);
}

/*
 * No workload binds a listener's port by its number, dead or alive: it would wait there for the moment in which the
 * agent dies. Others are not ours to judge; nor is the kernel, which may choose a dead listener's port for whoever
 * binds port 0. Whoever got it, connect4 and connect6 redirect nobody there.
 */
static __always_inline int guard_bind(struct bpf_sock_addr *ctx, const __be32 addr[4], bool v4, bool v6)
{
	struct event e = {.addr = {addr[0], addr[1], addr[2], addr[3]}, .port = bpf_ntohs((__u16)ctx->user_port)};

	if (ctx->type != SOCK_STREAM || !e.port)
		return ALLOW;
	if (!(v4 && listener_owner(ctx, e.port, true)) && !(v6 && listener_owner(ctx, e.port, false)))
		return ALLOW;
	if (!current_workload(&e.workload_id))
		return ALLOW;
	e.protocol = ctx->protocol;
	e.netns_cookie = bpf_get_netns_cookie(ctx);
	return deny(&e, REASON_DENIED_BIND);
}

SEC("cgroup/bind4")
int guard_bind4(struct bpf_sock_addr *ctx)
{
	__be32 addr[4] = {0, 0, MAPPED, ctx->user_ip4};

	return guard_bind(ctx, addr, true, false);
}

SEC("cgroup/bind6")
int guard_bind6(struct bpf_sock_addr *ctx)
{
	__be32 addr[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	bool any = !addr[0] && !addr[1] && !addr[2] && !addr[3], mapped = is_mapped(addr);

	/* "::" takes the port of IPv4, too. */
	return guard_bind(ctx, addr, mapped || any, !mapped);
}

#endif
