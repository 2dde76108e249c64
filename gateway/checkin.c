/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/checkin.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/client_metrics.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/json.h"
#include "common/json_write.h"
#include "common/labels.h"
#include "gateway/attach.h"
#include "gateway/link.h"
#include "gateway/load.h"
#include "gateway/metrics.h"

#define BODY_MAX        65536
#define WAIT_MAX_S      60
#define POLL_MS         3000 /* held check-ins ask by themselves too: a wake may get lost */
#define POLL_MAX_MS     30000
#define POLLS_PER_S     500 /* of a worker: the more are held, the less often each asks */
#define PAUSED_MS       4000
#define UNWANTED_MS     30000 /* labels, and what a job asks for, rarely change */
#define ASKS_PER_TURN   256
#define EARLY_MS        150 /* the last ask and the answer fit into the wait */
#define TICKET_SLACK_MS 60000
#define PLAN_URL_SIZE   256
#define SELECTED_SIZE   4096 /* of the answer, without the config */
#define URL_CHARACTERS  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:/.-[]_%~"
#define LEFT_MAX_MS     60000
#define POOL_KEY_SIZE   (sizeof("trib:pool:/") + TRIB_TENANT_SIZE + TRIB_METRIC_NAME_MAX)

struct gw_checkin {
	TAILQ_ENTRY(gw_checkin) entry;
	struct gw_worker *worker;
	struct trib_exchange *x; /* NULL: the client is gone */
	struct gw_job *job;      /* pinned once loaded */
	bool held;               /* in worker->waiters */
	bool again;              /* ask at the next tick */
	bool reloaded;
	struct gw_grant grant;
	bool in_pool;             /* for any job of the pool; job_id: "" or the one it was given */
	char pool[POOL_KEY_SIZE]; /* its key */
	uint64_t wakes;           /* of the worker, when Redis was asked */
	uint64_t until_ms;        /* 0: not to be held */
	uint64_t ask_ms;
	char quota[96];   /* "" or which one is used up, limit and use */
	uint64_t left_ms; /* the round takes that long still, as the record told with WAIT */
	char job_id[TRIB_JOB_ID_SIZE];
	char client[TRIB_CLIENT_ID_SIZE];
	char *labels; /* as it says, NULL = none */
	/* of SELECTED */
	uint32_t round;
	uint32_t base;
	uint64_t deadline_ms;
	uint64_t lease_ms; /* end of it */
	char update[TRIB_UPDATE_ID_SIZE];
	char upload_base[PLAN_URL_SIZE]; /* "" or the URL of the node that is planned for it */
};

static void ask(struct gw_checkin *c);

/* ---- ends ---- */

static void unhold(struct gw_checkin *c)
{
	if (c->held) {
		TAILQ_REMOVE(&c->worker->waiters, c, entry);
		c->worker->waiter_count--;
		c->held = false;
		gw_count(GW_M_CHECKIN_WAITERS, -1);
	}
}

static void checkin_free(struct gw_checkin *c)
{
	unhold(c);
	c->job = gw_job_put(c->job);
	trib_free(c->labels);
	trib_free(c);
}

static void on_gone(void *data)
{
	struct gw_checkin *c = data;

	c->x = NULL;
	if (c->held) { /* else a call is outstanding, which will find out */
		checkin_free(c);
	}
}

/* The exchange is ours no more. NULL when the client is gone. */
static struct trib_exchange *leave(struct gw_checkin *c)
{
	struct trib_exchange *x = c->x;

	if (x) {
		trib_exchange_attach(x, NULL, NULL);
	}
	checkin_free(c);
	return x;
}

static void refuse(struct gw_checkin *c, enum trib_problem problem, const char *detail)
{
	struct gw_worker *worker = c->worker;
	struct trib_exchange *x = leave(c);

	if (x && problem == TRIB_PROBLEM_UNAVAILABLE) {
		gw_unavailable(worker, x, detail);
	} else if (x && problem == TRIB_PROBLEM_UNAUTHENTICATED) {
		gw_unauthenticated(x, true, detail);
	} else if (x) {
		gw_refuse(x, problem, detail);
	}
}

static void answer_wait(struct gw_checkin *c, const char *why)
{
	struct gw_worker *worker = c->worker;
	uint64_t away = gw_pace_tell(&worker->pace, trib_clock_ms());
	uint64_t ms = strcmp(why, "paused") == 0 && away < PAUSED_MS ? PAUSED_MS : away;
	char quota[sizeof(c->quota)];
	struct trib_exchange *x;

	ms = gw_worker_jitter(worker, ms / 2, ms + ms / 2);
	if (c->until_ms == 0 || trib_clock_ms() < c->until_ms) {
		ms += c->left_ms; /* who was held to the end is held again, and so comes at once */
	}
	gw_count(GW_M_CHECKINS_WAIT, 1);
	gw_count(GW_M_QUOTA_CLIENTS, c->quota[0] != '\0');
	memcpy(quota, c->quota, sizeof(quota));
	x = leave(c);
	if (x) {
		gw_reply_json(x, 200,
			      json_pack("{s:s,s:f,s:s,s:s*}", "status", "wait", "retry_after",
					(double)ms / 1000, "why", why, "quota",
					quota[0] ? quota : NULL));
	}
}

/* Its labels are not what the job asks for. Said at once, also to those who would be held. */
static void answer_unwanted(struct gw_checkin *c, const char *condition)
{
	struct gw_worker *worker = c->worker;
	uint64_t away = gw_pace_tell(&worker->pace, trib_clock_ms());
	uint64_t ms = away < UNWANTED_MS ? UNWANTED_MS : away;
	struct trib_exchange *x;
	json_t *json;

	ms = gw_worker_jitter(worker, ms / 2, ms + ms / 2);
	json = json_pack("{s:s,s:f,s:s,s:s}", "status", "wait", "retry_after", (double)ms / 1000,
			 "why", "not-eligible", "wanted", condition);
	x = leave(c);

	if (!x) {
		json_decref(json);
		return;
	}
	gw_count(GW_M_CHECKINS_UNWANTED, 1);
	gw_reply_json(x, 200, json);
}

/* Not now: hold it if the client asked for that, else tell it to come again. */
static void wait(struct gw_checkin *c, const char *why)
{
	struct gw_worker *worker = c->worker;
	uint64_t now = trib_clock_ms();
	uint64_t poll;

	if (!c->x) {
		checkin_free(c);
		return;
	}
	if (now >= c->until_ms || worker->waiter_count >= GW_WAITERS_MAX ||
	    gw_stopping(worker->gw)) {
		answer_wait(c, why);
		return;
	}
	if (c->wakes != worker->wakes) {
		ask(c); /* a wake came while the answer was under way: it may be out of date */
		return;
	}
	poll = (uint64_t)worker->waiter_count * 1000 / POLLS_PER_S;
	poll = poll < POLL_MS ? POLL_MS : poll > POLL_MAX_MS ? POLL_MAX_MS : poll;
	c->ask_ms = now + gw_worker_jitter(worker, poll / 2, poll);
	c->held = true;
	TAILQ_INSERT_TAIL(&worker->waiters, c, entry);
	worker->waiter_count++;
	gw_count(GW_M_CHECKIN_WAITERS, 1);
}

/* ---- selected ---- */

static int make_ticket(const struct gw_checkin *c, char out[TRIB_TICKET_TEXT_SIZE])
{
	struct trib_ticket ticket = {
		.version = 1,
		.round = c->round,
		.job = c->job->uuid,
		.client = trib_digest(c->client, strlen(c->client)).high,
		.expires_ms = c->lease_ms + TICKET_SLACK_MS,
		.bytes_max = c->job->update_max,
		.base = c->base,
	};
	int rc = trib_id_parse("upd_", c->update, &ticket.update);

	return rc ? rc : trib_ticket_seal(&ticket, c->worker->gw->ticket_key, out);
}

/* What the client is to fetch, and where its update goes. */
static void put_places(const struct gw_checkin *c, const struct gw_version *version,
		       const char *ticket, struct trib_json_writer *w)
{
	char url[PLAN_URL_SIZE + 128];

	trib_json_open(w, "model", '{');
	(void)snprintf(url, sizeof(url), "/v1/jobs/%s/models/%u", c->job->id, c->base);
	trib_json_put_text(w, "url", url);
	(void)snprintf(url, sizeof(url), "\"v%u-%s\"", c->base, version->digest);
	trib_json_put_text(w, "etag", url);
	trib_json_put_integer(w, "bytes", 8 + c->job->header_size + version->bytes);
	trib_json_put_integer(w, "version", c->base);
	trib_json_close(w, '}');
	trib_json_open(w, "upload", '{');
	(void)snprintf(url, sizeof(url), "%s/v1/jobs/%s/updates/%s", c->upload_base, c->job->id,
		       c->update);
	trib_json_put_text(w, "url", url);
	(void)snprintf(url, sizeof(url), "/v1/jobs/%s/uploads/%s", c->job->id, c->update);
	trib_json_put_text(w, "resume", url);
	trib_json_put_text(w, "ticket", ticket);
	trib_json_put_integer(w, "max_bytes", c->job->update_max);
	trib_json_put_raw(w, "encodings", "[\"dense\"]");
	trib_json_put_raw(w, "dtypes", "[\"F32\"]");
	trib_json_close(w, '}');
}

/* Size of the text, 0: it did not fit. */
static size_t put_selected(const struct gw_checkin *c, const struct gw_version *version,
			   const char *ticket, char *out, size_t size)
{
	struct trib_json_writer w = trib_json_writer(out, size);
	char deadline[TRIB_RFC3339_SIZE];

	trib_rfc3339(c->deadline_ms, deadline);
	trib_json_open(&w, NULL, '{');
	trib_json_put_text(&w, "status", "selected");
	trib_json_put_integer(&w, "round", c->round);
	trib_json_put_integer(&w, "base_version", c->base);
	trib_json_put_text(&w, "deadline", deadline);
	trib_json_put_raw(&w, "config", c->job->config);
	put_places(c, version, ticket, &w);
	if (c->in_pool) { /* the job that the pool chose */
		trib_json_put_text(&w, "job", c->job->id);
	}
	trib_json_close(&w, '}');
	return trib_json_written(&w);
}

static void answer_selected(struct gw_checkin *c, const struct gw_version *version)
{
	char ticket[TRIB_TICKET_TEXT_SIZE];
	struct trib_exchange *x;
	size_t size = strlen(c->job->config) + SELECTED_SIZE;
	char *text = trib_alloc(size);

	if (!text || make_ticket(c, ticket)) {
		trib_free(text);
		refuse(c, TRIB_PROBLEM_INTERNAL, "no ticket");
		return;
	}
	size = put_selected(c, version, ticket, text, size);
	if (gw_job_foresee(&c->worker->gw->jobs, c->job)) { /* memory is warm when it comes */
		gw_link_poke(c->worker->gw);
	}
	x = leave(c);
	if (x) {
		gw_count(GW_M_CHECKINS_SELECTED, 1);
		gw_reply_text(x, 200, text, size);
	}
	trib_free(text);
}

static void on_version(const struct trib_value *value, void *arg)
{
	struct gw_checkin *c = arg;
	struct gw_version version;

	if (!value || trib_value_type(value) != TRIB_VALUE_TEXT ||
	    gw_version_read(c->base, trib_value_text(value), &version)) {
		refuse(c, TRIB_PROBLEM_UNAVAILABLE, "the base model's record cannot be read");
		return;
	}
	gw_job_learn(c->job, &version);
	answer_selected(c, &version);
}

static void on_reloaded(struct gw_job *job, enum trib_problem problem, const char *detail,
			void *arg);

static void selected(struct gw_checkin *c)
{
	char key[GW_JOB_KEY_SIZE];
	char field[16];
	struct gw_version version;

	if (!c->x) {
		checkin_free(c);
		return;
	}
	if (!c->job->layout) { /* the model came after we read the job */
		if (c->reloaded) {
			refuse(c, TRIB_PROBLEM_UNAVAILABLE, "the job's record has no model");
			return;
		}
		c->reloaded = true;
		gw_load(c->worker, c->job_id, true, on_reloaded, c);
		return;
	}
	if (gw_job_version(c->job, c->base, &version)) {
		answer_selected(c, &version);
		return;
	}
	(void)snprintf(key, sizeof(key), "trib:{%s}:models", c->job->id);
	(void)snprintf(field, sizeof(field), "%u", c->base);
	if (trib_redis_send(c->worker->redis, on_version, c, "HGET", key, field, NULL)) {
		refuse(c, TRIB_PROBLEM_UNAVAILABLE, "too many calls outstanding");
	}
}

/* What gw_load brought takes the place of the job so far; false: there is none, it was refused. */
static bool take_job(struct gw_checkin *c, struct gw_job *job, enum trib_problem problem,
		     const char *detail)
{
	if (!job) {
		refuse(c, problem, detail);
		return false;
	}
	(void)gw_job_put(c->job);
	c->job = job;
	return true;
}

static void on_reloaded(struct gw_job *job, enum trib_problem problem, const char *detail,
			void *arg)
{
	struct gw_checkin *c = arg;

	if (take_job(c, job, problem, detail)) {
		selected(c);
	}
}

/* ---- asking ---- */

static int read_u32(const struct trib_value *value, uint32_t *ret_number)
{
	const char *text = trib_value_text(value);
	uint64_t number;
	int rc;

	if (trib_value_type(value) == TRIB_VALUE_INTEGER) {
		long long n = trib_value_integer(value);

		*ret_number = (uint32_t)n;
		return n < 0 || n > UINT32_MAX ? -1 : 0;
	}
	rc = trib_parse_u64(text, strlen(text), 0, UINT32_MAX, &number);
	if (rc == 0) {
		*ret_number = (uint32_t)number;
	}
	return rc;
}

/* A client's token goes to no other host than the one it was given for, so such jobs stay here. */
static void read_plan(struct gw_checkin *c, const char *url)
{
	size_t size = strlen(url);

	c->upload_base[0] = '\0';
	if ((strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0) &&
	    !(c->job && c->job->client_tokens) && strspn(url, URL_CHARACTERS) == size &&
	    trib_copy(c->upload_base, sizeof(c->upload_base), url)) {
		c->upload_base[0] = '\0';
	}
}

static int read_selected(struct gw_checkin *c, const struct trib_value *value)
{
	long long deadline = trib_value_integer(trib_value_at(value, 3));
	long long lease = trib_value_integer(trib_value_at(value, 5));

	if (trib_value_count(value) < 6 || deadline <= 0 || lease <= 0 ||
	    read_u32(trib_value_at(value, 1), &c->round) ||
	    read_u32(trib_value_at(value, 2), &c->base) ||
	    trib_copy(c->update, sizeof(c->update), trib_value_text(trib_value_at(value, 4)))) {
		return -1;
	}
	c->deadline_ms = (uint64_t)deadline;
	c->lease_ms = (uint64_t)lease;
	read_plan(c, trib_value_text(trib_value_at(value, 6)));
	return 0;
}

static void answer_done(struct gw_checkin *c, const char *state)
{
	json_t *json = json_pack("{s:s,s:s}", "status", "done", "state", state);
	struct trib_exchange *x = leave(c);

	if (!x) {
		json_decref(json);
		return;
	}
	gw_count(GW_M_CHECKINS_DONE, 1);
	gw_reply_json(x, 200, json);
}

static void on_again(bool good, void *arg)
{
	struct gw_checkin *c = arg;

	if (good) {
		selected(c);
	} else {
		refuse(c, TRIB_PROBLEM_UNAUTHENTICATED, "the token is not valid any more");
	}
}

static void on_pool_job(struct gw_job *job, enum trib_problem problem, const char *detail,
			void *arg)
{
	struct gw_checkin *c = arg;

	if (!take_job(c, job, problem, detail)) {
		return;
	}
	if (job->client_tokens) { /* see read_plan */
		c->upload_base[0] = '\0';
	}
	selected(c);
}

/* It may have been held for long: is the token still good? In a pool Redis has just looked. */
static void confirm(struct gw_checkin *c)
{
	if (c->in_pool) {
		gw_load(c->worker, c->job_id, false, on_pool_job, c);
	} else if (gw_grant_fresh(&c->grant)) {
		selected(c);
	} else if (gw_grant_again(c->worker, c->job_id, &c->grant, on_again, c)) {
		refuse(c, TRIB_PROBLEM_UNAVAILABLE, "too many calls outstanding");
	}
}

static void nobody_there(struct gw_checkin *c)
{
	if (!c->in_pool) {
		gw_jobs_drop(&c->worker->gw->jobs, c->job_id);
		refuse(c, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
	} else if (c->grant.hash[0]) {
		refuse(c, TRIB_PROBLEM_UNAUTHENTICATED, "not a token of this pool");
	} else {
		refuse(c, TRIB_PROBLEM_NO_SUCH_JOB,
		       "there is no such pool, or its jobs want a token");
	}
}

static void understand(struct gw_checkin *c, const struct trib_value *value)
{
	const char *word = value ? trib_value_text(trib_value_at(value, 0)) : "";
	const char *more = value ? trib_value_text(trib_value_at(value, 1)) : "";
	long long left;

	c->quota[0] = '\0';
	if (!value || trib_value_type(value) != TRIB_VALUE_ARRAY) {
		refuse(c, TRIB_PROBLEM_UNAVAILABLE, "Redis refused");
	} else if (strcmp(word, "SELECTED") == 0) {
		if (read_selected(c, value)) {
			refuse(c, TRIB_PROBLEM_INTERNAL, "check-in not understood");
			return;
		}
		confirm(c);
	} else if (strcmp(word, "WAIT") == 0) {
		left = trib_value_integer(trib_value_at(value, 2));
		c->left_ms = left > 0 && left <= LEFT_MAX_MS ? (uint64_t)left : 0;
		wait(c, more);
	} else if (strcmp(word, "QUOTA") == 0) {
		(void)snprintf(c->quota, sizeof(c->quota), "%s", more);
		c->left_ms = 0;
		wait(c, "quota");
	} else if (strcmp(word, "INELIGIBLE") == 0) {
		answer_unwanted(c, more);
	} else if (strcmp(word, "PAUSED") == 0) {
		wait(c, "paused");
	} else if (strcmp(word, "NOMODEL") == 0) {
		wait(c, "nomodel");
	} else if (strcmp(word, "DONE") == 0) {
		answer_done(c, more);
	} else if (strcmp(word, "NOJOB") == 0 || strcmp(word, "NOPOOL") == 0) {
		nobody_there(c);
	} else {
		refuse(c, TRIB_PROBLEM_INTERNAL, "check-in not understood");
	}
}

static void on_checkin(const struct trib_value *value, void *arg)
{
	understand(arg, value);
}

/* {job or "", what its check-in answers} */
static void on_pool(const struct trib_value *value, void *arg)
{
	struct gw_checkin *c = arg;
	const struct trib_value *job = value ? trib_value_at(value, 0) : NULL;
	const struct trib_value *answer = value ? trib_value_at(value, 1) : NULL;

	if (job && trib_copy(c->job_id, sizeof(c->job_id), trib_value_text(job))) {
		refuse(c, TRIB_PROBLEM_INTERNAL, "check-in not understood");
		return;
	}
	understand(c, answer);
}

static int send_ask(struct gw_checkin *c, const char *candidate)
{
	const char *node = c->worker->gw->options.node ? c->worker->gw->options.node : "";
	const char *labels = c->labels ? c->labels : "";

	if (c->in_pool) {
		return trib_redis_send(c->worker->redis, on_pool, c, "FCALL", "trib_pool_checkin",
				       "1", c->pool, c->client, candidate, c->grant.hash, labels,
				       node, NULL);
	}
	return gw_batch_call(c->worker->batches, GW_BATCH_CHECKIN, c->job->key, on_checkin, c,
			     c->client, candidate, labels, c->grant.hash, node, NULL);
}

static void ask(struct gw_checkin *c)
{
	char candidate[TRIB_ID_TEXT_SIZE];
	struct trib_id id = trib_id_make();

	unhold(c);
	c->again = false;
	c->wakes = c->worker->wakes;
	trib_id_print("upd_", &id, candidate);
	if (send_ask(c, candidate)) {
		refuse(c, TRIB_PROBLEM_UNAVAILABLE, "too many calls outstanding");
	}
}

static void on_loaded(struct gw_job *job, enum trib_problem problem, const char *detail, void *arg)
{
	struct gw_checkin *c = arg;

	if (!job) {
		refuse(c, problem, detail);
		return;
	}
	c->job = job;
	if (!c->x) {
		checkin_free(c);
		return;
	}
	ask(c);
}

/* ---- the request ---- */

/* "pool" and "tenant" of the body. */
static bool read_pool(struct gw_checkin *c, const json_t *json)
{
	const char *name = trib_json_text(json, "pool", "");
	const char *tenant = trib_json_text(json, "tenant", TRIB_TENANT_DEFAULT);

	if (!trib_metric_name_valid(name, strlen(name)) || !*tenant ||
	    strlen(tenant) >= TRIB_TENANT_SIZE) {
		return false;
	}
	(void)snprintf(c->pool, sizeof(c->pool), "trib:pool:%s/%s", tenant, name);
	return true;
}

/* "labels" of the body. */
static bool read_labels(struct gw_checkin *c, const json_t *json)
{
	char labels[TRIB_LABELS_SIZE];

	if (trib_labels_read(json_object_get(json, "labels"), labels)) {
		gw_count(GW_M_LABELS_REFUSED, 1);
		return false;
	}
	if (labels[0]) {
		c->labels = trib_strdup(labels);
	}
	return !labels[0] || c->labels;
}

static void on_body(struct trib_exchange *x, const char *body, size_t size)
{
	struct gw_checkin *c = trib_exchange_data(x);
	char reason[160];
	json_t *json = NULL;
	const char *client;
	unsigned wait_s = trib_http_prefer_wait(trib_exchange_request(x), WAIT_MAX_S);

	if (trib_json_parse(body, size, &json, reason)) {
		refuse(c, TRIB_PROBLEM_BAD_REQUEST, reason);
		return;
	}
	client = trib_json_text(json, "client_id", "");
	if (!json_is_object(json) || !trib_client_id_valid(client) ||
	    trib_copy(c->client, sizeof(c->client), client)) {
		json_decref(json);
		refuse(c, TRIB_PROBLEM_BAD_REQUEST,
		       "client_id: 1 to 64 of A-Z a-z 0-9 . _ : - is needed");
		return;
	}
	if (!read_labels(c, json)) {
		json_decref(json);
		refuse(c, TRIB_PROBLEM_BAD_REQUEST, TRIB_LABELS_TEXT);
		return;
	}
	if (c->in_pool && !read_pool(c, json)) {
		json_decref(json);
		refuse(c, TRIB_PROBLEM_BAD_REQUEST,
		       "pool: " TRIB_METRIC_NAME_TEXT ", is needed; tenant: a name");
		return;
	}
	json_decref(json);
	if (!trib_exchange_speaks_for(x, c->client)) {
		gw_count(GW_M_TLS_WRONG_CLIENT, 1);
		refuse(c, TRIB_PROBLEM_FORBIDDEN, "client_id is not the certificate's client");
		return;
	}
	if (!gw_grant_fits(&c->grant, c->client)) {
		gw_count(GW_M_DENIED_403, 1);
		refuse(c, TRIB_PROBLEM_FORBIDDEN, "the token is another client's");
		return;
	}
	c->until_ms = wait_s ? trib_clock_ms() + wait_s * 1000ull - EARLY_MS : 0;
	if (c->in_pool) {
		ask(c);
		return;
	}
	gw_load(c->worker, c->job_id, false, on_loaded, c);
}

static void on_gone_early(void *data)
{
	checkin_free(data);
}

static void on_body_begin(struct trib_exchange *x, const char *body, size_t size)
{
	struct gw_checkin *c = trib_exchange_data(x);

	trib_exchange_attach(x, c, on_gone);
	on_body(x, body, size);
}

/* job: NULL for a pool. */
static void begin(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		  const struct gw_grant *grant)
{
	struct gw_checkin *c;

	if (!gw_key_known(worker->gw)) {
		gw_unavailable(worker, x, "not connected to Redis yet");
		return;
	}
	c = trib_alloc(sizeof(*c));
	if (!c || trib_copy(c->job_id, sizeof(c->job_id), job ? job : "")) {
		trib_free(c);
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, NULL);
		return;
	}
	c->worker = worker;
	c->x = x;
	c->in_pool = !job;
	c->grant = *grant;
	trib_exchange_attach(x, c, on_gone_early);
	trib_http_want_buffer(x, BODY_MAX, on_body_begin);
}

void gw_checkin_begin(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		      const struct gw_grant *grant)
{
	begin(worker, x, job, grant);
}

void gw_checkin_pool(struct gw_worker *worker, struct trib_exchange *x)
{
	struct gw_grant grant = { .token = false };
	const char *token = NULL;
	int rc = trib_bearer_read(trib_exchange_request(x), &token);

	if (rc != -ENOENT && (rc || !trib_token_valid(TRIB_TOKEN_CLIENT, token))) {
		gw_unauthenticated(x, true, "not a client's token");
		return;
	}
	if (rc == 0 && trib_sha256(token, strlen(token), grant.hash)) {
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, NULL);
		return;
	}
	gw_count(GW_M_POOL_CHECKINS, 1);
	begin(worker, x, NULL, &grant);
}

/* ---- what is held ---- */

void gw_checkins_wake(struct gw_worker *worker, const char *job)
{
	struct gw_checkin *c;

	worker->wakes++;
	TAILQ_FOREACH(c, &worker->waiters, entry) {
		c->again |= job[0] == '\0' || c->in_pool || strcmp(c->job_id, job) == 0;
	}
	gw_checkins_tick(worker);
}

void gw_checkins_tick(struct gw_worker *worker)
{
	uint64_t now = trib_clock_ms();
	struct gw_checkin *c = TAILQ_FIRST(&worker->waiters);
	unsigned asked = 0;

	while (c && asked < ASKS_PER_TURN) {
		struct gw_checkin *next = TAILQ_NEXT(c, entry);

		if (c->again || now >= c->ask_ms || now >= c->until_ms) {
			ask(c); /* a last time when its time is over: wait() then answers */
			asked++;
		}
		c = next;
	}
}

void gw_checkins_stop(struct gw_worker *worker)
{
	struct gw_checkin *c;

	while ((c = TAILQ_FIRST(&worker->waiters))) {
		unhold(c);
		answer_wait(c, "stopping");
	}
}
