/* SPDX-License-Identifier: Apache-2.0
 * The round machine: what the leader does so that jobs go from round to round.
 *
 *   job:    created --model there--> running <--> paused ; running --stop rule--> finished
 *   round:  (none) --open--> open --goal (gateway) / deadline--> closing --agent's task--> publish
 *                              `--deadline below quorum--> failed          `--> the next round
 *
 * Each step reads the records, does at most one transition and is driven again by its answer, by
 * a message of trib:wake, by the job's timer, and by a poll. Nothing that matters is kept here:
 * a process that starts anew continues from the records, and every call may be repeated.
 *
 * Bounds: ORC_JOBS_MAX live jobs; one step under way per job. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_ROUNDS_H
#define TRIB_ORCHESTRATOR_ROUNDS_H

#include "common/loop.h"
#include "orchestrator/leader.h"
#include "orchestrator/store_redis.h"

#define ORC_JOBS_MAX 4096

struct orc_rounds;
struct orc_placer;

TRIB_MUST_CHECK int orc_rounds_new(struct trib_loop *loop, struct orc_store *store,
				   struct orc_leader *leader, struct orc_placer *placer,
				   struct orc_rounds **ret_rounds);
/* The store is freed before (it answers what is under way). */
struct orc_rounds *orc_rounds_free(struct orc_rounds *rounds);
/* Looks at all jobs: this process began to lead, or messages may have been missed. */
void orc_rounds_all(struct orc_rounds *rounds);
/* Something happened to the job. */
void orc_rounds_wake(struct orc_rounds *rounds, const char *job);
void orc_rounds_forget(struct orc_rounds *rounds, const char *job); /* it was deleted */
size_t orc_rounds_live(const struct orc_rounds *rounds);

#endif
