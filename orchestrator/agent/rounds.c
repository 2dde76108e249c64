/* SPDX-License-Identifier: Apache-2.0
 * One round on this node: hand out what waits, fold, and once the record says the round is closed
 * and everything committed here is folded: leaves to the top, top to the model, model to a
 * memory, and the orchestrator is told.
 *
 *   IDLE -> COLLECTING -> FLUSHING -> FINALISING -> WRITING -> REPORTING -> IDLE
 *
 * Every step may be repeated: descriptors are idempotent (functions know what they folded), a model
 * made again replaces the one before, trib_task_report takes the first one.
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/agent/published.h"

#define LATER_MS          50
#define RECOMMIT_AFTER_MS 2000 /* counts differ that long: ask about READY slots */
#define RECOMMIT_EVERY_MS 1000

bool agent_round_merged(const struct agent_job *job, uint32_t index)
{
	const struct agent_fn *top = &job->fns[AGENT_TOP];

	return top->has_partial && trib_partial_header(&top->partial)->round == job->round &&
	       trib_partial_folded(&top->partial, TRIB_ITEM_PARTIAL | index, job->round);
}

static struct trib_partial_totals folded_in_lane(const struct agent_job *job, uint32_t lane)
{
	struct trib_partial_totals sum = { 0, 0 };

	for (uint32_t i = AGENT_TOP + lane; i <= job->fn_high; i += job->lanes) {
		struct trib_partial_totals t;

		if (!agent_tree_holds(job, i) || agent_tree_merged(job, i)) {
			continue;
		}
		t = trib_partial_totals(&job->fns[i].partial);
		sum.updates += t.updates;
		sum.weight += t.weight;
	}
	return sum;
}

/* What every lane has. */
struct trib_partial_totals agent_round_folded(const struct agent_job *job)
{
	struct trib_partial_totals least = folded_in_lane(job, 0);
	struct trib_partial_totals elsewhere = agent_peers_held(job);

	for (uint32_t lane = 1; lane < job->lanes; lane++) {
		struct trib_partial_totals t = folded_in_lane(job, lane);

		if (t.updates < least.updates ||
		    (t.updates == least.updates && t.weight < least.weight)) {
			least = t;
		}
	}
	least.updates += elsewhere.updates;
	least.weight += elsewhere.weight;
	return least;
}

/* ---- what Redis says ---- */

static void round_begin(struct agent_job *job, uint32_t round, uint32_t base)
{
	agent_slots_drop_before(job, round);
	if (round != job->round) {
		agent_peers_over(job, job->round);
	}
	job->round = round;
	job->base = base;
	agent_published_trim(job, base);
	job->phase = AGENT_COLLECTING;
	agent_tree_begin(job);
	agent_tree_shape(job);
	job->closing = false;
	job->mismatch_ms = 0;
	job->busy_ms = trib_clock_ms();
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		job->fns[i].flushed = false;
		job->fns[i].has_base = false;
		job->fns[i].crashes = 0;
	}
}

/* The version it began from was lost with all its copies (gone.c): it goes on from another. */
static void rebase(struct agent_job *job, uint32_t base)
{
	log_info("rounds", "event=other-base job=%s round=%u base=%u", job->id, job->round, base);
	job->base = base;
	agent_published_trim(job, base);
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		job->fns[i].has_base = false;
	}
}

static void round_over(struct agent_job *job, const char *how)
{
	if (job->phase != AGENT_IDLE) {
		log_info("rounds", "event=round-over job=%s round=%u how=%s", job->id, job->round,
			 how);
	}
	agent_slots_drop_before(job, job->round + 1);
	agent_peers_over(job, job->round);
	job->phase = AGENT_IDLE;
	job->closing = false;
	job->mismatch_ms = 0;
	job->busy_ms = trib_clock_ms();
}

void agent_round_synced(struct agent_job *job, const struct trib_value *sync)
{
	uint32_t round = (uint32_t)trib_value_integer(trib_value_at(sync, 4));
	const char *state = trib_value_text(trib_value_at(sync, 5));
	uint32_t base = (uint32_t)trib_value_integer(trib_value_at(sync, 6));

	if (round < job->round) {
		return; /* an answer from before */
	}
	job->informed = true;
	if (strcmp(state, "published") == 0 || strcmp(state, "failed") == 0) {
		job->round = round;
		round_over(job, state);
		return;
	}
	if (state[0] == '\0') {
		return;
	}
	if (round != job->round || job->phase == AGENT_IDLE) {
		round_begin(job, round, base);
	} else if (base != job->base) {
		rebase(job, base);
	}
	job->closing = strcmp(state, "closing") == 0;
	log_debug("rounds", "event=synced job=%s round=%u state=%s", job->id, round, state);
	job->expected = (uint64_t)trib_value_integer(trib_value_at(sync, 9));
	job->divisor = (uint64_t)trib_value_integer(trib_value_at(sync, 13));
	job->norms = trib_value_size(trib_value_at(sync, 20)) > 0;
	agent_peers_synced(job, sync);
	job->accepted = (uint32_t)trib_value_integer(trib_value_at(sync, 7));
	job->goal = (uint32_t)trib_value_integer(trib_value_at(sync, 12));
	agent_tree_deadline(job, (uint64_t)trib_value_integer(trib_value_at(sync, 21)));
	if (job->closing) {
		agent_tree_closing(job);
	} else if (job->late) {
		job->late = false;
		agent_slots_recommit(job);
	}
	agent_round_dispatch(job);
	agent_round_advance(job);
}

/* ---- handing out ---- */

static bool can_take(const struct agent_job *job, uint32_t group)
{
	uint32_t base = agent_group_base(job, group);

	if (!job->plan.takes[group]) {
		return false;
	}
	for (uint32_t i = base; i < base + job->lanes; i++) {
		const struct agent_fn *fn = &job->fns[i];

		if (fn->flushed || fn->outstanding >= job->plan.credit ||
		    (fn->lone && fn->outstanding) ||
		    (agent_tree_holds(job, i) &&
		     trib_partial_state(&fn->partial) == TRIB_PARTIAL_SEALED)) {
			return false;
		}
	}
	return true;
}

static uint32_t in_hand(const struct agent_job *job, uint32_t group)
{
	uint32_t base = agent_group_base(job, group);
	uint32_t most = 0;

	for (uint32_t i = base; i < base + job->lanes; i++) {
		most = job->fns[i].outstanding > most ? job->fns[i].outstanding : most;
	}
	return most;
}

/* The group with the least in hand; ties go round. Its first function; 0: nobody can take more. */
static uint32_t choose(struct agent_job *job)
{
	uint32_t span = (AGENT_FUNCTIONS_MAX - AGENT_TOP) / job->lanes;
	uint32_t best = 0;

	for (uint32_t k = 0; k < span; k++) {
		uint32_t g = AGENT_TOP + (job->turn + k) % span;

		if (can_take(job, g) && (best == 0 || in_hand(job, g) < in_hand(job, best))) {
			best = g;
		}
	}
	if (best) {
		job->turn = best; /* the one after it comes first */
	}
	return best ? agent_group_base(job, best) : 0;
}

int agent_round_ready(struct agent_job *job, uint32_t index)
{
	struct agent_fn *fn = &job->fns[index];
	struct trib_descriptor reset = { .kind = TRIB_DESC_RESET, .round = job->round };
	bool warm = fn->state == AGENT_FN_LIVE && fn->pid > 0;
	int rc = agent_fn_start(job, index);
	bool active;

	if (rc) {
		return rc;
	}
	if (fn->reset_round == job->round) {
		return 0; /* told in this life; RESET goes before what follows on the same socket */
	}
	/* Looked at in this order: an op that ends meanwhile leaves the state OPEN. */
	active = trib_partial_op_active(&fn->partial);
	if (trib_partial_header(&fn->partial)->round == job->round &&
	    (active || trib_partial_state(&fn->partial) != TRIB_PARTIAL_EMPTY)) {
		fn->reset_round = job->round; /* a predecessor's sum: to be continued */
		return 0;
	}
	rc = agent_fn_send(fn, &reset);
	if (!rc) {
		fn->reset_round = job->round;
		if (warm) {
			agent_count(AGENT_M_REUSES, 1);
			fn->reset_ns = trib_clock_ns();
		}
	}
	return rc;
}

/* More updates will follow to this function at once, as far as one can tell: it may wait for them
 * and fold all in one pass. */
static bool more_follow(const struct agent_job *job, const struct agent_fn *fn)
{
	return job->pending_count > job->plan.leaves && fn->outstanding + 1 < job->plan.credit;
}

static void forget_out(struct agent_job *job, struct agent_note *note, uint32_t base)
{
	for (uint32_t lane = 0; lane < job->lanes; lane++) {
		if (note->left >> lane & 1) {
			job->fns[base + lane].outstanding--;
		}
	}
	note->left = 0;
}

/* Back into the queue; lanes that have it in hand may fold it yet, so the group gets it again. */
static void take_back(struct agent_job *job, uint32_t slot)
{
	struct agent_note *note = &job->notes[slot];

	forget_out(job, note, note->fn);
	note->where = AGENT_NOTE_NONE;
	agent_slot_requeue(job, slot);
}

/* To every lane of the group that has not folded it. Nothing or all: what was sent to some is
 * forgotten if it cannot be sent to the others, and the group keeps its claim. */
static int hand_out(struct agent_job *job, uint32_t base, uint32_t slot)
{
	struct agent_note *note = &job->notes[slot];
	const struct trib_slot_record *record = trib_segment_record(&job->segment, slot);
	struct trib_descriptor update = {
		.kind = TRIB_DESC_UPDATE,
		.round = job->round,
		.base = job->base,
		.slot = slot,
		.gen = note->gen,
		.weight = record->counted,
		.bytes = job->payload,
		.updates = 1,
		.tag = !agent_poison_suspect(job, slot) && more_follow(job, &job->fns[base]),
		.sent_us = record->ready_us,
	};
	uint64_t now = trib_clock_ms();
	int rc = 0;

	for (uint32_t lane = 0; lane < job->lanes && !rc; lane++) {
		rc = agent_round_ready(job, base + lane);
	}
	note->left = 0;
	for (uint32_t lane = 0; lane < job->lanes && !rc; lane++) {
		struct agent_fn *fn = &job->fns[base + lane];

		if (job->lanes > 1 && agent_memory_folded(job, &fn->partial, slot, note->gen)) {
			continue;
		}
		rc = agent_fn_send(fn, &update);
		if (!rc) {
			note->left |= (uint16_t)(1u << lane);
			note->held = job->lanes > 1 ? (uint8_t)base : 0;
			fn->outstanding++;
			fn->lone = agent_poison_suspect(job, slot);
			fn->worked_ms = now;
		}
	}
	if (rc) {
		forget_out(job, note, base);
		return rc;
	}
	note->where = AGENT_NOTE_OUT;
	note->fn = (uint8_t)base;
	if (base == AGENT_TOP && job->hinted_round == job->round) {
		agent_follow_whole(job);
	}
	log_debug("rounds", "event=handed-out job=%s slot=%u", job->id, slot);
	return 0;
}

static void take_head(struct agent_job *job)
{
	job->pending_head = (job->pending_head + 1) % job->segment.header.slot_count;
	job->pending_count--;
}

void agent_round_dispatch(struct agent_job *job)
{
	uint32_t size = job->segment.header.slot_count;
	uint32_t looked = 0;
	bool later = false;
	uint32_t waiting = job->pending_count;

	if (!job->ready || job->phase != AGENT_COLLECTING) {
		if (job->ready && job->pending_count && job->phase == AGENT_IDLE) {
			agent_job_sync(job); /* an update of a round we have not heard of */
		}
		return;
	}
	if (waiting) {
		agent_tree_look(job);
	}
	if (agent_tree_hold(job)) {
		return;
	}
	while (job->pending_count && looked < waiting) {
		uint32_t slot = job->pending[job->pending_head];
		uint32_t round = trib_segment_record(&job->segment, slot)->counted_round;
		uint32_t index = 0;

		looked++;
		if (round == job->round) {
			uint32_t gen = job->notes[slot].gen;

			if (agent_poison_condemned(job, slot)) {
				take_head(job);
				job->notes[slot].where = AGENT_NOTE_POISON;
				continue;
			}
			index = agent_slot_holder(job, slot, gen);
			if (index == 0 && agent_slot_folded(job, slot, gen)) {
				take_head(job);
				agent_slot_free(job, slot);
				continue;
			}
			index = index ? index : job->notes[slot].held;
			index = index ? index : agent_follow_holder(job, slot);
			index = index ? index : choose(job);
			if (index && !agent_poison_may_hand(job, index, slot)) {
				return; /* what is in hand first */
			}
			if (index == 0 || hand_out(job, index, slot)) {
				return;
			}
			if (!job->notes[slot].left) { /* the last lane was done meanwhile */
				take_head(job);
				agent_slot_free(job, slot);
				continue;
			}
		}
		take_head(job);
		if (round < job->round) {
			agent_slot_free(job, slot);
		} else if (round > job->round) {
			job->pending[(job->pending_head + job->pending_count) % size] = slot;
			job->pending_count++;
			later = true;
		}
	}
	if (later && trib_clock_ms() - job->synced_ms > LATER_MS) {
		agent_job_sync(job); /* of a round we have not heard of, or the next buffer's */
	}
	if (looked) {
		job->busy_ms = trib_clock_ms();
	}
}

/* ---- what functions say ---- */

/* The lane's bit if this function has the slot in hand, else 0. */
static uint32_t lane_bit(const struct agent_job *job, const struct agent_note *note,
			 const struct trib_descriptor *d)
{
	uint32_t lane = d->source - note->fn;

	if (note->where != AGENT_NOTE_OUT || note->gen != d->gen || d->source < note->fn ||
	    lane >= job->lanes) {
		return 0;
	}
	return note->left & 1u << lane;
}

static void update_acked(struct agent_job *job, const struct trib_descriptor *d)
{
	struct agent_note *note;
	struct agent_fn *fn;
	uint32_t bit;

	if (d->slot >= job->segment.header.slot_count) {
		agent_count(AGENT_M_BAD, 1);
		return;
	}
	note = &job->notes[d->slot];
	bit = lane_bit(job, note, d);
	if (!bit) {
		return; /* an echo of something settled otherwise */
	}
	fn = &job->fns[d->source];
	if (!fn->has_partial || !agent_memory_folded(job, &fn->partial, d->slot, d->gen)) {
		agent_count(AGENT_M_BAD, 1);
		return;
	}
	fn->outstanding--;
	note->left &= (uint16_t)~bit;
	if (!note->left) {
		agent_slot_free(job, d->slot);
	}
}

/* Those that hand over to `parent` are told to do so once more. */
static void send_again(struct agent_job *job, uint32_t parent)
{
	for (uint32_t i = AGENT_TOP + job->lanes; i <= job->fn_high; i++) {
		if (agent_tree_parent(job, i) == parent) {
			job->fns[i].flushed = false;
			job->fns[parent].children_known[i] = false;
		}
	}
}

static void nacked(struct agent_job *job, const struct trib_descriptor *d)
{
	agent_count(AGENT_M_NACKS, 1);
	log_warn("rounds", "event=nack job=%s fn=%u kind=%u reason=%u slot=%u", job->id, d->source,
		 d->flags, d->tag, d->slot);
	if (d->flags == TRIB_DESC_UPDATE && d->slot < job->segment.header.slot_count) {
		struct agent_note *note = &job->notes[d->slot];

		if (!lane_bit(job, note, d)) {
			return;
		}
		job->fns[d->source].reset_round = 0;
		if (trib_segment_record(&job->segment, d->slot)->counted_round < job->round) {
			forget_out(job, note, note->fn);
			agent_slot_free(job, d->slot);
		} else if (agent_slot_ours(job, d->slot, d->gen)) {
			take_back(job, d->slot);
		} else {
			forget_out(job, note, note->fn);
			note->where = AGENT_NOTE_NONE;
		}
	} else if (d->flags == TRIB_DESC_MODEL && job->phase == AGENT_FINALISING) {
		job->fns[d->source].has_base = false;
		job->phase = AGENT_FLUSHING;
	} else if (d->flags == TRIB_DESC_PARTIAL && d->slot >= AGENT_INDEX_EXPORT) {
		agent_peers_nacked(job, d->slot);
	} else if (d->flags == TRIB_DESC_PARTIAL) {
		send_again(job, d->source);
	}
}

void agent_round_ack(struct agent_job *job, const struct trib_descriptor *d)
{
	job->busy_ms = trib_clock_ms();
	if (d->source == 0 || d->source > job->fn_high) {
		agent_count(AGENT_M_BAD, 1);
		return;
	}
	if (d->kind == TRIB_DESC_NACK) {
		nacked(job, d);
		return;
	}
	if (d->kind != TRIB_DESC_ACK) {
		agent_count(AGENT_M_BAD, 1);
		return;
	}
	job->fns[d->source].worked_ms = job->busy_ms;
	if (d->flags == TRIB_DESC_UPDATE) {
		update_acked(job, d);
	} else if (d->flags == TRIB_DESC_RESET) {
		agent_tree_answered(&job->fns[d->source], d->slot);
	} else if (d->flags == TRIB_DESC_MODEL && agent_is_top(job, d->source) &&
		   d->round == job->round) {
		agent_finalise_acked(job, d);
	}
}

/* ---- closing ---- */

static bool nothing_in_flight(const struct agent_job *job)
{
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		if (job->fns[i].outstanding ||
		    (job->fns[i].has_partial && trib_partial_op_active(&job->fns[i].partial))) {
			return false;
		}
	}
	return true;
}

/* A fold that was cut short needs its function alive to be finished; a merge needs the children,
 * too. */
static void finish_cut_short(struct agent_job *job)
{
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		struct agent_fn *fn = &job->fns[i];

		if (!fn->has_partial || !trib_partial_op_active(&fn->partial)) {
			continue;
		}
		if (agent_fn_start(job, i) == 0 &&
		    (agent_fn_equip(fn) || (i == AGENT_TOP && agent_peers_equip(job)))) {
			log_warn("rounds", "event=not-equipped job=%s fn=%u", job->id, i);
		}
	}
}

/* Sends FLUSH to every function that holds something its parent has not, once it has what its own
 * children hold: level by level. True when all is in the top. */
static bool flush_leaves(struct agent_job *job)
{
	bool all = true;

	for (uint32_t i = AGENT_TOP + job->lanes; i <= job->fn_high; i++) {
		struct agent_fn *fn = &job->fns[i];
		struct agent_fn *parent = &job->fns[agent_tree_parent(job, i)];
		struct trib_descriptor flush = { .kind = TRIB_DESC_FLUSH,
						 .round = job->round,
						 .slot = TRIB_ROUTE(job->index, parent->index),
						 .sent_us = trib_descriptor_now_us() };

		if (!agent_tree_holds(job, i) || agent_tree_merged(job, i)) {
			continue;
		}
		all = false;
		if (agent_tree_waits(job, i) || agent_round_ready(job, parent->index) ||
		    agent_fn_equip(parent) || agent_fn_start(job, i) || fn->flushed) {
			continue;
		}
		fn->flushed = agent_fn_send(fn, &flush) == 0;
	}
	return all;
}

/* Updates that wait for the next buffer do not keep this one from closing. */
static bool pending_of_round(const struct agent_job *job)
{
	uint32_t size = job->segment.header.slot_count;

	for (uint32_t i = 0; i < job->pending_count; i++) {
		uint32_t slot = job->pending[(job->pending_head + i) % size];

		if (trib_segment_record(&job->segment, slot)->counted_round == job->round) {
			return true;
		}
	}
	return false;
}

static void counts_differ(struct agent_job *job, uint64_t folded)
{
	uint64_t now = trib_clock_ms();

	if (!job->mismatch_ms) {
		job->mismatch_ms = now;
		log_info("rounds", "event=counts-differ job=%s round=%u folded=%llu expected=%llu",
			 job->id, job->round, (unsigned long long)folded,
			 (unsigned long long)job->expected);
	}
	agent_slots_scan(job);
	/* Counted, and the gateway sleeps before it could say so: nothing is lost for that. */
	if (now - job->mismatch_ms >= RECOMMIT_AFTER_MS &&
	    now - job->recommit_ms >= RECOMMIT_EVERY_MS) {
		job->recommit_ms = now;
		agent_slots_recommit(job);
	}
	if (job->pending_count) {
		agent_round_dispatch(job);
	}
}

void agent_round_advance(struct agent_job *job)
{
	struct trib_partial_totals folded;

	if (!job->ready || agent_memory_wait(job) || !job->closing) {
		return;
	}
	if (job->phase == AGENT_COLLECTING) {
		finish_cut_short(job);
		if (job->expected == 0 || pending_of_round(job) || !nothing_in_flight(job)) {
			agent_follow_settle(job);
			return;
		}
		folded = agent_round_folded(job);
		if (folded.updates != job->expected || folded.weight != job->weight_expected) {
			counts_differ(job, folded.updates);
			return;
		}
		job->mismatch_ms = 0;
		agent_tree_assign(job);
		job->phase = AGENT_FLUSHING;
		log_debug("rounds", "event=flushing job=%s round=%u", job->id, job->round);
	}
	if (job->phase == AGENT_FLUSHING && !job->joining) {
		/* An explicit tree's top may not have begun. */
		for (uint32_t lane = 0; lane < job->lanes; lane++) {
			if (agent_round_ready(job, AGENT_TOP + lane)) {
				return;
			}
		}
		if (agent_fn_equip_top(job, false) || !flush_leaves(job) ||
		    (job->lanes > 1 && !agent_peers_alone(job) && agent_join(job)) ||
		    !agent_peers_gather(job)) {
			return;
		}
		agent_finalise(job);
	}
	if (job->phase == AGENT_REPORTING && !job->report_sent) {
		agent_finalise_report(job);
	}
}

/* ---- a function died ---- */

void agent_round_fn_died(struct agent_fn *fn, bool fault)
{
	struct agent_job *job = fn->job;
	uint64_t delay = 5u << (fn->crashes < 8 ? fn->crashes : 8);

	agent_fn_stop(fn);
	if (fault) {
		agent_poison_died(fn);
	}
	fn->crashes++;
	fn->state = AGENT_FN_WAIT;
	fn->respawn_ms = trib_clock_ms() + (fn->crashes == 1 ? 0 : delay);
	fn->flushed = false;
	fn->reset_round = 0;
	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		struct agent_note *note = &job->notes[i];

		if (note->where != AGENT_NOTE_OUT || fn->index < note->fn ||
		    fn->index >= note->fn + job->lanes ||
		    !(note->left >> (fn->index - note->fn) & 1)) {
			continue;
		}
		if (!fn->has_partial || !agent_memory_folded(job, &fn->partial, i, note->gen)) {
			take_back(job, i);
			continue;
		}
		fn->outstanding--;
		note->left &= (uint16_t) ~(1u << (fn->index - note->fn));
		if (!note->left) {
			agent_slot_free(job, i);
		}
	}
	fn->outstanding = 0;
	fn->reset_ns = 0;
	send_again(job, fn->index);
	if (job->phase == AGENT_FINALISING) {
		job->phase = AGENT_FLUSHING;
	}
	/* A fold cut short must be finished by a successor before anything else. */
	if (fn->has_partial && trib_partial_op_active(&fn->partial) &&
	    agent_fn_start(job, fn->index)) {
		log_warn("rounds", "event=successor-later job=%s fn=%u", job->id, fn->index);
	}
	agent_round_dispatch(job);
	agent_round_advance(job);
}
