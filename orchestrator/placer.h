/* SPDX-License-Identifier: Apache-2.0
 * The leader's hand in placement: keeps in mind what the nodes publish with their heartbeats, and
 * writes for a job which node takes how many of its clients (placement.h; check-ins read it,
 * 26_placement.lua). Nothing is planned while fewer than two nodes live that publish a capacity:
 * then clients upload where they checked in. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_PLACER_H
#define TRIB_ORCHESTRATOR_PLACER_H

#include "common/loop.h"
#include "orchestrator/leader.h"
#include "orchestrator/store_redis.h"

struct orc_placer;

TRIB_MUST_CHECK int orc_placer_new(struct trib_loop *loop, struct orc_store *store,
				   struct orc_leader *leader, struct orc_placer **ret_placer);
/* The store is freed before (it answers what is under way). */
struct orc_placer *orc_placer_free(struct orc_placer *placer);
/* Plans the clients of the job's next round (or its buffer) and sends what has come out. *last: the
 * plan before, or NULL; replaced by the new one, owned by the caller (trib_free). */
void orc_placer_plan(struct orc_placer *placer, const struct orc_job *job, char **last);

#endif
