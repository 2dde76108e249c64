/* SPDX-License-Identifier: Apache-2.0
 * The only door to libbpf: loads the SK_MSG program (bpf/route.bpf.c), keeps its maps and says in
 * words why it cannot. Knows nothing of descriptors, endpoints or loops. One thread.
 *
 * Needs CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN) in the initial user namespace. Pins nothing
 * in bpffs and needs none mounted: program and maps live as long as the router (bpf/maps.h).
 */
#ifndef TRIB_BPF_LOADER_H
#define TRIB_BPF_LOADER_H

#include "bpf/maps.h"
#include "common/base.h"

#define TRIB_ROUTER_WHY_SIZE 256

struct trib_router;

/* 0, or -errno with one line in ret_why. libbpf's own chatter goes to the debug log. */
TRIB_MUST_CHECK int trib_router_new(char ret_why[TRIB_ROUTER_WHY_SIZE],
				    struct trib_router **ret_router);
struct trib_router *trib_router_free(struct trib_router *router);

/* Opens `route` for `job`: owner_fd sends and receives through the program, peer_fd gets its dead
 * letters. Both borrowed; the kernel forgets each when its last holder closes it. A pair may be
 * opened once in its life. -EEXIST, -ENOSPC (table full), -errno; on failure nothing stays. */
TRIB_MUST_CHECK int trib_router_open(struct trib_router *router, uint32_t route, uint32_t job,
				     int owner_fd, int peer_fd);
/* From now on nothing is redirected there and the owner's socket is plain TCP. Counters stay. */
void trib_router_shut(struct trib_router *router, uint32_t route);
/* The same, and forgets the counters. */
void trib_router_close(struct trib_router *router, uint32_t route);

/* -ENOENT when the route is not open. */
TRIB_MUST_CHECK int trib_router_counters(const struct trib_router *router, uint32_t route,
					 struct trib_map_counters *ret_counters);
/* How long the function of that route has worked (struct trib_map_work); 0 for a hub. */
uint64_t trib_router_exec_us(const struct trib_router *router, uint32_t route);
TRIB_MUST_CHECK int trib_router_totals(const struct trib_router *router,
				       uint64_t ret_totals[TRIB_TOTALS]);
TRIB_MUST_CHECK int trib_router_totals_reset(struct trib_router *router);

#endif
