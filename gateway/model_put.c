/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/model_put.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "gateway/intake.h"
#include "gateway/load.h"
#include "gateway/metrics.h"
#include "gateway/model_store.h"
#include "gateway/upload_head.h"

#define PUTS_MAX 4 /* per worker */

struct gw_put {
	TAILQ_ENTRY(gw_put) entry;
	struct gw_worker *worker;
	struct trib_exchange *x; /* NULL: the client is gone */
	struct gw_job *job;      /* pinned */
	bool busy;               /* a call or the helper is outstanding */
	uint64_t total;
	bool has_crc;
	uint32_t crc;
	struct gw_intake intake;
	struct trib_piece piece; /* the data, in file order */
	struct gw_store store;
	struct trib_hasher *hasher;
	char digest[TRIB_DIGEST_TEXT_SIZE];
	char job_id[TRIB_JOB_ID_SIZE];
	pthread_t helper;
	bool helped; /* helper runs or is to be joined */
	int settled; /* its result */
	struct gw_grant grant;
	int status; /* of the answer */
};

/* ---- ends ---- */

/* Who put a model, and what came of it. */
static void write_down(struct gw_worker *worker, const struct gw_grant *grant, const char *job,
		       int status)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "/v1/jobs/%s/models/0", job);
	gw_audit(worker, grant, "PUT", path, status);
}

static struct trib_exchange *leave(struct gw_put *put)
{
	struct trib_exchange *x = put->x;

	if (x) {
		trib_exchange_attach(x, NULL, NULL);
	}
	write_down(put->worker, &put->grant, put->job_id, put->status);
	if (put->helped) {
		(void)pthread_join(put->helper, NULL); /* it has woken us: it is at its end */
	}
	TAILQ_REMOVE(&put->worker->puts, put, entry);
	put->worker->put_count--;
	gw_intake_fini(&put->intake);
	gw_store_fini(&put->store);
	put->hasher = trib_hasher_free(put->hasher);
	(void)gw_job_put(put->job);
	trib_free(put);
	gw_count(GW_M_UPLOADS_INFLIGHT, -1);
	return x;
}

static void refuse(struct gw_put *put, enum trib_problem problem, const char *detail)
{
	struct gw_worker *worker = put->worker;
	struct trib_exchange *x;

	put->status = trib_problem_status(problem);
	x = leave(put);
	if (x && problem == TRIB_PROBLEM_UNAVAILABLE) {
		gw_unavailable(worker, x, detail);
	} else if (x) {
		gw_refuse(x, problem, detail);
	}
}

static void on_gone(void *data)
{
	struct gw_put *put = data;

	put->x = NULL;
	if (!put->busy) {
		(void)leave(put);
	}
}

void gw_model_puts_fini(struct gw_worker *worker)
{
	struct gw_put *put;

	while ((put = TAILQ_FIRST(&worker->puts))) {
		put->x = NULL; /* the httpd is gone */
		(void)leave(put);
	}
}

static void accept(struct gw_put *put, int status)
{
	char etag[64];
	json_t *json;
	struct trib_exchange *x;

	if (status == 201) {
		gw_count(GW_M_MODELS_PUT, 1);
	}
	(void)snprintf(etag, sizeof(etag), "\"v0-%s\"", put->digest);
	json = json_pack("{s:s,s:i,s:s,s:I,s:I,s:s}", "job", put->job_id, "version", 0, "digest",
			 put->digest, "bytes", (json_int_t)put->total, "parameters",
			 (json_int_t)(put->piece.size / 4), "etag", etag);
	put->status = status;
	x = leave(put);
	if (!x) {
		json_decref(json);
		return;
	}
	if (trib_http_header(x, "ETag", etag)) {
		log_debug("model", "no room for a header");
	}
	gw_reply_json(x, status, json);
}

/* ---- Redis decides ---- */

/* Other nodes' agents look here for it. A hint: without it they ask around. */
static void tell_where(struct gw_put *put)
{
	const char *node = put->worker->gw->options.node;

	if (node && trib_redis_send(put->worker->redis, NULL, NULL, "FCALL", "trib_model_at", "1",
				    put->job->key, "0", node, NULL)) {
		log_debug("model", "not told where version 0 is");
	}
}

static void on_init(const struct trib_value *value, void *arg)
{
	struct gw_put *put = arg;
	const char *word = value ? trib_value_text(trib_value_at(value, 0)) : "";
	bool ours = strcmp(word, "OK") == 0 || strcmp(word, "DUP") == 0;
	int status = strcmp(word, "OK") == 0 ? 201 : 200;
	int rc;

	put->busy = false;
	if (!value || trib_value_type(value) != TRIB_VALUE_ARRAY) {
		refuse(put, TRIB_PROBLEM_UNAVAILABLE, "Redis refused");
		return;
	}
	if (ours) {
		rc = put->store.differs ? gw_store_replace(&put->store) : 0;
		if (rc) {
			log_err("model", "replace job=%s rc=%d", put->job_id, rc);
			refuse(put, TRIB_PROBLEM_UNAVAILABLE,
			       "cannot write the model; send it again");
			return;
		}
		tell_where(put);
		accept(put, status);
		return;
	}
	gw_store_withdraw(&put->store);
	if (strcmp(word, "CONFLICT") == 0) {
		refuse(put, TRIB_PROBLEM_MODEL_CONFLICT, NULL);
	} else if (strcmp(word, "STATE") == 0) {
		refuse(put, TRIB_PROBLEM_STATE_CONFLICT, trib_value_text(trib_value_at(value, 1)));
	} else if (strcmp(word, "NOJOB") == 0) {
		gw_jobs_drop(&put->worker->gw->jobs, put->job_id);
		refuse(put, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
	} else {
		refuse(put, TRIB_PROBLEM_INTERNAL, "the answer is not understood");
	}
}

static void init_model(struct gw_put *put)
{
	char bytes[24];
	char elements[24];
	const char *header = (const char *)put->store.memory + 8;
	const char *words[] = { "FCALL", "trib_model_init", "1",   put->job->key, put->digest,
				bytes,   elements,          header };
	size_t sizes[TRIB_COUNT(words)];

	(void)snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)put->piece.size);
	(void)snprintf(elements, sizeof(elements), "%llu", (unsigned long long)put->piece.size / 4);
	for (size_t i = 0; i + 1 < TRIB_COUNT(words); i++) {
		sizes[i] = strlen(words[i]);
	}
	sizes[TRIB_COUNT(words) - 1] = put->intake.header_size;
	if (trib_redis_call(put->worker->redis, on_init, put, TRIB_COUNT(words), words, sizes)) {
		put->busy = false;
		refuse(put, TRIB_PROBLEM_UNAVAILABLE, "too many calls outstanding");
	}
}

/* ---- the helper ---- */

static void on_settled(void *arg)
{
	struct gw_put *put = arg;

	(void)pthread_join(put->helper, NULL);
	put->helped = false;
	if (put->settled) {
		log_err("model", "store job=%s rc=%d", put->job_id, put->settled);
		put->busy = false;
		refuse(put, TRIB_PROBLEM_UNAVAILABLE, "cannot write the model");
		return;
	}
	init_model(put);
}

static void *settle(void *arg)
{
	struct gw_put *put = arg;

	put->settled = gw_store_settle(&put->store);
	while (trib_loop_wake(put->worker->loop, on_settled, put) == -ENOBUFS &&
	       !gw_stopping(put->worker->gw)) {
		(void)poll(NULL, 0, 5);
	}
	return NULL;
}

/* ---- receiving ---- */

static int on_next(struct trib_exchange *x, struct iovec *vectors, int max)
{
	struct gw_put *put = trib_exchange_data(x);

	return gw_intake_next(&put->intake, vectors, max);
}

static int check_layout(struct gw_put *put, enum trib_problem *ret_problem, const char **ret_detail)
{
	struct trib_layout *layout = NULL;
	int rc = trib_layout_parse(put->intake.header, put->intake.header_size,
				   gw_intake_payload(&put->intake), &layout, ret_problem,
				   ret_detail);

	if (rc) {
		return rc;
	}
	for (uint32_t i = 0; i < trib_layout_count(layout); i++) {
		if (trib_layout_tensor(layout, i)->dtype != TRIB_DTYPE_F32) {
			*ret_problem = TRIB_PROBLEM_UNSUPPORTED_ENCODING;
			*ret_detail = "every tensor must be F32";
			rc = -EBADMSG;
		}
	}
	if (rc == 0 && trib_layout_data_size(layout) == 0) {
		*ret_problem = TRIB_PROBLEM_INVALID_HEADER;
		*ret_detail = "the model has no parameters";
		rc = -EBADMSG;
	}
	(void)trib_layout_free(layout);
	return rc;
}

static int header_complete(struct gw_put *put)
{
	enum trib_problem problem = TRIB_PROBLEM_INTERNAL;
	const char *detail = NULL;
	char unique[TRIB_ID_TEXT_SIZE];
	struct trib_id id = trib_id_make();
	uint64_t header = 8 + put->intake.header_size;
	int rc = check_layout(put, &problem, &detail);

	if (rc) {
		refuse(put, problem, detail);
		return -ECANCELED;
	}
	trib_id_print("", &id, unique);
	rc = gw_store_open(put->worker->gw->options.models, put->job_id, unique, put->total,
			   &put->store);
	if (rc) {
		log_err("model", "store job=%s rc=%d", put->job_id, rc);
		refuse(put, TRIB_PROBLEM_UNAVAILABLE,
		       rc == -ENOSPC ? "the models' disk is full" : "cannot write the model");
		return -ECANCELED;
	}
	memcpy(put->store.memory, put->intake.length, 8);
	memcpy(put->store.memory + 8, put->intake.header, put->intake.header_size);
	put->piece = (struct trib_piece){ 0, put->total - header };
	put->intake.hasher = put->hasher;
	gw_intake_target(&put->intake, put->store.memory + header, &put->piece, 1);
	return 0;
}

static int on_landed(struct trib_exchange *x, size_t size)
{
	struct gw_put *put = trib_exchange_data(x);
	const char *detail = NULL;
	int rc = gw_intake_landed(&put->intake, size, &detail);

	if (rc) {
		refuse(put,
		       rc == -EBADMSG    ? TRIB_PROBLEM_INVALID_HEADER
		       : rc == -EMSGSIZE ? TRIB_PROBLEM_BAD_REQUEST
					 : TRIB_PROBLEM_INTERNAL,
		       detail);
		return rc;
	}
	return put->intake.phase == GW_INTAKE_PARSED ? header_complete(put) : 0;
}

static void on_complete(struct trib_exchange *x)
{
	struct gw_put *put = trib_exchange_data(x);

	if (put->intake.phase != GW_INTAKE_FULL) {
		refuse(put, TRIB_PROBLEM_TRUNCATED, "body is shorter than announced");
		return;
	}
	if (put->has_crc && put->crc != put->intake.check.crc) {
		refuse(put, TRIB_PROBLEM_DIGEST_MISMATCH, "crc32c differs; send it again");
		return;
	}
	if (!gw_check_finite(put->intake.check.worst)) {
		refuse(put, TRIB_PROBLEM_NON_FINITE, "the model holds NaN or infinity");
		return;
	}
	trib_digest_print(trib_hasher_digest(put->hasher), put->digest);
	if (pthread_create(&put->helper, NULL, settle, put)) {
		refuse(put, TRIB_PROBLEM_UNAVAILABLE, "no thread");
		return;
	}
	put->helped = true;
	put->busy = true;
}

/* ---- the request ---- */

static void on_loaded(struct gw_job *job, enum trib_problem problem, const char *detail, void *arg)
{
	static const struct trib_http_sink sink = { on_next, on_landed, on_complete, NULL };
	struct gw_put *put = arg;

	put->busy = false;
	put->job = job;
	if (!put->x) {
		(void)leave(put);
	} else if (!job) {
		refuse(put, problem, detail);
	} else if (put->total > 8 + job->header_max + job->bytes_max) {
		refuse(put, TRIB_PROBLEM_TOO_LARGE, "more than model.max_bytes");
	} else if (trib_hasher_new(&put->hasher)) {
		refuse(put, TRIB_PROBLEM_INTERNAL, "out of memory");
	} else {
		gw_intake_init(&put->intake, put->total, job->header_max);
		trib_http_want_sink(put->x, &sink);
	}
}

static void refuse_early(struct gw_worker *worker, struct trib_exchange *x, const char *job,
			 const struct gw_grant *grant, const struct gw_refusal *refusal)
{
	write_down(worker, grant, job, trib_problem_status(refusal->problem));
	gw_refuse(x, refusal->problem, refusal->detail);
}

void gw_model_put_begin(struct gw_worker *worker, struct trib_exchange *x, const char *job,
			const struct gw_grant *grant)
{
	const char *checksum = trib_http_field(trib_exchange_request(x), "fl-checksum");
	struct gw_refusal refusal = { TRIB_PROBLEM_INTERNAL, NULL };
	uint64_t total = 0;
	uint32_t crc = 0;
	struct gw_put *put;

	if (gw_body_head_read(trib_exchange_request(x), &total, &refusal)) {
		refuse_early(worker, x, job, grant, &refusal);
		return;
	}
	if (total < 10 || (checksum && gw_checksum_read(checksum, &crc))) {
		refusal = total < 10 ? (struct gw_refusal){ TRIB_PROBLEM_INVALID_HEADER,
							    "too short for a safetensors file" }
				     : (struct gw_refusal){ TRIB_PROBLEM_BAD_REQUEST,
							    "FL-Checksum: crc32c=<8 hex digits>" };
		refuse_early(worker, x, job, grant, &refusal);
		return;
	}
	if (worker->put_count >= PUTS_MAX) {
		trib_http_problem(x, TRIB_PROBLEM_THROTTLED, "initial models are being received",
				  gw_worker_jitter(worker, 200, 1000));
		return;
	}
	put = trib_alloc(sizeof(*put));
	if (!put || trib_copy(put->job_id, sizeof(put->job_id), job)) {
		trib_free(put);
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	put->worker = worker;
	put->x = x;
	put->grant = *grant;
	put->total = total;
	put->has_crc = checksum != NULL;
	put->crc = crc;
	put->store.fd = -1;
	put->busy = true;
	TAILQ_INSERT_TAIL(&worker->puts, put, entry);
	worker->put_count++;
	gw_count(GW_M_UPLOADS_INFLIGHT, 1);
	trib_exchange_attach(x, put, on_gone);
	gw_load(worker, job, false, on_loaded, put);
}
