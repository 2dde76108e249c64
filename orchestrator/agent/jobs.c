/* SPDX-License-Identifier: Apache-2.0
 * Jobs on this node: made when a gateway first asks for one, dropped when the job is over.
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/id.h"
#include "common/json.h"
#include "common/log.h"
#include "orchestrator/agent/published.h"
#include "orchestrator/agent/warm.h"

#define POLL_OPEN_MS   1000 /* a round is open, nothing waits here */
#define POLL_BUSY_MS   250
#define POLL_IDLE_MS   5000 /* none is, or nothing has happened in it for idle-ms */
#define SLOTS_AUTO_MAX 1024u
#define TOUCH_SLOTS    8u   /* touched ahead of the first uploads */
#define SCAN_MS        1000 /* hints may get lost: a claimed slot is found after that */
#define WALK_MS        5000
#define WALK_PAGE      128

struct agent_job *agent_job_find(struct agent *agent, const char *id)
{
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		if (agent->jobs[i] && !agent->jobs[i]->retiring &&
		    strcmp(agent->jobs[i]->id, id) == 0) {
			return agent->jobs[i];
		}
	}
	return NULL;
}

static struct agent_job *job_new(struct agent *agent, const char *id, uint32_t index)
{
	struct agent_job *job = trib_alloc(sizeof(*job));

	if (!job) {
		return NULL;
	}
	job->agent = agent;
	job->index = index;
	job->hub_fd = -1;
	job->lanes = 1;
	job->peers.spare.fd = -1;
	job->segment.data_fd = -1;
	job->segment.ctl_fd = -1;
	(void)snprintf(job->id, sizeof(job->id), "%s", id);
	(void)snprintf(job->key, sizeof(job->key), "trib:{%s}:job", job->id);
	for (uint32_t i = 0; i < AGENT_FUNCTIONS_MAX; i++) {
		job->fns[i].job = job;
		job->fns[i].index = i;
		job->fns[i].pidfd = -1;
		job->fns[i].control_fd = -1;
	}
	job->busy_ms = trib_clock_ms();
	agent->jobs[index] = job;
	agent->job_count++;
	agent_pool_tick(agent, trib_clock_ms()); /* one is ready before its first update is */
	return job;
}

struct agent_job *agent_job_get(struct agent *agent, const char *id)
{
	struct agent_job *job = agent_job_find(agent, id);

	if (job) {
		return job;
	}
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		if (!agent->jobs[i]) {
			return job_new(agent, id, i);
		}
	}
	return NULL;
}

static int job_notes(struct agent_job *job)
{
	job->notes = trib_alloc_array(job->segment.header.slot_count, sizeof(*job->notes));
	job->pending = trib_alloc_array(job->segment.header.slot_count, sizeof(*job->pending));
	return job->notes && job->pending ? 0 : -ENOMEM;
}

struct agent_job *agent_job_adopt(struct agent *agent, struct trib_segment *segment)
{
	const struct trib_segment_header *h = &segment->header;
	struct trib_id id;
	struct agent_job *job = NULL;

	if (h->job_index < AGENT_JOBS_MAX && !agent->jobs[h->job_index] &&
	    !trib_id_parse("job_", h->job, &id)) {
		job = job_new(agent, h->job, h->job_index);
	}
	if (!job) {
		trib_segment_fini(segment);
		return NULL;
	}
	job->segment = *segment;
	job->reserved_bytes = segment->data_size + segment->ctl_size;
	agent_share_adopted(job);
	agent->arena_used += job->reserved_bytes;
	if (job_notes(job)) {
		agent_job_drop(job, "no memory");
		return NULL;
	}
	return job;
}

static void hub_readable(int fd, unsigned ready, void *arg)
{
	struct agent_job *job = arg;
	struct trib_descriptor descriptors[64];
	int n;

	(void)ready;
	for (uint32_t turn = 0; turn < 16; turn++) {
		n = trib_descriptor_receive(fd, &job->reader, descriptors, 64);
		if (n <= 0) {
			break;
		}
		for (int i = 0; i < n; i++) {
			if (!trib_descriptor_valid(&descriptors[i]) ||
			    descriptors[i].job != job->index) {
				agent_count(AGENT_M_BAD, 1);
				continue;
			}
			agent_round_ack(job, &descriptors[i]);
		}
	}
	agent_round_dispatch(job);
	agent_round_advance(job);
}

static void hub_closed(void *arg)
{
	struct agent_job *job = arg;

	log_err("jobs", "event=hub-closed job=%s", job->id);
}

static int hub_open(struct agent_job *job)
{
	int rc = trib_endpoint_new(job->agent->transport, TRIB_ROUTE(job->index, 0), job->index,
				   hub_closed, job, &job->hub_fd, &job->hub);

	if (rc) {
		return rc;
	}
	return trib_io_new(job->agent->loop, job->hub_fd, TRIB_IO_READ, hub_readable, job,
			   &job->hub_io);
}

/* "auto" is no number: 0, the planner's choice. */
static void read_wish(const json_t *spec, struct agent_plan_wish *wish)
{
	const char *policy = trib_json_text(spec, "hierarchy.policy", "eager");

	wish->levels = (uint32_t)trib_json_integer(spec, "hierarchy.levels", 0);
	wish->leaves = (uint32_t)trib_json_integer(spec, "hierarchy.leaves", 0);
	wish->fan_in = (uint32_t)trib_json_integer(spec, "hierarchy.fan_in", 0);
	wish->shards = (uint32_t)trib_json_integer(spec, "hierarchy.shards", 0);
	wish->replan_ms = (uint32_t)trib_json_integer(spec, "hierarchy.replan_ms", 100);
	wish->alpha = trib_json_number(spec, "hierarchy.alpha", 0.7);
	wish->policy = strcmp(policy, "lazy") == 0           ? AGENT_LAZY
		       : strcmp(policy, "just-in-time") == 0 ? AGENT_JUST_IN_TIME
							     : AGENT_EAGER;
}

/* node_sync: {state, version, params, bytes, round, rstate, base, acc, wsum, on_node, spec, selmax,
 * goal, divisor; top, top's url, weight on_node, boot, task, moves, norms, ms left, tenant}: 23
 * texts. */
int agent_job_parameters(struct agent_job *job, const struct trib_value *sync)
{
	const struct trib_value *spec_text = trib_value_at(sync, 10);
	json_t *spec = NULL;
	char reason[160];
	int rc;

	job->elements = (uint64_t)trib_value_integer(trib_value_at(sync, 2));
	job->payload = (uint64_t)trib_value_integer(trib_value_at(sync, 3));
	if (job->elements == 0 || job->payload != job->elements * sizeof(float) ||
	    job->elements > (1ull << 36)) {
		return -ENOENT; /* no model yet */
	}
	rc = trib_json_parse(trib_value_text(spec_text), trib_value_size(spec_text), &spec, reason);
	if (rc) {
		return -EBADMSG;
	}
	job->accumulate = strcmp(trib_json_text(spec, "aggregation.accumulate", "exact"), "f32")
				  ? TRIB_ACCUMULATE_EXACT
				  : TRIB_ACCUMULATE_F32;
	job->scale_bits = (uint32_t)trib_json_integer(spec, "aggregation.scale_bits", 24);
	job->input = strcmp(trib_json_text(spec, "aggregation.input", "delta"), "weights") == 0;
	job->lr = trib_json_number(spec, "aggregation.server_opt.lr", 1.0);
	job->memory = strcmp(trib_json_text(spec, "async.memory", "none"), "all") == 0
			      ? (uint32_t)trib_json_integer(spec, "async.memory_clients", 100)
			      : 0;
	read_wish(spec, &job->wish);
	json_decref(spec);
	return job->scale_bits <= 40 ? 0 : -EBADMSG;
}

/* How many slots: what the spec says, else enough for the round, within what the arena has left. */
static uint32_t slots_for(struct agent_job *job, const struct trib_value *sync)
{
	uint64_t slot = trib_segment_slot_size(job->payload) + sizeof(struct trib_slot_record);
	uint64_t most = UINT64_MAX;
	/* What is finalised, the base and the next version. */
	uint64_t sums = 2 * trib_partial_size(job->elements, job->accumulate) + 3 * job->payload;
	/* With a memory: all that is remembered and a buffer beside it, or it would stand still. */
	uint64_t kept =
		job->memory ? job->memory + (uint64_t)trib_value_integer(trib_value_at(sync, 12))
			    : 0;
	uint64_t wanted = (uint64_t)trib_value_integer(trib_value_at(sync, 11)) + 2 + kept;
	const struct trib_value *spec_text = trib_value_at(sync, 10);
	json_t *spec = NULL;
	char reason[160];
	uint64_t left;
	uint64_t fits;

	wanted = wanted > SLOTS_AUTO_MAX + kept ? SLOTS_AUTO_MAX + kept : wanted;
	if (!trib_json_parse(trib_value_text(spec_text), trib_value_size(spec_text), &spec,
			     reason)) {
		long long asked = trib_json_integer(spec, "placement.slots", 0);
		long long bytes = trib_json_integer(spec, "placement.arena_bytes", 0);

		json_decref(spec);
		if (bytes > 0) {
			most = (uint64_t)bytes;
		}
		if (asked > 0) {
			wanted = asked < TRIB_SEGMENT_SLOTS_MAX ? (uint64_t)asked
								: TRIB_SEGMENT_SLOTS_MAX;
		}
	}
	left = sums + wanted * slot < most ? sums + wanted * slot : most;
	left = agent_share_left(job, left);
	left = left < most ? left : most;
	if (left < sums + slot) {
		return 0;
	}
	fits = (left - sums) / slot;
	fits = fits < wanted ? fits : wanted;
	return kept && fits < kept + 2 ? 0 : (uint32_t)fits;
}

static void answer_waiting(struct agent_job *job, int result)
{
	for (uint32_t i = 0; i < job->waiting_count; i++) {
		agent_link_segment(job->waiting[i], job, job->id, result);
	}
	job->waiting_count = 0;
}

struct job_call {
	struct agent *agent;
	long long lost; /* so far */
	char id[TRIB_JOB_ID_SIZE];
};

static struct job_call *call_new(const struct agent_job *job)
{
	struct job_call *call = trib_alloc(sizeof(*call));

	if (call) {
		call->agent = job->agent;
		call->lost = 0;
		memcpy(call->id, job->id, sizeof(call->id));
	}
	return call;
}

/* Many updates are declared lost a page at a time. True: the call was sent again for more. */
static bool lost_more(const struct trib_value *value, struct job_call *call, trib_redis_cb *cb)
{
	char key[TRIB_JOB_ID_SIZE + 16];

	call->lost += value ? trib_value_integer(trib_value_at(value, 1)) : 0;
	if (!value || strcmp(trib_value_text(trib_value_at(value, 0)), "MORE") != 0) {
		return false;
	}
	(void)snprintf(key, sizeof(key), "trib:{%s}:job", call->id);
	return trib_redis_send(call->agent->redis, cb, call, "FCALL", "trib_node_lost_more", "1",
			       key, call->agent->options.node, NULL) == 0;
}

/* Earlier incarnations of this node's share of the round are declared lost; then the segment may
 * be used. */
static void on_lost_declared(const struct trib_value *value, void *arg)
{
	struct job_call *call = arg;
	struct agent_job *job = agent_job_find(call->agent, call->id);
	long long lost;

	if (lost_more(value, call, on_lost_declared)) {
		return;
	}
	lost = call->lost;
	trib_free(call);
	if (!job || !value) {
		return;
	}
	if (lost > 0) {
		agent_count(AGENT_M_LOST, lost);
		log_warn("jobs",
			 "event=updates-lost job=%s count=%lld why=\"their memory is gone\"",
			 job->id, lost);
	}
	job->ready = true;
	job->informed = false;
	job->busy_ms = trib_clock_ms();
	if (job->agent->gateway_fresh) {
		agent_slots_orphans(job); /* before that gateway gets the segment */
	} else {
		agent_slots_scan(job);
	}
	answer_waiting(job, 0);
	agent_job_sync(job);
}

static int declare_lost(struct agent_job *job, const char *boot, trib_redis_cb *cb)
{
	struct job_call *call = call_new(job);
	char round[12];
	int rc;

	if (!call) {
		return -ENOMEM;
	}
	(void)snprintf(round, sizeof(round), "%u", job->round);
	rc = trib_redis_send(job->agent->redis, cb, call, "FCALL", "trib_node_lost", "1", job->key,
			     round, job->agent->options.node, boot, NULL);
	if (rc) {
		trib_free(call);
	}
	return rc;
}

/* First answer about a job somebody asked for: make its segment (or finish adopting it). */
static int job_make(struct agent_job *job, const struct trib_value *sync)
{
	struct trib_id boot = trib_id_make();
	char text[TRIB_ID_TEXT_SIZE];
	uint32_t slots;
	int rc = agent_job_parameters(job, sync);

	if (rc) {
		return rc;
	}
	job->round = (uint32_t)trib_value_integer(trib_value_at(sync, 4));
	(void)snprintf(job->tenant, sizeof(job->tenant), "%s",
		       trib_value_text(trib_value_at(sync, 22)));
	if (job->segment.data_fd < 0) {
		slots = slots_for(job, sync);
		if (slots == 0) {
			return -ENOSPC;
		}
		trib_id_print("", &boot, text);
		rc = trib_segment_create(job->id, text, job->index, job->payload, slots,
					 &job->segment);
		if (rc) {
			return rc;
		}
		job->reserved_bytes = job->segment.data_size + job->segment.ctl_size;
		job->agent->arena_used += job->reserved_bytes;
		rc = job_notes(job);
		if (rc) {
			return rc;
		}
		agent_keep_segment(job);
		agent_warmer_touch(job->agent->warmer, job->id, job->segment.data_fd,
				   (slots < TOUCH_SLOTS ? slots : TOUCH_SLOTS) *
					   job->segment.header.slot_size);
		log_info("jobs", "event=segment job=%s slots=%u slot_bytes=%llu huge=%d", job->id,
			 slots, (unsigned long long)job->segment.header.slot_size,
			 job->segment.huge);
	} else if (job->segment.header.payload_size != job->payload) {
		return -EBADMSG;
	}
	rc = job->hub ? 0 : hub_open(job);
	return rc ? rc : declare_lost(job, job->segment.header.boot, on_lost_declared);
}

static bool over(const char *state)
{
	return strcmp(state, "finished") == 0 || strcmp(state, "stopped") == 0 ||
	       strcmp(state, "failed") == 0;
}

static void on_sync(const struct trib_value *value, void *arg)
{
	struct job_call *call = arg;
	struct agent_job *job = agent_job_find(call->agent, call->id);
	const char *state;
	int rc;

	trib_free(call);
	if (!job || !value) {
		return;
	}
	job->syncing = false;
	job->synced_ms = trib_clock_ms();
	state = trib_value_text(trib_value_at(value, 0));
	if (trib_value_type(value) == TRIB_VALUE_ERROR) {
		log_warn("jobs", "event=sync-failed job=%s detail=\"%s\"", job->id,
			 trib_value_text(value));
		return;
	}
	if (strcmp(state, "NOJOB") == 0 || over(state)) {
		answer_waiting(job, -ENOENT);
		agent_job_drop(job, state);
		return;
	}
	if (job->ready) {
		if (!agent_peers_alive(job, value)) {
			return;
		}
		agent_models_synced(job, value);
		agent_round_synced(job, value);
	} else if (!job->hub) {
		rc = job_make(job, value);
		if (rc) {
			answer_waiting(job, rc);
			agent_job_drop(job, rc == -ENOSPC ? "arena full" : "not usable yet");
			return;
		}
	}
	if (job->sync_again) {
		job->sync_again = false;
		agent_job_sync(job);
	}
}

void agent_job_sync(struct agent_job *job)
{
	struct job_call *call;

	if (job->syncing) {
		job->sync_again = true;
		return;
	}
	call = call_new(job);
	if (!call) {
		return;
	}
	job->syncing = true;
	if (trib_redis_send(job->agent->redis, on_sync, call, "FCALL", "trib_node_sync", "1",
			    job->key, job->agent->options.node, NULL)) {
		job->syncing = false;
		trib_free(call);
	}
}

void agent_job_attach(struct agent_job *job, struct agent_link *link)
{
	if (job->ready) {
		agent_link_segment(link, job, job->id, 0);
		return;
	}
	for (uint32_t i = 0; i < job->waiting_count; i++) {
		if (job->waiting[i] == link) {
			return;
		}
	}
	if (job->waiting_count < AGENT_LINKS_MAX) {
		job->waiting[job->waiting_count++] = link;
	}
	agent_job_sync(job);
}

void agent_job_drop(struct agent_job *job, const char *why)
{
	struct agent *agent = job->agent;

	log_info("jobs", "event=dropped job=%s why=\"%s\"", job->id, why);
	if (job->ready) {
		agent_tree_tell(job, UINT64_MAX); /* the last picture */
	}
	job->retiring = true;
	agent_ahead_drop(job);
	agent_warmer_forget(agent->warmer, job->id);
	for (uint32_t i = AGENT_TOP; i < AGENT_FUNCTIONS_MAX; i++) {
		agent_fn_stop(&job->fns[i]);
		agent_fn_drop_partial(&job->fns[i]);
	}
	agent_peers_fini(job);
	agent_carve_forget(job);
	job->hub_io = trib_io_free(job->hub_io);
	job->hub = trib_endpoint_free(job->hub);
	if (job->hub_fd >= 0) {
		(void)close(job->hub_fd);
	}
	if (job->segment.data_fd >= 0) {
		agent_unkeep(agent, "s:%s", job->id);
		agent_links_detach(agent, job->id);
		trib_segment_fini(&job->segment);
	}
	agent->arena_used -= job->reserved_bytes;
	job->out = agent_out_put(job->out);
	trib_free(job->notes);
	trib_free(job->pending);
	agent->jobs[job->index] = NULL;
	agent->job_count--;
	trib_free(job);
}

static void on_job_lost(const struct trib_value *value, void *arg)
{
	struct job_call *call = arg;

	if (lost_more(value, call, on_job_lost)) {
		return; /* (if it cannot be sent, the leader sees to it) */
	}
	if (value) {
		agent_count(AGENT_M_LOST, call->lost);
		log_warn("jobs", "event=updates-lost job=%s count=%lld", call->id, call->lost);
	}
	trib_free(call);
}

void agent_job_lose(struct agent_job *job, const char *why)
{
	log_err("jobs", "event=lost job=%s round=%u why=\"%s\"", job->id, job->round, why);
	if (declare_lost(job, "", on_job_lost)) {
		log_err("jobs", "event=lost-not-declared job=%s", job->id);
	}
	agent_job_drop(job, why);
}

void agent_jobs_wake(struct agent *agent, const char *message)
{
	const char *id = strchr(message, ' ');
	struct agent_job *job;

	if (!id) {
		return;
	}
	job = agent_job_find(agent, id + 1);
	if (strncmp(message, "publish ", 8) == 0) {
		agent_published_look(agent, id + 1);
	}
	if (strncmp(message, "purge ", 6) == 0) {
		agent_models_purge(agent, id + 1);
	}
	if (strncmp(message, "prune ", 6) == 0) {
		agent_models_prune(agent, id + 1);
		return;
	}
	if (strncmp(message, "copy ", 5) == 0) {
		agent_models_copy(agent, id + 1);
		return;
	}
	/* "done" asks for a second copy of the model: who made it has nothing to do. */
	if (job && strncmp(message, "copied ", 7) != 0 &&
	    (strncmp(message, "done ", 5) != 0 || job->phase != AGENT_REPORTING)) {
		agent_job_sync(job);
	}
}

static bool job_busy(const struct agent_job *job)
{
	return !job->ready || job->pending_count || job->closing;
}

static bool asleep(const struct agent_job *job, uint64_t now)
{
	return now - job->busy_ms >= job->agent->options.idle_ms && job->phase < AGENT_FLUSHING;
}

/* Functions of a job nothing happens in exit; their partials go too unless a round needs them. */
static void scale_to_zero(struct agent_job *job, uint64_t now)
{
	/* Before the record has said so, "idle" only means that we do not know of a round. */
	if (now - job->busy_ms < job->agent->options.idle_ms || job->pending_count ||
	    job->phase >= AGENT_FLUSHING) {
		return;
	}
	agent_carve_forget(job);
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		struct agent_fn *fn = &job->fns[i];

		if (fn->outstanding) {
			continue;
		}
		agent_fn_stop(fn);
		if (fn->has_partial && job->phase == AGENT_IDLE) {
			agent_fn_drop_partial(fn);
		}
	}
}

/* ---- updates counted on this node that nobody here knows of ---- */

static void on_walked(const struct trib_value *value, void *arg)
{
	struct agent *agent = arg;
	long long looked;

	agent->walking = false;
	if (!value || trib_value_type(value) != TRIB_VALUE_ARRAY) {
		return;
	}
	looked = trib_value_integer(trib_value_at(value, 0));
	for (size_t i = 1; i < trib_value_count(value); i++) {
		const char *text = trib_value_text(trib_value_at(value, i));
		struct agent_job *job;
		struct trib_id id;

		if (trib_id_parse("job_", text, &id) || agent_job_find(agent, text)) {
			continue;
		}
		log_warn("jobs", "event=unknown-share job=%s", text);
		job = agent_job_get(agent, text);
		if (job) {
			agent_job_sync(job); /* makes memory, declares what was there lost */
		}
	}
	agent->walk_offset = looked >= WALK_PAGE ? agent->walk_offset + WALK_PAGE : 0;
	agent->walked_ms = agent->walk_offset ? 0 : agent->walked_ms;
}

/* A round whose updates went down with the former node is reopened even if no client comes. */
static void walk(struct agent *agent, uint64_t now)
{
	char offset[12];
	char count[12];

	if (agent->walking || (agent->walked_ms && now - agent->walked_ms < WALK_MS)) {
		return;
	}
	agent->walked_ms = now;
	(void)snprintf(offset, sizeof(offset), "%u", agent->walk_offset);
	(void)snprintf(count, sizeof(count), "%u", WALK_PAGE);
	agent->walking =
		trib_redis_send(agent->redis, on_walked, agent, "FCALL", "trib_node_jobs", "1",
				"trib:jobs", agent->options.node, offset, count, NULL) == 0;
}

void agent_jobs_tick(struct agent *agent)
{
	uint64_t now = trib_clock_ms();

	walk(agent, now);
	agent_share_tick(agent, now);
	agent_published_tick(agent, now);
	agent_gone_tick(agent, now);
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		struct agent_job *job = agent->jobs[i];
		uint64_t period;

		if (!job) {
			continue;
		}
		if (job->hopeless) {
			agent_job_lose(job, job->hopeless);
			continue;
		}
		if (job->mismatch_ms && now - job->mismatch_ms > agent->options.mismatch_ms) {
			agent_job_lose(job, "counts of node and record differ");
			continue;
		}
		period = job_busy(job)                                   ? POLL_BUSY_MS
			 : job->phase != AGENT_IDLE && !asleep(job, now) ? POLL_OPEN_MS
									 : POLL_IDLE_MS;
		if (now - job->synced_ms >= period) {
			agent_job_sync(job);
		}
		if (job->ready) {
			if (now - job->scanned_ms >= (asleep(job, now) ? POLL_IDLE_MS : SCAN_MS)) {
				agent_slots_scan(job);
			}
			agent_peers_tick(job, now);
			agent_poison_tick(job, now);
			agent_fn_tick(job, now);
			if (job->phase == AGENT_COLLECTING && !job->closing) {
				agent_tree_look(job);
			}
			scale_to_zero(job, now);
			agent_ahead_tick(job, now);
			if (job->phase == AGENT_COLLECTING && !asleep(job, now)) {
				agent_published_prepare(job);
			}
			agent_tree_tell(job, now);
		}
	}
}
