/* SPDX-License-Identifier: Apache-2.0
 * Cut-through: a group of updates is folded while they arrive, straight into the sums of an EMPTY
 * partial, without an op. Nothing depends on those sums until agg_follow_keep makes one op of them:
 * a group may be forgotten at any instant, also by kill -9, and its updates folded from their slots
 * (docs/adr/0009-cut-through.md). Memory in, sums out; no descriptors, no I/O; owner's thread only.
 */
#ifndef TRIB_AGGREGATOR_FOLLOW_H
#define TRIB_AGGREGATOR_FOLLOW_H

#include "aggregator/fold.h"
#include "aggregator/job.h"
#include "shm/descriptor.h"

struct agg_follow_member {
	uint32_t slot;
	uint32_t gen;
	uint64_t weight; /* fixed point */
	bool committed;
	struct trib_descriptor asked; /* committed: the UPDATE that said so */
	const float *data;            /* of our range, in the slot */
	uint32_t ready;               /* chunks that are there */
	uint32_t at;                  /* chunks that are in the sums */
	uint64_t moved_ns;            /* when `ready` grew last */
};

struct agg_follow { /* all zero: no group */
	uint32_t count;
	uint32_t base;      /* version that the round's model is made from */
	uint32_t expected;  /* updates that are all of the round here; 0: not known */
	uint32_t changes;   /* counts every change of who is in it, over all groups */
	uint32_t high;      /* chunks of the sums that hold anything of the group's */
	uint32_t round;     /* of its updates */
	uint32_t committed; /* how many are */
	bool last_call;     /* those that are not committed have to go */
	uint64_t waits_ns;  /* since when committed ones wait for others; 0 = none does */
	uint64_t fold_ns;   /* time spent folding */
	uint32_t runs;      /* in so many runs of chunks, */
	uint32_t passes;    /* so many chunks, */
	uint32_t folded;    /* counted once for every member */
	struct agg_follow_member members[TRIB_OP_MAX];
};

enum agg_follow_state {
	AGG_FOLLOW_WAIT,  /* nothing to fold now: call again after agg_follow_pause_ns */
	AGG_FOLLOW_MORE,  /* there may be more at once */
	AGG_FOLLOW_WHOLE, /* all are committed and in the sums: agg_follow_keep */
	AGG_FOLLOW_LOST,  /* the sums are not what they should be: forget the group */
};

/* One more member; false: no room, or the slot has moved on. Once the first of the group is
 * committed, uncommitted ones are taken only for a second and if all of the round comes here, so
 * that the group comes to an end. */
bool agg_follow_add(struct agg_follow *follow, const struct agg_job *job,
		    const struct trib_descriptor *d, uint64_t now_ns);
/* The UPDATE of slot and generation has come. False: no member, or not as it was followed (then
 * the group is of no use any more). */
bool agg_follow_commit(struct agg_follow *follow, const struct trib_descriptor *update,
		       uint64_t now_ns);
bool agg_follow_knows(const struct agg_follow *follow, uint32_t slot, uint32_t gen);
/* Looks what has come and folds some of it (well below a millisecond). */
enum agg_follow_state agg_follow_step(struct agg_follow *follow, const struct agg_job *job,
				      const struct agg_folder *folder, uint64_t now_ns);
uint64_t agg_follow_pause_ns(const struct agg_follow *follow, uint64_t now_ns);
/* WHOLE: the group becomes the first op of the partial. The caller has seen every slot CLAIMED in
 * the member's generation. 0, or what trib_partial_begin says. */
TRIB_MUST_CHECK int agg_follow_keep(struct agg_follow *follow, const struct agg_folder *folder);

#endif
