/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is protected. */
#ifndef SALLYPORT_TARGET_H
#define SALLYPORT_TARGET_H

#include <bpf/bpf_endian.h>
#include "maps.h"

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58
#define IPPROTO_MPTCP 262

#define LOOPBACK4 bpf_htonl(0x7f000001)
#define MAPPED bpf_htonl(0xffff) /* the third word of a v4-mapped address */

/* False when no target has the port. */
static __always_inline bool is_target_port(__u32 port)
{
	__u32 only = 0, word = port >> 6;
	struct port_set *set = bpf_map_lookup_elem(&target_ports, &only);

	/* The compiler knows that a port is no more than 65535 and drops the mask; the verifier does not. */
	barrier_var(word);
	return !set || set->words[word & 1023] >> (port & 63) & 1;
}

static __always_inline bool is_target4(__be32 addr, __u32 port)
{
	struct target4 key = {.prefixlen = 64, .port = port, .addr = addr};

	return is_target_port(port) && bpf_map_lookup_elem(&targets4, &key) != NULL;
}

static __always_inline bool is_target6(const __be32 addr[4], __u32 port)
{
	struct target6 key = {.prefixlen = 160, .port = port, .addr = {addr[0], addr[1], addr[2], addr[3]}};

	return is_target_port(port) && bpf_map_lookup_elem(&targets6, &key) != NULL;
}

static __always_inline bool is_mapped(const __be32 addr[4])
{
	return !addr[0] && !addr[1] && addr[2] == MAPPED;
}

static __always_inline bool is_loopback6(const __be32 addr[4])
{
	return !addr[0] && !addr[1] && !addr[2] && addr[3] == bpf_htonl(1);
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
 * Whether a dial of an IPv6 address reaches a target; the address becomes the one that it reaches. The kernel dials a
 * v4-mapped address as IPv4, and connect4 is not run for it. "::" is ::1, or IPv4's loopback if the socket is bound to
 * a v4-mapped address.
 */
static __always_inline bool reaches_target6(struct bpf_sock *sk, __be32 addr[4], __u32 port)
{
	if (is_mapped(addr)) {
		addr[3] = effective4(sk, addr[3]);
		return is_target4(addr[3], port);
	}
	if (addr[0] || addr[1] || addr[2] || addr[3])
		return is_target6(addr, port);
	addr[3] = bpf_htonl(1);
	if (is_target6(addr, port))
		return true;
	addr[2] = MAPPED;
	addr[3] = effective4(sk, 0);
	return is_target4(addr[3], port);
}

#endif
