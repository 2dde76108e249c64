/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api_rounds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "orchestrator/leader.h"

#define WEIGHT_UNIT 1048576.0 /* weights are kept as fixed point, 2^-20 */

/* ---- objects ---- */

static void set_time(json_t *json, const char *key, uint64_t ms)
{
	char when[TRIB_RFC3339_SIZE];

	trib_rfc3339(ms, when);
	(void)json_object_set_new(json, key, ms ? json_string(when) : json_null());
}

static void set_span(json_t *json, const char *key, uint64_t from, uint64_t to)
{
	(void)json_object_set_new(json, key,
				  from && to >= from ? json_integer((json_int_t)(to - from))
						     : json_null());
}

/* "k:ms,.." as an object. */
static json_t *times_json(const char *text)
{
	json_t *json = json_object();

	while (*text) {
		char key[12] = "";
		size_t size = strcspn(text, ":");

		if (size >= sizeof(key) || text[size] != ':') {
			break;
		}
		memcpy(key, text, size);
		(void)json_object_set_new(json, key, json_real(strtod(text + size + 1, NULL)));
		text += strcspn(text, ",");
		text += *text == ',';
	}
	return json;
}

/* 'k|why|V|N|l|low|n|gain|ms|k:ms,..': why the round waits for k updates. */
static json_t *backup_json(const char *text)
{
	static const char *const names[] = { "k",          "why",      "variance", "expected",
					     "smoothness", "at_least", "at_most",  "gain",
					     "ms",         "times_ms" };
	json_t *json = json_pack("{s:s}", "kind", "dbw");

	for (size_t i = 0; i < TRIB_COUNT(names); i++) {
		size_t size = strcspn(text, "|");
		bool whole = strcmp(names[i], "k") == 0 || strncmp(names[i], "at_", 3) == 0;
		double number = strtod(text, NULL);

		(void)json_object_set_new(json, names[i],
					  i == 1  ? json_stringn(text, size)
					  : whole ? json_integer((json_int_t)number)
					  : i + 1 == TRIB_COUNT(names) ? times_json(text)
								       : json_real(number));
		text += size + (text[size] == '|');
	}
	return json;
}

/* "update|client|node|why;.." of the first ones, and how many in all. */
static json_t *quarantine_json(const struct orc_round *round)
{
	static const char *const names[] = { "update", "client", "node", "why" };
	json_t *items = json_array();
	const char *text = round->quarantine;

	while (*text) {
		json_t *item = json_object();

		for (size_t i = 0; i < TRIB_COUNT(names); i++) {
			size_t size = strcspn(text, "|;");

			(void)json_object_set_new(item, names[i], json_stringn(text, size));
			text += size + (text[size] == '|');
		}
		text += strcspn(text, ";");
		text += *text == ';';
		(void)json_array_append_new(items, item);
	}
	return json_pack("{s:I, s:o}", "count", (json_int_t)round->quarantined, "items", items);
}

/* A round that was under way when its job ended goes nowhere any more. */
static const char *round_state(const struct orc_round *round, enum orc_job_state job)
{
	bool over = job == ORC_JOB_STOPPED || job == ORC_JOB_FAILED || job == ORC_JOB_FINISHED;

	if (over && (round->state == ORC_ROUND_OPEN || round->state == ORC_ROUND_CLOSING)) {
		return "abandoned";
	}
	return orc_round_state_text(round->state);
}

static json_t *round_json(const struct orc_round *round, enum orc_job_state job)
{
	uint64_t stragglers = round->closed && round->selected > round->accepted
				      ? round->selected - round->accepted
				      : 0;
	json_t *timings = json_object();
	json_t *json = json_pack(
		"{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, "
		"s:s}",
		"round", (json_int_t)round->number, "state", round_state(round, job),
		"base_version", (json_int_t)round->base, "goal", (json_int_t)round->goal, "quorum",
		(json_int_t)round->quorum, "selected_max", (json_int_t)round->selected_max,
		"selected", (json_int_t)round->selected, "accepted", (json_int_t)round->accepted,
		"inflight", (json_int_t)round->inflight, "stragglers", (json_int_t)stragglers,
		"late", (json_int_t)round->late, "lost", (json_int_t)round->lost, "expired",
		(json_int_t)round->expired, "extended", (json_int_t)round->extended, "weight_sum",
		(double)round->weight_fx / WEIGHT_UNIT, "why", round->why, "digest", round->digest);

	(void)json_object_set_new(json, "version",
				  round->version >= 0 ? json_integer((json_int_t)round->version)
						      : json_null());
	(void)json_object_set_new(json, "metrics", trib_metrics_json(round->metrics));
	(void)json_object_set_new(json, "partial", json_integer((json_int_t)round->partial));
	if (round->kept) {
		(void)json_object_set_new(json, "kept", json_integer((json_int_t)round->kept));
	}
	if (round->quarantined) {
		(void)json_object_set_new(json, "quarantined", quarantine_json(round));
	}
	if (round->backup[0]) {
		(void)json_object_set_new(json, "backup", backup_json(round->backup));
	}
	set_time(json, "opened", round->opened);
	set_time(json, "deadline", round->deadline);
	set_time(json, "closed", round->closed);
	set_time(json, "published", round->published);
	set_span(timings, "collect_ms", round->opened, round->closed);
	set_span(timings, "aggregate_ms", round->closed, round->published);
	set_span(timings, "total_ms", round->opened, round->published);
	if (!json || json_object_set_new(json, "timings", timings)) {
		json_decref(json);
		return NULL;
	}
	return json;
}

/* ---- one round ---- */

/* True when the view holds the round that was asked for; else answered. */
static bool found(struct orc_request *r, const struct orc_view *view)
{
	if (orc_request_failed(r, view->word)) {
		return false;
	}
	if (view->round.state == ORC_ROUND_NONE) {
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_ROUND, NULL);
		return false;
	}
	return true;
}

static void on_round(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;

	if (found(r, view)) {
		orc_reply_json(r, r->route->status, round_json(&view->round, view->job.state),
			       true);
	}
	orc_request_release(r);
}

static void view_round(struct orc_request *r, orc_view_cb *cb)
{
	const struct orc_view_want want = { .job = r->job, .round = r->number };

	orc_request_hold(r);
	orc_request_sent(r, orc_store_view(r->app->store, &want, cb, r));
}

void orc_rounds_get(struct orc_request *r)
{
	view_round(r, on_round);
}

static void on_closed(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	char detail[96];

	if (orc_request_failed(r, reply->word)) {
		orc_request_release(r);
		return;
	}
	if (reply->word == ORC_CLOSING || reply->word == ORC_FAILED) {
		view_round(r, on_round);
	} else if (reply->word == ORC_QUORUM) {
		(void)snprintf(
			detail, sizeof(detail),
			"%lld updates are not enough to close the round (force closes with 1)",
			reply->number);
		orc_reply_problem(r, TRIB_PROBLEM_STATE_CONFLICT, detail);
	} else if (strcmp(reply->text, "none") == 0) {
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_ROUND, NULL);
	} else {
		(void)snprintf(detail, sizeof(detail), "the round is %.24s", reply->text);
		orc_reply_problem(r, TRIB_PROBLEM_STATE_CONFLICT, detail);
	}
	orc_request_release(r);
}

void orc_rounds_close_body(struct orc_request *r, const char *body, size_t size)
{
	struct orc_round_close close = { .job = r->job, .number = r->number };
	char reason[160];
	json_t *json = NULL;

	if (size && trib_json_parse(body, size, &json, reason)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, reason);
		return;
	}
	close.force = r->force || json_is_true(trib_json_at(json, "force")) ? 2 : 1;
	json_decref(json);
	orc_request_hold(r);
	orc_request_sent(r, orc_store_deadline(r->app->store, orc_leader_token(r->app->leader),
					       &close, (struct orc_then){ on_closed, r }));
}

/* ---- lists, newest first; the cursor is the number to begin with ---- */

struct listing {
	enum orc_job_state state;
	uint64_t last; /* the oldest one of this page */
};

/* The number to begin with: the cursor, but at most `newest`. False: answered. */
static bool first_of(struct orc_request *r, uint64_t newest, uint64_t *ret_first)
{
	uint64_t first = newest;

	if (r->cursor[0] && trib_parse_u64(r->cursor, strlen(r->cursor), 0, UINT32_MAX, &first)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, "not a cursor of this list");
		return false;
	}
	*ret_first = first < newest ? first : newest;
	return true;
}

static bool begin_listing(struct orc_request *r, enum orc_job_state state, uint64_t last)
{
	struct listing *list = trib_alloc(sizeof(*list));

	if (!list) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return false;
	}
	*list = (struct listing){ state, last };
	r->state = list;
	r->state_free = trib_free;
	return true;
}

static void print_cursor(char out[24], uint64_t number, bool there_is)
{
	out[0] = '\0';
	if (there_is) {
		(void)snprintf(out, 24, "%llu", (unsigned long long)number);
	}
}

static void on_rounds(enum orc_word word, const struct orc_round *rounds, size_t count, void *arg)
{
	struct orc_request *r = arg;
	const struct listing *list = r->state;
	char next[24];

	if (!orc_request_failed(r, word)) {
		json_t *items = json_array();

		for (size_t i = 0; i < count; i++) {
			(void)json_array_append_new(items, round_json(&rounds[i], list->state));
		}
		print_cursor(next, list->last - 1, list->last > 1);
		orc_reply_list(r, items, next);
	}
	orc_request_release(r);
}

static void on_rounds_job(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;
	uint64_t first;

	if (orc_request_failed(r, view->word) || !first_of(r, view->job.round, &first)) {
		orc_request_release(r);
		return;
	}
	if (first == 0) {
		orc_reply_list(r, json_array(), "");
	} else if (begin_listing(r, view->job.state, first > r->limit ? first - r->limit + 1 : 1)) {
		orc_request_hold(r);
		orc_request_sent(
			r, orc_store_rounds(r->app->store, r->job, first, r->limit, on_rounds, r));
	}
	orc_request_release(r);
}

static void view_job(struct orc_request *r, orc_view_cb *cb)
{
	const struct orc_view_want want = { .job = r->job };

	orc_request_hold(r);
	orc_request_sent(r, orc_store_view(r->app->store, &want, cb, r));
}

void orc_rounds_list(struct orc_request *r)
{
	view_job(r, on_rounds_job);
}

static json_t *model_json(const struct orc_app *app, const char *job, const struct orc_model *model)
{
	char url[640];
	char etag[80];
	json_t *json;

	(void)snprintf(url, sizeof(url), "%.512s/v1/jobs/%s/models/%llu", app->data_url, job,
		       (unsigned long long)model->version);
	(void)snprintf(etag, sizeof(etag), "\"v%llu-%s\"", (unsigned long long)model->version,
		       model->digest);
	json = json_pack("{s:I, s:s, s:s, s:I, s:I, s:s}", "version", (json_int_t)model->version,
			 "digest", model->digest, "etag", etag, "data_bytes",
			 (json_int_t)model->bytes, "round", (json_int_t)model->round, "url", url);
	(void)json_object_set_new(json, "metrics", trib_metrics_json(model->metrics));
	set_time(json, "created", model->created);
	return json;
}

static void on_models(enum orc_word word, const struct orc_model *models, size_t count, void *arg)
{
	struct orc_request *r = arg;
	const struct listing *list = r->state;
	char next[24];

	if (!orc_request_failed(r, word)) {
		json_t *items = json_array();

		for (size_t i = 0; i < count; i++) {
			(void)json_array_append_new(items, model_json(r->app, r->job, &models[i]));
		}
		print_cursor(next, list->last - 1, list->last > 0);
		orc_reply_list(r, items, next);
	}
	orc_request_release(r);
}

static void on_models_job(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;
	uint64_t first;

	if (orc_request_failed(r, view->word)) {
		orc_request_release(r);
		return;
	}
	if (view->job.version < 0) {
		orc_reply_list(r, json_array(), "");
	} else if (first_of(r, (uint64_t)view->job.version, &first) &&
		   begin_listing(r, view->job.state,
				 first >= r->limit ? first - r->limit + 1 : 0)) {
		orc_request_hold(r);
		orc_request_sent(
			r, orc_store_models(r->app->store, r->job, first, r->limit, on_models, r));
	}
	orc_request_release(r);
}

void orc_models_list(struct orc_request *r)
{
	view_job(r, on_models_job);
}

/* ---- updates of a round: Redis's own cursor, pages of about `limit` ---- */

static json_t *update_json(const struct orc_request *r, const struct orc_update *update)
{
	const char *state = update->state == 'C'   ? "accepted"
			    : update->state == 'R' ? "receiving"
			    : update->state == 'L' ? "carried"
						   : "selected";
	const char *bytes = strrchr(update->digest, '-');
	uint64_t size;
	json_t *json =
		json_pack("{s:s, s:s, s:I, s:s, s:s}", "update", update->id, "job", r->job, "round",
			  (json_int_t)r->number, "client", update->client, "state", state);

	if (update->state == 'L') {
		(void)json_object_set_new(json, "counted_in", json_integer((json_int_t)update->ms));
		return json;
	}
	if (update->state != 'C') {
		set_time(json, "lease_ends", update->ms);
		return json;
	}
	(void)json_object_set_new(json, "digest", json_string(update->digest));
	(void)json_object_set_new(json, "weight",
				  json_real((double)update->weight_fx / WEIGHT_UNIT));
	if (bytes && trib_parse_u64(bytes + 1, strlen(bytes + 1), 0, INT64_MAX, &size) == 0) {
		(void)json_object_set_new(json, "bytes", json_integer((json_int_t)size));
	}
	(void)json_object_set_new(json, "place", json_string(update->place));
	set_time(json, "accepted_at", update->ms);
	return json;
}

static void on_updates(const struct orc_updates *updates, void *arg)
{
	struct orc_request *r = arg;
	char next[24];

	if (!orc_request_failed(r, updates->word)) {
		json_t *items = json_array();

		for (size_t i = 0; i < updates->count; i++) {
			(void)json_array_append_new(items, update_json(r, &updates->items[i]));
		}
		print_cursor(next, updates->next, updates->next != 0);
		orc_reply_list(r, items, next);
	}
	orc_request_release(r);
}

static void on_updates_round(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;
	struct orc_updates_want want = { .job = r->job, .round = r->number, .count = r->limit };

	if (!found(r, view)) {
		orc_request_release(r);
		return;
	}
	if (r->cursor[0] &&
	    trib_parse_u64(r->cursor, strlen(r->cursor), 0, UINT64_MAX, &want.cursor)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, "not a cursor of this list");
	} else {
		orc_request_hold(r);
		orc_request_sent(r, orc_store_updates(r->app->store, &want, on_updates, r));
	}
	orc_request_release(r);
}

void orc_rounds_updates(struct orc_request *r)
{
	view_round(r, on_updates_round);
}
