/* SPDX-License-Identifier: Apache-2.0
 * The calls of a job's life beside making and ending it (store_redis.h for the rules of all).
 */
#ifndef TRIB_ORCHESTRATOR_STORE_LIFE_H
#define TRIB_ORCHESTRATOR_STORE_LIFE_H

#include "orchestrator/store_redis.h"

struct orc_job_change {
	uint64_t generation; /* of the spec it was made from */
	struct orc_job_new job;
};
/* -> OK (number = new generation) | CONFLICT | STATE | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_job_patch(struct orc_store *store, const char *token,
					const struct orc_job_change *change, struct orc_then then);

/* Nobody is selected from now on, then the job is `move->to`. -> OK | SAME | STATE | FENCED | NOJOB
 */
TRIB_MUST_CHECK int orc_store_job_drain(struct orc_store *store, const char *token,
					const struct orc_job_move *move, struct orc_then then);
/* -> OK (it is over) | EARLY | CLOSING | NOOP | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_drain_step(struct orc_store *store, const char *token,
					 const char *job, struct orc_then then);

/* Keeps a version (< 0: the newest) of a job of `tenant` from being removed for ten minutes.
 * -> OK (number = version) | NOJOB | NOMODEL */
TRIB_MUST_CHECK int orc_store_model_pin(struct orc_store *store, const char *job,
					const char *tenant, long long version,
					struct orc_then then);
/* Asks the nodes again for the version a job is to begin with. -> OK | NOOP */
TRIB_MUST_CHECK int orc_store_init_ask(struct orc_store *store, const char *job,
				       struct orc_then then);

/* Where the job's clients shall go (26_placement.lua). word: OK, SAME, FENCED, NOJOB, .. */
TRIB_MUST_CHECK int orc_store_plan_set(struct orc_store *store, const char *token, const char *job,
				       const char *plan, struct orc_then then);

/* A node is to leave in order, or (undo) is not (24_drain.lua). -> OK | SAME | ALONE | NONODE */
TRIB_MUST_CHECK int orc_store_node_drain(struct orc_store *store, const char *node, bool undo,
					 struct orc_then then);

#endif
