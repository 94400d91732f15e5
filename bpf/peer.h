/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * getpeername4 and getpeername6: a captured socket says that it is connected to where its workload meant to go. Clients
 * rely on it: some dial the peer's address again, to cancel a statement for example. Attached like connect4.
 */
#ifndef SALLYPORT_PEER_H
#define SALLYPORT_PEER_H

#include <bpf/bpf_endian.h>
#include "maps.h"

static __always_inline struct peer *peer_of(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk ? bpf_sk_storage_get(&peers, sk, NULL, 0) : NULL;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct peer *p = peer_of(ctx);

	if (p) {
		ctx->user_ip4 = p->addr[3];
		ctx->user_port = bpf_htons(p->port);
	}
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct peer *p = peer_of(ctx);

	if (p) {
		ctx->user_ip6[0] = p->addr[0];
		ctx->user_ip6[1] = p->addr[1];
		ctx->user_ip6[2] = p->addr[2];
		ctx->user_ip6[3] = p->addr[3];
		ctx->user_port = bpf_htons(p->port);
	}
	return 1;
}

#endif
