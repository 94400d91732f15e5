/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the programs share with one another and with Go: structs (generated into Go by bpf2go -type) and maps.
 *
 * Addresses are 16 bytes in network order; an IPv4 address is its v4-mapped form (::ffff:a.b.c.d), whichever way the
 * client dialled it. Ports are in host order. No map is an LRU: an entry that the kernel evicts under load would be a
 * connection without an origin, or worse, with somebody else's.
 */
#ifndef SALLYPORT_MAPS_H
#define SALLYPORT_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* What is remembered of one captured connection. */
struct origin {
	__be32 addr[4]; /* where the workload meant to connect */
	__u32 port;
	__u32 pid;	   /* the dialling task's thread group, in the initial pid namespace */
	__u32 uid;	   /* in the initial user namespace */
	__u32 pooled;	   /* while it is in pending: 1 when it is beyond the workload's own share */
	__u64 workload_id; /* the enrolled cgroup */
	__u64 generation;
	__u64 cgroup_id; /* the task's own cgroup: the enrolled one or a descendant */
	__u64 netns_cookie;
	char comm[16];
};
_Static_assert(sizeof(struct origin) == 80, "struct origin is read by the proxy");

/* What connect4 and connect6 last did with a socket. */
enum dial_state {
	DIAL_NONE = 0,	     /* nothing that counts any more */
	DIAL_REDIRECTED = 1, /* redirected; its SYN is still to come */
	DIAL_SENT = 2,	     /* its SYN was sent */
	DIAL_DENIED = 3,     /* denied, and told of */
};

struct dial {
	struct origin origin;
	__u32 state; /* enum dial_state */
	__u32 pad;
};
_Static_assert(sizeof(struct dial) == 88, "struct dial has no hole");

/* An enrolled cgroup. */
struct workload {
	__u64 generation;
	__u64 netns_cookie; /* the network namespace of its listeners */
	__u16 port4;	    /* of the listener on 127.0.0.1; 0: none */
	__u16 port6;	    /* of the listener on ::1; 0: none */
	__u32 canary;	    /* 1: the agent's own proof that capture works */
};
_Static_assert(sizeof(struct workload) == 24, "struct workload is written by Go");

/* What a workload takes of what all share. Apart from struct workload, which Go overwrites. */
struct usage {
	__u32 own;    /* entries in pending out of the workload's own share */
	__u32 pooled; /* entries beyond that; of workload 0: those of all workloads */
	__u32 events; /* events since window began */
	__u32 pad;
	__u64 window;	  /* when it began: nanoseconds since boot, CLOCK_MONOTONIC */
	__u64 suppressed; /* events that were not sent, since enrolment */
};
_Static_assert(sizeof(struct usage) == 32, "struct usage is written by Go");

/* The port of a listener, alive or dead. Those of IPv4 and of IPv6 have nothing to do with one another. */
struct listener_port {
	__u64 netns_cookie;
	__u32 port;
	__u32 v6; /* 1: on ::1; 0: on 127.0.0.1 */
};
_Static_assert(sizeof(struct listener_port) == 16, "struct listener_port is written by Go");

/* A denial. */
struct event {
	__be32 addr[4]; /* the destination; zero where there is none */
	__u32 port;
	__u32 reason;	/* enum reason */
	__u32 protocol; /* IPPROTO_*, or an address family for REASON_DENIED_FAMILY */
	__u32 pid;	/* 0 for a packet: whoever is on the processor did not send it */
	__u32 uid;
	__u32 pad;
	__u64 workload_id;  /* 0 when it is nobody's in particular */
	__u64 cgroup_id;    /* the task's or the socket's own cgroup */
	__u64 netns_cookie; /* the socket's; 0 for a packet */
	__u64 suppressed;   /* events of the workload that were not sent, since enrolment */
	char comm[16];
};
_Static_assert(sizeof(struct event) == 88, "struct event is read by Go");

/* A protected destination. The port comes first and is always matched whole: prefixlen is 32 plus the address's. */
struct target4 {
	__u32 prefixlen;
	__u32 port;
	__be32 addr;
};
_Static_assert(sizeof(struct target4) == 12, "struct target4 is written by Go");

struct target6 {
	__u32 prefixlen;
	__u32 port;
	__be32 addr[4];
};
_Static_assert(sizeof(struct target6) == 24, "struct target6 is written by Go");

/* A redirected connection between its SYN and its handshake's end, from the client's side. */
struct flow {
	__u64 netns_cookie;
	__be32 saddr[4];
	__be32 daddr[4];
	__u32 sport;
	__u32 dport;
};
_Static_assert(sizeof(struct flow) == 48, "struct flow has no hole");

/* Where the origin of a dial waits for its SYN, if no other socket's is there. */
struct slot {
	struct bpf_spin_lock lock;
	__u32 pad;
	__u64 cookie; /* the client's socket; 0: none */
	__u64 since;  /* nanoseconds since boot */
	struct origin origin;
};
_Static_assert(sizeof(struct slot) == 104, "struct slot has no hole");

/* The ports of all targets, a bit for each. */
struct port_set {
	__u64 words[1024];
};

/* Why a connection was captured or denied: indices of counters. */
enum reason {
	REASON_CAPTURED = 0,
	REASON_DENIED_OUTSIDE = 1,     /* the socket is a workload's, the caller is none of its own tasks */
	REASON_DENIED_NETNS = 2,       /* the socket lives in another network namespace than the listeners */
	REASON_DENIED_NO_LISTENER = 3, /* no listener of that address family */
	REASON_DENIED_PROTOCOL = 4,    /* a stream socket that does not speak TCP */
	REASON_DENIED_STORAGE = 5,     /* the origin could not be stored before the dial */
	REASON_LOST_PENDING = 6,       /* the origin could not be kept during the handshake: the proxy refuses */
	REASON_LOST_ACCEPTED = 7,      /* the listener is another workload's than the origin: the proxy refuses */
	REASON_DENIED_SOCKET = 8,      /* a kind of socket that could go round capture: raw, SCTP … */
	REASON_DENIED_PASSED = 9,      /* a target, through a socket that was made outside the workload */
	REASON_DENIED_UDP = 10,	       /* UDP to a target's address and port */
	REASON_DENIED_PACKET = 11,     /* a packet to a target, of a socket that connect4 and connect6 never saw */
	REASON_DENIED_HEADER = 12,     /* a packet whose destination can not be told */
	REASON_DENIED_BIND = 13,       /* a workload's bind() to the port of a listener */
	REASON_DENIED_LISTENER = 14,   /* a listener was dialled directly */
	REASON_DENIED_SQUATTED = 15,   /* somebody else listens on a dead listener's port */
	REASON_DENIED_QUOTA = 16,      /* the workload has too many connections in their handshake */
	REASON_DENIED_FAMILY = 17,     /* a socket of an address family that could go round capture: packet, vsock … */
	REASON_LOST_EVENT = 18,	       /* a denial that no event tells of: nobody reads them fast enough */
	REASON_CANARY = 19,	       /* the canary was redirected */
	REASON_MAX = 20,
};

#define MAX_WORKLOADS 16384

/* Protected destinations. Go writes; the programs that judge destinations read. An entry lives as long as a document
 * names it. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct target4);
	__type(value, __u32);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} targets4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct target6);
	__type(value, __u32);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} targets6 SEC(".maps");

/* The ports of targets: most destinations are none, and this tells at less cost than a trie. Go writes, a new port
 * before the target and an old one after it; the programs that judge destinations read. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct port_set);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} target_ports SEC(".maps");

/* Enrolled cgroups by id. Go writes; all programs read. An entry lives from enrolment to withdrawal. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct workload);
	__uint(max_entries, MAX_WORKLOADS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} workloads SEC(".maps");

/* Use of shared things by workload id; 0 is nobody's in particular. Go makes an entry at enrolment and removes it at
 * withdrawal; the programs write. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct usage);
	__uint(max_entries, MAX_WORKLOADS + 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} usages SEC(".maps");

/* Ports of listeners: workload ids. Go writes; the guards read. An entry outlives its listener: it dies when the
 * workload has another listener, or is withdrawn. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct listener_port);
	__type(value, __u64);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} listener_ports SEC(".maps");

/* Workload ids by network device: the agent's side of a pair whose other side is in the workload's own network
 * namespace. Go writes; guard_device reads. An entry dies with its workload. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} devices SEC(".maps");

/* The workload whose cgroup a program runs for, by the cgroup's id. The kernel makes an entry when connect4 or connect6
 * is attached to a cgroup, Go writes it then, connect4 and connect6 read. It dies with its cgroup. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} attached SEC(".maps");

/* Origins of dials whose SYN is still to come, each in the slot of its socket, which several share: a storage of the
 * socket's own costs several times as much. connect4 and connect6 write, the guards and getpeername4 and getpeername6
 * read, sock_ops takes out. What nobody takes out, because the dial failed before its SYN, others overwrite after
 * SLOT_AGE. */
#define SLOTS 4096
#define SLOT_AGE 10000000000ULL /* nanoseconds */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct slot);
	__uint(max_entries, SLOTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} slots SEC(".maps");

/* What was done with sockets that found their slot taken, or were denied. connect4 and connect6 write, sock_ops notes
 * that the SYN was sent, the guards and getpeername4 and getpeername6 read. An entry's life is the socket's: to delete
 * it sooner costs more than to keep it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__type(key, int);
	__type(value, struct dial);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} dials SEC(".maps");

/* Origins of connections in their handshake. sock_ops writes at the client's SYN, and takes the entry out when the
 * listener's side is established or the client's socket closes. There is room for PENDING_SHARE entries of every
 * workload, and for PENDING_POOL more of those that need them. */
#define PENDING_SHARE 4
#define PENDING_POOL 32768

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow);
	__type(value, struct origin);
	__uint(max_entries, MAX_WORKLOADS *PENDING_SHARE + PENDING_POOL);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pending SEC(".maps");

/* Origins of accepted sockets. Go writes the workload's id, and nothing else, into the socket of a listener. The kernel
 * copies that to each socket that the listener accepts, and sock_ops writes the rest before accept() can return it;
 * get_origin reads, and knows by the port whether it was written. connect4, connect6 and the guards after them know by
 * it whose a listener is. An entry dies with its socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__type(key, int);
	__type(value, struct origin);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} origins SEC(".maps");

/* Connections by enum reason. The programs add; Go reads. Its size leaves room for reasons of later versions, so that
 * the pinned map can stay. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, enum reason);
	__type(value, __u64);
	__uint(max_entries, 32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters SEC(".maps");

/* Denials. The programs write, so many a second for each workload; Go reads. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} events SEC(".maps");

static __always_inline void count(enum reason why)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &why);

	if (n)
		*n += 1;
}

#endif
