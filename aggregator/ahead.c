/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/ahead.h"

#include "shm/out.h"

/* Chunks that every member is through with. */
static uint32_t through(const struct agg_follow *follow, uint32_t chunks)
{
	uint32_t least = chunks;

	for (uint32_t i = 0; i < follow->count; i++) {
		least = follow->members[i].at < least ? follow->members[i].at : least;
	}
	return least;
}

static struct trib_partial_totals totals_of(const struct agg_follow *follow)
{
	struct trib_partial_totals totals = { 0 };

	for (uint32_t i = 0; i < follow->count; i++) {
		totals.updates++;
		totals.weight += follow->members[i].weight;
	}
	return totals;
}

void agg_ahead_step(struct agg_ahead *ahead, const struct agg_follow *follow,
		    const struct agg_rule *rule, const struct agg_finish *how, uint64_t *word)
{
	uint32_t chunks = trib_partial_chunks(how->sums);
	uint32_t to = through(follow, chunks);
	uint64_t end = (uint64_t)to * TRIB_PARTIAL_CHUNK;

	if (follow->count == 0 || follow->count != follow->expected || !how->out) {
		return;
	}
	if (ahead->group != follow->changes || ahead->seq) {
		*ahead = (struct agg_ahead){ .group = follow->changes, .how = *how };
		ahead->how.totals = totals_of(follow);
		trib_out_anew(word);
	}
	if (to <= ahead->done) {
		return;
	}
	ahead->how.from = (uint64_t)ahead->done * TRIB_PARTIAL_CHUNK;
	ahead->how.count =
		(end < how->sums->elements ? end : how->sums->elements) - ahead->how.from;
	if (rule->finish(&ahead->how) == 0) {
		ahead->done = to;
		trib_out_made(word, to);
	}
}

void agg_ahead_kept(struct agg_ahead *ahead, const struct agg_follow *follow,
		    const struct trib_partial *own)
{
	if (ahead->done && ahead->group == follow->changes) {
		ahead->seq = trib_partial_header(own)->done_seq;
	}
}

uint64_t agg_ahead_done(const struct agg_ahead *ahead, const struct agg_finish *how)
{
	const struct agg_finish *as = &ahead->how;
	uint64_t elements = (uint64_t)ahead->done * TRIB_PARTIAL_CHUNK;

	if (!ahead->seq || ahead->seq != trib_partial_header(how->sums)->done_seq ||
	    as->totals.weight != how->totals.weight || as->totals.updates != how->totals.updates ||
	    as->divisor != how->divisor || as->base != how->base || as->out != how->out ||
	    as->lr != how->lr || as->scale_bits != how->scale_bits) {
		return 0;
	}
	return elements < how->sums->elements ? elements : how->sums->elements;
}
