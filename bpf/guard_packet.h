/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Guards that see packets.
 *
 * guard_egress: drops packets to targets. It is attached to each enrolled cgroup, so that others pay nothing, and sees
 * the packets of sockets that were made in it: those of raw sockets too, and of connections that are older than the
 * enrolment. It runs behind the host's own address translation and before the kernel makes fragments.
 */
#ifndef SALLYPORT_GUARD_PACKET_H
#define SALLYPORT_GUARD_PACKET_H

#include "deny.h"
#include "target.h"
#include "workload.h"

#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
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
#define OFFSET bpf_htons(0x1fff)

/* More than this many extension headers nobody sends. */
#define MAX_EXTENSIONS 8

/* What TCP and UDP begin with. */
struct ports {
	__be16 source;
	__be16 destination;
};

/*
 * True when a packet is plain TCP or UDP to a port that no target has: nearly all are, and no more is to be known of
 * them. False says nothing. The header of IP is so far in.
 */
static __always_inline bool harmless4(struct __sk_buff *skb, __u32 at)
{
	struct ipv4_header *ip = (void *)(long)skb->data + at;
	struct ports *ports = (void *)(ip + 1);

	return (void *)(ports + 1) <= (void *)(long)skb->data_end && ip->version_length == 0x45 &&
	       !(ip->fragment & FRAGMENT) && (ip->protocol == IPPROTO_TCP || ip->protocol == IPPROTO_UDP) &&
	       !is_target_port(bpf_ntohs(ports->destination));
}

static __always_inline bool harmless6(struct __sk_buff *skb, __u32 at)
{
	struct ipv6_header *ip = (void *)(long)skb->data + at;
	struct ports *ports = (void *)(ip + 1);

	return (void *)(ports + 1) <= (void *)(long)skb->data_end &&
	       (ip->next == IPPROTO_TCP || ip->next == IPPROTO_UDP) && !is_target_port(bpf_ntohs(ports->destination));
}

/* Protocols that begin with the two ports. */
static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       protocol == IPPROTO_DCCP || protocol == IPPROTO_UDPLITE;
}

/*
 * Why an IPv4 packet, whose header is so far in, is to be dropped; 0: it is not. Fragments can be the kernel's own
 * work, or can only be made by hand. The event gets the destination. Of fragments the first has the ports, and without
 * it nobody puts the others together.
 */
static __always_inline __u32 verdict4(struct __sk_buff *skb, __u32 at, bool fragments, struct event *e)
{
	struct ipv4_header ip;
	__be16 port;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return REASON_DENIED_HEADER;
	e->addr[2] = MAPPED;
	e->addr[3] = ip.destination;
	e->protocol = ip.protocol;
	if (ip.fragment & FRAGMENT) {
		if (!fragments)
			return REASON_DENIED_HEADER;
		if (ip.fragment & OFFSET)
			return 0;
	}
	/* Without ports it is no connection to a target. */
	if (!has_ports(ip.protocol))
		return 0;
	/* An option can name another destination: source routing, RFC 791 section 3.1. */
	if (ip.version_length != 0x45 || bpf_skb_load_bytes(skb, at + sizeof(ip) + 2, &port, sizeof(port)))
		return REASON_DENIED_HEADER;
	e->port = bpf_ntohs(port);
	return is_target4(ip.destination, e->port) ? REASON_DENIED_PACKET : 0;
}

/* What is behind the extension headers of an IPv6 packet. */
enum behind {
	BEHIND_PROTOCOL,
	BEHIND_FRAGMENT, /* not the first: what follows is in the middle of something */
	BEHIND_UNKNOWN,	 /* the destination or the port can not be told */
};

/* Skips extension headers. */
static __always_inline enum behind skip_extensions(struct __sk_buff *skb, bool fragments, __u8 *next, __u32 *offset)
{
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct {
			__u8 next, length;
			__be16 fragment; /* offset and flags, of a fragment header */
		} extension;

		switch (*next) {
		case IPPROTO_ROUTING:
			return BEHIND_UNKNOWN;
		case IPPROTO_FRAGMENT:
			if (!fragments || bpf_skb_load_bytes(skb, *offset, &extension, sizeof(extension)))
				return BEHIND_UNKNOWN;
			if (extension.fragment & bpf_htons(0xfff8))
				return BEHIND_FRAGMENT;
			*offset += 8;
			*next = extension.next;
			break;
		case IPPROTO_HOPOPTS:
		case IPPROTO_DSTOPTS:
		case IPPROTO_AH:
			if (bpf_skb_load_bytes(skb, *offset, &extension, sizeof(extension)))
				return BEHIND_UNKNOWN;
			/* AH counts in words of 4 bytes and leaves out 2, RFC 4302 section 2.2. */
			*offset += *next == IPPROTO_AH ? (extension.length + 2) * 4 : (extension.length + 1) * 8;
			*next = extension.next;
			break;
		default:
			return BEHIND_PROTOCOL;
		}
	}
	return BEHIND_UNKNOWN;
}

/* verdict4 for IPv6. */
static __always_inline __u32 verdict6(struct __sk_buff *skb, __u32 at, bool fragments, struct event *e)
{
	__u32 offset = at + sizeof(struct ipv6_header);
	struct ipv6_header ip;
	__be16 port;
	__u8 next;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return REASON_DENIED_HEADER;
	__builtin_memcpy(e->addr, ip.destination, sizeof(e->addr));
	next = ip.next;
	switch (skip_extensions(skb, fragments, &next, &offset)) {
	case BEHIND_FRAGMENT:
		return 0;
	case BEHIND_UNKNOWN:
		return REASON_DENIED_HEADER;
	case BEHIND_PROTOCOL:
		break;
	}
	e->protocol = next;
	/* Without ports it is no connection to a target. */
	if (!has_ports(next))
		return 0;
	if (bpf_skb_load_bytes(skb, offset + 2, &port, sizeof(port)))
		return REASON_DENIED_HEADER;
	e->port = bpf_ntohs(port);
	if (is_mapped(ip.destination))
		return is_target4(ip.destination[3], e->port) ? REASON_DENIED_PACKET : 0;
	return is_target6(ip.destination, e->port) ? REASON_DENIED_PACKET : 0;
}

/* The workload of a packet's socket; the current task may be anybody. */
static __always_inline __u64 packet_workload(struct __sk_buff *skb)
{
	__u64 found = 0;

	for (int level = 0; level <= MAX_DEPTH; level++) {
		__u64 ancestor = bpf_skb_ancestor_cgroup_id(skb, level);

		/* Deeper than the socket's own cgroup. */
		if (!ancestor)
			break;
		if (bpf_map_lookup_elem(&workloads, &ancestor))
			found = ancestor;
	}
	return found;
}

/* Judges a packet that is not harmless at first sight. */
static __noinline int judge_packet(struct __sk_buff *skb, bool v4)
{
	struct event e = {};
	__u32 why = v4 ? verdict4(skb, 0, false, &e) : verdict6(skb, 0, false, &e);

	if (!why)
		return ALLOW;
	count(why);
	e.reason = why;
	e.workload_id = packet_workload(skb);
	e.cgroup_id = bpf_skb_cgroup_id(skb);
	if (may_tell(&e))
		tell(&e);
	return DENY;
}

SEC("cgroup_skb/egress")
int guard_egress(struct __sk_buff *skb)
{
	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_IP:
		return harmless4(skb, 0) ? ALLOW : judge_packet(skb, true);
	case ETH_P_IPV6:
		return harmless6(skb, 0) ? ALLOW : judge_packet(skb, false);
	}
	/* The hook sees IP alone. */
	return DENY;
}

#define NEXT (-1) /* TC_ACT_UNSPEC: whatever comes next decides */
#define SHOT 2	  /* TC_ACT_SHOT */

/* Judges a frame that is not harmless at first sight. */
static __noinline int judge_frame(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex, why;
	struct event e = {};
	__u64 *workload;

	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_IP:
		why = verdict4(skb, ETH_HLEN, true, &e);
		break;
	case ETH_P_IPV6:
		why = verdict6(skb, ETH_HLEN, true, &e);
		break;
	case ETH_P_8021Q:
	case ETH_P_8021AD:
		/* What a tag hides is not looked for: no workload has one. */
		why = REASON_DENIED_HEADER;
		break;
	default:
		return NEXT;
	}
	if (!why)
		return NEXT;
	count(why);
	workload = bpf_map_lookup_elem(&devices, &device);
	if (workload)
		e.workload_id = *workload;
	e.reason = why;
	e.cgroup_id = bpf_skb_cgroup_id(skb);
	if (may_tell(&e))
		tell(&e);
	return SHOT;
}

/*
 * guard_device: drops packets to targets where they come out of a workload's own network namespace, whoever made them:
 * packet sockets, and namespaces inside the workload that forward. It is attached to the agent's side of a veth pair
 * (tcx, Linux 6.6), out of the workload's reach.
 */
SEC("tc")
int guard_device(struct __sk_buff *skb)
{
	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_IP:
		return harmless4(skb, ETH_HLEN) ? NEXT : judge_frame(skb);
	case ETH_P_IPV6:
		return harmless6(skb, ETH_HLEN) ? NEXT : judge_frame(skb);
	}
	return judge_frame(skb);
}

#endif
