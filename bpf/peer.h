/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * getpeername4 and getpeername6: a captured socket says that it is connected to where its workload meant to go, for as
 * long as the proxy's side of it lives. Clients rely on it: some dial the peer's address again, to cancel a statement
 * for example. Attached like connect4.
 */
#ifndef SALLYPORT_PEER_H
#define SALLYPORT_PEER_H

#include <bpf/bpf_endian.h>
#include "dial.h"
#include "target.h"

struct peer {
	__be32 addr[4];
	__u32 port;
};

static __always_inline void set_peer(struct peer *p, const struct origin *o)
{
	__builtin_memcpy(p->addr, o->addr, sizeof(p->addr));
	p->port = o->port;
}

/* Asks the accepted socket at the other end; the tuple is as a packet to it would have it. */
static __always_inline bool ask_accepted(struct bpf_sock_addr *ctx, struct bpf_sock_tuple *to, __u32 size,
					 struct peer *p)
{
	struct bpf_sock *there = bpf_sk_lookup_tcp(ctx, to, size, BPF_F_CURRENT_NETNS, 0);
	struct origin *o;
	bool told = false;

	if (!there)
		return false;
	o = bpf_sk_storage_get(&origins, there, NULL, 0);
	/* A port of 0: the listener itself, as the handshake has not ended there. */
	if (o && o->port) {
		set_peer(p, o);
		told = true;
	}
	bpf_sk_release(there);
	return told;
}

/* The entry in pending, if the handshake has not ended at the other end. */
static __always_inline bool ask_pending(const struct flow *f, struct peer *p)
{
	struct origin *o = bpf_map_lookup_elem(&pending, f);

	if (!o)
		return false;
	set_peer(p, o);
	/* Else it became another flow's meanwhile. */
	return bpf_map_lookup_elem(&pending, f) == o;
}

/* Where a captured socket was meant to be connected to. False for all others. */
static __noinline bool peer_of(struct bpf_sock_addr *ctx, struct peer *p, bool v4)
{
	struct bpf_sock *sk = ctx->sk;
	struct bpf_sock_tuple to = {};
	struct flow f = {};
	struct origin o;
	struct dial *d;
	__u32 size;

	if (!sk || !p)
		return false;
	d = bpf_sk_storage_get(&dials, sk, NULL, 0);
	if (d && d->state == DIAL_SENT) {
		set_peer(p, &d->origin);
		return true;
	}
	if (read_dial(bpf_get_socket_cookie(ctx), d, &o)) {
		set_peer(p, &o);
		return true;
	}
	if (v4) {
		size = sizeof(to.ipv4);
		to.ipv4.saddr = sk->src_ip4;
		to.ipv4.sport = bpf_htons(sk->src_port);
		to.ipv4.daddr = LOOPBACK4;
		to.ipv4.dport = ctx->user_port;
		f.saddr[2] = f.daddr[2] = MAPPED;
		f.saddr[3] = sk->src_ip4;
		f.daddr[3] = LOOPBACK4;
	} else {
		size = sizeof(to.ipv6);
		f.saddr[0] = to.ipv6.saddr[0] = sk->src_ip6[0];
		f.saddr[1] = to.ipv6.saddr[1] = sk->src_ip6[1];
		f.saddr[2] = to.ipv6.saddr[2] = sk->src_ip6[2];
		f.saddr[3] = to.ipv6.saddr[3] = sk->src_ip6[3];
		f.daddr[3] = to.ipv6.daddr[3] = bpf_htonl(1);
		to.ipv6.sport = bpf_htons(sk->src_port);
		to.ipv6.dport = ctx->user_port;
	}
	f.netns_cookie = bpf_get_netns_cookie(ctx);
	f.sport = sk->src_port;
	f.dport = bpf_ntohs((__u16)ctx->user_port);
	/* It goes from pending to the accepted socket, and may do so between two looks. */
	return ask_accepted(ctx, &to, size, p) || ask_pending(&f, p) || ask_accepted(ctx, &to, size, p);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct peer p;

	if (ctx->user_ip4 == LOOPBACK4 && peer_of(ctx, &p, true)) {
		ctx->user_ip4 = p.addr[3];
		ctx->user_port = bpf_htons(p.port);
	}
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	__be32 addr[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	bool v4 = is_mapped(addr);
	struct peer p;

	if ((v4 ? addr[3] == LOOPBACK4 : is_loopback6(addr)) && peer_of(ctx, &p, v4)) {
		ctx->user_ip6[0] = p.addr[0];
		ctx->user_ip6[1] = p.addr[1];
		ctx->user_ip6[2] = p.addr[2];
		ctx->user_ip6[3] = p.addr[3];
		ctx->user_port = bpf_htons(p.port);
	}
	return 1;
}

#endif
