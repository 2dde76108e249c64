/* SPDX-License-Identifier: Apache-2.0
 * Jobs whose every version is made of all clients' last updates (AFA-CS; functions/14_memory.lua).
 * A folded slot stays CLAIMED; record->folded_round says which round's sum has it, so that the next
 * agent knows as well. When a buffer closes the record says which of the older ones are in it: they
 * are folded again, as if they had just come. When a round is over, what no buffer and no client's
 * last update needs any more is freed.
 */
#include "orchestrator/agent/agent.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"

void agent_memory_keep(struct agent_job *job, uint32_t slot)
{
	struct agent_note *note = &job->notes[slot];
	struct trib_slot_record *record = trib_segment_record(&job->segment, slot);

	record->folded_round = record->counted_round;
	note->where = AGENT_NOTE_KEPT;
	note->held = 0;
	note->left = 0;
	note->committing = false;
}

bool agent_memory_holds(struct agent_job *job, uint32_t slot)
{
	const struct trib_slot_record *record = trib_segment_record(&job->segment, slot);

	return job->memory && record->folded_round >= record->counted_round;
}

bool agent_memory_folded(const struct agent_job *job, const struct trib_partial *partial,
			 uint32_t slot, uint32_t gen)
{
	return trib_partial_folded(partial, slot, gen) &&
	       (!job->memory || trib_partial_header(partial)->round ==
					trib_segment_record(&job->segment, slot)->counted_round);
}

/* The next "slot:gen" of a list. False: there is none. */
static bool next_place(const struct agent_job *job, const char **list, uint32_t *ret_slot,
		       uint32_t *ret_gen)
{
	char *end;
	unsigned long slot = strtoul(*list, &end, 10);
	unsigned long gen;

	if (end == *list || *end != ':' || slot >= job->segment.header.slot_count) {
		return false;
	}
	gen = strtoul(end + 1, &end, 10);
	*list = *end == ' ' ? end + 1 : end;
	*ret_slot = (uint32_t)slot;
	*ret_gen = (uint32_t)gen;
	return true;
}

/* Those of earlier buffers are of the closing round, too. */
static void fold_again(struct agent_job *job, const char *list)
{
	uint32_t count = 0;
	uint32_t slot;
	uint32_t gen;

	while (next_place(job, &list, &slot, &gen)) {
		struct trib_slot_record *record = trib_segment_record(&job->segment, slot);
		struct agent_note *note = &job->notes[slot];

		if (note->where == AGENT_NOTE_KEPT && note->gen == gen &&
		    record->folded_round < job->round) {
			record->counted_round = job->round;
			agent_slot_enqueue(job, slot);
			count++;
		}
	}
	log_debug("memory", "event=again job=%s round=%u count=%u", job->id, job->round, count);
}

/* Frees what was only of rounds that are over and is not in the list. */
static void forget_others(struct agent_job *job, const char *list, uint32_t over)
{
	uint32_t size = job->segment.header.slot_count;
	bool *needed = trib_alloc_array(size, sizeof(*needed));
	uint32_t slot;
	uint32_t gen;

	if (!needed) {
		return; /* with the next round that is over */
	}
	while (next_place(job, &list, &slot, &gen)) {
		needed[slot] |= job->notes[slot].gen == gen;
	}
	for (uint32_t i = 0; i < size; i++) {
		if (job->notes[i].where == AGENT_NOTE_KEPT && !needed[i] &&
		    trib_segment_record(&job->segment, i)->folded_round <= over) {
			agent_slot_release(job, i);
		}
	}
	trib_free(needed);
	job->memory_over = over;
}

struct question {
	struct agent *agent;
	char job[TRIB_JOB_ID_SIZE];
};

static void on_answer(const struct trib_value *value, void *arg)
{
	struct question *q = arg;
	struct agent_job *job = agent_job_find(q->agent, q->job);
	uint32_t work = value ? (uint32_t)trib_value_integer(trib_value_at(value, 1)) : 0;

	trib_free(q);
	if (!job) {
		return;
	}
	job->memory_asked = false;
	if (!value || !job->ready || strcmp(trib_value_text(trib_value_at(value, 0)), "OK") != 0 ||
	    work == 0) {
		return; /* asked again by the tick */
	}
	forget_others(job, trib_value_text(trib_value_at(value, 4)), work - 1);
	if (work == job->round && trib_value_integer(trib_value_at(value, 2)) &&
	    job->memory_round != work) {
		fold_again(job, trib_value_text(trib_value_at(value, 3)));
		job->memory_round = work;
		agent_round_dispatch(job);
	}
	agent_round_advance(job);
}

bool agent_memory_wait(struct agent_job *job)
{
	bool wait = job->memory && job->closing && job->memory_round != job->round;
	struct question *q;

	if (!job->memory || job->memory_asked || (!wait && job->memory_over + 1 >= job->round)) {
		return wait;
	}
	q = trib_alloc(sizeof(*q));
	if (!q) {
		return wait;
	}
	q->agent = job->agent;
	memcpy(q->job, job->id, sizeof(q->job));
	job->memory_asked =
		trib_redis_send(job->agent->redis, on_answer, q, "FCALL", "trib_memory_of", "1",
				job->key, job->agent->options.node, NULL) == 0;
	if (!job->memory_asked) {
		trib_free(q);
	}
	return wait;
}
