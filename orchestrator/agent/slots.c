/* SPDX-License-Identifier: Apache-2.0
 * Slots from the agent's side: the in-place queue, and recovery of what a dead gateway left.
 */
#include "orchestrator/agent/agent.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/id.h"
#include "common/log.h"

static bool op_names(const struct agent_fn *fn, uint32_t slot, uint32_t gen)
{
	const struct trib_partial_header *h;

	if (!fn->has_partial || !trib_partial_op_active(&fn->partial)) {
		return false;
	}
	h = trib_partial_header(&fn->partial);
	for (uint32_t k = 0; k < h->op_count && k < TRIB_OP_MAX; k++) {
		if (h->op[k].slot == slot && h->op[k].gen == gen) {
			return true;
		}
	}
	return false;
}

/* How many lanes of the group that begins at `base` have folded it. */
static uint32_t lanes_folded(const struct agent_job *job, uint32_t base, uint32_t slot,
			     uint32_t gen)
{
	uint32_t count = 0;

	for (uint32_t i = base; i < base + job->lanes; i++) {
		count += job->fns[i].has_partial &&
			 agent_memory_folded(job, &job->fns[i].partial, slot, gen);
	}
	return count;
}

/* A fold that was cut short and names this slot is finished by that function's successor and by
 * nobody else; the same goes for a group of which some lanes have folded it. The group's first
 * function, 0 when there is none. Read before agent_slot_folded: an op that ends in between
 * shows there. */
uint32_t agent_slot_holder(const struct agent_job *job, uint32_t slot, uint32_t gen)
{
	for (uint32_t base = AGENT_TOP; base <= job->fn_high; base += job->lanes) {
		uint32_t folded;

		for (uint32_t i = base; i < base + job->lanes; i++) {
			if (op_names(&job->fns[i], slot, gen)) {
				return base;
			}
		}
		folded = job->lanes > 1 ? lanes_folded(job, base, slot, gen) : 0;
		if (folded > 0 && folded < job->lanes) {
			return base;
		}
	}
	return 0;
}

bool agent_slot_folded(const struct agent_job *job, uint32_t slot, uint32_t gen)
{
	for (uint32_t base = AGENT_TOP; base <= job->fn_high; base += job->lanes) {
		if (lanes_folded(job, base, slot, gen) == job->lanes) {
			return true;
		}
	}
	return agent_peers_folded(job, slot, gen);
}

static void enqueue(struct agent_job *job, uint32_t slot, bool front)
{
	uint32_t size = job->segment.header.slot_count;

	TRIB_ASSERT(job->pending_count < size);
	if (front) {
		job->pending_head = (job->pending_head + size - 1) % size;
		job->pending[job->pending_head] = slot;
	} else {
		job->pending[(job->pending_head + job->pending_count) % size] = slot;
	}
	job->pending_count++;
	job->notes[slot].where = AGENT_NOTE_PENDING;
}

void agent_slot_enqueue(struct agent_job *job, uint32_t slot)
{
	enqueue(job, slot, false);
}

void agent_slot_claimed(struct agent_job *job, uint32_t slot, uint32_t gen)
{
	struct trib_slot_view view;

	if (slot >= job->segment.header.slot_count) {
		agent_count(AGENT_M_BAD, 1);
		return;
	}
	view = trib_slot_load(trib_segment_record(&job->segment, slot));
	if (view.state != TRIB_SLOT_CLAIMED || view.gen != gen) {
		return; /* an old hint */
	}
	if (job->notes[slot].where != AGENT_NOTE_NONE && job->notes[slot].gen == gen) {
		return; /* known already */
	}
	if (job->notes[slot].where != AGENT_NOTE_NONE) {
		/* Only we free a claimed slot: a gateway that did it broke the rules. What waits
		 * or is out stays what it was, and is freed as such. */
		agent_count(AGENT_M_BAD, 1);
		if (job->notes[slot].where == AGENT_NOTE_PENDING) {
			job->notes[slot].gen = gen; /* in the queue once, whatever happens */
		}
		return;
	}
	job->notes[slot].gen = gen;
	job->notes[slot].held = 0;
	job->notes[slot].committing = false;
	job->notes[slot].strikes = 0;
	job->notes[slot].alone = 0;
	if (agent_poison_condemned(job, slot)) { /* by the agent before us */
		job->notes[slot].where = AGENT_NOTE_POISON;
		job->poisoned++;
		return;
	}
	if (agent_memory_holds(job, slot)) {
		job->notes[slot].where = AGENT_NOTE_KEPT;
		return;
	}
	if (agent_slot_folded(job, slot, gen)) {
		agent_slot_free(job, slot);
		return;
	}
	agent_count(AGENT_M_UPDATES, 1);
	agent_tree_arrived(job, slot);
	enqueue(job, slot, false);
}

void agent_slot_requeue(struct agent_job *job, uint32_t slot)
{
	agent_count(AGENT_M_REPLAYED, 1);
	enqueue(job, slot, true);
}

void agent_slot_free(struct agent_job *job, uint32_t slot)
{
	if (job->memory) {
		agent_memory_keep(job, slot);
	} else {
		agent_slot_release(job, slot);
	}
}

void agent_slot_release(struct agent_job *job, uint32_t slot)
{
	struct agent_note *note = &job->notes[slot];
	struct trib_slot_record *record = trib_segment_record(&job->segment, slot);
	uint32_t gen = note->gen;

	note->where = AGENT_NOTE_NONE;
	note->held = 0;
	note->left = 0;
	note->committing = false;
	if (trib_slot_move(record, TRIB_SLOT_CLAIMED, gen, TRIB_SLOT_FREE) &&
	    !agent_share_withdraws(job, slot)) {
		agent_links_freed(job->agent, job, slot, gen + 1);
	}
}

bool agent_slot_ours(const struct agent_job *job, uint32_t slot, uint32_t gen)
{
	struct trib_slot_view view = trib_slot_load(trib_segment_record(&job->segment, slot));

	return view.state == TRIB_SLOT_CLAIMED && view.gen == gen;
}

void agent_slots_scan(struct agent_job *job)
{
	agent_count(AGENT_M_SCANS, 1);
	job->scanned_ms = trib_clock_ms();
	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		struct trib_slot_view v = trib_slot_load(trib_segment_record(&job->segment, i));

		if (v.state == TRIB_SLOT_CLAIMED) {
			agent_slot_claimed(job, i, v.gen);
		}
	}
}

void agent_slots_drop_before(struct agent_job *job, uint32_t round)
{
	uint32_t kept = 0;
	uint32_t size = job->segment.header.slot_count;

	for (uint32_t i = 0; i < job->pending_count; i++) {
		uint32_t slot = job->pending[(job->pending_head + i) % size];

		if (trib_segment_record(&job->segment, slot)->counted_round < round) {
			agent_slot_free(job, slot);
		} else {
			job->pending[(job->pending_head + kept++) % size] = slot;
		}
	}
	job->pending_count = kept;
}

/* ---- what a dead gateway left ---- */

struct recommit {
	struct agent *agent;
	char job[TRIB_JOB_ID_SIZE];
	uint32_t slot;
	uint32_t gen;
};

static void on_recommitted(const struct trib_value *value, void *arg)
{
	struct recommit *r = arg;
	struct agent_job *job = agent_job_find(r->agent, r->job);
	struct trib_slot_record *record;
	const char *word;

	if (!job || !job->ready || !value || r->slot >= job->segment.header.slot_count) {
		trib_free(r);
		return;
	}
	record = trib_segment_record(&job->segment, r->slot);
	job->notes[r->slot].committing = false;
	word = trib_value_text(trib_value_at(value, 0));
	if (strcmp(word, "OK") == 0 || strcmp(word, "CLOSE") == 0 || strcmp(word, "SAME") == 0) {
		bool same = strcmp(word, "SAME") == 0;

		record->counted = (uint64_t)trib_value_integer(trib_value_at(value, same ? 4 : 3));
		record->counted_round =
			(uint32_t)trib_value_integer(trib_value_at(value, same ? 5 : 4));
		if (trib_slot_move(record, TRIB_SLOT_READY, r->gen, TRIB_SLOT_CLAIMED)) {
			agent_slot_claimed(job, r->slot, r->gen);
		}
		agent_round_dispatch(job);
		agent_job_sync(job);
	} else if (strcmp(word, "LATER") == 0) {
		job->late = true; /* no round is open: asked again when one is */
	} else if (trib_value_type(value) != TRIB_VALUE_ERROR) {
		if (trib_slot_move(record, TRIB_SLOT_READY, r->gen, TRIB_SLOT_FREE)) {
			agent_links_freed(job->agent, job, r->slot, r->gen + 1);
		}
	}
	log_info("slots", "event=recommitted job=%s slot=%u answer=%s", job->id, r->slot, word);
	trib_free(r);
}

static void recommit(struct agent_job *job, uint32_t slot, uint32_t gen)
{
	struct trib_slot_record record = *trib_segment_record(&job->segment, slot);
	struct recommit *r = NULL;
	char round[12];
	char digest[48];
	char weight[24];
	char place[160];
	char norm[TRIB_NORM_SIZE];

	record.client[TRIB_CLIENT_ID_SIZE - 1] = '\0';
	record.update[TRIB_UPDATE_ID_SIZE - 1] = '\0';
	if (!trib_client_id_valid(record.client)) {
		return; /* torn record cannot be READY; leave it to the scan's next look */
	}
	r = trib_alloc(sizeof(*r));
	if (!r) {
		return;
	}
	r->agent = job->agent;
	r->slot = slot;
	r->gen = gen;
	memcpy(r->job, job->id, sizeof(r->job));
	(void)snprintf(round, sizeof(round), "%u", record.round);
	(void)snprintf(digest, sizeof(digest), "crc32c-%08x-%llu", record.crc,
		       (unsigned long long)record.body_bytes);
	(void)snprintf(weight, sizeof(weight), "%llu", (unsigned long long)record.weight);
	(void)snprintf(place, sizeof(place), "%s:%s:%u:%u", job->agent->options.node,
		       job->segment.header.boot, slot, gen);
	job->notes[slot].committing = true;
	agent_count(AGENT_M_ORPHANS, 1);
	if (trib_redis_send(job->agent->redis, on_recommitted, r, "FCALL", "trib_commit", "1",
			    job->key, record.client, record.update, round, digest, weight, place,
			    job->agent->options.node, "", trib_norm_text(record.norm, norm),
			    NULL)) {
		job->notes[slot].committing = false;
		trib_free(r);
	}
}

void agent_slots_recommit(struct agent_job *job)
{
	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		struct trib_slot_view v = trib_slot_load(trib_segment_record(&job->segment, i));

		if (v.state == TRIB_SLOT_READY && !job->notes[i].committing) {
			recommit(job, i, v.gen);
		}
	}
}

void agent_slots_orphans(struct agent_job *job)
{
	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		struct trib_slot_record *record = trib_segment_record(&job->segment, i);
		struct trib_slot_view v = trib_slot_load(record);

		if (v.state == TRIB_SLOT_FILLING) {
			if (trib_slot_move(record, TRIB_SLOT_FILLING, v.gen, TRIB_SLOT_FREE)) {
				log_debug("slots", "event=half-filled-freed slot=%u", i);
			}
		}
	}
	agent_slots_recommit(job);
	agent_slots_scan(job);
}
