/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * guard_egress: drops packets to targets. It is attached to each enrolled cgroup, so that others pay nothing, and sees
 * the packets of sockets that were made in it: those of raw sockets too, and of connections that are older than the
 * enrolment. It runs behind the host's own address translation and before the kernel makes fragments.
 */
#ifndef SALLYPORT_GUARD_EGRESS_H
#define SALLYPORT_GUARD_EGRESS_H

#include "deny.h"
#include "target.h"
#include "workload.h"

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd

#define IPPROTO_DCCP 33
#define IPPROTO_SCTP 132
#define IPPROTO_UDPLITE 136

#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_AH 51
#define IPPROTO_DSTOPTS 60

/* What a packet says; RFC 791 section 3.1, RFC 8200 section 3. */
struct ipv4_header {
	__u8 version_length;
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment; /* flags and offset */
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

struct ipv6_header {
	__be32 flow;
	__be16 length;
	__u8 next;
	__u8 hops;
	__be32 source[4];
	__be32 destination[4];
};

/* MF and the offset. DF is no fragment's mark. */
#define FRAGMENT bpf_htons(0x3fff)

/* More than this many extension headers nobody sends. */
#define MAX_EXTENSIONS 8

/* Protocols that begin with the two ports. */
static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       protocol == IPPROTO_DCCP || protocol == IPPROTO_UDPLITE;
}

/* Drops a packet. Who sent it is the workload of the socket; the current task may be anybody. */
static __noinline int drop(struct __sk_buff *skb, struct event *e, enum reason why)
{
	count(why);
	if (!e)
		return DENY;
	for (int level = 0; level <= MAX_DEPTH; level++) {
		__u64 ancestor = bpf_skb_ancestor_cgroup_id(skb, level);

		/* Deeper than the socket's own cgroup. */
		if (!ancestor)
			break;
		if (bpf_map_lookup_elem(&workloads, &ancestor))
			e->workload_id = ancestor;
	}
	if (!may_tell(e))
		return DENY;
	e->reason = why;
	e->cgroup_id = bpf_skb_cgroup_id(skb);
	return tell(e);
}

static __always_inline int egress4(struct __sk_buff *skb)
{
	struct event e = {.addr = {0, 0, MAPPED, 0}};
	struct ipv4_header ip;
	__be16 port;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return drop(skb, &e, REASON_DENIED_HEADER);
	e.addr[3] = ip.destination;
	e.protocol = ip.protocol;
	/* The kernel fragments later: a fragment here is made by hand, and hides its port. */
	if (ip.fragment & FRAGMENT)
		return drop(skb, &e, REASON_DENIED_HEADER);
	/* Without ports it is no connection to a target. */
	if (!has_ports(ip.protocol))
		return ALLOW;
	/* An option can name another destination: source routing, RFC 791 section 3.1. */
	if (ip.version_length != 0x45 || bpf_skb_load_bytes(skb, sizeof(ip) + 2, &port, sizeof(port)))
		return drop(skb, &e, REASON_DENIED_HEADER);
	e.port = bpf_ntohs(port);
	if (!is_target4(ip.destination, e.port))
		return ALLOW;
	return drop(skb, &e, REASON_DENIED_PACKET);
}

/*
 * Skips extension headers. False for those that hide the destination or the port: fragments, which the kernel makes
 * later, and routing headers.
 */
static __always_inline bool skip_extensions(struct __sk_buff *skb, __u8 *next, __u32 *offset)
{
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct {
			__u8 next, length;
		} extension;

		switch (*next) {
		case IPPROTO_ROUTING:
		case IPPROTO_FRAGMENT:
			return false;
		case IPPROTO_HOPOPTS:
		case IPPROTO_DSTOPTS:
		case IPPROTO_AH:
			if (bpf_skb_load_bytes(skb, *offset, &extension, sizeof(extension)))
				return false;
			/* AH counts in words of 4 bytes and leaves out 2, RFC 4302 section 2.2. */
			*offset += *next == IPPROTO_AH ? (extension.length + 2) * 4 : (extension.length + 1) * 8;
			*next = extension.next;
			break;
		default:
			return true;
		}
	}
	return false;
}

static __always_inline int egress6(struct __sk_buff *skb)
{
	struct event e = {};
	struct ipv6_header ip;
	__u32 offset = sizeof(ip);
	__be16 port;
	__u8 next;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return drop(skb, &e, REASON_DENIED_HEADER);
	__builtin_memcpy(e.addr, ip.destination, sizeof(e.addr));
	next = ip.next;
	if (!skip_extensions(skb, &next, &offset))
		return drop(skb, &e, REASON_DENIED_HEADER);
	e.protocol = next;
	/* Without ports it is no connection to a target. */
	if (!has_ports(next))
		return ALLOW;
	if (bpf_skb_load_bytes(skb, offset + 2, &port, sizeof(port)))
		return drop(skb, &e, REASON_DENIED_HEADER);
	e.port = bpf_ntohs(port);
	if (!is_target6(ip.destination, e.port))
		return ALLOW;
	return drop(skb, &e, REASON_DENIED_PACKET);
}

SEC("cgroup_skb/egress")
int guard_egress(struct __sk_buff *skb)
{
	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_IP:
		return egress4(skb);
	case ETH_P_IPV6:
		return egress6(skb);
	}
	/* The hook sees IP alone. */
	return DENY;
}

#endif
