/* SPDX-License-Identifier: Apache-2.0
 * Cut-through: the gateway's hint that a slot is being filled fast goes to the function that will
 * get the update, so that it folds while the bytes arrive (docs/adr/0009-cut-through.md). Only
 * hints: an update that was followed is handed out, acknowledged and freed as any other.
 */
#include "orchestrator/agent/agent.h"

#include "common/clock.h"

bool agent_follow_live(const struct agent_job *job, uint32_t slot)
{
	const struct agent_note *note = &job->notes[slot];
	struct trib_slot_view v = trib_slot_load(trib_segment_record(&job->segment, slot));

	return note->follow && v.state != TRIB_SLOT_FREE && v.gen == note->follow_gen;
}

/* Followed by this group (0: by any) and not handed out yet. */
static uint32_t followed(const struct agent_job *job, uint32_t base)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		const struct agent_note *note = &job->notes[i];

		count += note->follow && (!base || note->follow == base) &&
			 note->where != AGENT_NOTE_OUT && agent_follow_live(job, i);
	}
	return count;
}

/* Only what is folded into nothing can be forgotten: functions that hold no sum yet. */
static bool can_follow(const struct agent_job *job, uint32_t group)
{
	uint32_t base = agent_group_base(job, group);

	if (!job->plan.takes[group]) {
		return false;
	}
	for (uint32_t i = base; i < base + job->lanes; i++) {
		const struct agent_fn *fn = &job->fns[i];

		if (fn->flushed || agent_tree_holds(job, i) ||
		    (fn->has_partial && trib_partial_op_active(&fn->partial))) {
			return false;
		}
	}
	return true;
}

/* The group that follows least. Its first function, or 0. */
static uint32_t choose(const struct agent_job *job)
{
	uint32_t span = (AGENT_FUNCTIONS_MAX - AGENT_TOP) / job->lanes;
	uint32_t least = AGENT_FOLLOW_MAX;
	uint32_t best = 0;

	for (uint32_t g = AGENT_TOP; g < AGENT_TOP + span; g++) {
		uint32_t base = agent_group_base(job, g);
		uint32_t load;

		if (!can_follow(job, g)) {
			continue;
		}
		load = job->fns[base].outstanding + followed(job, base);
		if (load < least) {
			least = load;
			best = base;
		}
	}
	return best;
}

static bool worth_it(const struct agent_job *job, const struct trib_descriptor *d)
{
	uint32_t arrived = job->arrived > job->accepted ? job->arrived : job->accepted;

	return job->phase == AGENT_COLLECTING && !job->closing && d->round == job->round &&
	       job->faulted_round != job->round && job->wish.policy == AGENT_EAGER && d->weight &&
	       d->bytes == job->payload &&
	       (job->goal == 0 || followed(job, 0) + arrived < job->goal);
}

/* All of the round is with the top, arriving or committed: it can make the model behind them. */
void agent_follow_whole(struct agent_job *job)
{
	if (job->goal && job->plan.takes[AGENT_TOP] && can_follow(job, AGENT_TOP) &&
	    followed(job, AGENT_TOP) + job->fns[AGENT_TOP].outstanding == job->goal) {
		agent_fn_model_ahead(job);
	}
}

void agent_follow_hint(struct agent_job *job, const struct trib_descriptor *d)
{
	struct agent_note *note = &job->notes[d->slot];
	struct trib_descriptor hint = {
		.kind = TRIB_DESC_FOLLOW,
		.round = job->round,
		.base = job->base,
		.slot = d->slot,
		.gen = d->gen,
		.weight = d->weight,
		.bytes = d->bytes,
	};
	struct trib_slot_view v = trib_slot_load(trib_segment_record(&job->segment, d->slot));
	uint32_t base;

	if (note->where != AGENT_NOTE_NONE || v.state != TRIB_SLOT_FILLING || v.gen != d->gen ||
	    !worth_it(job, d)) {
		return;
	}
	agent_tree_look(job);
	base = choose(job);
	if (!base) {
		return;
	}
	/* If that function gets all of the round, it can make the model of it as well. */
	hint.updates = base == AGENT_TOP ? job->goal : 0;
	for (uint32_t lane = 0; lane < job->lanes; lane++) {
		struct agent_fn *fn = &job->fns[base + lane];

		if (agent_round_ready(job, base + lane) || agent_fn_send(fn, &hint)) {
			return; /* those that were told so far find out by themselves */
		}
		fn->worked_ms = trib_clock_ms();
	}
	note->follow = (uint8_t)base;
	note->follow_gen = d->gen;
	if (hint.updates) {
		job->hinted_round = job->round;
		agent_follow_whole(job);
	}
	agent_count(AGENT_M_FOLLOW_HINTS, 1);
}

uint32_t agent_follow_holder(const struct agent_job *job, uint32_t slot)
{
	const struct agent_note *note = &job->notes[slot];
	uint32_t base = note->follow;

	if (!base || note->follow_gen != note->gen || base + job->lanes - 1 > job->fn_high) {
		return 0;
	}
	for (uint32_t i = base; i < base + job->lanes; i++) {
		if (job->fns[i].flushed || job->fns[i].outstanding >= AGENT_FOLLOW_MAX ||
		    (agent_tree_holds(job, i) &&
		     trib_partial_state(&job->fns[i].partial) == TRIB_PARTIAL_SEALED)) {
			return 0;
		}
	}
	return base;
}

/* All that the record counts is here: what is still being followed will not be committed, and must
 * not hold up the others of its group. */
void agent_follow_settle(struct agent_job *job)
{
	struct trib_descriptor last = { .kind = TRIB_DESC_FOLLOW, .round = job->round, .tag = 1 };
	uint32_t told = 0;

	if (job->followed_round == job->round || job->arrived < job->expected ||
	    job->pending_count) {
		return;
	}
	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		struct agent_note *note = &job->notes[i];

		if (!note->follow || note->where != AGENT_NOTE_NONE || !agent_follow_live(job, i)) {
			continue;
		}
		for (uint32_t lane = 0; lane < job->lanes && note->follow != told; lane++) {
			struct agent_fn *fn = &job->fns[note->follow + lane];

			if (fn->state == AGENT_FN_LIVE && agent_fn_send(fn, &last)) {
				return; /* the tick comes again */
			}
		}
		told = note->follow;
	}
	job->followed_round = job->round;
}
