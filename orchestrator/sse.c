/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/sse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "orchestrator/access.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/store_access.h"

#define SWEEP_MS     50
#define POLL_MS      1000
#define PING_MS      15000
#define STUCK_MS     10000
#define SOURCES_STEP 16

struct stream {
	TAILQ_ENTRY(stream) entry;
	struct orc_sse *sse;
	struct trib_exchange *x;       /* NULL: ended, freed with the last answer */
	char job[TRIB_ID_TEXT_SIZE];   /* "" = all */
	char tenant[TRIB_TENANT_SIZE]; /* of all, only this one's; "" = any */
	uint64_t until_ms;             /* wall: the caller's token ends; 0 = never */
	struct orc_event_id start;
	struct orc_source *sources;
	size_t count;
	size_t room;
	unsigned asked; /* answers under way */
	bool reading;
	bool dirty;
	uint64_t read_ms;
	uint64_t written_ms;
	uint64_t stuck_ms; /* since when nothing more is taken, 0 = it flows */
};

TAILQ_HEAD(stream_list, stream);

struct orc_sse {
	struct orc_store *store;
	struct orc_tenants *tenants;
	struct trib_timer *sweep;
	struct stream_list streams;
	size_t count;
	size_t count_all;
};

/* ---- life of a stream ---- */

static void maybe_free(struct stream *stream)
{
	if (!stream->x && !stream->asked) {
		trib_free(stream->sources);
		trib_free(stream);
	}
}

static void unlink_stream(struct stream *stream)
{
	struct orc_sse *sse = stream->sse;

	TAILQ_REMOVE(&sse->streams, stream, entry);
	sse->count--;
	sse->count_all -= stream->job[0] == '\0';
	stream->x = NULL;
	orc_gauge(ORC_M_SSE_CLIENTS, (int64_t)sse->count);
	if (sse->count == 0) {
		trib_timer_stop(sse->sweep);
	}
}

static void on_gone(void *data)
{
	struct stream *stream = data;

	unlink_stream(stream);
	maybe_free(stream);
}

/* The caller must not hold on to the stream unless `asked` keeps it. */
static void end(struct stream *stream)
{
	struct trib_exchange *x = stream->x;

	trib_exchange_attach(x, NULL, NULL);
	unlink_stream(stream);
	trib_http_stream_end(x);
	maybe_free(stream);
}

/* False: more than enough waits to be read, nothing was taken; the sweep ends who stays so. */
static bool send_text(struct stream *stream, const char *text, size_t size)
{
	uint64_t now = trib_clock_ms();

	if (trib_http_stream_write(stream->x, text, size) == -ENOBUFS) {
		if (!stream->stuck_ms) {
			stream->stuck_ms = now;
		}
		return false;
	}
	stream->stuck_ms = 0;
	stream->written_ms = now;
	return true; /* a connection that is gone: on_gone follows */
}

static bool send_event(struct stream *stream, const struct orc_event *event)
{
	json_t *json = orc_event_json(event);
	char *data = json ? trib_json_print(json) : NULL;
	size_t room = data ? strlen(data) + 160 : 0;
	char *text = data ? trib_alloc(room) : NULL;
	bool taken = true;
	int size;

	if (text) {
		size = snprintf(text, room, "id: %llu-%llu\nevent: %.64s\ndata: %s\n\n",
				(unsigned long long)event->id.ms, (unsigned long long)event->id.seq,
				orc_event_type(event), data);
		taken = send_text(stream, text, (size_t)size);
		orc_count_by(ORC_M_SSE_EVENTS, taken);
	}
	trib_free(text);
	trib_free(data);
	json_decref(json);
	return taken;
}

/* ---- sources ---- */

static struct orc_source *find_source(struct stream *stream, const char *job)
{
	for (size_t i = 0; i < stream->count; i++) {
		if (strcmp(stream->sources[i].job, job) == 0) {
			return &stream->sources[i];
		}
	}
	return NULL;
}

static void remove_source(struct stream *stream, const char *job)
{
	struct orc_source *source = find_source(stream, job);

	if (source) {
		*source = stream->sources[--stream->count];
	}
}

/* From the stream's own start on: a job met later has no older events, or was missed. */
static void add_source(struct stream *stream, const char *job)
{
	struct orc_source *bigger;

	if (find_source(stream, job) || stream->count >= ORC_SOURCES_MAX) {
		return;
	}
	if (stream->count == stream->room) {
		bigger = trib_realloc(stream->sources,
				      (stream->room + SOURCES_STEP) * sizeof(*bigger));
		if (!bigger) {
			return;
		}
		stream->sources = bigger;
		stream->room += SOURCES_STEP;
	}
	stream->sources[stream->count] = (struct orc_source){ .after = stream->start };
	(void)snprintf(stream->sources[stream->count].job, TRIB_ID_TEXT_SIZE, "%s", job);
	stream->count++;
}

struct asking { /* whose job is it? */
	struct stream *stream;
	char job[TRIB_ID_TEXT_SIZE];
};

static void on_tenant(const struct orc_reply *reply, void *arg)
{
	struct asking asking = *(struct asking *)arg;
	struct stream *stream = asking.stream;

	trib_free(arg);
	stream->asked--;
	if (reply->word == ORC_OK) {
		orc_tenants_learn(stream->sse->tenants, asking.job, reply->text);
		if (stream->x && strcmp(reply->text, stream->tenant) == 0) {
			add_source(stream, asking.job);
			stream->dirty = true;
		}
	}
	maybe_free(stream);
}

/* The job may be one of the stream's: adds it now, or once its tenant is known. */
static void meet_job(struct stream *stream, const char *job)
{
	const char *tenant = orc_tenants_find(stream->sse->tenants, job);
	struct asking *asking;

	if (!stream->tenant[0] || find_source(stream, job) ||
	    (tenant && strcmp(tenant, stream->tenant) == 0)) {
		add_source(stream, job);
		return;
	}
	asking =
		tenant || stream->asked >= ORC_SOURCES_MAX + 8 ? NULL : trib_alloc(sizeof(*asking));
	if (!asking) {
		return;
	}
	asking->stream = stream;
	if (trib_copy(asking->job, sizeof(asking->job), job) ||
	    orc_store_tenant(stream->sse->store, job, (struct orc_then){ on_tenant, asking })) {
		trib_free(asking);
		return;
	}
	stream->asked++;
}

static void on_jobs(enum orc_word word, const struct orc_job_ref *jobs, size_t count, void *arg)
{
	struct stream *stream = arg;

	stream->asked--;
	for (size_t i = 0; stream->x && word == ORC_OK && i < count; i++) {
		meet_job(stream, jobs[i].id);
	}
	stream->dirty = true;
	maybe_free(stream);
}

static void list_jobs(struct stream *stream)
{
	if (orc_store_jobs_at(stream->sse->store, 0, ORC_SOURCES_MAX, on_jobs, stream) == 0) {
		stream->asked++;
	}
}

/* ---- reading ---- */

static void read_events(struct stream *stream);

static void on_events(const struct orc_events *events, void *arg)
{
	struct stream *stream = arg;

	stream->reading = false;
	for (size_t i = 0; stream->x && events->word == ORC_OK && i < events->count; i++) {
		struct orc_source *source = find_source(stream, events->items[i].job);

		if (!source || orc_event_id_compare(&events->items[i].id, &source->after) <= 0) {
			continue;
		}
		if (!send_event(stream, &events->items[i])) {
			stream->dirty = true; /* read again from here when there is room */
			break;
		}
		source->after = events->items[i].id;
	}
	stream->asked--;
	if (stream->x && events->word == ORC_OK && events->more && !stream->dirty) {
		read_events(stream);
	}
	maybe_free(stream);
}

static void read_events(struct stream *stream)
{
	if (stream->reading) {
		stream->dirty = true;
		return;
	}
	stream->dirty = false;
	stream->read_ms = trib_clock_ms();
	if (stream->count && orc_store_events(stream->sse->store, stream->sources, stream->count,
					      on_events, stream) == 0) {
		stream->reading = true;
		stream->asked++;
	}
}

static void on_sweep(void *arg)
{
	static const char ping[] = ": ping\n\n";
	struct orc_sse *sse = arg;
	uint64_t now = trib_clock_ms();
	struct stream *following;

	for (struct stream *stream = TAILQ_FIRST(&sse->streams); stream; stream = following) {
		following = TAILQ_NEXT(stream, entry);
		if (stream->until_ms && trib_wall_ms() >= stream->until_ms) {
			end(stream);
			continue;
		}
		if (stream->stuck_ms && now - stream->stuck_ms >= STUCK_MS) {
			orc_count(ORC_M_SSE_SLOW);
			end(stream);
			continue;
		}
		if ((stream->dirty || now - stream->read_ms >= POLL_MS) && !stream->reading) {
			read_events(stream);
		}
		if (now - stream->written_ms >= PING_MS) {
			(void)send_text(stream, ping, sizeof(ping) - 1);
		}
	}
}

/* ---- what happens outside ---- */

/* The job's own stream is gone with it, so this event has no id. */
static void tell_deleted(struct stream *stream, const char *job)
{
	char text[160];
	int size = snprintf(
		text, sizeof(text),
		"event: job.deleted\ndata: {\"type\":\"job.deleted\",\"job\":\"%s\"}\n\n", job);

	(void)send_text(stream, text, (size_t)size);
	if (stream->job[0]) {
		end(stream);
	} else {
		remove_source(stream, job);
	}
}

void orc_sse_wake(struct orc_sse *sse, const char *what, const char *job)
{
	uint64_t now = trib_clock_ms();
	struct stream *following;

	for (struct stream *stream = TAILQ_FIRST(&sse->streams); stream; stream = following) {
		following = TAILQ_NEXT(stream, entry);
		if (stream->job[0] && strcmp(stream->job, job) != 0) {
			continue;
		}
		if (strcmp(what, "gone") == 0) {
			if (!stream->tenant[0] || find_source(stream, job)) {
				tell_deleted(stream, job);
			}
			continue;
		}
		meet_job(stream, job); /* no-op for those it has */
		stream->dirty = true;
		if (now - stream->read_ms >= SWEEP_MS) {
			read_events(stream);
		}
	}
}

void orc_sse_again(struct orc_sse *sse)
{
	struct stream *stream;

	TAILQ_FOREACH(stream, &sse->streams, entry) {
		stream->dirty = true;
		if (stream->job[0] == '\0') {
			list_jobs(stream);
		}
	}
}

/* ---- opening ---- */

/* Where to begin: Last-Event-ID, or now. False: answered. */
static bool read_start(struct orc_request *r, uint64_t now_ms, struct orc_event_id *ret_start)
{
	const char *header =
		r->x ? trib_http_field(trib_exchange_request(r->x), "last-event-id") : NULL;
	char query[48];

	orc_request_query(r, "last_event_id", query, sizeof(query));
	if (!header && query[0]) {
		header = query;
	}
	*ret_start = (struct orc_event_id){ now_ms, 0 };
	if (header && orc_event_id_parse(header, ret_start)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, "not an id of this stream");
		return false;
	}
	if (header && r->job[0] == '\0' && ret_start->ms) {
		/* Ids of several jobs meet in one millisecond: rather twice than not at all. */
		*ret_start = (struct orc_event_id){ ret_start->ms - 1, UINT64_MAX };
	}
	return true;
}

static void open_stream(struct orc_request *r, uint64_t now_ms)
{
	static const char hello[] = "retry: 1000\n\n";
	struct orc_sse *sse = r->app->sse;
	struct orc_event_id start;
	struct stream *stream;

	if (!r->x || !read_start(r, now_ms, &start)) {
		return;
	}
	if (sse->count >= ORC_STREAMS_MAX ||
	    (r->job[0] == '\0' && sse->count_all >= ORC_STREAMS_ALL_MAX)) {
		orc_count(ORC_M_SSE_REFUSED);
		orc_reply_problem(r, TRIB_PROBLEM_UNAVAILABLE, "too many event streams");
		return;
	}
	stream = trib_alloc(sizeof(*stream));
	if (!stream) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	orc_reply_header(r, "Cache-Control", "no-store");
	orc_reply_header(r, "X-Accel-Buffering", "no");
	memcpy(stream->job, r->job, sizeof(stream->job));
	if (!trib_scopes_across(r->who.scopes, TRIB_SCOPE_JOBS_READ)) {
		memcpy(stream->tenant, r->who.tenant, sizeof(stream->tenant));
	}
	stream->until_ms = r->who.expires_ms;
	stream->sse = sse;
	stream->start = start;
	stream->x = orc_request_take(r);
	TAILQ_INSERT_TAIL(&sse->streams, stream, entry);
	sse->count++;
	sse->count_all += stream->job[0] == '\0';
	orc_gauge(ORC_M_SSE_CLIENTS, (int64_t)sse->count);
	orc_count(ORC_M_HTTP_2XX);
	if (sse->count == 1) {
		trib_timer_every(sse->sweep, SWEEP_MS);
	}
	trib_exchange_attach(stream->x, stream, on_gone);
	trib_http_stream(stream->x, "text/event-stream");
	(void)send_text(stream, hello, sizeof(hello) - 1);
	if (stream->job[0]) {
		add_source(stream, stream->job);
		read_events(stream);
	} else {
		list_jobs(stream);
	}
}

static void on_view(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;
	bool all = r->job[0] == '\0';

	/* For all jobs only the time is wanted, which comes with "no such job", too. */
	if (!(all && view->word == ORC_NOJOB) && orc_request_failed(r, view->word)) {
		orc_request_release(r);
		return;
	}
	if (r->x && trib_exchange_request(r->x)->method == TRIB_HTTP_HEAD) {
		orc_reply_text(r, 200, "text/event-stream", "");
	} else {
		open_stream(r, view->now_ms);
	}
	orc_request_release(r);
}

void orc_sse_job(struct orc_request *r)
{
	const struct orc_view_want want = { .job = r->job };

	orc_request_hold(r);
	orc_request_sent(r, orc_store_view(r->app->store, &want, on_view, r));
}

void orc_sse_all(struct orc_request *r)
{
	orc_sse_job(r);
}

/* ---- life ---- */

int orc_sse_new(struct trib_loop *loop, struct orc_store *store, struct orc_tenants *tenants,
		struct orc_sse **ret_sse)
{
	struct orc_sse *sse = trib_alloc(sizeof(*sse));
	int rc;

	if (!sse) {
		return -ENOMEM;
	}
	sse->store = store;
	sse->tenants = tenants;
	TAILQ_INIT(&sse->streams);
	rc = trib_timer_new(loop, on_sweep, sse, &sse->sweep);
	if (rc) {
		trib_free(sse);
		return rc;
	}
	*ret_sse = sse;
	return 0;
}

void orc_sse_end_all(struct orc_sse *sse)
{
	struct stream *stream;

	while ((stream = TAILQ_FIRST(&sse->streams)) != NULL) {
		end(stream);
	}
}

struct orc_sse *orc_sse_free(struct orc_sse *sse)
{
	if (sse) {
		TRIB_ASSERT(sse->count == 0);
		sse->sweep = trib_timer_free(sse->sweep);
		trib_free(sse);
	}
	return NULL;
}
