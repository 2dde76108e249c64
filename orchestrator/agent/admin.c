/* SPDX-License-Identifier: Apache-2.0
 * /healthz, /readyz, /metrics and /state (what the agent believes, for people and tests).
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/metrics.h"

enum {
	M_FIXED = AGENT_M_COUNT
};
enum gauge {
	G_REDIRECTED = M_FIXED,
	G_RELAYED,
	G_DEAD,
	G_DROPPED,
	G_FUNCTIONS,
	G_SPARES,
	G_LEVELS,
	G_FAN_IN,
	G_SHARDS,
	G_JOBS,
	G_ARENA,
	G_ARENA_USED,
	G_SLOT_FREE,
	G_SLOT_FILLING,
	G_SLOT_READY,
	G_SLOT_CLAIMED,
	G_SKMSG,
	G_COUNT
};

static struct trib_metric metrics[G_COUNT] = {
	[AGENT_M_SPAWNS] = { "tributary_agg_cold_starts_total", NULL,
			     "Functions started that were not warm", TRIB_COUNTER, 0, 0 },
	[AGENT_M_SPAWN_US] = { "tributary_agg_spawn_seconds_sum", NULL,
			       "Time from asking to a process", TRIB_COUNTER, 1e-6, 0 },
	[AGENT_M_CRASHES] = { "tributary_agg_crashes_total", NULL, "Functions that died unasked",
			      TRIB_COUNTER, 0, 0 },
	[AGENT_M_REPLAYED] = { "tributary_agg_replayed_total", NULL,
			       "Slots given out again after a crash", TRIB_COUNTER, 0, 0 },
	[AGENT_M_ABANDONED] = { "tributary_agg_abandoned_total", NULL,
				"Folds given up, having killed their function again and again",
				TRIB_COUNTER, 0, 0 },
	[AGENT_M_QUARANTINED] = { "tributary_updates_quarantined_total", NULL,
				  "Updates taken out of their round: folding them kills",
				  TRIB_COUNTER, 0, 0 },
	[AGENT_M_UPDATES] = { "tributary_agent_updates_total", NULL,
			      "Committed updates taken into the queue", TRIB_COUNTER, 0, 0 },
	[AGENT_M_ROUNDS] = { "tributary_agent_rounds_total", NULL, "Rounds aggregated on this node",
			     TRIB_COUNTER, 0, 0 },
	[AGENT_M_LOST] = { "tributary_slot_lost_total", NULL,
			   "Updates declared lost with their memory", TRIB_COUNTER, 0, 0 },
	[AGENT_M_WITHDRAWN] = { "tributary_slots_withdrawn_total", NULL,
				"Free slots taken back, their tenant being above its share",
				TRIB_COUNTER, 0, 0 },
	[AGENT_M_ORPHANS] = { "tributary_slot_orphans_total", NULL,
			      "READY slots of a dead gateway committed again", TRIB_COUNTER, 0, 0 },
	[AGENT_M_BAD] = { "tributary_desc_bad_total", NULL, "Descriptors that failed a check",
			  TRIB_COUNTER, 0, 0 },
	[AGENT_M_NACKS] = { "tributary_desc_nacks_total", NULL, "Descriptors a function refused",
			    TRIB_COUNTER, 0, 0 },
	[AGENT_M_SCANS] = { "tributary_slot_scans_total", NULL, "Scans of a segment", TRIB_COUNTER,
			    0, 0 },
	[AGENT_M_RING_MISSED] = { "tributary_ring_full_total", NULL, "Hints not sent, ring full",
				  TRIB_COUNTER, 0, 0 },
	[AGENT_M_PRUNED] = { "tributary_models_pruned_total", NULL,
			     "Model files removed: not kept by checkpoints", TRIB_COUNTER, 0, 0 },
	[AGENT_M_STALLED] = { "tributary_agg_stalled_total", NULL,
			      "Functions killed for standing still with work in hand", TRIB_COUNTER,
			      0, 0 },
	[AGENT_M_POOLED] = { "tributary_agg_pooled_starts_total", NULL,
			     "Cold starts that took a process forked before", TRIB_COUNTER, 0, 0 },
	[AGENT_M_REUSES] = { "tributary_agg_reuses_total", NULL,
			     "Warm functions taken for another round", TRIB_COUNTER, 0, 0 },
	[AGENT_M_REUSE_US] = { "tributary_agg_reuse_seconds_sum", NULL,
			       "Time from asking a warm function to its answer", TRIB_COUNTER, 1e-6,
			       0 },
	[AGENT_M_CONVERSIONS] = { "tributary_agg_conversions_total", NULL,
				  "Functions given another role in the tree", TRIB_COUNTER, 0, 0 },
	[AGENT_M_RETIRED] = { "tributary_agg_retired_total", NULL,
			      "Functions ended because they were idle", TRIB_COUNTER, 0, 0 },
	[AGENT_M_FOLDED] = { "tributary_agg_folded_total", NULL, "Updates folded", TRIB_COUNTER, 0,
			     0 },
	[AGENT_M_PASSES] = { "tributary_agg_passes_total", NULL, "Fused passes over updates",
			     TRIB_COUNTER, 0, 0 },
	[AGENT_M_FOLD_US] = { "tributary_agg_fold_seconds_sum", NULL, "Time in those passes",
			      TRIB_COUNTER, 1e-6, 0 },
	[AGENT_M_MERGED] = { "tributary_agg_merged_total", NULL, "Sums merged into a parent's",
			     TRIB_COUNTER, 0, 0 },
	[AGENT_M_MERGE_US] = { "tributary_agg_merge_seconds_sum", NULL, "Time merging",
			       TRIB_COUNTER, 1e-6, 0 },
	[AGENT_M_CPU_US] = { "tributary_agg_cpu_seconds_total", NULL, "CPU time of functions",
			     TRIB_COUNTER, 1e-6, 0 },
	[AGENT_M_SUMS_SENT] = { "tributary_partials_sent_total", NULL,
				"Sums another node took over", TRIB_COUNTER, 0, 0 },
	[AGENT_M_SUM_BYTES_SENT] = { "tributary_partial_bytes_sent_total", NULL,
				     "Bytes of such sums", TRIB_COUNTER, 0, 0 },
	[AGENT_M_SUMS_FAILED] = { "tributary_partials_unsent_total", NULL,
				  "Attempts to send a sum that failed", TRIB_COUNTER, 0, 0 },
	[AGENT_M_SUMS_TAKEN] = { "tributary_partials_taken_total", NULL,
				 "Sums of other nodes taken over", TRIB_COUNTER, 0, 0 },
	[AGENT_M_SUM_BYTES_TAKEN] = { "tributary_partial_bytes_taken_total", NULL,
				      "Bytes of such sums", TRIB_COUNTER, 0, 0 },
	[AGENT_M_SUMS_REFUSED] = { "tributary_partials_refused_total", NULL,
				   "Sums of other nodes refused", TRIB_COUNTER, 0, 0 },
	[AGENT_M_MODELS_FETCHED] = { "tributary_models_fetched_total", NULL,
				     "Version files fetched from other nodes", TRIB_COUNTER, 0, 0 },
	[AGENT_M_MODEL_BYTES_FETCHED] = { "tributary_model_bytes_fetched_total", NULL,
					  "Bytes of such files", TRIB_COUNTER, 0, 0 },
	[AGENT_M_FETCHES_FAILED] = { "tributary_models_unfetched_total", NULL,
				     "Attempts to fetch a version that failed", TRIB_COUNTER, 0,
				     0 },
	[AGENT_M_MODELS_LOST] = { "tributary_models_lost_total", NULL,
				  "Newest versions that no node had any more", TRIB_COUNTER, 0, 0 },
	[AGENT_M_MODELS_COPIED] = { "tributary_models_copied_total", NULL,
				    "Version files made from an older one's after such a loss",
				    TRIB_COUNTER, 0, 0 },
	[AGENT_M_TRANSFERS_REFUSED] = { "tributary_transfers_refused_total", NULL,
					"Transfers put off: too many under way", TRIB_COUNTER, 0,
					0 },
	[AGENT_M_NODE_LOST] = { "tributary_node_lost_total", NULL,
				"Jobs whose memory here was declared lost while we lived",
				TRIB_COUNTER, 0, 0 },
	[AGENT_M_FOLLOW_HINTS] = { "tributary_follow_hints_total", NULL,
				   "Updates that functions were told of while they arrived",
				   TRIB_COUNTER, 0, 0 },
	[AGENT_M_FOLLOWED] = { "tributary_agg_followed_total", NULL,
			       "Updates that functions began to fold while they arrived",
			       TRIB_COUNTER, 0, 0 },
	[AGENT_M_FOLLOW_KEPT] = { "tributary_agg_follow_kept_total", NULL,
				  "Updates folded so, counted", TRIB_COUNTER, 0, 0 },
	[AGENT_M_FOLLOW_EVICTED] = { "tributary_agg_follow_evicted_total", NULL,
				     "Updates taken out again, their group went on", TRIB_COUNTER,
				     0, 0 },
	[AGENT_M_FOLLOW_DROPPED] = { "tributary_agg_follow_dropped_total", NULL,
				     "Groups forgotten, folded from the slots", TRIB_COUNTER, 0,
				     0 },
	[AGENT_M_COPIED_AHEAD] = { "tributary_models_copied_ahead_total", NULL,
				   "Versions of which a part was copied while they were made",
				   TRIB_COUNTER, 0, 0 },
	[AGENT_M_COPIED_ANEW] = { "tributary_models_copied_anew_total", NULL,
				  "Such copies begun anew, the model being another one",
				  TRIB_COUNTER, 0, 0 },
	[AGENT_M_AHEAD] = { "tributary_agg_models_ahead_total", NULL,
			    "Models that functions had begun before they were asked for them",
			    TRIB_COUNTER, 0, 0 },
	[AGENT_M_FOLLOW_BYTES] = { "tributary_agg_follow_bytes_total", NULL,
				   "Bytes of updates folded while they arrived", TRIB_COUNTER, 0,
				   0 },
	[AGENT_M_MODELS_FILED] = { "tributary_models_filed_total", NULL,
				   "Published versions written to their files", TRIB_COUNTER, 0,
				   0 },
	[AGENT_M_MODELS_UNFILED] = { "tributary_models_unfiled_total", NULL,
				     "Attempts to write such a file that failed", TRIB_COUNTER, 0,
				     0 },
	[AGENT_M_MODELS_GIVEN_UP] = { "tributary_model_memories_given_up_total", NULL,
				      "Memories of versions not used again: somebody may still "
				      "read them",
				      TRIB_COUNTER, 0, 0 },
	[AGENT_M_JIT_DEADLINE] = { "tributary_jit_deadline_total", NULL,
				   "Rounds whose folding began for their deadline (just-in-time)",
				   TRIB_COUNTER, 0, 0 },
	[AGENT_M_MESSAGES] = { "tributary_agg_queue_seconds_count", NULL,
			       "Messages delivered to functions, as the carrier counts",
			       TRIB_COUNTER, 0, 0 },
	[AGENT_M_MESSAGE_BYTES] = { "tributary_agg_message_bytes_total", NULL,
				    "Bytes of those messages", TRIB_COUNTER, 0, 0 },
	[AGENT_M_QUEUE_US] = { "tributary_agg_queue_seconds_sum", NULL,
			       "Time updates and messages waited before they were delivered",
			       TRIB_COUNTER, 1e-6, 0 },
	[AGENT_M_EXEC_US] = { "tributary_agg_exec_seconds_total", NULL,
			      "Time functions had something in hand: given, not answered",
			      TRIB_COUNTER, 1e-6, 0 },
	[G_REDIRECTED] = { "tributary_desc_sent_total", "how=\"redirected\"",
			   "Descriptors by carrier", TRIB_COUNTER, 0, 0 },
	[G_RELAYED] = { "tributary_desc_sent_total", "how=\"relayed\"", "Descriptors by carrier",
			TRIB_COUNTER, 0, 0 },
	[G_DEAD] = { "tributary_desc_dead_letters_total", NULL,
		     "Descriptors the kernel could not deliver", TRIB_COUNTER, 0, 0 },
	[G_DROPPED] = { "tributary_desc_dropped_total", NULL, "Descriptors nobody could take",
			TRIB_COUNTER, 0, 0 },
	[G_FUNCTIONS] = { "tributary_agg_processes", NULL, "Live functions", TRIB_GAUGE, 0, 0 },
	[G_SPARES] = { "tributary_agg_spares", NULL, "Functions that wait for a job", TRIB_GAUGE, 0,
		       0 },
	[G_LEVELS] = { "tributary_tree_levels", NULL, "Levels of the deepest tree", TRIB_GAUGE, 0,
		       0 },
	[G_FAN_IN] = { "tributary_tree_fan_in", NULL, "Waiting updates per leaf, at most",
		       TRIB_GAUGE, 0, 0 },
	[G_SHARDS] = { "tributary_tree_shards", NULL, "Ranges a vector is split into, at most",
		       TRIB_GAUGE, 0, 0 },
	[G_JOBS] = { "tributary_agent_jobs", NULL, "Jobs with memory on this node", TRIB_GAUGE, 0,
		     0 },
	[G_ARENA] = { "tributary_arena_bytes", NULL, "Shared memory this node may use", TRIB_GAUGE,
		      0, 0 },
	[G_ARENA_USED] = { "tributary_arena_used_bytes", NULL, "Shared memory handed to jobs",
			   TRIB_GAUGE, 0, 0 },
	[G_SLOT_FREE] = { "tributary_slots", "state=\"free\"", "Slots by state", TRIB_GAUGE, 0, 0 },
	[G_SLOT_FILLING] = { "tributary_slots", "state=\"filling\"", "Slots by state", TRIB_GAUGE,
			     0, 0 },
	[G_SLOT_READY] = { "tributary_slots", "state=\"ready\"", "Slots by state", TRIB_GAUGE, 0,
			   0 },
	[G_SLOT_CLAIMED] = { "tributary_slots", "state=\"claimed\"", "Slots by state", TRIB_GAUGE,
			     0, 0 },
	[G_SKMSG] = { "tributary_transport_skmsg", NULL, "1 when the kernel routes descriptors",
		      TRIB_GAUGE, 0, 0 },
};

void agent_count(enum agent_metric metric, int64_t amount)
{
	trib_metric_add(&metrics[metric], amount);
}

int64_t agent_counted(enum agent_metric metric)
{
	return trib_metric_get(&metrics[metric]);
}

static void slots_of(const struct agent_job *job, uint64_t counts[4])
{
	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		unsigned state = trib_slot_load(trib_segment_record(&job->segment, i)).state;

		if (state < 4) {
			counts[state]++;
		}
	}
}

static void refresh(const struct agent *agent)
{
	struct trib_transport_stats stats;
	uint64_t counts[4] = { 0 };
	uint64_t functions = 0;
	uint32_t spares = 0;
	uint32_t levels = 0;
	uint32_t fan_in = 0;
	uint32_t shards = 0;

	trib_transport_stats(agent->transport, &stats);
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		const struct agent_job *job = agent->jobs[i];

		if (!job || job->segment.data_fd < 0) {
			continue;
		}
		slots_of(job, counts);
		levels = job->plan.levels > levels ? job->plan.levels : levels;
		fan_in = job->plan.fan_in > fan_in ? job->plan.fan_in : fan_in;
		shards = job->lanes > shards ? job->lanes : shards;
		for (uint32_t f = AGENT_TOP; f <= job->fn_high; f++) {
			functions += job->fns[f].pid > 0;
			agent_fn_account(&agent->jobs[i]->fns[f]);
		}
	}
	trib_metric_set(&metrics[G_REDIRECTED], (int64_t)stats.redirected);
	trib_metric_set(&metrics[G_RELAYED], (int64_t)stats.relayed);
	trib_metric_set(&metrics[G_DEAD], (int64_t)stats.dead_letters);
	trib_metric_set(&metrics[G_DROPPED], (int64_t)stats.dropped);
	for (uint32_t i = 0; i < AGENT_SPARES_MAX; i++) {
		spares += agent->pool.spares[i].pid > 0;
	}
	trib_metric_set(&metrics[G_SPARES], spares);
	trib_metric_set(&metrics[G_LEVELS], levels);
	trib_metric_set(&metrics[G_FAN_IN], fan_in);
	trib_metric_set(&metrics[G_SHARDS], shards);
	trib_metric_set(&metrics[G_FUNCTIONS], (int64_t)functions);
	trib_metric_set(&metrics[G_JOBS], agent->job_count);
	trib_metric_set(&metrics[G_ARENA], (int64_t)agent->options.arena_bytes);
	trib_metric_set(&metrics[G_ARENA_USED], (int64_t)agent->arena_used);
	for (int i = 0; i < 4; i++) {
		trib_metric_set(&metrics[G_SLOT_FREE + i], (int64_t)counts[i]);
	}
	trib_metric_set(&metrics[G_SKMSG],
			trib_transport_mode(agent->transport) == TRIB_TRANSPORT_SKMSG);
}

static json_t *job_state(const struct agent_job *job)
{
	uint64_t counts[4] = { 0 };
	json_t *functions = json_array();
	struct trib_partial_totals folded = agent_round_folded(job);

	if (job->segment.data_fd >= 0) {
		slots_of(job, counts);
	}
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		(void)json_array_append_new(functions, agent_tree_function(job, i));
	}
	return json_pack("{s:s,s:i,s:b,s:i,s:s,s:b,s:I,s:I,s:i,s:I,s:{s:I,s:I,s:I,s:I},s:o,s:o}",
			 "job", job->id, "index", (int)job->index, "ready", job->ready, "round",
			 (int)job->round, "phase", agent_phase_name(job), "closing", job->closing,
			 "folded", (json_int_t)folded.updates, "expected",
			 (json_int_t)job->expected, "pending", (int)job->pending_count, "bytes",
			 (json_int_t)job->reserved_bytes, "slots", "free", (json_int_t)counts[0],
			 "filling", (json_int_t)counts[1], "ready", (json_int_t)counts[2],
			 "claimed", (json_int_t)counts[3], "functions", functions, "tree",
			 agent_tree_json(job));
}

static void reply_state(struct agent *agent, struct trib_exchange *x)
{
	struct trib_transport_stats s;
	json_t *jobs = json_array();
	json_t *all;
	char *text;

	trib_transport_stats(agent->transport, &s);
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		if (agent->jobs[i]) {
			(void)json_array_append_new(jobs, job_state(agent->jobs[i]));
		}
	}
	all = json_pack(
		"{s:s,s:i,s:i,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "node", agent->options.node,
		"pid", (int)getpid(), "zygote_pid", agent->zygote_pid, "transport",
		trib_transport_mode(agent->transport) == TRIB_TRANSPORT_SKMSG ? "skmsg" : "relay",
		"why", trib_transport_explain(agent->transport), "redirected",
		(json_int_t)s.redirected, "relayed", (json_int_t)s.relayed, "dead_letters",
		(json_int_t)s.dead_letters, "dropped", (json_int_t)s.dropped, "arena_bytes",
		(json_int_t)agent->options.arena_bytes, "arena_used", (json_int_t)agent->arena_used,
		"jobs", jobs);
	text = all ? trib_json_print(all) : NULL;
	json_decref(all);
	if (!text) {
		trib_http_problem(x, TRIB_PROBLEM_INTERNAL, NULL, 0);
		return;
	}
	trib_http_reply(x, 200, "application/json", text, strlen(text));
	trib_free(text);
}

static void reply_metrics(struct agent *agent, struct trib_exchange *x)
{
	char *text;

	refresh(agent);
	text = trib_metrics_print(metrics, G_COUNT, "agent");
	if (!text) {
		trib_http_problem(x, TRIB_PROBLEM_INTERNAL, NULL, 0);
		return;
	}
	trib_http_reply(x, 200, "text/plain; version=0.0.4", text, strlen(text));
	trib_free(text);
}

/* POST: by whoever is on this machine (a pod's preStop hook); it has no other proof to show. */
static void reply_drain(struct agent *agent, struct trib_exchange *x, bool begin)
{
	const char *peer = trib_exchange_peer(x);
	json_t *json;
	char *text;

	if (begin && peer[0] && strncmp(peer, "127.", 4) != 0 && strncmp(peer, "[::1]", 5) != 0 &&
	    strcmp(peer, "::1") != 0) {
		trib_http_problem(x, TRIB_PROBLEM_FORBIDDEN, "from this machine only", 0);
		return;
	}
	if (begin && agent_drain_ask(agent)) {
		trib_http_problem(x, TRIB_PROBLEM_UNAVAILABLE, "Redis is not connected", 1000);
		return;
	}
	json = json_pack("{s:s,s:s,s:s,s:I,s:I}", "node", agent->options.node, "drain",
			 agent_drain_word(agent), "why", agent->drain.why ? agent->drain.why : "",
			 "rounds", (json_int_t)agent->drain.rounds, "files",
			 (json_int_t)agent->drain.files);
	text = json ? trib_json_print(json) : NULL;
	json_decref(json);
	if (text) {
		trib_http_reply(x, begin ? 202 : 200, "application/json", text, strlen(text));
	} else {
		trib_http_problem(x, TRIB_PROBLEM_INTERNAL, NULL, 0);
	}
	trib_free(text);
}

static void on_request(struct trib_exchange *x, const struct trib_http_request *request, void *arg)
{
	struct agent *agent = arg;
	const char *path = request->path;

	if (strcmp(path, "/drain") == 0 && request->method == TRIB_HTTP_POST) {
		reply_drain(agent, x, true);
	} else if (request->method != TRIB_HTTP_GET && request->method != TRIB_HTTP_HEAD) {
		trib_http_problem(x, TRIB_PROBLEM_METHOD_NOT_ALLOWED, NULL, 0);
	} else if (strcmp(path, "/healthz") == 0) {
		trib_http_reply(x, 200, "text/plain", "ok\n", 3);
	} else if (strcmp(path, "/readyz") == 0) {
		if (trib_redis_connected(agent->redis) && agent->zygote_fd >= 0) {
			trib_http_reply(x, 200, "text/plain", "ok\n", 3);
		} else {
			trib_http_problem(x, TRIB_PROBLEM_UNAVAILABLE, "Redis is not connected",
					  1000);
		}
	} else if (strcmp(path, "/metrics") == 0) {
		reply_metrics(agent, x);
	} else if (strcmp(path, "/state") == 0) {
		reply_state(agent, x);
	} else if (strcmp(path, "/drain") == 0) {
		reply_drain(agent, x, false);
	} else {
		trib_http_problem(x, TRIB_PROBLEM_NO_SUCH_PATH, NULL, 0);
	}
}

int agent_admin_start(struct agent *agent)
{
	const struct trib_httpd_handler handler = { .on_request = on_request, .arg = agent };
	int rc;

	agent->admin_fd = -1;
	if (!agent->options.admin[0]) {
		return 0;
	}
	rc = trib_listen(agent->options.admin, &agent->admin_fd);
	if (rc) {
		return rc;
	}
	return trib_httpd_new(agent->loop, agent->admin_fd, &trib_httpd_limits_default, &handler,
			      &agent->admin);
}

void agent_admin_stop(struct agent *agent)
{
	agent->admin = trib_httpd_free(agent->admin);
	if (agent->admin_fd >= 0) {
		(void)close(agent->admin_fd);
	}
}
