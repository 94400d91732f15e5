/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * getpeername4 and getpeername6: a captured socket says that it is connected to where its workload meant to go. Clients
 * rely on it: some dial the peer's address again, to cancel a statement for example. Attached like connect4.
 */
#ifndef SALLYPORT_PEER_H
#define SALLYPORT_PEER_H

#include <bpf/bpf_endian.h>
#include "maps.h"

/* The origin of a captured socket; NULL when it is none. */
static __always_inline struct origin *dialled_by(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct dial *d = sk ? bpf_sk_storage_get(&dials, sk, NULL, 0) : NULL;

	return d && (d->state == DIAL_REDIRECTED || d->state == DIAL_SENT) ? &d->origin : NULL;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct origin *o = dialled_by(ctx);

	if (o) {
		ctx->user_ip4 = o->addr[3];
		ctx->user_port = bpf_htons(o->port);
	}
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct origin *o = dialled_by(ctx);

	if (o) {
		ctx->user_ip6[0] = o->addr[0];
		ctx->user_ip6[1] = o->addr[1];
		ctx->user_ip6[2] = o->addr[2];
		ctx->user_ip6[3] = o->addr[3];
		ctx->user_port = bpf_htons(o->port);
	}
	return 1;
}

#endif
