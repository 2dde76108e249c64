/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/fd_table.h"
#include "common/json.h"
#include "common/log.h"
#include "gateway/checkin.h"
#include "gateway/guard.h"
#include "gateway/load.h"
#include "gateway/metrics.h"
#include "gateway/model_put.h"
#include "gateway/resume.h"
#include "gateway/router.h"
#include "gateway/upload.h"

#define TICK_MS      100
#define TICK_IDLE_MS 5000 /* while no client is connected */

uint64_t gw_worker_jitter(struct gw_worker *worker, uint64_t low, uint64_t high)
{
	uint64_t x = worker->rng;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	worker->rng = x;
	return low + (x * 0x2545f4914f6cdd1dull >> 16) % (high - low + 1);
}

void gw_refuse(struct trib_exchange *x, enum trib_problem problem, const char *detail)
{
	trib_http_problem(x, problem, detail, 0);
}

void gw_unavailable(struct gw_worker *worker, struct trib_exchange *x, const char *detail)
{
	trib_http_problem(x, TRIB_PROBLEM_UNAVAILABLE, detail, gw_worker_jitter(worker, 200, 1000));
}

void gw_reply_text(struct trib_exchange *x, int status, const char *text, size_t size)
{
	if (size == 0) {
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, "the answer is too long");
		return;
	}
	trib_http_reply(x, status, "application/json", text, size);
}

void gw_reply_json(struct trib_exchange *x, int status, struct json_t *json)
{
	char *text = json ? trib_json_print(json) : NULL;

	json_decref(json);
	if (!text) {
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	trib_http_reply(x, status, "application/json", text, strlen(text));
	trib_free(text);
}

void gw_stop_listening(int fd)
{
	int never = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	if (never < 0 || dup3(never, fd, O_CLOEXEC) < 0) {
		log_warn("worker", "cannot stop accepting rc=%d", -errno);
	}
	if (never >= 0) {
		(void)close(never);
	}
}

/* ---- mailbox ---- */

static void handle_note(struct gw_worker *worker, uint32_t what, const char *job)
{
	if (what & (GW_NOTE_TOKENS | GW_NOTE_GONE)) {
		gw_tokens_forget(worker, job);
	}
	if (what & GW_NOTE_ATTACH) {
		gw_uploads_attached(worker, job);
	}
	if (what & GW_NOTE_GONE) {
		gw_uploads_attached(worker, job);
	}
	if (what & (GW_NOTE_WAKE | GW_NOTE_GONE)) {
		gw_checkins_wake(worker, job);
	}
	if (what & GW_NOTE_STOP) {
		if (worker->gw->own_tables) {
			gw_stop_listening(worker->listen_fd);
		}
		gw_checkins_stop(worker);
	}
	if (what & GW_NOTE_EXIT) {
		trib_loop_stop(worker->loop);
	}
}

static void on_notes(void *arg)
{
	struct gw_worker *worker = arg;
	struct gw_mailbox *box = &worker->mailbox;
	struct gw_note notes[GW_NOTES_MAX];
	uint32_t count;
	uint32_t overflow;

	(void)pthread_mutex_lock(&box->lock);
	count = box->count;
	overflow = box->overflow;
	memcpy(notes, box->notes, count * sizeof(notes[0]));
	box->count = 0;
	box->overflow = 0;
	box->posted = false;
	(void)pthread_mutex_unlock(&box->lock);
	for (uint32_t i = 0; i < count; i++) {
		handle_note(worker, notes[i].what, notes[i].job);
	}
	if (overflow) {
		handle_note(worker, overflow, "");
	}
}

static void note(struct gw_worker *worker, enum gw_note_what what, const char *job)
{
	struct gw_mailbox *box = &worker->mailbox;
	bool known = false;

	(void)pthread_mutex_lock(&box->lock);
	for (uint32_t i = 0; i < box->count && !known; i++) {
		if (strcmp(box->notes[i].job, job) == 0) {
			box->notes[i].what |= what;
			known = true;
		}
	}
	if (!known && box->count < GW_NOTES_MAX) {
		box->notes[box->count] = (struct gw_note){ .what = what };
		known = trib_copy(box->notes[box->count].job, TRIB_JOB_ID_SIZE, job) == 0;
		box->count += known;
	}
	if (!known) {
		box->overflow |= what;
		gw_count(GW_M_NOTES_LOST, 1);
	}
	if (!box->posted) {
		box->posted = trib_loop_wake(worker->loop, on_notes, worker) == 0;
	}
	(void)pthread_mutex_unlock(&box->lock);
}

void gw_workers_note(struct gw *gw, enum gw_note_what what, const char *job)
{
	for (uint32_t i = 0; i < gw->worker_count; i++) {
		note(gw->workers[i], what, job);
	}
}

/* ---- metrics ---- */

static void publish(struct gw_worker *worker)
{
	struct trib_httpd_stats now = *trib_httpd_stats(worker->httpd);
	struct trib_httpd_stats *then = &worker->published;

	gw_count(GW_M_CONNS, (int64_t)(now.connections_open - then->connections_open));
	gw_count(GW_M_CONNS_TOTAL, (int64_t)(now.connections - then->connections));
	gw_count(GW_M_CONN_REJECTS, (int64_t)(now.connections_refused - then->connections_refused));
	gw_count(GW_M_ACCEPT_PAUSES, (int64_t)(now.accept_pauses - then->accept_pauses));
	gw_count(GW_M_HTTP_REQUESTS, (int64_t)(now.requests - then->requests));
	for (unsigned i = 1; i < 6; i++) {
		gw_count(GW_M_HTTP_1XX + i - 1,
			 (int64_t)(now.replies_by_class[i] - then->replies_by_class[i]));
	}
	gw_count(GW_M_HTTP_HEAD_ERRORS, (int64_t)(now.head_errors - then->head_errors));
	gw_count(GW_M_HTTP_TIMEOUTS, (int64_t)(now.timeouts - then->timeouts));
	gw_count(GW_M_HTTP_TOO_SLOW, (int64_t)(now.too_slow - then->too_slow));
	gw_count(GW_M_HTTP_BYTES_OUT, (int64_t)(now.bytes_out - then->bytes_out));
	gw_count(GW_M_TLS_HANDSHAKES, (int64_t)(now.tls_handshakes - then->tls_handshakes));
	gw_count(GW_M_TLS_REFUSED, (int64_t)(now.tls_refused - then->tls_refused));
	gw_count(GW_M_TLS_ERRORS, (int64_t)(now.tls_errors - then->tls_errors));
	gw_count(GW_M_BODY_BYTES, (int64_t)(now.bytes_in_sink - then->bytes_in_sink));
	gw_count(GW_M_BYTES_COPIED, (int64_t)(now.bytes_copied - then->bytes_copied));
	*then = now;
}

static void on_tick(void *arg)
{
	struct gw_worker *worker = arg;

	publish(worker);
	gw_checkins_tick(worker);
	gw_uploads_tick(worker);
	gw_resume_tick(worker);
	if (worker->lively && worker->httpd &&
	    trib_httpd_stats(worker->httpd)->connections_open == 0) {
		worker->lively = false;
		trib_timer_every(worker->tick, TICK_IDLE_MS);
	}
}

void gw_worker_stir(struct gw_worker *worker)
{
	if (!worker->lively) {
		worker->lively = true;
		trib_timer_every(worker->tick, TICK_MS);
	}
}

/* ---- life ---- */

static int make_httpd(struct gw_worker *worker)
{
	struct gw *gw = worker->gw;
	const struct gw_options *options = &gw->options;
	struct trib_httpd_limits limits = trib_httpd_limits_default;
	const struct trib_httpd_handler handler = { gw_on_request, worker };
	int rc;

	limits.conns_max = (uint32_t)options->conns_max;
	limits.conns_together = &gw->conns_open;
	limits.conns_own = gw->conns_of_each;
	limits.head_timeout_ms = (uint32_t)options->head_timeout_ms;
	limits.idle_timeout_ms = (uint32_t)options->idle_timeout_ms;
	limits.body_rate_min = (uint32_t)options->body_rate_min;
	limits.body_grace_ms = (uint32_t)options->body_grace_ms;
	rc = trib_httpd_new(worker->loop, worker->listen_fd, &limits, &handler, &worker->httpd);
	if (rc == 0) {
		trib_httpd_tls(worker->httpd, gw->tls);
	}
	return rc;
}

/* What needs descriptors; the loop, which others wake, has had its own before. */
static int prepare(struct gw_worker *worker)
{
	struct gw *gw = worker->gw;
	int rc = gw->own_tables ? trib_fd_table_own() : 0;

	rc = rc ? rc : trib_redis_new(worker->loop, gw->options.redis, &worker->redis);
	rc = rc ? rc : gw_batches_new(worker->redis, &worker->batches);
	return rc ? rc : make_httpd(worker);
}

static void *run(void *arg)
{
	struct gw_worker *worker = arg;
	int rc = prepare(worker);

	worker->start_rc = rc;
	(void)sem_post(&worker->prepared);
	rc = rc ? 0 : trib_loop_run(worker->loop);
	if (rc) {
		log_err("worker", "loop ended rc=%d", rc);
	}
	/* In this thread, so that nothing of the loop is touched by another. Redis first: what is
	 * outstanding is answered NULL while the exchanges still exist. */
	worker->redis = trib_redis_free(worker->redis);
	worker->httpd = trib_httpd_free(worker->httpd);
	gw_resume_forget(worker, "");
	gw_loads_fini(worker);
	gw_model_puts_fini(worker);
	return NULL;
}

int gw_worker_new(struct gw *gw, uint32_t index, int listen_fd, struct gw_worker **ret_worker)
{
	struct gw_worker *worker = trib_alloc(sizeof(*worker));
	int rc;

	if (!worker) {
		return -ENOMEM;
	}
	worker->gw = gw;
	worker->index = index;
	worker->listen_fd = listen_fd;
	TAILQ_INIT(&worker->waiters);
	TAILQ_INIT(&worker->attaching);
	TAILQ_INIT(&worker->loads);
	TAILQ_INIT(&worker->puts);
	(void)pthread_mutex_init(&worker->mailbox.lock, NULL);
	(void)sem_init(&worker->prepared, 0, 0);
	worker->scratch = trib_alloc(GW_SCRATCH_SIZE);
	rc = worker->scratch ? trib_random(&worker->rng, sizeof(worker->rng)) : -ENOMEM;
	worker->rng |= 1;
	if (rc == 0) {
		rc = gw_tokens_new(&worker->tokens);
	}
	if (rc == 0) {
		rc = trib_loop_new(&worker->loop);
	}
	if (rc == 0) {
		rc = trib_timer_new(worker->loop, on_tick, worker, &worker->tick);
	}
	if (rc) {
		(void)gw_worker_free(worker);
		return rc;
	}
	gw_worker_stir(worker);
	*ret_worker = worker;
	return 0;
}

int gw_worker_start(struct gw_worker *worker)
{
	int rc = -pthread_create(&worker->thread, NULL, run, worker);

	if (rc) {
		worker->thread = 0;
		return rc;
	}
	while (sem_wait(&worker->prepared) && errno == EINTR) {
	}
	return worker->start_rc;
}

struct gw_worker *gw_worker_free(struct gw_worker *worker)
{
	if (worker) {
		if (worker->thread) {
			(void)pthread_join(worker->thread, NULL);
		}
		worker->batches = gw_batches_free(worker->batches);
		worker->tick = trib_timer_free(worker->tick);
		gw_header_cache_fini(&worker->headers);
		if (worker->loop) {
			trib_loop_free(worker->loop);
		}
		worker->tokens = gw_tokens_free(worker->tokens);
		trib_free(worker->scratch);
		(void)pthread_mutex_destroy(&worker->mailbox.lock);
		(void)sem_destroy(&worker->prepared);
		trib_free(worker);
	}
	return NULL;
}
