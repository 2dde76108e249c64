/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/model_get.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "gateway/conditions.h"
#include "gateway/load.h"
#include "gateway/metrics.h"
#include "gateway/model_file.h"
#include "gateway/model_offer.h"

#define TYPE        "application/vnd.safetensors"
#define WAIT_MS     10000
#define LOOK_MS     50
#define RECORD_MS   1000 /* between looks whether there is such a version at all (any more) */
#define WAITING_MAX 256  /* per worker */

struct gw_get { /* one request */
	struct gw_worker *worker;
	struct trib_exchange *x; /* NULL: the client is gone */
	struct gw_job *job;
	bool latest;
	uint32_t version;
	struct gw_version wanted; /* what is waited for */
	struct trib_timer *timer; /* its file is on its way here */
	uint64_t until_ms;
	uint64_t record_ms; /* the record was, or is, looked at */
	bool asking;        /* it is */
};

/* ---- answer ---- */

static struct trib_exchange *leave(struct gw_get *get)
{
	struct trib_exchange *x = get->x;

	if (x) {
		trib_exchange_attach(x, NULL, NULL);
	}
	if (get->timer) {
		get->worker->get_count--;
		get->timer = trib_timer_free(get->timer);
	}
	(void)gw_job_put(get->job);
	trib_free(get);
	return x;
}

static void refuse(struct gw_get *get, enum trib_problem problem, const char *detail)
{
	struct gw_worker *worker = get->worker;
	struct trib_exchange *x = leave(get);

	if (x && problem == TRIB_PROBLEM_UNAVAILABLE) {
		gw_unavailable(worker, x, detail);
	} else if (x) {
		gw_refuse(x, problem, detail);
	}
}

static void on_sent(void *data)
{
	(void)gw_model_put(data);
}

static int add_headers(struct trib_exchange *x, const struct gw_model *model, bool latest,
		       char etag[96])
{
	char version[16];
	int rc;

	(void)snprintf(etag, 96, "\"v%u-%s\"", model->version.version, model->version.digest);
	(void)snprintf(version, sizeof(version), "%u", model->version.version);
	rc = trib_http_header(x, "ETag", etag);
	rc = rc ? rc : trib_http_header(x, "Accept-Ranges", "bytes");
	rc = rc ? rc : trib_http_header(x, "FL-Version", version);
	return rc ? rc : trib_http_header(x, "Cache-Control", latest ? "no-cache" : "no-transform");
}

/* model: pinned, taken. */
static void reply_model(struct trib_exchange *x, struct gw_model *model, bool latest)
{
	const struct trib_http_request *request = trib_exchange_request(x);
	const char *none_match = trib_http_field(request, "if-none-match");
	const char *range = trib_http_field(request, "range");
	const char *if_range = trib_http_field(request, "if-range");
	uint64_t first = 0;
	uint64_t last = model->size - 1;
	char etag[96];
	char text[80];
	int status = 200;
	int rc = -ENOENT;

	if (add_headers(x, model, latest, etag)) {
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, NULL);
		goto out;
	}
	if (none_match && gw_etag_listed(none_match, etag)) {
		gw_count(GW_M_MODEL_304, 1);
		trib_http_reply(x, 304, NULL, NULL, 0);
		goto out;
	}
	if (range && request->method == TRIB_HTTP_GET &&
	    (!if_range || strcmp(if_range, etag) == 0)) {
		rc = gw_range_parse(range, model->size, &first, &last);
	}
	if (rc == -ERANGE) {
		(void)snprintf(text, sizeof(text), "bytes */%llu", (unsigned long long)model->size);
		rc = trib_http_header(x, "Content-Range", text);
		gw_refuse(x, rc ? TRIB_PROBLEM_INTERNAL : TRIB_PROBLEM_RANGE, text);
		goto out;
	}
	if (rc == 0) {
		(void)snprintf(text, sizeof(text), "bytes %llu-%llu/%llu",
			       (unsigned long long)first, (unsigned long long)last,
			       (unsigned long long)model->size);
		if (trib_http_header(x, "Content-Range", text)) {
			gw_refuse(x, TRIB_PROBLEM_INTERNAL, NULL);
			goto out;
		}
		status = 206;
	}
	if (request->method == TRIB_HTTP_GET) {
		gw_count(GW_M_MODEL_BYTES, (int64_t)(last - first + 1));
	}
	trib_http_reply_memory(x, status, TYPE, model->memory + first, last - first + 1, on_sent,
			       model);
	return;
out:
	(void)gw_model_put(model);
}

static void serve(struct gw_get *get, const struct gw_version *version);
static int ask_record(struct gw_get *get);

static void on_look_again(void *arg)
{
	struct gw_get *get = arg;
	struct gw_version version = get->wanted;

	if (trib_clock_ms() - get->record_ms < RECORD_MS || ask_record(get)) {
		serve(get, &version);
	}
}

/* The file is on another node, or on its way: the agent fetches it. */
static void wait_for_file(struct gw_get *get, const struct gw_version *version)
{
	struct gw_worker *worker = get->worker;
	uint64_t now = trib_clock_ms();

	if (!get->timer) {
		gw_count(GW_M_MODELS_WANTED, 1);
		if (worker->get_count >= WAITING_MAX ||
		    trib_timer_new(worker->loop, on_look_again, get, &get->timer)) {
			refuse(get, TRIB_PROBLEM_UNAVAILABLE, "the model's file is not here yet");
			return;
		}
		worker->get_count++;
		get->wanted = *version;
		get->until_ms = now + WAIT_MS;
		get->record_ms = now;
	}
	if (now >= get->until_ms || gw_stopping(worker->gw)) {
		refuse(get, TRIB_PROBLEM_UNAVAILABLE, "the model's file is not on this node yet");
		return;
	}
	gw_fetch_want(worker->gw, get->job->id, version->version);
	trib_timer_after(get->timer, LOOK_MS);
}

static void serve(struct gw_get *get, const struct gw_version *version)
{
	struct gw_model *model = gw_job_model(get->job, version->version);
	bool latest = get->latest;
	struct trib_exchange *x;
	int rc = 0;

	if (!model) {
		model = gw_offer_find(&get->worker->gw->offers, get->job->id, version);
	}
	if (!model) {
		rc = gw_model_open(get->worker->gw->options.models, get->job->id, version, &model);
	}
	if (rc == -ENOENT) {
		wait_for_file(get, version);
		return;
	}
	if (rc) {
		refuse(get, TRIB_PROBLEM_INTERNAL, "the model's file cannot be used");
		return;
	}
	gw_job_keep_model(get->job, model);
	x = leave(get);
	if (!x) {
		(void)gw_model_put(model);
		return;
	}
	reply_model(x, model, latest);
}

/* ---- finding ---- */

static void on_record(const struct trib_value *value, void *arg)
{
	struct gw_get *get = arg;
	struct gw_version version;

	get->asking = false;
	if (!get->x) {
		(void)leave(get);
	} else if (!value || trib_value_type(value) == TRIB_VALUE_ERROR) {
		refuse(get, TRIB_PROBLEM_UNAVAILABLE, "Redis refused");
	} else if (trib_value_type(value) == TRIB_VALUE_NIL) {
		refuse(get, TRIB_PROBLEM_NO_SUCH_MODEL, NULL);
	} else if (gw_version_read(get->version, trib_value_text(value), &version)) {
		refuse(get, TRIB_PROBLEM_INTERNAL, "the model's record is not understood");
	} else {
		gw_job_learn(get->job, &version);
		serve(get, &version);
	}
}

static int ask_record(struct gw_get *get)
{
	char key[GW_JOB_KEY_SIZE];
	char field[16];
	int rc;

	(void)snprintf(key, sizeof(key), "trib:{%s}:models", get->job->id);
	(void)snprintf(field, sizeof(field), "%u", get->version);
	rc = trib_redis_send(get->worker->redis, on_record, get, "HGET", key, field, NULL);
	get->asking = rc == 0;
	get->record_ms = trib_clock_ms();
	return rc;
}

static void find(struct gw_get *get)
{
	struct gw_version version;

	if (!get->x) {
		(void)leave(get);
		return;
	}
	if (gw_job_version(get->job, get->version, &version)) {
		serve(get, &version);
		return;
	}
	if (ask_record(get)) {
		refuse(get, TRIB_PROBLEM_UNAVAILABLE, "too many calls outstanding");
	}
}

static void on_latest(const struct trib_value *value, void *arg)
{
	struct gw_get *get = arg;
	const char *text = value ? trib_value_text(value) : "";
	uint64_t version;

	if (!value || trib_value_type(value) == TRIB_VALUE_ERROR) {
		refuse(get, TRIB_PROBLEM_UNAVAILABLE, "Redis refused");
	} else if (trib_parse_u64(text, strlen(text), 0, UINT32_MAX, &version)) {
		refuse(get, TRIB_PROBLEM_NO_SUCH_MODEL, "the job has no model yet");
	} else {
		get->version = (uint32_t)version;
		find(get);
	}
}

static void on_loaded(struct gw_job *job, enum trib_problem problem, const char *detail, void *arg)
{
	struct gw_get *get = arg;

	get->job = job;
	if (!job) {
		refuse(get, problem, detail);
	} else if (!get->latest) {
		find(get);
	} else if (trib_redis_send(get->worker->redis, on_latest, get, "HGET", job->key, "version",
				   NULL)) {
		refuse(get, TRIB_PROBLEM_UNAVAILABLE, "too many calls outstanding");
	}
}

static void on_gone(void *data)
{
	struct gw_get *get = data;

	get->x = NULL; /* a call is outstanding and will find out.. */
	if (get->timer && !get->asking) {
		(void)leave(get); /* ..or none is */
	}
}

void gw_model_get(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		  const char *version)
{
	struct gw_get *get;
	uint64_t number = 0;
	bool latest = strcmp(version, "latest") == 0;

	if (!latest && trib_parse_u64(version, strlen(version), 0, UINT32_MAX, &number)) {
		gw_refuse(x, TRIB_PROBLEM_NO_SUCH_MODEL,
			  "a version number or \"latest\" is needed");
		return;
	}
	get = trib_alloc(sizeof(*get));
	if (!get) {
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, NULL);
		return;
	}
	*get = (struct gw_get){
		.worker = worker, .x = x, .latest = latest, .version = (uint32_t)number
	};
	gw_count(GW_M_MODEL_REQUESTS, 1);
	trib_exchange_attach(x, get, on_gone);
	gw_load(worker, job, false, on_loaded, get);
}
