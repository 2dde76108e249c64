/* SPDX-License-Identifier: Apache-2.0
 * The leader's eye on the nodes: one whose record has expired (its agent has sent no heartbeat for
 * a lease) and stays away for the grace time is lost. What its memory held of any job is declared
 * lost, page by page (trib_node_silent): clients are asked again, sums that were on their way to it
 * are sent to another node. While Redis is away nobody is counted as silent, and after it came back
 * every agent has the grace time to say so. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_NODES_H
#define TRIB_ORCHESTRATOR_NODES_H

#include "common/loop.h"
#include "orchestrator/leader.h"
#include "orchestrator/store_redis.h"

#define ORC_SILENT_MAX 256 /* silent nodes seen to at a time; the others wait */

struct orc_nodes;

TRIB_MUST_CHECK int orc_nodes_new(struct trib_loop *loop, struct orc_store *store,
				  struct orc_leader *leader, uint64_t grace_ms,
				  struct orc_nodes **ret_nodes);
/* The store is freed before (it answers what is under way). */
struct orc_nodes *orc_nodes_free(struct orc_nodes *nodes);

#endif
