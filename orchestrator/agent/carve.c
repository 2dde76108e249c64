/* SPDX-License-Identifier: Apache-2.0
 * Function 1's sum leaves this node (peers.c) without ending the function: it is given other memory
 * and told to begin anew there. Its answer says that it has let go of the old one, which is not
 * sent before. Two pieces of memory take turns so, both warm from the third round on.
 */
#include <errno.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/agent/agent.h"

#define MARK 0x40000000u /* in the slot field of the RESET: no other RESET has one */

static bool fits(const struct agent_job *job, const struct trib_partial *partial)
{
	return partial->fd >= 0 && partial->elements == job->elements &&
	       partial->accumulate == job->accumulate && partial->lanes == 1;
}

/* Memory for function 1 to go on with: the last export's, else new while the arena has room. */
static int other_memory(struct agent_job *job, struct trib_partial *ret_partial)
{
	struct agent_peers *p = &job->peers;
	uint64_t size = trib_partial_size(job->elements, job->accumulate);
	int rc;

	if (p->spare.fd >= 0 && fits(job, &p->spare)) {
		*ret_partial = p->spare;
		p->spare = (struct trib_partial){ .fd = -1 };
		return 0;
	}
	if (job->agent->arena_used + size > job->agent->options.arena_bytes) {
		return -ENOSPC;
	}
	rc = trib_partial_create(job->id, job->segment.header.boot, job->index, AGENT_TOP,
				 job->elements, job->accumulate, ret_partial);
	if (!rc) {
		trib_partial_place(ret_partial, 0, 0, 1);
		job->agent->arena_used += ret_partial->size;
		job->reserved_bytes += ret_partial->size;
	}
	return rc;
}

static void give_up(struct agent_job *job, struct trib_partial *partial)
{
	job->agent->arena_used -= partial->size;
	job->reserved_bytes -= partial->size;
	trib_partial_fini(partial);
	partial->fd = -1;
}

/* Function 1 goes on with `other`. What cannot be told to it ends it: it is started with that. */
static void move_over(struct agent_job *job, struct trib_partial *other)
{
	struct agent_fn *top = &job->fns[AGENT_TOP];
	struct trib_descriptor reset = { .kind = TRIB_DESC_RESET, .round = job->round };

	trib_partial_reset(other, job->round);
	trib_partial_header(other)->part = 0;
	trib_partial_header(other)->stats = trib_partial_header(&top->partial)->stats;
	top->partial = *other;
	top->flushed = false;
	if (agent_keep_partial(top)) {
		agent_fn_stop(top);
		agent_unkeep(job->agent, "p:%s:%u", job->id, AGENT_TOP);
		give_up(job, &top->partial);
		top->has_partial = false;
		return;
	}
	job->peers.leaving_mark = MARK | job->peers.part;
	reset.slot = job->peers.leaving_mark;
	if (agent_fn_give_own(top) || agent_fn_send(top, &reset)) {
		agent_fn_stop(top);
		return;
	}
	top->reset_round = job->round;
	job->peers.leaving = top->spawned_ns;
}

/* Leaves that are in it stay as they are: agent_peers_carved. */
int agent_carve(struct agent_job *job)
{
	struct agent_fn *top = &job->fns[AGENT_TOP];
	struct agent_sum *s = agent_sum_new(job);
	struct trib_partial other = { .fd = -1 };
	int rc;

	if (!s) {
		return -ENOSPC;
	}
	if (top->state != AGENT_FN_LIVE || other_memory(job, &other)) {
		agent_fn_stop(top); /* its memory comes back to it after the round */
	}
	/* All it was given is folded and no op is under way, so it writes no more. */
	trib_partial_seal(&top->partial);
	s->round = job->round;
	s->part = job->peers.part;
	s->partial = top->partial;
	s->totals = trib_partial_totals(&top->partial);
	(void)snprintf(s->node, sizeof(s->node), "%s", job->agent->options.node);
	(void)snprintf(s->boot, sizeof(s->boot), "%s", job->segment.header.boot);
	trib_partial_header(&s->partial)->part = s->part;
	rc = agent_sum_keep(job, s);
	if (rc) { /* stays where it is; its function can go on with it */
		agent_fn_stop(top);
		trib_partial_unseal(&top->partial);
		s->partial.fd = -1;
		agent_sum_drop(job, s);
		if (other.fd >= 0) {
			give_up(job, &other);
		}
		return rc;
	}
	if (other.fd >= 0) {
		move_over(job, &other);
	} else {
		agent_unkeep(job->agent, "p:%s:%u", job->id, AGENT_TOP);
		top->has_partial = false;
	}
	job->peers.part++;
	log_info("carve", "event=carved job=%s round=%u part=%u updates=%llu warm=%d", job->id,
		 job->round, s->part, (unsigned long long)s->totals.updates,
		 top->state == AGENT_FN_LIVE);
	return 0;
}

bool agent_carved(const struct agent_job *job)
{
	const struct agent_fn *top = &job->fns[AGENT_TOP];

	return !job->peers.leaving || top->state != AGENT_FN_LIVE ||
	       top->spawned_ns != job->peers.leaving;
}

void agent_carve_answered(struct agent_job *job, uint32_t mark)
{
	if (job->peers.leaving && mark == job->peers.leaving_mark) {
		job->peers.leaving = 0;
		agent_peers_tick(job, trib_clock_ms());
	}
}

void agent_carve_over(struct agent_job *job, struct agent_sum *s)
{
	struct agent_fn *top = &job->fns[AGENT_TOP];

	if (s->import || s->index || !fits(job, &s->partial) || job->lanes != 1 ||
	    !agent_carved(job)) {
		return;
	}
	if (!top->has_partial && top->state != AGENT_FN_LIVE) {
		top->partial = s->partial;
		top->has_partial = true;
		top->reset_round = 0;
		if (agent_keep_partial(top)) {
			top->has_partial = false;
			return;
		}
	} else if (job->peers.spare.fd < 0 && top->has_partial) {
		job->peers.spare = s->partial;
	} else {
		return;
	}
	agent_sum_unkeep(job, s);
	s->partial.fd = -1;
}

void agent_carve_forget(struct agent_job *job)
{
	if (job->peers.spare.fd >= 0) {
		give_up(job, &job->peers.spare);
	}
}
