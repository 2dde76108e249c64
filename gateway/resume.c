/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/resume.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "gateway/metrics.h"

/* Every resumable upload that holds a slot, by the time it was parked. An entry that is parked
 * belongs to whoever takes it under the lock; one that is not belongs to its worker. */
static struct {
	pthread_mutex_t lock;
	struct gw_uploads list;
	uint32_t count;
} table = { .lock = PTHREAD_MUTEX_INITIALIZER, .list = TAILQ_HEAD_INITIALIZER(table.list) };

/* ---- the table ---- */

/* Lock held. */
static struct gw_upload *find(const char *job, const char *update)
{
	struct gw_upload *u;

	TAILQ_FOREACH(u, &table.list, entry) {
		if (strcmp(u->head.update, update) == 0 && (!job || strcmp(u->job_id, job) == 0)) {
			return u;
		}
	}
	return NULL;
}

bool gw_resume_enter(struct gw_upload *u)
{
	(void)pthread_mutex_lock(&table.lock);
	u->listed = table.count < GW_RESUMABLE_MAX && !find(u->job_id, u->head.update);
	if (u->listed) {
		TAILQ_INSERT_TAIL(&table.list, u, entry);
		(void)__atomic_add_fetch(&table.count, 1, __ATOMIC_RELAXED);
		gw_gauge(GW_M_RESUMABLE, table.count);
	}
	(void)pthread_mutex_unlock(&table.lock);
	return u->listed;
}

void gw_resume_leave(struct gw_upload *u)
{
	if (!u->listed) {
		return;
	}
	(void)pthread_mutex_lock(&table.lock);
	TAILQ_REMOVE(&table.list, u, entry);
	(void)__atomic_sub_fetch(&table.count, 1, __ATOMIC_RELAXED);
	gw_gauge(GW_M_RESUMABLE, table.count);
	(void)pthread_mutex_unlock(&table.lock);
	u->listed = false;
}

bool gw_resume_park(struct gw_upload *u)
{
	if (!u->listed || gw_job_gone(u->job) || gw_stopping(u->worker->gw)) {
		return false;
	}
	(void)pthread_mutex_lock(&table.lock);
	u->state = GW_UPLOAD_PARKED;
	u->parked_ms = trib_clock_ms();
	u->yield = false;
	TAILQ_REMOVE(&table.list, u, entry);
	TAILQ_INSERT_TAIL(&table.list, u, entry);
	u->parked = true; /* from here on anybody's */
	(void)pthread_mutex_unlock(&table.lock);
	gw_count(GW_M_PARKED, 1);
	return true;
}

/* Lock held: it is this worker's from here on. */
static void take(struct gw_upload *u, struct gw_worker *worker)
{
	u->parked = false;
	u->worker = worker;
}

/* Ends the first parked upload that `wanted` says yes to. */
static bool drop_first(struct gw_worker *worker,
		       bool (*wanted)(const struct gw_upload *u, const void *arg), const void *arg)
{
	struct gw_upload *u;

	(void)pthread_mutex_lock(&table.lock);
	TAILQ_FOREACH(u, &table.list, entry) {
		if (u->parked && wanted(u, arg)) {
			take(u, worker);
			break;
		}
	}
	(void)pthread_mutex_unlock(&table.lock);
	if (u) {
		gw_count(GW_M_ABANDONED, 1);
		(void)gw_upload_leave(u);
	}
	return u != NULL;
}

static bool of_update(const struct gw_upload *u, const void *arg)
{
	return strcmp(u->head.update, arg) == 0;
}

static bool of_job(const struct gw_upload *u, const void *arg)
{
	return *(const char *)arg == '\0' || strcmp(u->job_id, arg) == 0;
}

static bool of_slots(const struct gw_upload *u, const void *arg)
{
	return u->slots == arg && trib_clock_ms() - u->parked_ms >= GW_RESUMABLE_IDLE;
}

/* Or its memory is: the job is over, or the agent has begun anew. Nobody can go on with it, and it
 * would keep the whole segment. */
static bool too_old(const struct gw_upload *u, const void *arg)
{
	(void)arg;
	return trib_clock_ms() - u->parked_ms >= GW_RESUMABLE_AGE || gw_job_gone(u->job) ||
	       gw_slots_retired(u->slots);
}

void gw_resume_supersede(struct gw_worker *worker, const char *update)
{
	if (__atomic_load_n(&table.count, __ATOMIC_RELAXED)) {
		(void)drop_first(worker, of_update, update);
	}
}

bool gw_resume_evict(struct gw_worker *worker, const struct gw_slots *slots)
{
	bool done = drop_first(worker, of_slots, slots);

	gw_count(GW_M_RESUME_EVICTED, done);
	return done;
}

void gw_resume_forget(struct gw_worker *worker, const char *job)
{
	while (drop_first(worker, of_job, job)) {
	}
}

/* Somebody asks for an upload whose connection we still believe in: theirs is the newer. What the
 * old one has brought is read first: it ends when nothing has come for a tick. */
static void yield(struct gw_worker *worker)
{
	struct gw_upload *u;

	(void)pthread_mutex_lock(&table.lock);
	TAILQ_FOREACH(u, &table.list, entry) {
		if (!u->parked && u->yield && u->worker == worker &&
		    u->state == GW_UPLOAD_RECEIVING && u->x) {
			if (u->yield_at == u->intake.received) {
				break;
			}
			u->yield_at = u->intake.received;
		}
	}
	(void)pthread_mutex_unlock(&table.lock);
	if (u) {
		struct trib_exchange *x = u->x;

		u->x = NULL;
		trib_exchange_attach(x, NULL, NULL);
		if (!gw_resume_park(u)) {
			(void)gw_upload_leave(u);
		}
		gw_refuse(x, TRIB_PROBLEM_UPLOAD_BUSY, "it is resumed on another connection");
	}
}

void gw_resume_tick(struct gw_worker *worker)
{
	if (__atomic_load_n(&table.count, __ATOMIC_RELAXED) == 0) {
		return;
	}
	yield(worker);
	while (worker->index == 0 && drop_first(worker, too_old, NULL)) {
	}
}

/* ---- answers ---- */

static int where_it_stands(struct trib_exchange *x, uint64_t offset, uint64_t total)
{
	char text[64];
	int rc;

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)offset);
	rc = trib_http_header(x, "Upload-Offset", text);
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)total);
	rc = rc ? rc : trib_http_header(x, "Upload-Length", text);
	rc = rc ? rc : trib_http_header(x, "Upload-Complete", "?0");
	(void)snprintf(text, sizeof(text), "max-size=%llu, max-age=%d", (unsigned long long)total,
		       GW_RESUMABLE_AGE / 1000);
	rc = rc ? rc : trib_http_header(x, "Upload-Limit", text);
	return rc ? rc : trib_http_header(x, "Cache-Control", "no-store");
}

void gw_resume_answer(struct gw_upload *u)
{
	bool missing = u->head.completes;
	bool created = !u->resuming;
	uint64_t offset = u->intake.received;
	uint64_t total = u->head.total;
	struct trib_exchange *x = u->x;
	char location[128];

	(void)snprintf(location, sizeof(location), "/v1/jobs/%s/uploads/%s", u->job_id,
		       u->head.update);
	u->x = NULL;
	trib_exchange_attach(x, NULL, NULL);
	if (!gw_resume_park(u)) {
		gw_count(GW_M_ABANDONED, 1);
		(void)gw_upload_leave(u);
		gw_refuse(x, TRIB_PROBLEM_UNAVAILABLE, "the upload cannot be kept");
		return;
	}
	if (where_it_stands(x, offset, total) ||
	    (created && trib_http_header(x, "Location", location))) {
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, NULL);
	} else if (missing) {
		gw_refuse(x, TRIB_PROBLEM_TRUNCATED, "Upload-Complete: ?1, but bytes are missing");
	} else {
		trib_http_reply(x, created ? 201 : 204, NULL, NULL, 0);
	}
}

/* ---- HEAD, PATCH, DELETE ---- */

/* Is this request by the upload's own client? */
static bool is_theirs(const struct gw_worker *worker, const struct trib_http_request *request,
		      const struct gw_upload_head *head, const char *job)
{
	const char *ticket = trib_http_field(request, "fl-ticket");
	char hash[TRIB_SHA256_TEXT_SIZE];
	struct gw_refusal ignored;

	if (!ticket || trib_sha256(ticket, strlen(ticket), hash)) {
		return false;
	}
	return strcmp(hash, head->ticket) == 0 ||
	       gw_upload_ticket_check(request, worker->gw->ticket_key, job, trib_wall_ms(), head,
				      &ignored) == 0;
}

/* The parked upload of the path, taken; or NULL and the request is answered. */
static struct gw_upload *claim(struct gw_worker *worker, struct trib_exchange *x,
			       const struct gw_path *path)
{
	struct gw_upload_head head;
	struct gw_upload *u;
	bool parked = false;

	(void)pthread_mutex_lock(&table.lock);
	u = find(path->job, path->item);
	if (u) {
		head = u->head;
	}
	(void)pthread_mutex_unlock(&table.lock);
	if (!u) {
		gw_refuse(x, TRIB_PROBLEM_NO_SUCH_UPDATE, "no upload to go on with: begin anew");
		return NULL;
	}
	if (!is_theirs(worker, trib_exchange_request(x), &head, path->job) ||
	    !trib_exchange_speaks_for(x, head.client)) {
		gw_refuse(x, TRIB_PROBLEM_TICKET_INVALID, "FL-Ticket is not this upload's");
		return NULL;
	}
	(void)pthread_mutex_lock(&table.lock);
	u = find(path->job, path->item);
	if (u && u->parked) {
		parked = true;
		take(u, worker);
	} else if (u) {
		u->yield_at = u->yield ? u->yield_at : UINT64_MAX;
		u->yield = true; /* its worker looks every tick */
	}
	(void)pthread_mutex_unlock(&table.lock);
	if (!parked) {
		gw_unavailable(worker, x, "its last connection is not over yet; ask again");
	}
	return parked ? u : NULL;
}

static void give_back(struct gw_upload *u)
{
	if (!gw_resume_park(u)) {
		(void)gw_upload_leave(u);
	}
}

static void serve_head(struct gw_upload *u, struct trib_exchange *x)
{
	uint64_t offset = u->intake.received;
	uint64_t total = u->head.total;

	give_back(u);
	if (where_it_stands(x, offset, total)) {
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, NULL);
		return;
	}
	trib_http_reply(x, 204, NULL, NULL, 0);
}

static void serve_patch(struct gw_upload *u, struct trib_exchange *x)
{
	const struct trib_http_request *request = trib_exchange_request(x);
	const char *type = trib_http_field(request, "content-type");
	uint64_t at = u->intake.received;
	uint64_t offset = 0;
	bool there;
	bool completes;

	if (!type || strcasecmp(type, "application/partial-upload") != 0) {
		give_back(u);
		gw_refuse(x, TRIB_PROBLEM_UNSUPPORTED_MEDIA, "application/partial-upload");
		return;
	}
	if (gw_complete_read(request, &there, &completes) || !there ||
	    gw_size_read(request, "upload-offset", &offset)) {
		give_back(u);
		gw_refuse(x, TRIB_PROBLEM_BAD_REQUEST, "Upload-Offset and Upload-Complete");
		return;
	}
	if (offset != at) {
		uint64_t total = u->head.total;

		give_back(u);
		(void)where_it_stands(x, at, total);
		gw_refuse(x, TRIB_PROBLEM_UPLOAD_OFFSET, NULL);
		return;
	}
	gw_count(GW_M_RESUMED, 1);
	(void)pthread_mutex_lock(&table.lock); /* claim reads heads of others' uploads */
	u->head.completes = completes;
	(void)pthread_mutex_unlock(&table.lock);
	u->resuming = true;
	gw_upload_resume(u, x);
}

void gw_resume_serve(struct gw_worker *worker, struct trib_exchange *x, const struct gw_path *path)
{
	enum trib_http_method method = trib_exchange_request(x)->method;
	struct gw_upload *u = claim(worker, x, path);

	if (!u) {
		return;
	}
	if (method == TRIB_HTTP_HEAD) {
		serve_head(u, x);
	} else if (method == TRIB_HTTP_PATCH) {
		serve_patch(u, x);
	} else {
		gw_count(GW_M_ABANDONED, 1);
		(void)gw_upload_leave(u);
		trib_http_reply(x, 204, NULL, NULL, 0);
	}
}
