/* SPDX-License-Identifier: Apache-2.0
 * The tree as JSON: for /state and, now and then, for Redis (GET /v1/jobs/{job}/tree).
 */
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "orchestrator/agent/agent.h"

#define TTL_MS     "60000"
#define EVERY_MS   250u  /* not more often, whatever changes */
#define REFRESH_MS 10000 /* while the job is busy, even if nothing changes */

static void set_number(json_t *json, const char *key, uint64_t number)
{
	(void)json_object_set_new(json, key, json_integer((json_int_t)number));
}

json_t *agent_tree_function(const struct agent_job *job, uint32_t i)
{
	static const char *const names[] = { "none", "live", "waiting" };
	const struct agent_fn *fn = &job->fns[i];
	struct trib_route_stats r = { 0 };
	struct trib_partial_totals t = { 0, 0 };
	struct trib_partial_stats s = { 0 };
	json_t *json;

	if (trib_transport_route_stats(job->agent->transport, TRIB_ROUTE(job->index, i), &r)) {
		r.messages = 0;
	}
	if (fn->has_partial) {
		t = trib_partial_totals(&fn->partial);
		s = trib_partial_stats(&fn->partial);
	}
	json = json_pack("{s:i,s:s,s:i,s:s,s:i}", "index", (int)i, "role", agent_role_name(fn),
			 "parent", agent_is_top(job, i) ? 0 : (int)agent_tree_parent(job, i),
			 "state", names[fn->state], "pid", fn->pid);
	set_number(json, "outstanding", fn->outstanding);
	set_number(json, "updates", t.updates);
	set_number(json, "messages", r.messages);
	set_number(json, "bytes", r.bytes);
	set_number(json, "queue_us", r.queue_us);
	set_number(json, "exec_us", r.exec_us);
	set_number(json, "folded", s.updates);
	set_number(json, "passes", s.passes);
	set_number(json, "fold_us", s.fold_ns / 1000);
	set_number(json, "merged", s.partials);
	set_number(json, "merge_us", s.merge_ns / 1000);
	set_number(json, "cpu_us", s.cpu_ns / 1000);
	set_number(json, "crashes", fn->crashes);
	if (job->lanes > 1) {
		uint64_t first;
		uint32_t lane = agent_lane_of(job, i);

		set_number(json, "shard", lane);
		set_number(json, "elements",
			   trib_partial_range(job->elements, lane, job->lanes, &first));
		set_number(json, "first", first);
	}
	return json;
}

const char *agent_phase_name(const struct agent_job *job)
{
	static const char *const names[] = { "idle",    "collecting", "flushing", "finalising",
					     "writing", "reporting",  "exporting" };

	return names[job->phase];
}

json_t *agent_tree_json(const struct agent_job *job)
{
	static const char *const policies[] = { "eager", "lazy", "just-in-time" };
	const struct agent_plan *p = &job->plan;
	json_t *functions = json_array();
	json_t *json;

	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		if (job->fns[i].has_partial || job->fns[i].state != AGENT_FN_NONE) {
			(void)json_array_append_new(functions, agent_tree_function(job, i));
		}
	}
	json = json_pack("{s:I,s:i,s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:f,s:i,s:f,s:f,s:f,s:s,s:i,s:s}",
			 "at_ms", (json_int_t)trib_wall_ms(), "round", (int)job->round, "phase",
			 agent_phase_name(job), "policy", policies[job->wish.policy], "levels",
			 (int)p->levels, "leaves", (int)p->leaves, "middles", (int)p->middles,
			 "fan_in", (int)p->fan_in, "credit", (int)p->credit, "q", p->q, "waiting",
			 (int)job->pending_count, "fold_us", job->fold_us, "merge_us",
			 job->merge_us, "hop_us", job->hop_us, "why", p->why, "shards",
			 (int)job->lanes, "shards_why", job->lanes_why);
	if (!json || json_object_set_new(json, "functions", functions)) {
		json_decref(json);
		return NULL;
	}
	return json;
}

/* What is worth telling again when it changes. */
static uint64_t mark_of(const struct agent_job *job)
{
	uint64_t mark = job->round;

	mark = mark * 1099511628211u + job->phase;
	mark = mark * 1099511628211u + job->plan.leaves;
	mark = mark * 1099511628211u + job->plan.levels;
	mark = mark * 1099511628211u + job->lanes;
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		mark = mark * 1099511628211u + job->fns[i].role;
		mark = mark * 1099511628211u + (uint32_t)job->fns[i].pid;
	}
	return mark;
}

void agent_tree_tell(struct agent_job *job, uint64_t now_ms)
{
	uint64_t mark = mark_of(job);
	uint64_t age = now_ms - job->told_ms; /* huge for UINT64_MAX */
	uint64_t least = job->wish.replan_ms > EVERY_MS ? job->wish.replan_ms : EVERY_MS;
	json_t *json;
	char *text;

	if (age < least || (mark == job->told && (job->phase == AGENT_IDLE || age < REFRESH_MS)) ||
	    trib_redis_outstanding(job->agent->redis) > 256) {
		return;
	}
	json = agent_tree_json(job);
	text = json ? trib_json_print(json) : NULL;
	json_decref(json);
	if (text && trib_redis_send(job->agent->redis, NULL, NULL, "FCALL", "trib_tree_put", "1",
				    job->key, job->agent->options.node, text, TTL_MS, NULL)) {
		log_debug("tree", "event=not-told job=%s", job->id);
	}
	trib_free(text);
	job->told = mark;
	job->told_ms = now_ms;
}
