/* SPDX-License-Identifier: Apache-2.0
 * The tree of one job on this node: asks the planner (plan.h) with what was measured, remembers its
 * answer, gives functions their roles. What is already summed where is read from the partials
 * themselves, so a tree begun by a former agent is gone on with whatever this one would have made.
 */
#include "orchestrator/agent/agent.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define FORGET 0.5 /* weight of the newest measurement */
#define US     1000.0

static double average(double old, double sample)
{
	return old > 0 ? (1 - FORGET) * old + FORGET * sample : sample;
}

bool agent_tree_holds(const struct agent_job *job, uint32_t index)
{
	const struct agent_fn *fn = &job->fns[index];

	return fn->has_partial && trib_partial_state(&fn->partial) != TRIB_PARTIAL_EMPTY &&
	       trib_partial_header(&fn->partial)->round == job->round;
}

bool agent_tree_merged(const struct agent_job *job, uint32_t index)
{
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		if (i != index && agent_tree_holds(job, i) &&
		    trib_partial_folded(&job->fns[i].partial, TRIB_ITEM_PARTIAL | index,
					job->round)) {
			return true;
		}
	}
	return agent_peers_carved(job, index);
}

uint32_t agent_tree_parent(const struct agent_job *job, uint32_t index)
{
	return job->tree.parent[index] ? job->tree.parent[index] : AGENT_TOP;
}

bool agent_tree_waits(const struct agent_job *job, uint32_t index)
{
	for (uint32_t i = AGENT_TOP + 1; i <= job->fn_high; i++) {
		if (job->tree.parent[i] == index && agent_tree_holds(job, i) &&
		    !agent_tree_merged(job, i)) {
			return true;
		}
	}
	return false;
}

const char *agent_role_name(const struct agent_fn *fn)
{
	static const char *const names[] = { "leaf", "leaf", "middle", "top" };

	return fn->role == AGENT_ROLE_NONE && fn->index == AGENT_TOP ? "top" : names[fn->role];
}

static void give_role(struct agent_fn *fn, enum agent_role role)
{
	if (fn->state == AGENT_FN_LIVE && fn->role != AGENT_ROLE_NONE && fn->role != role) {
		agent_count(AGENT_M_CONVERSIONS, 1);
	}
	fn->role = role;
}

/* ---- measuring ---- */

static void stats_add(struct trib_partial_stats *sum, const struct trib_partial_stats *more)
{
	sum->updates += more->updates;
	sum->passes += more->passes;
	sum->fold_ns += more->fold_ns;
	sum->partials += more->partials;
	sum->merge_ns += more->merge_ns;
	sum->cpu_ns += more->cpu_ns;
}

static uint64_t grown(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0; /* less: partials went */
}

static void measure(struct agent_job *job)
{
	struct trib_partial_stats now = { 0 };
	struct trib_partial_stats *was = &job->seen;
	uint64_t updates;
	uint64_t partials;

	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		if (job->fns[i].has_partial) {
			struct trib_partial_stats one = trib_partial_stats(&job->fns[i].partial);

			stats_add(&now, &one);
		}
	}
	updates = grown(now.updates, was->updates);
	partials = grown(now.partials, was->partials);
	if (updates) {
		job->fold_us = average(job->fold_us, (double)grown(now.fold_ns, was->fold_ns) / US /
							     (double)updates);
	}
	if (partials) {
		job->merge_us = average(job->merge_us, (double)grown(now.merge_ns, was->merge_ns) /
							       US / (double)partials);
	}
	agent_count(AGENT_M_FOLDED, (int64_t)updates);
	agent_count(AGENT_M_PASSES, (int64_t)grown(now.passes, was->passes));
	agent_count(AGENT_M_FOLD_US, (int64_t)(grown(now.fold_ns, was->fold_ns) / 1000));
	agent_count(AGENT_M_MERGED, (int64_t)partials);
	agent_count(AGENT_M_MERGE_US, (int64_t)(grown(now.merge_ns, was->merge_ns) / 1000));
	agent_count(AGENT_M_CPU_US, (int64_t)(grown(now.cpu_ns, was->cpu_ns) / 1000));
	*was = now;
}

void agent_tree_arrived(struct agent_job *job, uint32_t slot)
{
	uint64_t now = trib_clock_ms();

	if (trib_segment_record(&job->segment, slot)->counted_round != job->round) {
		return;
	}
	if (job->arrived) {
		job->gap_ms = average(job->gap_ms, (double)(now - job->arrived_ms));
	}
	job->arrived++;
	job->arrived_ms = now;
}

void agent_tree_answered(struct agent_fn *fn)
{
	uint64_t took;

	if (fn->reset_ns) {
		took = trib_clock_ns() - fn->reset_ns;
		fn->reset_ns = 0;
		fn->job->hop_us = average(fn->job->hop_us, (double)took / US);
		agent_count(AGENT_M_REUSE_US, (int64_t)(took / 1000));
	}
}

/* ---- asking ---- */

static void describe_fn(const struct agent_job *job, uint32_t i, uint64_t now_ms,
			struct agent_plan_fn *out)
{
	const struct agent_fn *fn = &job->fns[i];

	out->live = fn->state == AGENT_FN_LIVE;
	/* A first fold cut short shows no sum yet, and must be finished there. */
	out->holds = agent_tree_holds(job, i) ||
		     (fn->has_partial && trib_partial_op_active(&fn->partial));
	out->sealed = fn->flushed || (agent_tree_holds(job, i) &&
				      trib_partial_state(&fn->partial) == TRIB_PARTIAL_SEALED);
	out->merged = agent_tree_holds(job, i) && agent_tree_merged(job, i);
	out->outstanding = fn->outstanding;
	out->idle_ms = now_ms > fn->worked_ms ? now_ms - fn->worked_ms : 0;
}

static uint32_t free_slots(const struct agent_job *job)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		count += trib_slot_load(trib_segment_record(&job->segment, i)).state ==
			 TRIB_SLOT_FREE;
	}
	return count;
}

static void describe(const struct agent_job *job, uint64_t now_ms, struct agent_plan_state *s)
{
	const struct agent_options *o = &job->agent->options;

	memset(s, 0, sizeof(*s));
	s->wish = job->wish;
	s->q = job->plan.q;
	s->waiting = job->pending_count;
	s->closing = job->closing;
	s->begun = job->begun;
	s->arrived = job->arrived > job->accepted ? job->arrived : job->accepted;
	s->goal = job->goal;
	s->gap_ms = s->arrived ? job->gap_ms * job->arrived / s->arrived : 0;
	s->age_ms = (double)(now_ms - job->began_ms);
	s->round_ms = job->round_ms;
	s->slots = job->segment.header.slot_count;
	s->fold_us = job->fold_us;
	s->merge_us = job->merge_us;
	s->hop_us = job->hop_us;
	s->cores = job->agent->cores;
	s->leaves_max = (uint32_t)o->leaves_max;
	s->credit_max = (uint32_t)o->credit;
	s->idle_limit_ms = o->idle_ms;
}

void agent_tree_plan(struct agent_job *job, uint64_t now_ms)
{
	struct agent_plan_state state;
	struct agent_plan plan;

	measure(job);
	describe(job, now_ms, &state);
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		describe_fn(job, i, now_ms, &state.fns[i]);
	}
	agent_plan_make(&state, &plan);
	if (plan.leaves != job->plan.leaves || plan.levels != job->plan.levels) {
		log_info("tree", "event=plan job=%s round=%u levels=%u middles=%u why=\"%s\"",
			 job->id, job->round, plan.levels, plan.middles, plan.why);
	}
	job->plan = plan;
	job->planned_ms = now_ms;
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		if (plan.acts[i] == AGENT_ACT_RETIRE) {
			agent_count(AGENT_M_RETIRED, 1);
			agent_fn_stop(&job->fns[i]);
			agent_fn_drop_partial(&job->fns[i]);
			job->fns[i].role = AGENT_ROLE_NONE;
		} else if (plan.acts[i] == AGENT_ACT_REUSE) {
			give_role(&job->fns[i], i == AGENT_TOP && plan.leaves == 1
							? AGENT_ROLE_TOP
							: AGENT_ROLE_LEAF);
		}
	}
}

void agent_tree_look(struct agent_job *job)
{
	uint64_t now = trib_clock_ms();

	if (!job->planned_ms || now - job->planned_ms >= job->wish.replan_ms ||
	    job->pending_count > 2 * job->plan.leaves * job->plan.fan_in) {
		agent_tree_plan(job, now);
	}
}

bool agent_tree_hold(struct agent_job *job)
{
	struct agent_plan_state state;
	bool hold;

	if (job->wish.policy == AGENT_EAGER || job->closing) {
		return false;
	}
	describe(job, trib_clock_ms(), &state);
	state.slots_free = free_slots(job);
	hold = agent_plan_hold(&state);
	if (!hold && job->wish.policy == AGENT_JUST_IN_TIME && !job->begun &&
	    (uint64_t)state.slots_free * 4 > state.slots) {
		job->begun = true;
	}
	return hold;
}

/* ---- rounds ---- */

void agent_tree_begin(struct agent_job *job)
{
	job->planned_ms = 0;
	job->begun = false;
	job->arrived = 0;
	job->accepted = 0;
	job->began_ms = trib_clock_ms();
	memset(&job->tree, 0, sizeof(job->tree));
}

void agent_tree_closing(struct agent_job *job)
{
	if (job->began_ms) {
		job->round_ms =
			average(job->round_ms, (double)(trib_clock_ms() - job->began_ms) + 1);
		job->began_ms = 0;
	}
}

void agent_tree_assign(struct agent_job *job)
{
	struct agent_plan_state state;
	uint64_t now = trib_clock_ms();

	agent_tree_plan(job, now);
	describe(job, now, &state);
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		describe_fn(job, i, now, &state.fns[i]);
	}
	agent_plan_tree(&state, job->plan.levels, &job->tree);
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		if (job->tree.role[i] != AGENT_ROLE_NONE) {
			give_role(&job->fns[i], (enum agent_role)job->tree.role[i]);
		}
	}
}
