/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/transfers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/json.h"
#include "common/log.h"
#include "common/peer.h"
#include "gateway/check.h"
#include "gateway/gateway.h"
#include "gateway/link.h"
#include "gateway/metrics.h"
#include "gateway/model_file.h"
#include "gateway/model_offer.h"
#include "gateway/upload_head.h"
#include "gateway/worker.h"
#include "shm/partial.h"

#define CRC_BLOCK (32u << 10)

struct gw_transfer {
	struct gw_worker *worker; /* NULL: cancelled, main frees it */
	struct trib_exchange *x;
	uint64_t number;
	char job[TRIB_JOB_ID_SIZE];
	struct trib_peer peer;
	enum trib_link_kind due; /* guarded by the table's lock: message to be sent, 0 none */
	int due_result;
	bool asked; /* guarded: IMPORT was sent */
	struct trib_partial partial;
	bool mapped;
	uint64_t received;
	struct gw_check check;
};

struct answer { /* from main to the worker */
	struct gw_worker *worker;
	uint64_t number;
	uint32_t kind;
	int result;
	struct trib_partial
		partial; /* mapped by main: a worker may have another table; size 0: none */
};

/* ---- the table ---- */

static struct gw_transfer **place_of(struct gw_transfers *all, uint64_t number)
{
	for (uint32_t i = 0; i < GW_TRANSFERS_MAX; i++) {
		if (all->table[i] && all->table[i]->number == number) {
			return &all->table[i];
		}
	}
	return NULL;
}

static bool enter(struct gw *gw, struct gw_transfer *t)
{
	struct gw_transfers *all = &gw->transfers;
	bool entered = false;

	(void)pthread_mutex_lock(&all->lock);
	for (uint32_t i = 0; i < GW_TRANSFERS_MAX && !entered; i++) {
		if (!all->table[i]) {
			t->number = ++all->number;
			all->table[i] = t;
			entered = true;
		}
	}
	(void)pthread_mutex_unlock(&all->lock);
	return entered;
}

static void post(struct gw_transfer *t, enum trib_link_kind kind, int result)
{
	struct gw *gw = t->worker->gw;

	(void)pthread_mutex_lock(&gw->transfers.lock);
	t->due = kind;
	t->due_result = result;
	(void)pthread_mutex_unlock(&gw->transfers.lock);
	gw_link_poke(gw);
}

void gw_fetch_want(struct gw *gw, const char *job, uint32_t version)
{
	struct gw_transfers *all = &gw->transfers;
	bool fresh = true;

	(void)pthread_mutex_lock(&all->lock);
	for (uint32_t i = 0; i < all->fetch_count; i++) {
		fresh &=
			all->fetches[i].version != version || strcmp(all->fetches[i].job, job) != 0;
	}
	if (fresh && all->fetch_count < GW_TRANSFERS_MAX) {
		struct gw_fetch *fetch = &all->fetches[all->fetch_count];

		fetch->version = version;
		all->fetch_count += trib_copy(fetch->job, sizeof(fetch->job), job) == 0;
	}
	(void)pthread_mutex_unlock(&all->lock);
	gw_link_poke(gw);
}

/* ---- main's side ---- */

static void describe(const struct gw_transfer *t, struct trib_link_message *m)
{
	m->kind = t->due;
	m->result = t->due_result;
	memcpy(m->job, t->job, sizeof(m->job));
	m->sum = (struct trib_link_sum){ .transfer = t->number,
					 .updates = t->peer.updates,
					 .weight = t->peer.weight,
					 .elements = t->peer.elements,
					 .round = t->peer.round,
					 .part = t->peer.part,
					 .accumulate = t->peer.accumulate,
					 .scale_bits = t->peer.scale_bits };
	memcpy(m->sum.from, t->peer.from, sizeof(m->sum.from));
	memcpy(m->sum.boot, t->peer.boot, sizeof(m->sum.boot));
}

bool gw_transfers_next(struct gw *gw, struct trib_link_message *ret_message)
{
	struct gw_transfers *all = &gw->transfers;
	bool found = false;

	*ret_message = (struct trib_link_message){ .magic = TRIB_LINK_MAGIC };
	(void)pthread_mutex_lock(&all->lock);
	for (uint32_t i = 0; i < GW_TRANSFERS_MAX && !found; i++) {
		if (all->table[i] && all->table[i]->due) {
			describe(all->table[i], ret_message);
			found = true;
		}
	}
	if (!found && all->fetch_count) {
		ret_message->kind = TRIB_LINK_FETCH;
		ret_message->sum.round = all->fetches[0].version;
		memcpy(ret_message->job, all->fetches[0].job, sizeof(ret_message->job));
		found = true;
	}
	(void)pthread_mutex_unlock(&all->lock);
	return found;
}

void gw_transfers_sent(struct gw *gw, const struct trib_link_message *message)
{
	struct gw_transfers *all = &gw->transfers;
	struct gw_transfer **place;

	(void)pthread_mutex_lock(&all->lock);
	if (message->kind == TRIB_LINK_FETCH) {
		if (all->fetch_count) {
			all->fetch_count--;
			memmove(&all->fetches[0], &all->fetches[1],
				all->fetch_count * sizeof(all->fetches[0]));
		}
	} else if ((place = place_of(all, message->sum.transfer))) {
		(*place)->asked = true;
		(*place)->due = 0;
		if (!(*place)->worker) {
			trib_free(*place);
			*place = NULL;
		}
	}
	(void)pthread_mutex_unlock(&all->lock);
}

static void on_answer(void *arg);

/* partial: taken on success; NULL: none. */
static bool deliver(struct gw_transfer *t, uint32_t kind, int result,
		    const struct trib_partial *partial)
{
	struct answer *a = trib_alloc(sizeof(*a));

	if (!a) {
		return false;
	}
	*a = (struct answer){ .worker = t->worker,
			      .number = t->number,
			      .kind = kind,
			      .result = result,
			      .partial = { .fd = -1 } };
	if (partial) {
		a->partial = *partial;
	}
	if (trib_loop_wake(t->worker->loop, on_answer, a)) {
		trib_free(a);
		return false; /* the sender gives up in the end, and comes again */
	}
	return true;
}

bool gw_transfers_answer(struct gw *gw, const struct trib_link_message *message, int fd)
{
	struct gw_transfers *all = &gw->transfers;
	struct trib_partial partial = { .fd = -1 };
	struct gw_transfer **place;
	bool mapped = fd >= 0 && trib_partial_attach(fd, true, &partial) == 0;
	bool known;

	if (mapped) {
		(void)close(partial.fd);
		partial.fd = -1;
	}
	(void)pthread_mutex_lock(&all->lock);
	place = place_of(all, message->sum.transfer);
	known = place && (*place)->worker &&
		deliver(*place, message->kind, message->result, mapped ? &partial : NULL);
	(void)pthread_mutex_unlock(&all->lock);
	if (!known && mapped) {
		trib_partial_fini(&partial);
	}
	return known;
}

void gw_transfers_down(struct gw *gw)
{
	struct gw_transfers *all = &gw->transfers;

	(void)pthread_mutex_lock(&all->lock);
	for (uint32_t i = 0; i < GW_TRANSFERS_MAX; i++) {
		struct gw_transfer *t = all->table[i];

		if (t && !t->worker) {
			trib_free(t);
			all->table[i] = NULL;
		} else if (t && t->asked && !deliver(t, 0, -ENOTCONN, NULL)) {
			log_warn("transfers", "not told of the broken link");
		}
	}
	(void)pthread_mutex_unlock(&all->lock);
}

/* ---- the worker's side ---- */

/* Lets go of the transfer. `cancel`: the agent is told that nothing more comes. */
static struct trib_exchange *leave(struct gw_transfer *t, bool cancel)
{
	struct gw *gw = t->worker->gw;
	struct trib_exchange *x = t->x;
	struct gw_transfer **place;

	if (x) {
		trib_exchange_attach(x, NULL, NULL);
	}
	if (t->mapped) {
		trib_partial_fini(&t->partial);
	}
	gw_count(GW_M_PARTIALS_INFLIGHT, -1);
	(void)pthread_mutex_lock(&gw->transfers.lock);
	place = place_of(&gw->transfers, t->number);
	if (place && cancel && t->asked) {
		t->worker = NULL;
		t->due = TRIB_LINK_IMPORTED;
		t->due_result = -ECANCELED;
		t = NULL;
	} else if (place) {
		*place = NULL;
	}
	(void)pthread_mutex_unlock(&gw->transfers.lock);
	if (!t) {
		gw_link_poke(gw);
	}
	trib_free(t);
	return x;
}

static void refuse(struct gw_transfer *t, enum trib_problem problem, const char *detail,
		   bool cancel)
{
	struct gw_worker *worker = t->worker;
	struct trib_exchange *x = leave(t, cancel);

	gw_count(GW_M_PARTIALS_REFUSED, 1);
	if (x && trib_problem_status(problem) == 503) {
		gw_unavailable(worker, x, detail);
	} else if (x) {
		gw_refuse(x, problem, detail);
	}
}

static void on_gone(void *data)
{
	struct gw_transfer *t = data;

	t->x = NULL;
	(void)leave(t, true);
}

static void accept(struct gw_transfer *t, int status)
{
	json_t *json = json_pack("{s:s,s:i,s:s,s:I}", "job", t->job, "round", (int)t->peer.round,
				 "from", t->peer.from, "updates", (json_int_t)t->peer.updates);
	struct trib_exchange *x;

	gw_count(GW_M_PARTIALS, 1);
	x = leave(t, false);
	if (x) {
		gw_reply_json(x, status, json);
	} else {
		json_decref(json);
	}
}

static int on_next(struct trib_exchange *x, struct iovec *vectors, int max)
{
	struct gw_transfer *t = trib_exchange_data(x);
	uint64_t left = t->peer.bytes - t->received;

	(void)max;
	if (left == 0) {
		return -EPROTO;
	}
	vectors[0].iov_base = (uint8_t *)trib_partial_accumulator(&t->partial) + t->received;
	vectors[0].iov_len = left < TRIB_HTTP_TURN_BYTES ? left : TRIB_HTTP_TURN_BYTES;
	return 1;
}

static int on_landed(struct trib_exchange *x, size_t size)
{
	struct gw_transfer *t = trib_exchange_data(x);
	const uint8_t *memory = trib_partial_accumulator(&t->partial);

	if (size > t->peer.bytes - t->received) {
		refuse(t, TRIB_PROBLEM_BAD_REQUEST, "body is longer than announced", true);
		return -EMSGSIZE;
	}
	gw_count(GW_M_PARTIAL_BYTES, (int64_t)size);
	if (t->peer.accumulate == TRIB_ACCUMULATE_F32) {
		gw_check_run(&t->check, memory, t->received, size);
	} else {
		t->check.crc = trib_crc32c(t->check.crc, memory + t->received, size);
	}
	t->received += size;
	return 0;
}

static void on_complete(struct trib_exchange *x)
{
	struct gw_transfer *t = trib_exchange_data(x);

	if (t->received != t->peer.bytes) {
		refuse(t, TRIB_PROBLEM_TRUNCATED, "body is shorter than announced", true);
	} else if (t->check.crc != t->peer.crc) {
		refuse(t, TRIB_PROBLEM_DIGEST_MISMATCH, "crc32c differs; send it again", true);
	} else if (!gw_check_finite(t->check.worst)) {
		refuse(t, TRIB_PROBLEM_NON_FINITE, "the sum holds NaN or infinity", true);
	} else {
		post(t, TRIB_LINK_IMPORTED, 0);
	}
}

static int take_target(struct gw_transfer *t, const struct trib_partial *partial)
{
	if (partial->size == 0) {
		return -ENOMEM;
	}
	t->partial = *partial;
	t->mapped = true;
	if (t->partial.elements != t->peer.elements ||
	    (uint32_t)t->partial.accumulate != t->peer.accumulate) {
		return -EBADMSG;
	}
	return 0;
}

/* partial: taken. */
static void on_target(struct gw_transfer *t, int result, const struct trib_partial *partial)
{
	static const struct trib_http_sink sink = { on_next, on_landed, on_complete, NULL };

	if (result == -EALREADY) {
		accept(t, 200);
	} else if (result == -EBADMSG) {
		refuse(t, TRIB_PROBLEM_STATE_CONFLICT, "the sum does not fit the job", false);
	} else if (result) {
		refuse(t, TRIB_PROBLEM_UNAVAILABLE, "this node does not take the sum now", false);
	} else if (take_target(t, partial)) {
		refuse(t, TRIB_PROBLEM_INTERNAL, "no room for the sum", true);
	} else {
		trib_http_want_sink(t->x, &sink);
	}
}

static void on_moved(struct gw_transfer *t, int result)
{
	if (result == 0) {
		accept(t, 201);
	} else if (result == -ESTALE) {
		refuse(t, TRIB_PROBLEM_STATE_CONFLICT, "the record does not want it here", false);
	} else {
		refuse(t, TRIB_PROBLEM_UNAVAILABLE, "the agent could not take the sum", false);
	}
}

static void on_answer(void *arg)
{
	struct answer *a = arg;
	struct gw_transfers *all = &a->worker->gw->transfers;
	struct gw_transfer **place;
	struct gw_transfer *t = NULL;

	(void)pthread_mutex_lock(&all->lock);
	place = place_of(all, a->number);
	if (place && (*place)->worker == a->worker) {
		t = *place;
	}
	(void)pthread_mutex_unlock(&all->lock);
	if (!t) {
		if (a->partial.size) {
			trib_partial_fini(&a->partial);
		}
	} else if (a->kind == TRIB_LINK_TARGET) {
		on_target(t, a->result, &a->partial);
	} else if (a->kind == TRIB_LINK_MOVED) {
		on_moved(t, a->result);
	} else {
		refuse(t, TRIB_PROBLEM_UNAVAILABLE, "the node's agent is gone", false);
	}
	trib_free(a);
}

/* ---- the request ---- */

/* Why this request cannot be what its seal says; NULL: it is. */
static const char *unfit(const struct trib_peer *peer, const char *job, uint32_t round,
			 const char *from, uint64_t total)
{
	uint64_t unit = peer->accumulate == TRIB_ACCUMULATE_F32 ? sizeof(float) : sizeof(int64_t);
	struct trib_id id;

	if (trib_id_parse("job_", job, &id) ||
	    memcmp(id.bytes, peer->job.bytes, sizeof(id.bytes)) != 0) {
		return "sealed for another job";
	}
	if (peer->kind != TRIB_PEER_PARTIAL || peer->round != round ||
	    strcmp(peer->from, from) != 0) {
		return "sealed for another purpose";
	}
	if (peer->accumulate > TRIB_ACCUMULATE_F32 || peer->elements == 0 ||
	    peer->elements > 1ull << 36 || peer->bytes != peer->elements * unit ||
	    total != peer->bytes) {
		return "the sizes do not agree";
	}
	return NULL;
}

static bool open_peer(struct gw_worker *worker, struct trib_exchange *x, struct trib_peer *ret_peer)
{
	const char *text = trib_http_field(trib_exchange_request(x), "fl-peer");
	int rc = text && gw_key_known(worker->gw)
			 ? trib_peer_open(text, worker->gw->ticket_key, trib_wall_ms(), ret_peer)
			 : -EBADMSG;

	if (rc) {
		gw_count(GW_M_DENIED_403, 1);
		gw_refuse(x,
			  rc == -EKEYEXPIRED ? TRIB_PROBLEM_TICKET_EXPIRED
					     : TRIB_PROBLEM_TICKET_INVALID,
			  "FL-Peer");
	}
	return rc == 0;
}

static void partial_put(struct gw_worker *worker, struct trib_exchange *x, const char *job,
			uint32_t round, const char *from)
{
	struct gw_refusal refusal = { TRIB_PROBLEM_INTERNAL, NULL };
	struct trib_peer peer;
	struct gw_transfer *t;
	const char *why;
	uint64_t total = 0;

	if (!open_peer(worker, x, &peer)) {
		return;
	}
	if (gw_body_head_read(trib_exchange_request(x), &total, &refusal)) {
		gw_refuse(x, refusal.problem, refusal.detail);
		return;
	}
	why = unfit(&peer, job, round, from, total);
	if (why) {
		gw_count(GW_M_DENIED_403, 1);
		gw_refuse(x, TRIB_PROBLEM_TICKET_INVALID, why);
		return;
	}
	if (worker->gw->options.node && strcmp(peer.to, worker->gw->options.node) != 0) {
		gw_refuse(x, TRIB_PROBLEM_STATE_CONFLICT, "it is for another node");
		return;
	}
	t = trib_alloc(sizeof(*t));
	if (!t || trib_copy(t->job, sizeof(t->job), job)) {
		trib_free(t);
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	t->worker = worker;
	t->x = x;
	t->peer = peer;
	t->partial.fd = -1;
	if (!enter(worker->gw, t)) {
		trib_free(t);
		gw_unavailable(worker, x, "too many sums are being received");
		return;
	}
	gw_count(GW_M_PARTIALS_INFLIGHT, 1);
	trib_exchange_attach(x, t, on_gone);
	post(t, TRIB_LINK_IMPORT, 0);
}

/* ---- a version's file ---- */

static void on_sent(void *data)
{
	(void)gw_model_put(data);
}

static void model_get(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		      uint32_t number)
{
	struct gw_version version = { .version = number };
	struct gw_model *model = NULL;
	struct trib_peer peer;
	struct trib_id id;
	int rc;

	if (!open_peer(worker, x, &peer)) {
		return;
	}
	if (peer.kind != TRIB_PEER_MODEL || peer.round != number ||
	    trib_id_parse("job_", job, &id) ||
	    memcmp(id.bytes, peer.job.bytes, sizeof(id.bytes)) != 0) {
		gw_count(GW_M_DENIED_403, 1);
		gw_refuse(x, TRIB_PROBLEM_TICKET_INVALID, "sealed for another file");
		return;
	}
	version.bytes = peer.bytes;
	model = gw_offer_find(&worker->gw->offers, job, &version);
	rc = model ? 0 : gw_model_open(worker->gw->options.models, job, &version, &model);
	if (rc) {
		gw_refuse(x, TRIB_PROBLEM_NO_SUCH_MODEL, "not on this node");
		return;
	}
	gw_count(GW_M_MODELS_SENT, 1);
	gw_count(GW_M_MODEL_BYTES, (int64_t)model->size);
	trib_http_reply_memory(x, 200, "application/vnd.safetensors", model->memory, model->size,
			       on_sent, model);
}

void gw_internal_request(struct gw_worker *worker, struct trib_exchange *x,
			 const struct trib_http_request *request)
{
	const char *path = request->path + sizeof(GW_INTERNAL) - 1;
	char job[TRIB_JOB_ID_SIZE];
	char from[TRIB_PEER_NODE_SIZE];
	unsigned number;
	int end = -1;

	if (sscanf(path, "jobs/%31[a-z0-9_]/rounds/%9u/partials/%63[a-z0-9-]%n", job, &number, from,
		   &end) == 3 &&
	    end > 0 && path[end] == '\0' && trib_name_valid(from)) {
		if (request->method == TRIB_HTTP_PUT) {
			partial_put(worker, x, job, number, from);
		} else {
			gw_refuse(x, TRIB_PROBLEM_METHOD_NOT_ALLOWED, "PUT");
		}
		return;
	}
	end = -1;
	if (sscanf(path, "jobs/%31[a-z0-9_]/models/%9u%n", job, &number, &end) == 2 && end > 0 &&
	    path[end] == '\0') {
		if (request->method == TRIB_HTTP_GET) {
			model_get(worker, x, job, number);
		} else {
			gw_refuse(x, TRIB_PROBLEM_METHOD_NOT_ALLOWED, "GET");
		}
		return;
	}
	gw_refuse(x, TRIB_PROBLEM_NO_SUCH_PATH, NULL);
}
