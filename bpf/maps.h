/* SPDX-License-Identifier: Apache-2.0 */
/* What the SK_MSG program (bpf/route.bpf.c) and its loader share: sizes and values of the maps.
 * Only the agent inserts; the program looks up and counts. Nothing is pinned: the agent keeps the
 * map descriptors open for as long as it lives, and with its last one the kernel takes program and
 * maps down, so that no state is left behind (the sockets become plain TCP, and the dead agent's
 * peer ends give them EOF). Functions hold sockets, never maps: who holds a map can insert.
 *
 *   senders    sockhash, program attached   route -> owner's socket, every one (hub and functions)
 *   receivers  sockhash                     route -> the same socket, as a destination
 *   peers      sockhash                     route -> its peer end, destination of dead letters
 *   sender     sk_storage                   owner's socket -> struct trib_map_sender
 *   routes     hash                         route -> job
 *   counters   per-CPU hash                 route -> struct trib_map_counters
 *   work       hash                         route of a function -> struct trib_map_work
 *   totals     per-CPU array                enum trib_map_total -> count
 *
 * `senders` and `receivers` are two because a socket may be only once in a map with a program.
 */
#ifndef TRIB_BPF_MAPS_H
#define TRIB_BPF_MAPS_H

#include "bpf/route.h"

#define TRIB_MAP_ROUTES_MAX 4096u /* open routes of a node */
#define TRIB_MAP_ENTRIES_MAX                                                \
	8192u /* half empty: sockets that close leave their map a bit later \
	       */

struct trib_map_sender {
	__u32 job;
	__u32 route; /* its own: key in `peers` */
};

struct trib_map_counters {
	__u64 messages;
	__u64 bytes;
	__u64 queue_us;
};

/* How long a function has had something in hand: from the first letter it was given until it has
 * sent as many as it was given (it answers each with one). Written from any CPU: a race costs
 * microseconds of the sum. */
struct trib_map_work {
	__u64 exec_us;
	__u32 since_us; /* low 32 bits; of what is counted next */
	__u32 pending;
};

/* 0..TRIB_ROUTE_VERDICTS-1 count dead letters by enum trib_route_verdict (OK stays 0). */
enum trib_map_total {
	TRIB_TOTAL_REDIRECTED = TRIB_ROUTE_VERDICTS,
	TRIB_TOTAL_FORWARDED = TRIB_ROUTE_VERDICTS + 1, /* from the transport's own socket */
	TRIB_TOTALS = TRIB_ROUTE_VERDICTS + 2,
};

_Static_assert(sizeof(struct trib_map_sender) == 8, "same for both compilers");
_Static_assert(sizeof(struct trib_map_counters) == 24, "same for both compilers");
_Static_assert(sizeof(struct trib_map_work) == 16, "same for both compilers");

#endif
