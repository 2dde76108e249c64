/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api_create.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/crypto.h"
#include "orchestrator/api_jobs.h"
#include "orchestrator/hook_rule.h"
#include "orchestrator/leader.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/rounds.h"
#include "orchestrator/spec.h"
#include "orchestrator/store_life.h"

#define KEY_MAX 128
#define DAY_MS  86400000u
#define FULL_MS 30000u /* until some job may be over */
#define PROBLEM "application/problem+json"

struct create {
	struct orc_spec spec; /* .spec NULL when not valid */
	char *text;           /* its JSON */
	json_t *errors;       /* when not valid */
	char id[TRIB_ID_TEXT_SIZE];
	char initial[TRIB_ID_TEXT_SIZE + 24]; /* "job|version", "" = none */
	char key[KEY_MAX + 1];                /* "" = none */
	char fingerprint[TRIB_DIGEST_TEXT_SIZE];
	int status; /* of the answer.. */
	char *body; /* ..kept while it is written down */
};

static void create_free(void *state)
{
	struct create *c = state;

	orc_spec_fini(&c->spec);
	json_decref(c->errors);
	trib_free(c->text);
	trib_free(c->body);
	trib_free(c);
}

/* ---- answers ---- */

static void answer(struct orc_request *r, int status, const char *id, const char *body)
{
	char location[64];

	if (status == 201) {
		(void)snprintf(location, sizeof(location), "/v1/jobs/%s", id);
		orc_reply_header(r, "Location", location);
	}
	orc_reply_text(r, status, status >= 400 ? PROBLEM : "application/json", body);
}

static void on_kept(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	struct create *c = r->state;

	if (!orc_request_failed(r, reply->word)) {
		answer(r, c->status, c->id, c->body);
	}
	orc_request_release(r);
}

/* The answer is known (body stolen): written down first when there is a key. */
static void conclude(struct orc_request *r, int status, char *body)
{
	struct create *c = r->state;
	struct orc_idem_result result = { .key = c->key,
					  .fingerprint = c->fingerprint,
					  .ttl_ms = DAY_MS };
	size_t size = body ? strlen(body) + 64 : 0;
	char *text;

	c->status = status;
	c->body = body;
	if (!body) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	if (!c->key[0]) {
		answer(r, status, c->id, body);
		return;
	}
	text = trib_alloc(size);
	if (!text) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	(void)snprintf(text, size, "%d %s\n%s", status, c->id[0] ? c->id : "-", body);
	result.text = text;
	orc_request_hold(r);
	orc_request_sent(
		r, orc_store_idem_end(r->app->store, &result, (struct orc_then){ on_kept, r }));
	trib_free(text);
}

/* Not valid: all that is wrong, as a problem. */
static void refuse(struct orc_request *r)
{
	struct create *c = r->state;
	char *errors = trib_json_print(c->errors);
	size_t room = 1024 + (errors ? strlen(errors) : 0);
	char *body = trib_alloc(room);

	if (!c->key[0]) {
		orc_reply_errors(r, TRIB_PROBLEM_INVALID_SPEC, c->errors);
		trib_free(body);
	} else {
		if (body) {
			(void)trib_problem_print(TRIB_PROBLEM_INVALID_SPEC, NULL, 0, errors, body,
						 room);
		}
		conclude(r, 422, body);
	}
	trib_free(errors);
}

/* ---- making it ---- */

static void on_view(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;

	if (!orc_request_failed(r, view->word)) {
		json_t *json = orc_job_json(r->app, view);

		conclude(r, 201, json ? trib_json_print(json) : NULL);
		json_decref(json);
	}
	orc_request_release(r);
}

static void on_created(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	const struct create *c = r->state;
	const struct orc_view_want want = { .job = c->id, .spec = true };
	char detail[128];

	if (reply->word == ORC_FULL) {
		orc_reply_later(r, TRIB_PROBLEM_THROTTLED, "the pool has 64 jobs that are not over",
				FULL_MS);
	} else if (reply->word == ORC_QUOTA) {
		(void)snprintf(detail, sizeof(detail), "quota %.100s", reply->text);
		orc_count(ORC_M_QUOTA_JOBS);
		orc_reply_later(r, TRIB_PROBLEM_QUOTA_EXCEEDED, detail, FULL_MS);
	} else if (!orc_request_failed(r, reply->word)) { /* or EXISTS: made by a repeat's first */
		orc_request_hold(r);
		orc_request_sent(r, orc_store_view(r->app->store, &want, on_view, r));
	}
	orc_request_release(r);
}

static void create_now(struct orc_request *r)
{
	const struct create *c = r->state;
	const struct orc_job_new job = { .id = c->id,
					 .name = c->spec.name,
					 .spec = c->text,
					 .goal = c->spec.goal,
					 .quorum = c->spec.quorum,
					 .selected_max = c->spec.selected_max,
					 .deadline_ms = c->spec.deadline_ms,
					 .lease_ms = c->spec.lease_ms,
					 .stop_rounds = c->spec.stop_rounds,
					 .tenant = r->who.tenant,
					 .initial = c->initial };

	orc_request_hold(r);
	orc_request_sent(r, orc_store_job_create(r->app->store, orc_leader_token(r->app->leader),
						 &job, (struct orc_then){ on_created, r }));
}

/* The model it begins with is there and stays a while. */
static void on_pinned(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	struct create *c = r->state;
	bool missing = reply->word == ORC_NOJOB || reply->word == ORC_NOMODEL;

	if (missing) {
		c->errors = json_pack(
			"[{s:s, s:s}]", "pointer",
			reply->word == ORC_NOJOB ? "/spec/initial/job" : "/spec/initial/version",
			"detail",
			reply->word == ORC_NOJOB ? "there is no such job of this tenant"
						 : "that version is not there (any more)");
		refuse(r);
	} else if (!orc_request_failed(r, reply->word)) {
		(void)snprintf(c->initial, sizeof(c->initial), "%s|%lld",
			       trib_json_text(c->spec.spec, "initial.job", ""), reply->number);
		create_now(r);
	}
	orc_request_release(r);
}

static void create(struct orc_request *r)
{
	const struct create *c = r->state;
	const char *from = trib_json_text(c->spec.spec, "initial.job", "");

	if (!*from) {
		create_now(r);
		return;
	}
	orc_request_hold(r);
	orc_request_sent(r,
			 orc_store_model_pin(r->app->store, from, r->who.tenant,
					     trib_json_integer(c->spec.spec, "initial.version", -1),
					     (struct orc_then){ on_pinned, r }));
}

static void choose_id(struct create *c)
{
	struct trib_id id = trib_id_make();

	trib_id_print("job_", &id, c->id);
}

/* ---- idempotency ---- */

static void on_noted(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;

	if (!orc_request_failed(r, reply->word)) {
		create(r);
	}
	orc_request_release(r);
}

/* Writes down which id the job will have, before it is made. */
static void note(struct orc_request *r)
{
	struct create *c = r->state;
	char text[TRIB_ID_TEXT_SIZE + 4];
	const struct orc_idem_result result = {
		.key = c->key, .fingerprint = c->fingerprint, .text = text, .ttl_ms = DAY_MS
	};

	choose_id(c);
	(void)snprintf(text, sizeof(text), "P %s", c->id);
	orc_request_hold(r);
	orc_request_sent(
		r, orc_store_idem_end(r->app->store, &result, (struct orc_then){ on_noted, r }));
}

/* "P <id>": go on from there. "<status> <id>\n<body>": the same answer again. */
static void repeat(struct orc_request *r, const char *text)
{
	struct create *c = r->state;
	size_t first = strcspn(text, " ");
	size_t second = text[first] ? strcspn(text + first + 1, "\n") : 0;
	uint64_t status;

	if (second == 0 || second >= sizeof(c->id)) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "kept answer is not readable");
		return;
	}
	memcpy(c->id, text + first + 1, second);
	c->id[second] = '\0';
	text += first + 1 + second;
	if (first == 1 && *text == '\0' && c->text) {
		create(r);
	} else if (*text == '\n' &&
		   trib_parse_u64(text - second - 1 - first, first, 200, 599, &status) == 0) {
		orc_count(ORC_M_IDEM_REPLAYS);
		orc_reply_header(r, "Idempotent-Replayed", "true");
		answer(r, (int)status, c->id, text + 1);
	} else {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "kept answer is not readable");
	}
}

static void on_begun(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	struct create *c = r->state;

	if (orc_request_failed(r, reply->word)) {
		orc_request_release(r);
		return;
	}
	if (reply->word == ORC_MISMATCH) {
		orc_reply_problem(r, TRIB_PROBLEM_IDEMPOTENCY_MISMATCH, NULL);
	} else if (reply->word == ORC_RUNNING) {
		orc_reply_problem(r, TRIB_PROBLEM_IDEMPOTENCY_RUNNING, NULL);
	} else if (reply->word == ORC_REPLAY) {
		repeat(r, reply->text);
	} else if (c->text) {
		note(r);
	} else {
		refuse(r);
	}
	orc_request_release(r);
}

/* 1..128 visible ASCII characters. */
static bool key_valid(const char *key)
{
	size_t size = strlen(key);

	for (size_t i = 0; i < size; i++) {
		if (key[i] <= ' ' || key[i] > '~') {
			return false;
		}
	}
	return size >= 1 && size <= KEY_MAX;
}

static int fingerprint(struct create *c, const char *body, size_t size)
{
	static const char what[] = "POST\n/v1/jobs\n";
	struct trib_hasher *hasher;
	int rc = trib_hasher_new(&hasher);

	if (rc) {
		return rc;
	}
	trib_hasher_update(hasher, what, sizeof(what) - 1);
	trib_hasher_update(hasher, body, size);
	trib_digest_print(trib_hasher_digest(hasher), c->fingerprint);
	(void)trib_hasher_free(hasher);
	return 0;
}

/* A tenant's keys are its own: nobody gets the answer to another tenant's request. */
static int name_key(struct orc_request *r, const char *key)
{
	struct create *c = r->state;
	char text[TRIB_TENANT_SIZE + KEY_MAX + 2];

	if (trib_access_is_open(r->app->access)) {
		return trib_copy(c->key, sizeof(c->key), key);
	}
	(void)snprintf(text, sizeof(text), "%s/%s", r->who.tenant, key);
	return trib_sha256(text, strlen(text), c->key);
}

/* ---- entry ---- */

/* Parses and checks the body into a new state of the request. False: answered. */
static bool read_body(struct orc_request *r, const char *body, size_t size)
{
	struct create *c = trib_alloc(sizeof(*c));
	char reason[160];
	json_t *json;
	int rc;

	if (!c) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return false;
	}
	r->state = c;
	r->state_free = create_free;
	if (trib_json_parse(body, size, &json, reason)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, reason);
		return false;
	}
	rc = orc_spec_read(json, &c->spec, &c->errors);
	json_decref(json);
	if (rc == 0) {
		c->text = trib_json_print(c->spec.spec);
	}
	if (rc != -EBADMSG && !c->text) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return false;
	}
	return true;
}

void orc_create_body(struct orc_request *r, const char *body, size_t size)
{
	const char *key = trib_http_field(trib_exchange_request(r->x), "idempotency-key");
	struct create *c;

	if (key && !key_valid(key)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST,
				  "Idempotency-Key must be 1 to 128 visible characters");
		return;
	}
	if (orc_rounds_live(r->app->rounds) >= ORC_JOBS_MAX) {
		orc_reply_problem(r, TRIB_PROBLEM_THROTTLED, "too many live jobs");
		return;
	}
	if (!orc_leader_valid(r->app->leader)) { /* the body may have taken its time */
		orc_reply_problem(r, TRIB_PROBLEM_NOT_LEADER, NULL);
		return;
	}
	if (!read_body(r, body, size)) {
		return;
	}
	c = r->state;
	if (key) {
		if (name_key(r, key) || fingerprint(c, body, size)) {
			orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, NULL);
			return;
		}
		orc_request_hold(r);
		orc_request_sent(r, orc_store_idem_begin(r->app->store, c->key, c->fingerprint,
							 (struct orc_then){ on_begun, r }));
	} else if (c->text) {
		choose_id(c);
		create(r);
	} else {
		refuse(r);
	}
}

void orc_validate_body(struct orc_request *r, const char *body, size_t size)
{
	struct create *c;

	if (!read_body(r, body, size)) {
		return;
	}
	c = r->state;
	if (!c->text) {
		orc_reply_errors(r, TRIB_PROBLEM_INVALID_SPEC, c->errors);
		return;
	}
	orc_hooks_redact(c->spec.spec);
	orc_reply_json(r, 200, json_pack("{s:O, s:[]}", "spec", c->spec.spec, "warnings"), false);
}
