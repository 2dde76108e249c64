/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api_jobs.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "orchestrator/access.h"
#include "orchestrator/hook_rule.h"
#include "orchestrator/leader.h"
#include "orchestrator/spec.h"
#include "orchestrator/store_life.h"

#define SCAN_MAX  2000 /* jobs looked at per list request with a state filter */
#define TIES_MAX  128  /* jobs made in the same millisecond as the cursor's */
#define MOVES_MAX 3

/* ---- the object ---- */

static const char *const phases[ORC_JOB_STATE_COUNT] = {
	[ORC_JOB_CREATED] = "Pending", [ORC_JOB_RUNNING] = "Running",
	[ORC_JOB_PAUSED] = "Paused",   [ORC_JOB_FINISHED] = "Succeeded",
	[ORC_JOB_STOPPED] = "Stopped", [ORC_JOB_FAILED] = "Failed",
};

static json_t *status_json(const struct orc_app *app, const struct orc_view *view)
{
	const struct orc_job *job = &view->job;
	const struct orc_round *round = &view->round;
	json_t *status = json_pack(
		"{s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:{s:s}, s:{s:I, s:I, s:I}}", "tenant",
		job->tenant, "phase", job->draining ? "Draining" : phases[job->state], "state",
		job->draining ? "draining" : orc_job_state_text(job->state), "round",
		(json_int_t)job->round, "version", (json_int_t)job->version, "epoch",
		(json_int_t)job->epoch, "reason", job->reason ? job->reason : "", "endpoints",
		"data", app->data_url, "progress", "accepted", (json_int_t)round->accepted, "goal",
		(json_int_t)job->goal, "selected", (json_int_t)round->selected);

	(void)json_object_set_new(status, "counted", json_integer((json_int_t)job->counted));
	(void)json_object_set_new(status, "metrics",
				  trib_metrics_json(job->metrics ? job->metrics : ""));
	if (status && job->version >= 0) {
		(void)json_object_set_new(status, "model",
					  json_pack("{s:I, s:I}", "bytes", (json_int_t)job->bytes,
						    "params", (json_int_t)job->params));
	}
	return status;
}

json_t *orc_job_json(const struct orc_app *app, const struct orc_view *view)
{
	const struct orc_job *job = &view->job;
	char when[TRIB_RFC3339_SIZE];
	char reason[160];
	json_t *spec = NULL;
	json_t *metadata;

	if (!job->spec || trib_json_parse(job->spec, strlen(job->spec), &spec, reason)) {
		spec = json_object();
	}
	orc_hooks_redact(spec);
	trib_rfc3339(job->created, when);
	metadata = json_pack("{s:s, s:s, s:s, s:I}", "id", job->id, "name", job->name,
			     "creationTimestamp", when, "generation", (json_int_t)job->generation);
	if (json_object_get(spec, "labels")) {
		(void)json_object_set(metadata, "labels", json_object_get(spec, "labels"));
		(void)json_object_del(spec, "labels");
	}
	return json_pack("{s:s, s:s, s:o, s:o, s:o}", "apiVersion", ORC_API_VERSION, "kind",
			 ORC_KIND, "metadata", metadata, "spec", spec, "status",
			 status_json(app, view));
}

/* ---- one ---- */

static void on_get(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;

	if (!orc_request_failed(r, view->word)) {
		orc_reply_versioned(r, r->route->status, orc_job_json(r->app, view),
				    view->job.generation);
	}
	orc_request_release(r);
}

void orc_jobs_get(struct orc_request *r)
{
	const struct orc_view_want want = { .job = r->job, .spec = true };

	orc_request_hold(r);
	orc_request_sent(r, orc_store_view(r->app->store, &want, on_get, r));
}

/* ---- state changes ---- */

struct moving {
	enum orc_job_state from;
	enum orc_job_state to;
	unsigned tries;
	bool then_delete;
};

static void move(struct orc_request *r);
static void delete (struct orc_request *r);

static void conflict(struct orc_request *r, const char *state)
{
	char detail[64];

	(void)snprintf(detail, sizeof(detail), "the job is %.24s", state);
	orc_reply_problem(r, TRIB_PROBLEM_STATE_CONFLICT, detail);
}

/* The move failed as the job is in another state; from there it may be possible, too. */
static bool other_way(struct moving *moving, const char *state)
{
	return moving->to == ORC_JOB_STOPPED && ++moving->tries < MOVES_MAX &&
	       orc_job_state_parse(state, &moving->from) == 0 && moving->from <= ORC_JOB_PAUSED;
}

static void on_moved(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	struct moving *moving = r->state;

	if (orc_request_failed(r, reply->word)) {
		orc_request_release(r);
		return;
	}
	if (reply->word == ORC_STATE && other_way(moving, reply->text)) {
		move(r);
	} else if (moving->then_delete) {
		delete (r); /* it is over by now, or refuses by itself */
	} else if (reply->word == ORC_STATE) {
		conflict(r, reply->text);
	} else {
		orc_jobs_get(r);
	}
	orc_request_release(r);
}

static void move(struct orc_request *r)
{
	static const char *const done[ORC_JOB_STATE_COUNT] = { [ORC_JOB_RUNNING] = "resumed",
							       [ORC_JOB_PAUSED] = "paused",
							       [ORC_JOB_STOPPED] = "stopped" };
	const struct moving *moving = r->state;
	char reason[128];
	const struct orc_job_move wanted = { .job = r->job,
					     .from = orc_job_state_text(moving->from),
					     .to = orc_job_state_text(moving->to),
					     .reason = reason };

	(void)snprintf(reason, sizeof(reason), "%s by %s through the API", done[moving->to],
		       r->known && r->who.name[0] ? r->who.name : "somebody");
	orc_request_hold(r);
	orc_request_sent(r, orc_store_job_set(r->app->store, orc_leader_token(r->app->leader),
					      &wanted, (struct orc_then){ on_moved, r }));
}

static void begin_move(struct orc_request *r, const struct moving *wanted)
{
	struct moving *moving = trib_alloc(sizeof(*moving));

	if (!moving) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	*moving = *wanted;
	r->state = moving;
	r->state_free = trib_free;
	move(r);
}

void orc_jobs_pause(struct orc_request *r)
{
	begin_move(r, &(struct moving){ .from = ORC_JOB_RUNNING, .to = ORC_JOB_PAUSED });
}

void orc_jobs_resume(struct orc_request *r)
{
	begin_move(r, &(struct moving){ .from = ORC_JOB_PAUSED, .to = ORC_JOB_RUNNING });
}

void orc_jobs_stop(struct orc_request *r)
{
	begin_move(r, &(struct moving){ .from = ORC_JOB_RUNNING, .to = ORC_JOB_STOPPED });
}

/* ---- drain ---- */

static void on_draining(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;

	if (!orc_request_failed(r, reply->word)) {
		if (reply->word == ORC_STATE) {
			conflict(r, reply->text);
		} else {
			orc_jobs_get(r);
		}
	}
	orc_request_release(r);
}

void orc_jobs_drain(struct orc_request *r)
{
	char reason[128];
	const struct orc_job_move wanted = { .job = r->job, .to = "stopped", .reason = reason };

	(void)snprintf(reason, sizeof(reason), "drained by %s through the API",
		       r->known && r->who.name[0] ? r->who.name : "somebody");
	orc_request_hold(r);
	orc_request_sent(r, orc_store_job_drain(r->app->store, orc_leader_token(r->app->leader),
						&wanted, (struct orc_then){ on_draining, r }));
}

/* ---- deletion ---- */

static void on_deleted(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;

	if (orc_request_failed(r, reply->word)) {
		orc_request_release(r);
		return;
	}
	if (reply->word == ORC_OK) {
		orc_reply_empty(r, 204);
	} else {
		conflict(r, reply->text);
	}
	orc_request_release(r);
}

static void delete (struct orc_request *r)
{
	orc_request_hold(r);
	orc_request_sent(r, orc_store_job_delete(r->app->store, orc_leader_token(r->app->leader),
						 r->job, r->purge,
						 (struct orc_then){ on_deleted, r }));
}

void orc_jobs_delete(struct orc_request *r)
{
	if (r->force) {
		begin_move(r, &(struct moving){ .from = ORC_JOB_RUNNING,
						.to = ORC_JOB_STOPPED,
						.then_delete = true });
	} else {
		delete (r);
	}
}

/* ---- list, newest first ---- */

struct listing {
	struct orc_request *r;
	bool filtered;
	enum orc_job_state state;
	uint64_t from;                 /* cursor: jobs made before.. */
	char after[TRIB_ID_TEXT_SIZE]; /* ..or then, with a smaller id; "" = from the newest */
	bool end;                      /* no more jobs than these */
	size_t scanned;
	json_t *items; /* of the answer */
	char last[64]; /* cursor of the last job looked at */
	size_t count;  /* of the page under way */
	size_t answered;
	json_t *page[ORC_LIMIT_MAX + TIES_MAX];
	struct orc_job_ref refs[ORC_LIMIT_MAX + TIES_MAX];
};

static void next_page(struct listing *list);

static void listing_free(void *state)
{
	struct listing *list = state;

	for (size_t i = 0; i < list->count; i++) {
		json_decref(list->page[i]);
	}
	json_decref(list->items);
	trib_free(list);
}

static void finish(struct listing *list, bool more)
{
	json_t *items = list->items;

	list->items = NULL;
	orc_reply_list(list->r, items, more ? list->last : "");
}

/* All jobs of the page are read: takes them over until the answer is full. */
static void page_done(struct listing *list)
{
	for (size_t i = 0; i < list->count; i++) {
		if (json_array_size(list->items) == list->r->limit) {
			finish(list, true);
			return;
		}
		list->from = list->refs[i].created;
		memcpy(list->after, list->refs[i].id, sizeof(list->after));
		(void)snprintf(list->last, sizeof(list->last), "%llu.%s",
			       (unsigned long long)list->from, list->after);
		if (list->page[i]) {
			(void)json_array_append(list->items, list->page[i]);
		}
	}
	list->scanned += list->count;
	if (list->end) {
		finish(list, false);
	} else if (json_array_size(list->items) == list->r->limit || list->scanned >= SCAN_MAX) {
		finish(list, true);
	} else {
		next_page(list);
	}
}

static void on_item(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;
	struct listing *list = r->state;
	bool wanted = view->word == ORC_OK && orc_access_sees(r, view->job.tenant) &&
		      (!list->filtered || view->job.state == list->state);

	/* Deleted meanwhile: left out. Answers come in the order of the asking, as a rule; jobs
	 * with a round take longer, so that each says where it belongs. */
	for (size_t i = 0; wanted && i < list->count; i++) {
		if (strcmp(list->refs[i].id, view->job.id) == 0) {
			list->page[i] = orc_job_json(r->app, view);
			break;
		}
	}
	list->answered++;
	if ((view->word == ORC_NOJOB || !orc_request_failed(r, view->word)) && r->x &&
	    list->answered == list->count) {
		page_done(list);
	}
	orc_request_release(r);
}

static void on_refs(enum orc_word word, const struct orc_job_ref *jobs, size_t count, void *arg)
{
	struct orc_request *r = arg;
	struct listing *list = r->state;
	size_t asked = r->limit + TIES_MAX;
	size_t used = 0;

	if (orc_request_failed(r, word) || !r->x) {
		orc_request_release(r);
		return;
	}
	for (size_t i = 0; i < list->count; i++) {
		json_decref(list->page[i]);
		list->page[i] = NULL;
	}
	list->count = 0;
	list->answered = 0;
	while (used < count && list->count < r->limit) {
		const struct orc_job_ref *job = &jobs[used++];

		if (!list->after[0] || job->created != list->from ||
		    strcmp(job->id, list->after) < 0) {
			list->refs[list->count++] = *job;
		}
	}
	/* An empty page cannot go on: its cursor would stay where it is. */
	list->end = list->count == 0 || (used == count && count < asked);
	if (list->count == 0) {
		page_done(list);
	}
	for (size_t i = 0, sent = list->count; i < sent && r->x; i++) {
		const struct orc_view_want want = { .job = list->refs[i].id, .spec = true };

		orc_request_hold(r);
		orc_request_sent(r, orc_store_view(r->app->store, &want, on_item, r));
	}
	orc_request_release(r);
}

static void next_page(struct listing *list)
{
	struct orc_request *r = list->r;

	orc_request_hold(r);
	orc_request_sent(
		r, orc_store_jobs(r->app->store, list->from, r->limit + TIES_MAX, on_refs, r));
}

/* "<ms>.<id>" */
static bool read_cursor(struct listing *list, const char *cursor)
{
	const char *dot = strchr(cursor, '.');
	struct trib_id id;

	if (!*cursor) {
		list->from = INT64_MAX / 1024; /* beyond any time, exact as a double */
		return true;
	}
	return dot &&
	       trib_parse_u64(cursor, (size_t)(dot - cursor), 0, INT64_MAX, &list->from) == 0 &&
	       trib_id_parse("job_", dot + 1, &id) == 0 &&
	       trib_copy(list->after, sizeof(list->after), dot + 1) == 0;
}

void orc_jobs_list(struct orc_request *r)
{
	struct listing *list = trib_alloc(sizeof(*list));
	char state[16];

	if (!list) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	r->state = list;
	r->state_free = listing_free;
	list->r = r;
	list->items = json_array();
	orc_request_query(r, "state", state, sizeof(state));
	list->filtered = state[0] != '\0';
	if (list->filtered && orc_job_state_parse(state, &list->state)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, "no such state");
	} else if (!read_cursor(list, r->cursor)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, "not a cursor of this list");
	} else {
		next_page(list);
	}
}
