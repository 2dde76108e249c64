/* SPDX-License-Identifier: Apache-2.0
 * The tree of one job on this node: asks the planner (plan.h) with what was measured, remembers its
 * answer, gives functions their roles. What is already summed where is read from the partials
 * themselves, so a tree begun by a former agent is gone on with whatever this one would have made.
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <stdio.h>
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
	uint32_t above = job->tree.parent[agent_group_of(job, index)];

	return agent_group_base(job, above ? above : AGENT_TOP) + agent_lane_of(job, index);
}

bool agent_tree_waits(const struct agent_job *job, uint32_t index)
{
	for (uint32_t i = AGENT_TOP + job->lanes; i <= job->fn_high; i++) {
		if (agent_tree_parent(job, i) == index && agent_tree_holds(job, i) &&
		    !agent_tree_merged(job, i)) {
			return true;
		}
	}
	return false;
}

const char *agent_role_name(const struct agent_fn *fn)
{
	static const char *const names[] = { "leaf", "leaf", "middle", "top" };

	return fn->role == AGENT_ROLE_NONE && agent_is_top(fn->job, fn->index) ? "top"
									       : names[fn->role];
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
	sum->followed += more->followed;
	sum->follow_kept += more->follow_kept;
	sum->follow_evicted += more->follow_evicted;
	sum->follow_dropped += more->follow_dropped;
	sum->follow_bytes += more->follow_bytes;
	sum->ahead += more->ahead;
}

static uint64_t grown(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0; /* less: partials went */
}

static void count_followed(const struct trib_partial_stats *now,
			   const struct trib_partial_stats *was)
{
	agent_count(AGENT_M_FOLLOWED, (int64_t)grown(now->followed, was->followed));
	agent_count(AGENT_M_FOLLOW_KEPT, (int64_t)grown(now->follow_kept, was->follow_kept));
	agent_count(AGENT_M_FOLLOW_EVICTED,
		    (int64_t)grown(now->follow_evicted, was->follow_evicted));
	agent_count(AGENT_M_FOLLOW_DROPPED,
		    (int64_t)grown(now->follow_dropped, was->follow_dropped));
	agent_count(AGENT_M_FOLLOW_BYTES, (int64_t)grown(now->follow_bytes, was->follow_bytes));
	agent_count(AGENT_M_AHEAD, (int64_t)grown(now->ahead, was->ahead));
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
	count_followed(&now, was);
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

void agent_tree_answered(struct agent_fn *fn, uint32_t slot)
{
	uint64_t took;

	if (fn->index == AGENT_TOP && slot) {
		agent_carve_answered(fn->job, slot);
	} else if (fn->reset_ns) {
		took = trib_clock_ns() - fn->reset_ns;
		fn->reset_ns = 0;
		fn->job->hop_us = average(fn->job->hop_us, (double)took / US);
		agent_count(AGENT_M_REUSE_US, (int64_t)(took / 1000));
	}
}

/* ---- asking ---- */

static void describe_one(const struct agent_job *job, uint32_t i, uint64_t now_ms,
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

/* A group as the planner sees it: warm when all of it is, sealed when one of it is. */
static void describe_groups(const struct agent_job *job, uint64_t now_ms,
			    struct agent_plan_state *s)
{
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		struct agent_plan_fn *group = &s->fns[agent_group_of(job, i)];
		struct agent_plan_fn one;

		describe_one(job, i, now_ms, &one);
		if (agent_lane_of(job, i) == 0) {
			*group = one;
			continue;
		}
		group->live &= one.live;
		group->holds |= one.holds;
		group->sealed |= one.sealed;
		group->merged &= one.merged;
		group->outstanding =
			one.outstanding > group->outstanding ? one.outstanding : group->outstanding;
		group->idle_ms = one.idle_ms < group->idle_ms ? one.idle_ms : group->idle_ms;
	}
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
	s->left_ms = !job->deadline_ms           ? 0
		     : job->deadline_ms > now_ms ? (double)(job->deadline_ms - now_ms)
						 : 1;
	s->payload = job->payload;
	s->slots = job->segment.header.slot_count - job->withdrawn;
	s->fold_us = job->fold_us;
	s->merge_us = job->merge_us;
	s->hop_us = job->hop_us;
	s->cores = job->agent->cores;
	s->leaves_max = (uint32_t)o->leaves_max;
	s->credit_max = (uint32_t)o->credit;
	s->idle_limit_ms = o->idle_ms;
	s->lanes = job->lanes;
	s->chunks = (uint32_t)((job->elements + TRIB_PARTIAL_CHUNK - 1) / TRIB_PARTIAL_CHUNK);
	s->sum_bytes = trib_partial_size(job->elements, job->accumulate);
	s->function_bytes = o->function_bytes;
}

void agent_tree_plan(struct agent_job *job, uint64_t now_ms)
{
	struct agent_plan_state state;
	struct agent_plan plan;

	measure(job);
	describe(job, now_ms, &state);
	describe_groups(job, now_ms, &state);
	agent_plan_make(&state, &plan);
	if (plan.leaves != job->plan.leaves || plan.levels != job->plan.levels) {
		log_info("tree", "event=plan job=%s round=%u levels=%u middles=%u why=\"%s\"",
			 job->id, job->round, plan.levels, plan.middles, plan.why);
	}
	job->plan = plan;
	job->planned_ms = now_ms;
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		uint32_t group = agent_group_of(job, i);

		if (plan.acts[group] == AGENT_ACT_RETIRE) {
			agent_count(AGENT_M_RETIRED, 1);
			agent_fn_stop(&job->fns[i]);
			agent_fn_drop_partial(&job->fns[i]);
			job->fns[i].role = AGENT_ROLE_NONE;
		} else if (plan.acts[group] == AGENT_ACT_REUSE) {
			give_role(&job->fns[i], group == AGENT_TOP && plan.leaves == 1
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
		agent_count(AGENT_M_JIT_DEADLINE, agent_plan_deadline_nears(&state));
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
	job->deadline_ms = 0;
	job->began_ms = trib_clock_ms();
	memset(&job->tree, 0, sizeof(job->tree));
}

void agent_tree_deadline(struct agent_job *job, uint64_t left_ms)
{
	job->deadline_ms = left_ms ? trib_clock_ms() + left_ms : 0;
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
	describe_groups(job, now, &state);
	agent_plan_tree(&state, job->plan.levels, &job->tree);
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		uint8_t role = job->tree.role[agent_group_of(job, i)];

		if (role != AGENT_ROLE_NONE) {
			give_role(&job->fns[i], (enum agent_role)role);
		}
	}
}

static void put_away(struct agent_fn *fn)
{
	agent_fn_stop(fn);
	fn->role = AGENT_ROLE_NONE;
	fn->flushed = false;
	fn->outstanding = 0;
	fn->reset_round = 0;
	fn->has_base = false;
}

/* Between rounds, when no sum of the new one is there yet, vectors may be cut otherwise. */
void agent_tree_shape(struct agent_job *job)
{
	struct agent_plan_state state;
	char why[AGENT_WHY_SIZE];
	uint32_t lanes;

	describe(job, trib_clock_ms(), &state);
	lanes = agent_plan_lanes(&state, why);
	if ((job->joined && !job->wish.shards) || agent_peers_begun(job)) {
		lanes = 1;
		(void)snprintf(why, sizeof(why), "sums go to another node whole");
	}
	for (uint32_t i = AGENT_TOP; i <= job->fn_high && lanes != job->lanes; i++) {
		const struct agent_fn *fn = &job->fns[i];

		if (fn->outstanding ||
		    (fn->has_partial && trib_partial_header(&fn->partial)->round == job->round)) {
			return; /* begun by a former agent */
		}
	}
	if (lanes != job->lanes || !job->lanes_why[0]) {
		memcpy(job->lanes_why, why, sizeof(why));
	}
	if (lanes == job->lanes) {
		return;
	}
	log_info("tree", "event=lanes job=%s round=%u lanes=%u why=\"%s\"", job->id, job->round,
		 lanes, job->lanes_why);
	measure(job);
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		put_away(&job->fns[i]);
		agent_fn_drop_partial(&job->fns[i]);
	}
	job->fn_high = 0;
	job->lanes = lanes;
}

uint32_t agent_tree_roots(struct agent_job *job, struct agent_root out[AGENT_LANES_MAX])
{
	for (uint32_t lane = 0; lane < job->lanes; lane++) {
		out[lane].fn = &job->fns[AGENT_TOP + lane];
		out[lane].elements =
			trib_partial_range(job->elements, lane, job->lanes, &out[lane].first);
	}
	return job->lanes;
}

void agent_tree_put_away(struct agent_job *job)
{
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		put_away(&job->fns[i]);
	}
}

/* Other nodes take part in the round: sums travel whole. The roots are one function 1 now. */
void agent_tree_joined(struct agent_job *job, const struct trib_partial *whole)
{
	struct agent_fn *top = &job->fns[AGENT_TOP];

	measure(job);
	job->agent->arena_used += whole->size - top->partial.size;
	job->reserved_bytes += whole->size - top->partial.size;
	trib_partial_fini(&top->partial);
	top->partial = *whole;
	for (uint32_t i = AGENT_TOP + 1; i <= job->fn_high; i++) {
		agent_fn_drop_partial(&job->fns[i]);
	}
	job->fn_high = AGENT_TOP;
	job->lanes = 1;
	job->joined = true;
	memset(&job->tree, 0, sizeof(job->tree));
}
