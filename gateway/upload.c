/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/client_metrics.h"
#include "common/clock.h"
#include "gateway/attach.h"
#include "gateway/link.h"
#include "gateway/load.h"
#include "gateway/metrics.h"
#include "gateway/resume.h"

/* A body so small arrives with its head: the commit alone decides, one call of Redis less. The
 * ticket has said that the client was selected; a slot is held for no longer than its own bytes. */
#define UNRESERVED_MAX (64u << 10)
#define ATTACH_MS      5000 /* how long an upload waits for the agent's answer */
#define LEASE_SLACK_MS 30000
#define LEASE_MAX_MS   3600000
#define REFUSED_MS     600  /* told to whoever may come again, +-50 % */
#define NO_MEMORY_MS   2000 /* the same when the node has none for the job */
#define RENEW_MS       1000 /* until the record has said how long its leases are */

/* ---- ends ---- */

static void on_release(const struct trib_value *value, void *arg)
{
	(void)value;
	(void)arg; /* if it was not released, the lease runs out */
}

static void release(struct gw_upload *u)
{
	char round[16];

	u->reserved = false;
	gw_count(GW_M_RELEASES, 1);
	(void)snprintf(round, sizeof(round), "%u", u->head.round);
	if (u->worker->redis &&
	    trib_redis_send(u->worker->redis, on_release, NULL, "FCALL", "trib_release", "1",
			    u->job->key, u->head.client, u->head.update, round, NULL)) {
		gw_count(GW_M_RELEASES, -1);
	}
}

struct trib_exchange *gw_upload_leave(struct gw_upload *u)
{
	struct trib_exchange *x = u->x;

	if (x) {
		trib_exchange_attach(x, NULL, NULL);
	}
	if (u->state == GW_UPLOAD_ATTACHING) {
		TAILQ_REMOVE(&u->worker->attaching, u, entry);
		u->worker->attaching_count--;
	}
	gw_resume_leave(u);
	if (u->holds) {
		gw_slots_abort(u->slots, u->slot, u->gen, u->slot_state);
	}
	if (u->reserved) {
		release(u);
	}
	if (u->entered) {
		gw_job_exit(u->job, &u->live);
	}
	u->retry = trib_timer_free(u->retry);
	u->header = gw_header_put(u->header);
	gw_intake_fini(&u->intake);
	u->slots = gw_slots_put(u->slots);
	u->job = gw_job_put(u->job);
	trib_free(u->metrics);
	trib_free(u);
	gw_count(GW_M_UPLOADS_INFLIGHT, -1);
	return x;
}

void gw_upload_refuse(struct gw_upload *u, enum trib_problem problem, const char *detail)
{
	struct gw_worker *worker = u->worker;
	uint64_t ms = u->wait_ms ? u->wait_ms : REFUSED_MS;
	struct trib_exchange *x;

	gw_count_rejected(problem);
	x = gw_upload_leave(u);
	if (x && (trib_problem_status(problem) == 503 || trib_problem_status(problem) == 429)) {
		trib_http_problem(x, problem, detail,
				  gw_worker_jitter(worker, ms - ms / 2, ms + ms / 2));
	} else if (x) {
		gw_refuse(x, problem, detail);
	}
}

static void on_gone(void *data)
{
	struct gw_upload *u = data;

	u->x = NULL;
	switch (u->state) {
	case GW_UPLOAD_LOADING:
	case GW_UPLOAD_RESERVING:
	case GW_UPLOAD_COMMITTING:
		return; /* a call is outstanding: its answer ends the upload */
	case GW_UPLOAD_RECEIVING:
		if (gw_resume_park(u)) {
			return;
		}
		/* fall through */
	case GW_UPLOAD_ATTACHING:
	case GW_UPLOAD_DRAINING:
	case GW_UPLOAD_PARKED:
		gw_count(GW_M_ABANDONED, 1);
		(void)gw_upload_leave(u);
		return;
	}
}

/* The client went while a call was outstanding: ends the upload. */
static bool abandoned(struct gw_upload *u)
{
	if (u->x) {
		return false;
	}
	if (!gw_resume_park(u)) {
		gw_count(GW_M_ABANDONED, 1);
		(void)gw_upload_leave(u);
	}
	return true;
}

/* ---- a slot ---- */

/* It was known when the upload began: it is over, or known anew. The record can tell, so it is
 * asked (or asked again, by the client). */
static void job_is_gone(struct gw_upload *u)
{
	if (u->reserved) {
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE, "the job changed; send it again");
	} else {
		gw_upload_reserve(u);
	}
}

static void take_slot(struct gw_upload *u)
{
	if (gw_slots_take(u->slots, &u->slot, &u->gen) &&
	    (!gw_resume_evict(u->worker, u->slots) || gw_slots_take(u->slots, &u->slot, &u->gen))) {
		gw_count(GW_M_SLOT_EXHAUSTED, 1);
		u->wait_ms = gw_slots_wait_ms(u->slots);
		gw_upload_refuse(u, TRIB_PROBLEM_ARENA_FULL, NULL);
		return;
	}
	u->holds = true;
	u->slot_state = TRIB_SLOT_FILLING;
	if (u->head.resumable && !gw_resume_enter(u) && !u->head.completes) {
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE, "too many uploads are resumable");
		return;
	}
	gw_upload_receive(u);
}

static void find_slot(struct gw_upload *u)
{
	struct gw_worker *worker = u->worker;

	u->slots = gw_job_slots(&worker->gw->jobs, u->job);
	if (u->slots) {
		take_slot(u);
		return;
	}
	if (gw_job_gone(u->job)) {
		job_is_gone(u);
		return;
	}
	if (worker->attaching_count >= GW_ATTACH_WAITERS_MAX) {
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE, "too many uploads wait for memory");
		return;
	}
	u->state = GW_UPLOAD_ATTACHING;
	u->until_ms = trib_clock_ms() + ATTACH_MS;
	TAILQ_INSERT_TAIL(&worker->attaching, u, entry);
	worker->attaching_count++;
	if (gw_job_want(&worker->gw->jobs, u->job)) {
		gw_link_poke(worker->gw);
	}
}

static void leave_attaching(struct gw_upload *u)
{
	TAILQ_REMOVE(&u->worker->attaching, u, entry);
	u->worker->attaching_count--;
	u->state = GW_UPLOAD_RESERVING;
}

static void attached(struct gw_upload *u)
{
	struct gw_jobs *jobs = &u->worker->gw->jobs;
	int error = gw_job_attach_error(jobs, u->job);
	struct gw_slots *slots = gw_job_slots(jobs, u->job);

	if (slots) {
		leave_attaching(u);
		u->slots = slots;
		take_slot(u);
	} else if (gw_job_gone(u->job)) {
		leave_attaching(u);
		job_is_gone(u);
	} else if (error == -ENOSPC || error == -ENOMEM) {
		u->wait_ms = NO_MEMORY_MS;
		gw_upload_refuse(u, TRIB_PROBLEM_ARENA_FULL, "the node has no memory for this job");
	} else if (error && !u->reserved) { /* the record knows why: counted, the job is over .. */
		leave_attaching(u);
		gw_upload_reserve(u);
	} else if (error) {
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE,
				 "the node's agent is not ready for this job");
	}
}

void gw_uploads_attached(struct gw_worker *worker, const char *job)
{
	struct gw_upload *u = TAILQ_FIRST(&worker->attaching);

	while (u) {
		struct gw_upload *next = TAILQ_NEXT(u, entry);

		if (job[0] == '\0' || strcmp(u->job_id, job) == 0) {
			attached(u);
		}
		u = next;
	}
}

void gw_uploads_tick(struct gw_worker *worker)
{
	uint64_t now = trib_clock_ms();
	struct gw_upload *u;

	while ((u = TAILQ_FIRST(&worker->attaching)) && u->until_ms <= now) {
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE, "the node's agent does not answer");
	}
}

/* ---- reserve ---- */

bool gw_upload_decision(struct gw_upload *u, const struct trib_value *answer, size_t at)
{
	long long counted = trib_value_integer(trib_value_at(answer, at));
	long long round = trib_value_integer(trib_value_at(answer, at + 1));

	if (counted <= 0 || round <= 0 || round > UINT32_MAX) {
		return false;
	}
	u->counted_weight = (uint64_t)counted;
	u->counted_round = (uint32_t)round;
	return true;
}

static void replay(struct gw_upload *u, const struct trib_value *value)
{
	const char *digest = trib_value_text(trib_value_at(value, 2));
	const char *weight = trib_value_text(trib_value_at(value, 3));
	uint64_t weight_fx;

	if (trib_parse_u64(weight, strlen(weight), 0, UINT64_MAX, &weight_fx) ||
	    trib_copy(u->dup_digest, sizeof(u->dup_digest), digest)) {
		gw_upload_refuse(u, TRIB_PROBLEM_INTERNAL, "the record is not understood");
		return;
	}
	if (weight_fx != u->head.weight_fx) {
		gw_upload_refuse(u, TRIB_PROBLEM_ALREADY_REPORTED, "with another weight");
		return;
	}
	(void)gw_upload_decision(u, value, 4);
	u->dup_ms = (uint64_t)trib_value_integer(trib_value_at(value, 1));
	gw_upload_drain(u);
}

enum trib_problem gw_upload_closed(const char *state)
{
	bool job = strcmp(state, "created") == 0 || strcmp(state, "finished") == 0 ||
		   strcmp(state, "stopped") == 0;

	return job ? TRIB_PROBLEM_JOB_NOT_RUNNING : TRIB_PROBLEM_ROUND_CLOSED;
}

static void on_reserve(const struct trib_value *value, void *arg)
{
	struct gw_upload *u = arg;
	const char *word = value ? trib_value_text(trib_value_at(value, 0)) : "";
	const char *more = value ? trib_value_text(trib_value_at(value, 1)) : "";
	char quota[128];

	u->reserved = strcmp(word, "OK") == 0;
	u->norms = u->reserved && trib_value_size(trib_value_at(value, 2)) > 0;
	if (abandoned(u)) {
		return;
	}
	if (!value || trib_value_type(value) != TRIB_VALUE_ARRAY) {
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE, "Redis refused");
	} else if (u->resuming && u->reserved && !gw_slots_retired(u->slots)) {
		gw_upload_go_on(u);
	} else if (u->holds && (u->reserved || strcmp(word, "DUP") == 0)) {
		/* asked a second time (gw_upload_commit): the job goes on, in other memory */
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE,
				 "the node's memory for this job was replaced; send it again");
	} else if (u->reserved) {
		if (trib_value_integer(trib_value_at(value, 1)) != (long long)u->head.base) {
			gw_upload_refuse(u, TRIB_PROBLEM_ROUND_CLOSED,
					 "the round goes on from another version: check in again");
			return;
		}
		find_slot(u);
	} else if (strcmp(word, "DUP") == 0 && u->head.resumable && !u->head.completes) {
		gw_upload_refuse(u, TRIB_PROBLEM_ALREADY_REPORTED, "its receipt is at updates/");
	} else if (strcmp(word, "DUP") == 0) {
		replay(u, value);
	} else if (strcmp(word, "CLOSED") == 0) {
		gw_upload_refuse(u, gw_upload_closed(more),
				 strcmp(more, "quarantined") == 0
					 ? "it was accepted, and taken out: it could not be folded"
					 : NULL);
	} else if (strcmp(word, "NOTSEL") == 0) {
		gw_upload_refuse(u, TRIB_PROBLEM_NOT_SELECTED, NULL);
	} else if (strcmp(word, "STALE") == 0) {
		gw_upload_refuse(u, TRIB_PROBLEM_STALE, NULL);
	} else if (strcmp(word, "BUSY") == 0) {
		gw_upload_refuse(u, TRIB_PROBLEM_UPLOAD_BUSY, NULL);
	} else if (strcmp(word, "QUOTA") == 0) {
		(void)snprintf(quota, sizeof(quota), "quota %.100s", more);
		gw_count(GW_M_QUOTA_UPLOADS, 1);
		gw_upload_refuse(u, TRIB_PROBLEM_QUOTA_EXCEEDED, quota);
	} else if (strcmp(word, "NOJOB") == 0) {
		gw_jobs_drop(&u->worker->gw->jobs, u->job_id);
		gw_upload_refuse(u, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
	} else {
		gw_upload_refuse(u, TRIB_PROBLEM_INTERNAL, "the answer is not understood");
	}
}

/* Long enough for the slowest body we bear. */
static uint64_t lease_ms(const struct gw_upload *u)
{
	uint64_t rate = u->worker->gw->options.body_rate_min;
	uint64_t ms = rate ? u->head.total / rate * 1000 : LEASE_MAX_MS;

	ms += LEASE_SLACK_MS;
	return ms < LEASE_MAX_MS ? ms : LEASE_MAX_MS;
}

void gw_upload_reserve(struct gw_upload *u)
{
	char round[16];
	char lease[24];

	u->state = GW_UPLOAD_RESERVING;
	(void)snprintf(round, sizeof(round), "%u", u->head.round);
	(void)snprintf(lease, sizeof(lease), "%llu", (unsigned long long)lease_ms(u));
	gw_count(GW_M_RESERVES, 1);
	if (trib_redis_send(u->worker->redis, on_reserve, u, "FCALL", "trib_reserve", "1",
			    u->job->key, u->head.client, u->head.update, round, lease,
			    u->metrics ? u->metrics : "", NULL)) {
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE, "too many calls outstanding");
	}
}

/* ---- progress ---- */

static void on_moved(const struct trib_value *value, void *arg)
{
	struct gw_job *job = arg;

	if (value && trib_value_type(value) == TRIB_VALUE_ARRAY &&
	    strcmp(trib_value_text(trib_value_at(value, 0)), "OK") == 0) {
		long long lease = trib_value_integer(trib_value_at(value, 1));

		__atomic_store_n(&job->renew_ms, lease > 0 ? (uint64_t)lease / 3 : 0,
				 __ATOMIC_RELAXED);
	}
	(void)gw_job_put(job);
}

void gw_upload_moves(struct gw_upload *u)
{
	uint64_t now = trib_clock_ms();
	uint64_t period = __atomic_load_n(&u->job->renew_ms, __ATOMIC_RELAXED);
	char round[16];
	char lease[24];

	period = period ? period : RENEW_MS;
	if (u->renew_ms == 0) { /* small bodies are not reserved: their lease is the check-in's */
		u->renew_ms = now + (u->reserved || period < u->job->silence_ms / 3
					     ? period
					     : u->job->silence_ms / 3);
	}
	if (now < u->renew_ms) {
		return;
	}
	u->renew_ms = now + period;
	(void)snprintf(round, sizeof(round), "%u", u->head.round);
	(void)snprintf(lease, sizeof(lease), "%llu", (unsigned long long)lease_ms(u));
	gw_count(GW_M_RENEWALS, 1);
	if (trib_redis_send(u->worker->redis, on_moved, gw_job_get(u->job), "FCALL",
			    "trib_progress", "1", u->job->key, u->head.client, u->head.update,
			    round, lease, NULL)) {
		(void)gw_job_put(u->job);
		u->renew_ms = now + RENEW_MS;
	}
}

void gw_upload_resume(struct gw_upload *u, struct trib_exchange *x)
{
	u->x = x;
	trib_exchange_attach(x, u, on_gone);
	gw_upload_reserve(u);
}

/* ---- the request ---- */

static void on_loaded(struct gw_job *job, enum trib_problem problem, const char *detail, void *arg)
{
	struct gw_upload *u = arg;

	u->job = job;
	if (abandoned(u)) {
		return;
	}
	if (job && job->uniform) {
		u->head.weight_fx = 1ull << TRIB_WEIGHT_BITS;
	}
	if (!job) {
		gw_upload_refuse(u, problem, detail);
	} else if (!job->layout) {
		gw_upload_refuse(u, TRIB_PROBLEM_NO_SUCH_MODEL, "the job has no model yet");
	} else if (u->head.has_kind && u->head.kind_weights != job->input_weights) {
		gw_upload_refuse(u, TRIB_PROBLEM_BAD_REQUEST,
				 job->input_weights ? "FL-Kind: the job takes weights"
						    : "FL-Kind: the job takes delta");
	} else if (u->head.weight_fx > job->max_weight << TRIB_WEIGHT_BITS) {
		gw_upload_refuse(u, TRIB_PROBLEM_INVALID_WEIGHT, "FL-Weight exceeds max_weight");
	} else if (u->head.total > job->update_max) {
		gw_upload_refuse(u, TRIB_PROBLEM_TOO_LARGE, NULL);
	} else if (!gw_job_enter(job, &u->live)) {
		gw_upload_refuse(u, TRIB_PROBLEM_UPLOAD_BUSY, NULL);
	} else {
		u->entered = true;
		if (u->head.total <= UNRESERVED_MAX) {
			u->state = GW_UPLOAD_RESERVING;
			u->norms = true; /* nobody was asked, and it is cheap */
			find_slot(u);
			return;
		}
		gw_upload_reserve(u);
	}
}

/* FL-Metrics, if there are any. False: answered. */
static bool read_metrics(struct trib_exchange *x, char **ret_metrics)
{
	const char *text = trib_http_field(trib_exchange_request(x), "fl-metrics");
	char metrics[TRIB_METRICS_TEXT_SIZE];
	int rc;

	*ret_metrics = NULL;
	if (!text) {
		return true;
	}
	rc = trib_metrics_read(text, metrics);
	if (rc == 0) {
		*ret_metrics = trib_strdup(metrics);
		rc = *ret_metrics ? 0 : -ENOMEM;
	}
	if (rc) {
		enum trib_problem problem =
			rc == -ENOMEM ? TRIB_PROBLEM_INTERNAL : TRIB_PROBLEM_INVALID_METRICS;

		gw_count_rejected(problem);
		gw_refuse(x, problem,
			  rc == -E2BIG    ? "more than 32 metrics"
			  : rc == -EEXIST ? "a metric twice"
					  : "name=decimal, .. (a name: " TRIB_METRIC_NAME_TEXT
					    "; a value: at most 1e15, no exponent)");
	}
	return rc == 0;
}

void gw_upload_begin(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		     const char *update)
{
	struct gw_refusal refusal = { TRIB_PROBLEM_INTERNAL, NULL };
	struct gw_upload_head head;
	struct gw_upload *u;
	char *metrics;

	gw_count(GW_M_UPLOADS, 1);
	if (!gw_key_known(worker->gw)) {
		gw_count_rejected(TRIB_PROBLEM_UNAVAILABLE);
		gw_unavailable(worker, x, "not connected to Redis yet");
		return;
	}
	if (gw_upload_head_read(trib_exchange_request(x), worker->gw->ticket_key, job, update,
				trib_wall_ms(), &head, &refusal)) {
		gw_count_rejected(refusal.problem);
		gw_refuse(x, refusal.problem, refusal.detail);
		return;
	}
	if (!trib_exchange_speaks_for(x, head.client)) {
		gw_count(GW_M_TLS_WRONG_CLIENT, 1);
		gw_count_rejected(TRIB_PROBLEM_FORBIDDEN);
		gw_refuse(x, TRIB_PROBLEM_FORBIDDEN, "FL-Client is not the certificate's client");
		return;
	}
	if (!read_metrics(x, &metrics)) {
		return;
	}
	gw_resume_supersede(worker, head.update);
	u = trib_alloc(sizeof(*u));
	if (!u || trib_copy(u->job_id, sizeof(u->job_id), job)) {
		trib_free(u);
		trib_free(metrics);
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	gw_count(GW_M_UPLOADS_INFLIGHT, 1);
	u->worker = worker;
	u->x = x;
	u->head = head;
	u->metrics = metrics;
	u->live.update = u->head.update;
	u->state = GW_UPLOAD_LOADING;
	trib_exchange_attach(x, u, on_gone);
	gw_load(worker, job, true, on_loaded, u);
}
