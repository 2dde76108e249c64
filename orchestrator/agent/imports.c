/* SPDX-License-Identifier: Apache-2.0
 * Sums that other nodes send to this one: a memfd for each attempt, filled by the gateway, kept by
 * the keeper, claimed in the record, and only then counted. A second copy of a sum is harmless: the
 * record knows a sum by (round, sender, its memory, part).
 */
#include "orchestrator/agent/peers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/id.h"
#include "common/log.h"
#include "orchestrator/agent/agent.h"

#define CLAIM_AGAIN_MS 50

static void answer(struct agent *agent, uint32_t index, uint32_t kind, const char *job,
		   uint64_t transfer, int result, const int *fd)
{
	struct agent_link *link = &agent->links[index];
	struct trib_link_message m = {
		.magic = TRIB_LINK_MAGIC, .kind = kind, .result = result, .sum.transfer = transfer
	};

	(void)snprintf(m.job, sizeof(m.job), "%s", job);
	if (link->fd >= 0 && trib_fd_send(link->fd, &m, sizeof(m), fd, fd ? 1 : 0)) {
		log_warn("imports", "event=answer-not-sent job=%s kind=%u", job, kind);
	}
}

static struct agent_sum *find(struct agent_job *job, const struct trib_link_sum *sum)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		struct agent_sum *s = job->peers.sums[i];

		if (s && s->import && s->round == sum->round && s->part == sum->part &&
		    strcmp(s->node, sum->from) == 0 && strcmp(s->boot, sum->boot) == 0) {
			return s;
		}
	}
	return NULL;
}

static bool wanted_here(struct agent_job *job, const struct trib_link_sum *sum)
{
	return job->round == sum->round && /* open, if the sender is to leave */
	       strcmp(job->peers.top, job->agent->options.node) == 0;
}

static bool makes_sense(const struct agent_job *job, const struct trib_link_sum *sum)
{
	return sum->elements == job->elements && sum->accumulate == (uint32_t)job->accumulate &&
	       sum->scale_bits == job->scale_bits && sum->updates > 0 &&
	       sum->updates <= UINT32_MAX && sum->weight > 0 && sum->part < 1024 &&
	       trib_name_valid(sum->from) && strcmp(sum->from, job->agent->options.node) != 0;
}

/* One sum of a job always finds room, more of them within the arena. */
static bool room_for_one(const struct agent_job *job)
{
	uint64_t size = trib_partial_size(job->elements, job->accumulate);

	if (job->agent->arena_used + size <= job->agent->options.arena_bytes) {
		return true;
	}
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		if (job->peers.sums[i] && job->peers.sums[i]->import &&
		    job->peers.sums[i]->partial.fd >= 0) {
			return false;
		}
	}
	return true;
}

static int make(struct agent_job *job, const struct trib_link_sum *sum, struct agent_sum **ret_sum)
{
	struct agent_sum *s = find(job, sum);
	int rc;

	if (s && (s->moved || s->merged)) {
		return -EALREADY;
	}
	if (s && s->complete) {
		return -EAGAIN; /* the record is being asked about it */
	}
	if (s) {
		agent_sum_drop(job, s); /* an attempt that broke off; whoever fills it, in vain */
	}
	if (!room_for_one(job)) {
		return -EAGAIN;
	}
	s = agent_sum_new(job);
	if (!s) {
		return -ENOSPC;
	}
	s->import = true;
	rc = trib_partial_create(job->id, job->segment.header.boot, job->index, 0, job->elements,
				 job->accumulate, &s->partial);
	if (rc) {
		s->partial.fd = -1;
		agent_sum_drop(job, s);
		return rc;
	}
	job->agent->arena_used += s->partial.size;
	job->reserved_bytes += s->partial.size;
	s->round = sum->round;
	s->part = sum->part;
	s->totals.updates = sum->updates;
	s->totals.weight = sum->weight;
	(void)snprintf(s->node, sizeof(s->node), "%s", sum->from);
	(void)snprintf(s->boot, sizeof(s->boot), "%s", sum->boot);
	*ret_sum = s;
	return 0;
}

void agent_import_begin(struct agent_link *link, const struct trib_link_message *m)
{
	struct agent_job *job = agent_job_find(link->agent, m->job);
	uint32_t index = (uint32_t)(link - link->agent->links);
	struct trib_link_sum sum = m->sum;
	struct agent_sum *s = NULL;
	struct trib_id id;
	int rc = -EAGAIN;

	sum.from[sizeof(sum.from) - 1] = '\0';
	sum.boot[sizeof(sum.boot) - 1] = '\0';
	if (!job && !trib_id_parse("job_", m->job, &id)) { /* the heir of a node that leaves */
		job = agent_job_get(link->agent, m->job);
		if (job) {
			agent_job_sync(job);
		}
	}
	if (job && job->ready) {
		rc = !makes_sense(job, &sum)   ? -EBADMSG
		     : !wanted_here(job, &sum) ? -EAGAIN
					       : make(job, &sum, &s);
		if (rc == -EAGAIN) {
			agent_job_sync(job); /* the sender may know more than we do */
		}
	}
	if (rc) {
		agent_count(AGENT_M_SUMS_REFUSED, rc != -EALREADY);
		answer(link->agent, index, TRIB_LINK_TARGET, m->job, sum.transfer, rc, NULL);
		return;
	}
	s->transfer = sum.transfer;
	s->link = index;
	answer(link->agent, index, TRIB_LINK_TARGET, m->job, sum.transfer, 0, &s->partial.fd);
}

static struct agent_sum *find_transfer(struct agent_job *job, uint32_t link, uint64_t transfer)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		struct agent_sum *s = job->peers.sums[i];

		if (s && s->import && s->transfer == transfer && s->link == link && transfer) {
			return s;
		}
	}
	return NULL;
}

void agent_import_done(struct agent_link *link, const struct trib_link_message *m)
{
	struct agent_job *job = agent_job_find(link->agent, m->job);
	uint32_t index = (uint32_t)(link - link->agent->links);
	struct agent_sum *s = job ? find_transfer(job, index, m->sum.transfer) : NULL;
	struct trib_partial_header *h;
	int rc;

	if (!s || s->complete) {
		answer(link->agent, index, TRIB_LINK_MOVED, m->job, m->sum.transfer, -ESTALE, NULL);
		return;
	}
	if (m->result) {
		agent_sum_drop(job, s);
		return; /* nobody waits */
	}
	h = trib_partial_header(&s->partial);
	(void)snprintf(h->origin, sizeof(h->origin), "%s", s->node);
	(void)snprintf(h->origin_boot, sizeof(h->origin_boot), "%s", s->boot);
	h->part = s->part;
	h->scale_bits = job->scale_bits;
	trib_partial_fill(&s->partial, s->round, s->totals);
	rc = agent_sum_keep(job, s); /* before the record hears of it */
	if (rc) {
		answer(link->agent, index, TRIB_LINK_MOVED, m->job, m->sum.transfer, rc, NULL);
		agent_sum_drop(job, s);
		return;
	}
	s->complete = true;
	agent_import_claim(job, s);
}

/* ---- the record decides ---- */

struct claim {
	struct agent *agent;
	char job[TRIB_JOB_ID_SIZE];
	char boot_here[TRIB_ID_TEXT_SIZE];
	struct trib_link_sum sum;
};

static void tell(struct agent_job *job, struct agent_sum *s, int result)
{
	if (s->transfer) {
		answer(job->agent, s->link, TRIB_LINK_MOVED, job->id, s->transfer, result, NULL);
		s->transfer = 0;
	}
}

static void decided(struct agent_job *job, struct agent_sum *s, const struct trib_value *value)
{
	const char *word = trib_value_text(trib_value_at(value, 0));

	if (strcmp(word, "OK") == 0 || strcmp(word, "SAME") == 0) {
		s->index =
			AGENT_INDEX_IMPORT + (uint32_t)trib_value_integer(trib_value_at(value, 1));
		trib_partial_renumber(&s->partial, s->index);
		agent_count(AGENT_M_SUMS_TAKEN, 1);
		agent_count(AGENT_M_SUM_BYTES_TAKEN,
			    (int64_t)(job->elements * (job->accumulate == TRIB_ACCUMULATE_F32
							       ? sizeof(float)
							       : sizeof(int64_t))));
		log_info("imports", "event=taken job=%s round=%u from=%s updates=%llu", job->id,
			 s->round, s->node, (unsigned long long)s->totals.updates);
		tell(job, s, 0);
	} else if (strcmp(word, "LATER") != 0 && trib_value_type(value) == TRIB_VALUE_ARRAY) {
		agent_count(AGENT_M_SUMS_REFUSED, 1);
		log_info("imports", "event=refused job=%s round=%u from=%s answer=%s", job->id,
			 s->round, s->node, word);
		tell(job, s, -ESTALE);
		agent_sum_drop(job, s);
	}
	agent_job_sync(job);
}

static void on_claimed(const struct trib_value *value, void *arg)
{
	struct claim *claim = arg;
	struct agent_job *job = agent_job_find(claim->agent, claim->job);
	struct agent_sum *s = NULL;

	if (job && strcmp(job->segment.header.boot, claim->boot_here) == 0) {
		s = find(job, &claim->sum);
	}
	trib_free(claim);
	if (!s || !s->complete || s->merged) {
		return;
	}
	s->calling = false;
	if (value) {
		decided(job, s, value);
	}
}

void agent_import_claim(struct agent_job *job, struct agent_sum *s)
{
	struct claim *claim = trib_alloc(sizeof(*claim));
	char round[12];
	char part[12];
	char updates[24];
	char weight[24];

	if (!claim) {
		return;
	}
	claim->agent = job->agent;
	memcpy(claim->job, job->id, sizeof(claim->job));
	(void)snprintf(claim->boot_here, sizeof(claim->boot_here), "%s", job->segment.header.boot);
	claim->sum.round = s->round;
	claim->sum.part = s->part;
	memcpy(claim->sum.from, s->node, sizeof(claim->sum.from));
	memcpy(claim->sum.boot, s->boot, sizeof(claim->sum.boot));
	(void)snprintf(round, sizeof(round), "%u", s->round);
	(void)snprintf(part, sizeof(part), "%u", s->part);
	(void)snprintf(updates, sizeof(updates), "%llu", (unsigned long long)s->totals.updates);
	(void)snprintf(weight, sizeof(weight), "%llu", (unsigned long long)s->totals.weight);
	s->next_ms = trib_clock_ms() + CLAIM_AGAIN_MS;
	if (trib_redis_send(job->agent->redis, on_claimed, claim, "FCALL", "trib_partial_moved",
			    "1", job->key, round, s->node, s->boot, part, job->agent->options.node,
			    job->segment.header.boot, updates, weight, NULL)) {
		trib_free(claim);
		return;
	}
	s->calling = true;
}

void agent_imports_unlink(struct agent *agent, uint32_t link)
{
	for (uint32_t j = 0; j < AGENT_JOBS_MAX; j++) {
		struct agent_job *job = agent->jobs[j];

		for (uint32_t i = 0; job && i < AGENT_SUMS_MAX; i++) {
			struct agent_sum *s = job->peers.sums[i];

			if (!s || !s->import || !s->transfer || s->link != link) {
				continue;
			}
			s->transfer = 0;
			if (!s->complete) {
				agent_sum_drop(job, s);
			}
		}
	}
}
