/* SPDX-License-Identifier: Apache-2.0
 * The model made ahead: behind a group that is folded while it arrives (follow.h), chunk by chunk
 * while the sums are in the cache, in the hope that the group is all of the round. `out` is
 * nobody's until MODEL is answered; a hope that was wrong is made good by making the model as ever.
 */
#ifndef TRIB_AGGREGATOR_AHEAD_H
#define TRIB_AGGREGATOR_AHEAD_H

#include "aggregator/follow.h"
#include "aggregator/rules/rules.h"

struct agg_ahead {      /* all zero: nothing is made */
	uint32_t done;  /* chunks of `out` */
	uint32_t group; /* follow->changes when it was begun */
	uint64_t seq;   /* of the op that the group became; 0: none yet */
	struct agg_finish how;
};

/* More of the group is through: makes what it can, and says so in `word` (shm/out.h; NULL: nobody
 * follows). how: as for the whole model, but for the totals; its base or out NULL: nothing. */
void agg_ahead_step(struct agg_ahead *ahead, const struct agg_follow *follow,
		    const struct agg_rule *rule, const struct agg_finish *how, uint64_t *word);
/* The group has become the partial's newest op. */
void agg_ahead_kept(struct agg_ahead *ahead, const struct agg_follow *follow,
		    const struct trib_partial *own);
/* Elements from 0 on that are already as `how` (with totals) makes them. */
uint64_t agg_ahead_done(const struct agg_ahead *ahead, const struct agg_finish *how);

#endif
