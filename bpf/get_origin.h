/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * get_origin: getsockopt(SOL_SALLYPORT, SO_ORIGIN) gives a captured connection's origin to whoever holds the accepted
 * socket, without a privilege. It is attached to the root of the cgroup hierarchy and sees every getsockopt(); all that
 * is not this option it leaves as it is.
 */
#ifndef SALLYPORT_GET_ORIGIN_H
#define SALLYPORT_GET_ORIGIN_H

#include "maps.h"

#define SOL_SALLYPORT 0x5a11
#define SO_ORIGIN 1

/* The kernel's page size: the most of an option's value that a program is shown. Set before load. */
volatile const __s32 page_size = 4096;

SEC("cgroup/getsockopt")
int get_origin(struct bpf_sockopt *ctx)
{
	struct origin *out = ctx->optval, *o;

	if (ctx->level != SOL_SALLYPORT || ctx->optname != SO_ORIGIN) {
		/* Kernels before 6.4 fail a longer value with EFAULT, unless the program says that it made no change.
		 */
		if (ctx->optlen > page_size)
			ctx->optlen = 0;
		return 1;
	}
	/* The kernel's own ENOPROTOOPT stands where there is no answer. */
	if (!ctx->sk || (void *)(out + 1) > ctx->optval_end)
		return 1;
	o = bpf_sk_storage_get(&origins, ctx->sk, NULL, 0);
	/* A port of 0: a listener, or what was dialled directly. */
	if (!o || !o->port)
		return 1;
	*out = *o;
	/* Two stores of 32 bits: the verifier refuses one of 64. */
	*(volatile __s32 *)&ctx->optlen = sizeof(*out);
	*(volatile __s32 *)&ctx->retval = 0;
	return 1;
}

#endif
