/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/follow.h"

#include <errno.h>

#include "common/clock.h"

#define MS           1000000u
#define BUDGET       128u  /* chunks of updates in one step: 4 MiB, some 300 us */
#define BACKLOG_MAX  2048u /* chunks that wait for the hindmost: 64 MiB */
#define STALL_NS     (500 * MS)
#define HOLD_NS      (3000ull * MS) /* committed updates do not wait for longer */
#define JOIN_NS      (1000ull * MS) /* nor do they let others join */
#define PAUSE_MIN_NS MS
#define PAUSE_MAX_NS (5 * MS)
#define NO_CHUNK     UINT32_MAX

static struct trib_partial_stats *stats_of(const struct agg_folder *folder)
{
	return &trib_partial_header(folder->partial)->stats;
}

/* ---- members ---- */

static struct agg_follow_member *find(struct agg_follow *follow, uint32_t slot, uint32_t gen)
{
	for (uint32_t i = 0; i < follow->count; i++) {
		if (follow->members[i].slot == slot && follow->members[i].gen == gen) {
			return &follow->members[i];
		}
	}
	return NULL;
}

bool agg_follow_knows(const struct agg_follow *follow, uint32_t slot, uint32_t gen)
{
	for (uint32_t i = 0; i < follow->count; i++) {
		if (follow->members[i].slot == slot && follow->members[i].gen == gen) {
			return true;
		}
	}
	return false;
}

static void mark_committed(struct agg_follow *follow, struct agg_follow_member *m,
			   const struct trib_descriptor *update, uint64_t now_ns)
{
	m->committed = true;
	m->asked = *update;
	follow->committed++;
	if (!follow->waits_ns) {
		follow->waits_ns = now_ns;
	}
}

/* Once one is committed the group has to come to its end in a stream of updates, too: only those
 * join that belong to a round of which all come here, and not for long. */
static bool may_join(const struct agg_follow *follow, uint64_t now_ns)
{
	return !follow->committed ||
	       (follow->count < follow->expected && now_ns - follow->waits_ns < JOIN_NS);
}

bool agg_follow_add(struct agg_follow *follow, const struct agg_job *job,
		    const struct trib_descriptor *d, uint64_t now_ns)
{
	bool committed = d->kind == TRIB_DESC_UPDATE;
	struct agg_follow_member m = {
		.slot = d->slot, .gen = d->gen, .weight = d->weight, .moved_ns = now_ns
	};

	if (follow->count == 0) {
		*follow = (struct agg_follow){ .round = d->round, .changes = follow->changes + 1 };
	}
	if (follow->count == TRIB_OP_MAX || (!committed && !may_join(follow, now_ns)) ||
	    follow->round != d->round || find(follow, d->slot, d->gen)) {
		return false;
	}
	m.data = committed ? agg_job_update(job, d->slot, d->gen)
			   : agg_job_arriving(job, d->slot, d->gen, &m.ready);
	if (!m.data) {
		return false;
	}
	if (committed) {
		mark_committed(follow, &m, d, now_ns);
	}
	follow->expected = committed ? follow->expected : d->updates;
	follow->base = d->base;
	follow->changes++;
	follow->members[follow->count++] = m;
	return true;
}

bool agg_follow_commit(struct agg_follow *follow, const struct trib_descriptor *update,
		       uint64_t now_ns)
{
	struct agg_follow_member *m = find(follow, update->slot, update->gen);

	if (!m || m->weight != update->weight || follow->round != update->round) {
		return false;
	}
	if (!m->committed) {
		mark_committed(follow, m, update, now_ns);
	}
	return true;
}

static void take_out(struct agg_follow *follow, uint32_t at)
{
	follow->changes++;
	follow->committed -= follow->members[at].committed;
	follow->members[at] = follow->members[--follow->count];
}

/* What has come of every member. False: one that is in the sums is gone. */
static bool look(struct agg_follow *follow, const struct agg_job *job, uint64_t now_ns)
{
	for (uint32_t i = follow->count; i-- > 0;) {
		struct agg_follow_member *m = &follow->members[i];
		uint32_t ready = 0;

		if (!agg_job_arriving(job, m->slot, m->gen, &ready)) {
			if (m->at || m->committed) {
				return false;
			}
			take_out(follow, i);
			continue;
		}
		if (ready > m->ready) {
			m->ready = ready;
			m->moved_ns = now_ns;
		}
	}
	return true;
}

/* ---- leaving ---- */

/* Subtracts what was added: the same integers, as long as the slot's bytes are the same ones, which
 * its generation tells afterwards. Floats do not come back so. */
static bool evict(struct agg_follow *follow, uint32_t at, const struct agg_job *job,
		  const struct agg_folder *folder)
{
	const struct agg_follow_member *m = &follow->members[at];
	struct agg_input input = { .data = m->data, .weight = m->weight, .minus = true };
	uint64_t elements = (uint64_t)m->at * TRIB_PARTIAL_CHUNK;
	uint32_t ready;

	if (m->at && folder->partial->accumulate != TRIB_ACCUMULATE_EXACT) {
		return false;
	}
	if (m->at) {
		if (elements > folder->partial->elements) {
			elements = folder->partial->elements;
		}
		agg_fold_plain(folder, &input, 1, false, 0, elements);
		if (!agg_job_arriving(job, m->slot, m->gen, &ready)) {
			return false;
		}
		stats_of(folder)->follow_bytes += elements * sizeof(float);
	}
	stats_of(folder)->follow_evicted++;
	take_out(follow, at);
	return true;
}

static bool must_go(const struct agg_follow *follow, const struct agg_follow_member *m,
		    uint64_t now_ns)
{
	uint64_t since = m->moved_ns > follow->waits_ns ? m->moved_ns : follow->waits_ns;

	if (m->committed) {
		return false;
	}
	if (follow->last_call) {
		return true;
	}
	if (!follow->waits_ns) {
		return now_ns - m->moved_ns > HOLD_NS;
	}
	return now_ns - since > STALL_NS || now_ns - follow->waits_ns > HOLD_NS;
}

/* Those that hold up others, or come to no end. False: the sums cannot be mended. */
static bool weed(struct agg_follow *follow, const struct agg_job *job,
		 const struct agg_folder *folder, uint64_t now_ns)
{
	for (uint32_t i = follow->count; i-- > 0;) {
		if (must_go(follow, &follow->members[i], now_ns) &&
		    !evict(follow, i, job, folder)) {
			return false;
		}
	}
	return true;
}

/* ---- folding ---- */

/* The smallest chunk >= from at which a member stands that is not through. */
static uint32_t position(const struct agg_follow *follow, uint32_t from, uint32_t chunks)
{
	uint32_t least = NO_CHUNK;

	for (uint32_t i = 0; i < follow->count; i++) {
		uint32_t at = follow->members[i].at;

		if (at >= from && at < chunks && at < least) {
			least = at;
		}
	}
	return least;
}

/* How many chunks those members that stand at `at` can go on together; 0: not now. */
static uint32_t run_of(const struct agg_follow *follow, uint32_t at, uint32_t *ret_members)
{
	uint32_t run = NO_CHUNK;
	uint32_t backlog = 0;
	uint32_t behind = 0;

	*ret_members = 0;
	for (uint32_t i = 0; i < follow->count; i++) {
		const struct agg_follow_member *m = &follow->members[i];
		uint32_t here = m->ready > at ? m->ready - at : 0;

		if (m->at != at) {
			continue;
		}
		behind += !here;
		*ret_members += here > 0;
		backlog += here;
		run = here && here < run ? here : run;
	}
	/* A pass of few is dear: they wait for those behind them, who hold up the group anyway. */
	return *ret_members && (!behind || *ret_members >= TRIB_FOLD_MAX || backlog >= BACKLOG_MAX)
		       ? run
		       : 0;
}

static void fold_run(struct agg_follow *follow, const struct agg_folder *folder, uint32_t at,
		     uint32_t run)
{
	struct agg_input inputs[TRIB_OP_MAX];
	uint64_t elements = folder->partial->elements;
	uint32_t count = 0;

	for (uint32_t i = 0; i < follow->count; i++) {
		struct agg_follow_member *m = &follow->members[i];

		if (m->at == at && m->ready > at) {
			inputs[count++] =
				(struct agg_input){ .data = m->data, .weight = m->weight };
			m->at = at + run;
		}
	}
	for (uint32_t c = at; c < at + run; c++) {
		uint64_t from = (uint64_t)c * TRIB_PARTIAL_CHUNK;
		uint64_t rest = elements - from;
		size_t size = rest < TRIB_PARTIAL_CHUNK ? rest : TRIB_PARTIAL_CHUNK;

		agg_fold_plain(folder, inputs, count, c >= follow->high, from, size);
		stats_of(folder)->follow_bytes += count * size * sizeof(float);
	}
	follow->runs++;
	follow->passes += run;
	follow->folded += run * count;
	if (at + run > follow->high) {
		follow->high = at + run;
	}
}

/* The hindmost first. */
static bool fold_some(struct agg_follow *follow, const struct agg_folder *folder)
{
	uint32_t chunks = trib_partial_chunks(folder->partial);
	uint32_t at = position(follow, 0, chunks);

	while (at != NO_CHUNK) {
		uint32_t next = position(follow, at + 1, chunks);
		uint32_t members;
		uint32_t run = run_of(follow, at, &members);

		if (run) {
			uint32_t most = BUDGET / members ? BUDGET / members : 1;

			run = next != NO_CHUNK && next - at < run ? next - at : run;
			fold_run(follow, folder, at, run < most ? run : most);
			return true;
		}
		at = next;
	}
	return false;
}

static bool through(const struct agg_follow *follow, const struct agg_folder *folder)
{
	return follow->committed == follow->count &&
	       position(follow, 0, trib_partial_chunks(folder->partial)) == NO_CHUNK;
}

enum agg_follow_state agg_follow_step(struct agg_follow *follow, const struct agg_job *job,
				      const struct agg_folder *folder, uint64_t now_ns)
{
	uint64_t began;
	bool folded;

	if (!look(follow, job, now_ns) || !weed(follow, job, folder, now_ns)) {
		return AGG_FOLLOW_LOST;
	}
	if (follow->count == 0) {
		return AGG_FOLLOW_WAIT;
	}
	began = trib_clock_ns();
	folded = fold_some(follow, folder);
	if (folded) {
		follow->fold_ns += trib_clock_ns() - began;
	}
	if (through(follow, folder)) {
		return AGG_FOLLOW_WHOLE;
	}
	return folded ? AGG_FOLLOW_MORE : AGG_FOLLOW_WAIT;
}

uint64_t agg_follow_pause_ns(const struct agg_follow *follow, uint64_t now_ns)
{
	uint64_t moved = 0;
	uint64_t pause;

	for (uint32_t i = 0; i < follow->count; i++) {
		moved = follow->members[i].moved_ns > moved ? follow->members[i].moved_ns : moved;
	}
	pause = now_ns > moved ? (now_ns - moved) / 4 : 0;
	return pause < PAUSE_MIN_NS ? PAUSE_MIN_NS : pause > PAUSE_MAX_NS ? PAUSE_MAX_NS : pause;
}

/* ---- becoming real ---- */

static void step(const struct agg_folder *folder, const char *name)
{
	if (folder->on_step) {
		folder->on_step(folder->arg, name, 0);
	}
}

int agg_follow_keep(struct agg_follow *follow, const struct agg_folder *folder)
{
	struct trib_partial_item items[TRIB_OP_MAX];
	int rc;

	for (uint32_t i = 0; i < follow->count; i++) {
		const struct agg_follow_member *m = &follow->members[i];

		items[i] = (struct trib_partial_item){ .slot = m->slot,
						       .gen = m->gen,
						       .updates = m->asked.updates,
						       .weight = m->weight };
	}
	if (trib_partial_state(folder->partial) != TRIB_PARTIAL_EMPTY) {
		return -EPERM;
	}
	step(folder, "whole");
	/* Killed from here on to the end: the op overwrites, a successor folds it from the slots.
	 */
	rc = trib_partial_begin(folder->partial, items, follow->count);
	if (rc) {
		return rc;
	}
	step(folder, "begun");
	trib_partial_whole(folder->partial);
	step(folder, "advanced");
	trib_partial_end(folder->partial);
	step(folder, "done");
	return 0;
}
