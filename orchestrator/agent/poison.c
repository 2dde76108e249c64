/* SPDX-License-Identifier: Apache-2.0
 * Updates whose folding kills their function, every time. A set in hand that has killed N in a row
 * without getting on is taken out of the sums again and handed out one by one; what kills N alone
 * is taken out of the round in the record (trib_quarantine), and its slot is freed. Deaths by a
 * signal from outside say nothing about an update.
 *
 * The slot's record says that its generation is to be quarantined before the record in Redis is
 * asked, so that whoever comes after us asks again and never folds it.
 */
#include "orchestrator/agent/agent.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define ASK_EVERY_MS 200

bool agent_poison_fault(const struct agent_fn *fn, bool exited, int status)
{
	if (fn->stalled) {
		return true; /* we killed it */
	}
	return !exited &&
	       (status == SIGSEGV || status == SIGBUS || status == SIGFPE || status == SIGILL ||
		status == SIGABRT || status == SIGSYS || status == SIGTRAP);
}

bool agent_poison_suspect(const struct agent_job *job, uint32_t slot)
{
	return job->notes[slot].strikes >= job->agent->options.poison_deaths;
}

static void condemn(struct agent_job *job, uint32_t slot)
{
	struct trib_slot_record *record = trib_segment_record(&job->segment, slot);

	log_err("poison", "event=poison job=%s round=%u slot=%u update=%.*s", job->id, job->round,
		slot, (int)sizeof(record->update) - 1, record->update);
	__atomic_store_n(&record->poison, job->notes[slot].gen + 1, __ATOMIC_RELEASE);
	job->poisoned++;
}

bool agent_poison_condemned(const struct agent_job *job, uint32_t slot)
{
	const struct trib_slot_record *record = trib_segment_record(&job->segment, slot);

	return __atomic_load_n(&record->poison, __ATOMIC_ACQUIRE) == job->notes[slot].gen + 1;
}

/* The op it died in has got on since the death before: then it will come to its end. */
static bool same_place(struct agent_fn *fn, const struct trib_partial_header *h)
{
	bool back = trib_partial_back(&fn->partial);
	bool same =
		fn->op_seq == h->active_seq && fn->op_cursor == h->cursor && fn->op_back == back;

	fn->op_seq = h->active_seq;
	fn->op_cursor = h->cursor;
	fn->op_back = back;
	return same;
}

static void strike(struct agent_job *job, const struct trib_partial_item *item, bool alone)
{
	struct agent_note *note;
	uint64_t limit = job->agent->options.poison_deaths;

	if (item->slot >= job->segment.header.slot_count) {
		return;
	}
	note = &job->notes[item->slot];
	if (note->gen != item->gen || note->where == AGENT_NOTE_NONE) {
		return;
	}
	note->strikes += note->strikes < limit;
	note->alone += alone && note->alone < limit;
	if (note->alone >= limit && !agent_poison_condemned(job, item->slot)) {
		condemn(job, item->slot);
	}
}

void agent_poison_died(struct agent_fn *fn)
{
	struct agent_job *job = fn->job;
	const struct trib_partial_header *h;
	uint32_t count;

	job->faulted_round =
		job->round; /* nothing is followed any more: only ops tell who it was */
	if (!fn->has_partial || !trib_partial_op_active(&fn->partial)) {
		return;
	}
	h = trib_partial_header(&fn->partial);
	count = h->op_count < TRIB_OP_MAX ? h->op_count : TRIB_OP_MAX;
	fn->op_deaths = same_place(fn, h) ? fn->op_deaths + 1 : 1;
	if (fn->op_back) {
		if (fn->op_deaths >= job->agent->options.poison_deaths) {
			job->hopeless = "what a deadly update has left cannot be taken out";
		}
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		strike(job, &h->op[i], count == 1);
	}
	if (fn->op_deaths >= job->agent->options.poison_deaths) {
		int rc = trib_partial_abandon(&fn->partial);

		log_warn("poison", "event=op-abandoned job=%s fn=%u updates=%u chunk=%u rc=%d",
			 job->id, fn->index, count, fn->op_cursor, rc);
		agent_count(AGENT_M_ABANDONED, 1);
		fn->op_deaths = 0;
	}
}

static bool op_names(const struct agent_fn *fn, uint32_t slot, uint32_t gen)
{
	const struct trib_partial_header *h = trib_partial_header(&fn->partial);

	return h->op_count == 1 && h->op[0].slot == slot && h->op[0].gen == gen;
}

bool agent_poison_may_hand(const struct agent_job *job, uint32_t base, uint32_t slot)
{
	bool suspect = agent_poison_suspect(job, slot);

	for (uint32_t i = base; i < base + job->lanes; i++) {
		const struct agent_fn *fn = &job->fns[i];

		if (fn->has_partial && trib_partial_back(&fn->partial)) {
			return false;
		}
		if (fn->lone && fn->outstanding) {
			return false;
		}
		if (suspect &&
		    (fn->outstanding || (fn->has_partial && trib_partial_op_active(&fn->partial) &&
					 !op_names(fn, slot, job->notes[slot].gen)))) {
			return false;
		}
	}
	return true;
}

/* ---- out of the round ---- */

struct verdict {
	struct agent *agent;
	char job[TRIB_JOB_ID_SIZE];
	uint32_t slot;
	uint32_t gen;
};

/* Some ranges of the vector have it and some have not: those sums are of no use. */
static bool half_folded(const struct agent_job *job, uint32_t slot, uint32_t gen)
{
	for (uint32_t i = AGENT_TOP; i <= job->fn_high && job->lanes > 1; i++) {
		if (job->fns[i].has_partial &&
		    agent_memory_folded(job, &job->fns[i].partial, slot, gen)) {
			return true;
		}
	}
	return false;
}

static void on_quarantined(const struct trib_value *value, void *arg)
{
	struct verdict *v = arg;
	struct agent_job *job = agent_job_find(v->agent, v->job);
	const char *word = value ? trib_value_text(trib_value_at(value, 0)) : "";
	struct agent_note *note;

	if (!job || !job->ready || v->slot >= job->segment.header.slot_count) {
		trib_free(v);
		return;
	}
	note = &job->notes[v->slot];
	if (note->where != AGENT_NOTE_POISON || note->gen != v->gen) {
		trib_free(v);
		return;
	}
	note->committing = false;
	if (strcmp(word, "OK") == 0 || strcmp(word, "SAME") == 0 || strcmp(word, "NOOP") == 0 ||
	    strcmp(word, "NOJOB") == 0) {
		log_warn("poison", "event=quarantined job=%s slot=%u answer=%s", job->id, v->slot,
			 word);
		agent_count(AGENT_M_QUARANTINED, strcmp(word, "OK") == 0);
		if (half_folded(job, v->slot, v->gen)) {
			job->hopeless = "a deadly update is in the sums of some ranges";
		}
		job->poisoned -= job->poisoned > 0;
		agent_slot_release(job, v->slot);
		agent_job_sync(job);
	}
	trib_free(v);
}

static void ask(struct agent_job *job, uint32_t slot)
{
	const struct trib_slot_record *record = trib_segment_record(&job->segment, slot);
	struct agent_note *note = &job->notes[slot];
	struct verdict *v = trib_alloc(sizeof(*v));
	char update[TRIB_UPDATE_ID_SIZE];
	char round[12];
	char place[160];

	if (!v) {
		return;
	}
	*v = (struct verdict){ .agent = job->agent, .slot = slot, .gen = note->gen };
	memcpy(v->job, job->id, sizeof(v->job));
	(void)snprintf(update, sizeof(update), "%.*s", (int)sizeof(update) - 1, record->update);
	(void)snprintf(round, sizeof(round), "%u", record->counted_round);
	(void)snprintf(place, sizeof(place), "%s:%s:%u:%u", job->agent->options.node,
		       job->segment.header.boot, slot, note->gen);
	note->committing =
		trib_redis_send(job->agent->redis, on_quarantined, v, "FCALL", "trib_quarantine",
				"1", job->key, round, update, place, job->agent->options.node,
				"its folding killed its function", NULL) == 0;
	if (!note->committing) {
		trib_free(v);
	}
}

/* What has begun comes to its end, or is taken out, though nothing may be handed out meanwhile. */
static void begun_goes_on(struct agent_job *job)
{
	if (job->phase != AGENT_COLLECTING || (!job->pending_count && !job->poisoned)) {
		return;
	}
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		const struct agent_fn *fn = &job->fns[i];

		if (fn->state != AGENT_FN_LIVE && fn->has_partial &&
		    trib_partial_op_active(&fn->partial) && agent_fn_start(job, i)) {
			log_debug("poison", "event=waits fn=%u", i);
		}
	}
}

void agent_poison_tick(struct agent_job *job, uint64_t now)
{
	begun_goes_on(job);
	if (!job->poisoned || now < job->poison_ms) {
		return;
	}
	job->poison_ms = now + ASK_EVERY_MS;
	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		struct agent_note *note = &job->notes[i];
		uint32_t holder;

		if (note->where != AGENT_NOTE_POISON || note->committing) {
			continue;
		}
		holder = agent_slot_holder(job, i, note->gen);
		if (holder && !half_folded(job, i, note->gen)) {
			continue; /* it is read once more, to take it out of the sums */
		}
		ask(job, i);
	}
}
