/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * connect4 and connect6: redirect. They are attached to each enrolled cgroup and run for sockets that were made in it
 * or below it, for connect(), sendto(MSG_FASTOPEN), TCP_FASTOPEN_CONNECT and the first subflow of MPTCP alike, before a
 * packet leaves.
 */
#ifndef SALLYPORT_CONNECT_H
#define SALLYPORT_CONNECT_H

#include <bpf/bpf_endian.h>
#include "workload.h"

#define ALLOW 1
#define DENY 0 /* connect() fails with EPERM */

#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262

#define LOOPBACK4 bpf_htonl(0x7f000001)
#define MAPPED bpf_htonl(0xffff) /* the third word of a v4-mapped address */

static __always_inline int deny(enum reason why)
{
	count(why);
	return DENY;
}

static __always_inline bool is_target4(__be32 addr, __u32 port)
{
	struct target4 key = {.prefixlen = 64, .port = port, .addr = addr};

	return bpf_map_lookup_elem(&targets4, &key) != NULL;
}

static __always_inline bool is_target6(const __be32 addr[4], __u32 port)
{
	struct target6 key = {.prefixlen = 160, .port = port, .addr = {addr[0], addr[1], addr[2], addr[3]}};

	return bpf_map_lookup_elem(&targets6, &key) != NULL;
}

/*
 * Where an IPv4 dial of 0.0.0.0 goes: to the address that the socket is bound to, else to loopback. Without this a
 * target on the host itself could be reached by its other name.
 */
static __always_inline __be32 effective4(struct bpf_sock *sk, __be32 addr)
{
	if (addr)
		return addr;
	return sk->src_ip4 ? sk->src_ip4 : LOOPBACK4;
}

/*
 * With one enrolled cgroup inside another, the program runs twice for one connect(), first for the inner. True when
 * this run sees the inner one's redirection: the socket's origin was stored by this process, in this cgroup, for the
 * very listener that is dialled now.
 */
static __always_inline bool captured_within(struct bpf_sock *sk, __u32 port, bool v4)
{
	struct origin *o = bpf_sk_storage_get(&dialling, sk, NULL, 0);
	struct workload *w;

	if (!o || o->cgroup_id != bpf_get_current_cgroup_id() || o->pid != bpf_get_current_pid_tgid() >> 32)
		return false;
	w = bpf_map_lookup_elem(&workloads, &o->workload_id);
	return w && w->generation == o->generation && port == (v4 ? w->port4 : w->port6);
}

/*
 * Stores the origin of a dial of a protected destination and yields the port to redirect it to; 0 is a denial. Every
 * failure denies.
 */
static __always_inline __u16 remember(struct bpf_sock_addr *ctx, struct bpf_sock *sk, const __be32 addr[4], __u32 port,
				      bool v4)
{
	struct origin o = {.port = port};
	struct workload *w;
	__u16 listener;

	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_MPTCP)
		return deny(REASON_DENIED_PROTOCOL);
	w = current_workload(&o.workload_id);
	if (!w)
		return deny(REASON_DENIED_OUTSIDE);
	o.netns_cookie = bpf_get_netns_cookie(ctx);
	if (o.netns_cookie != w->netns_cookie)
		return deny(REASON_DENIED_NETNS);
	listener = v4 ? w->port4 : w->port6;
	if (!listener)
		return deny(REASON_DENIED_NO_LISTENER);

	__builtin_memcpy(o.addr, addr, sizeof(o.addr));
	o.generation = w->generation;
	o.cgroup_id = bpf_get_current_cgroup_id();
	o.pid = bpf_get_current_pid_tgid() >> 32;
	o.uid = (__u32)bpf_get_current_uid_gid();
	if (bpf_get_current_comm(o.comm, sizeof(o.comm)))
		return deny(REASON_DENIED_STORAGE);
	/* Any older entry is gone: the caller deleted it. */
	if (!bpf_sk_storage_get(&dialling, sk, &o, BPF_SK_STORAGE_GET_F_CREATE))
		return deny(REASON_DENIED_STORAGE);
	count(REASON_CAPTURED);
	return listener;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u32 port = bpf_ntohs((__u16)ctx->user_port);
	struct bpf_sock *sk = ctx->sk;
	__be32 addr[4] = {0, 0, MAPPED, 0};
	__u16 listener;

	/* UDP is not captured. */
	if (ctx->type != SOCK_STREAM)
		return ALLOW;
	if (!sk)
		return deny(REASON_DENIED_STORAGE);
	if (ctx->user_ip4 == LOOPBACK4 && captured_within(sk, port, true))
		return ALLOW;
	/* What an earlier connect() left must not pass for this one's origin. */
	bpf_sk_storage_delete(&dialling, sk);

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
	bool v4, unspecified, found;
	__u16 listener;

	/* UDP is not captured. */
	if (ctx->type != SOCK_STREAM)
		return ALLOW;
	if (!sk)
		return deny(REASON_DENIED_STORAGE);
	addr[0] = ctx->user_ip6[0];
	addr[1] = ctx->user_ip6[1];
	addr[2] = ctx->user_ip6[2];
	addr[3] = ctx->user_ip6[3];

	/* The kernel dials a v4-mapped address as IPv4, and connect4 is not run for it. */
	v4 = !addr[0] && !addr[1] && addr[2] == MAPPED;
	if (v4 && addr[3] == LOOPBACK4 && captured_within(sk, port, true))
		return ALLOW;
	if (!addr[0] && !addr[1] && !addr[2] && addr[3] == bpf_htonl(1) && captured_within(sk, port, false))
		return ALLOW;
	/* What an earlier connect() left must not pass for this one's origin. */
	bpf_sk_storage_delete(&dialling, sk);

	unspecified = !addr[0] && !addr[1] && !addr[2] && !addr[3];
	if (v4) {
		addr[3] = effective4(sk, addr[3]);
		found = is_target4(addr[3], port);
	} else if (unspecified) {
		/* "::" is ::1, or IPv4's loopback if the socket is bound to a v4-mapped address. */
		addr[3] = bpf_htonl(1);
		found = is_target6(addr, port);
		if (!found) {
			v4 = true;
			addr[2] = MAPPED;
			addr[3] = effective4(sk, 0);
			found = is_target4(addr[3], port);
		}
	} else {
		found = is_target6(addr, port);
	}
	/* Not a protected destination: not ours to judge. */
	if (!found)
		return ALLOW;
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
