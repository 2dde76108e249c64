/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "client/load/attack.h"
#include "client/load/random.h"
#include "client/load/reply.h"
#include "common/clock.h"

#define NS_PER_S        1000000000ull
#define ATTEMPTS_MAX    200
#define CHECKIN_SLACK_S 15
#define UPLOAD_S        60
#define MODEL_RATE_MIN  100000 /* bytes a second, for the time-out only */
#define AWAY_MIN_NS     NS_PER_S
#define WEIGHT_ONE      1048576.0 /* 2^20 */

static void step(struct load_worker *worker, struct load_client *client);

/* ---- small things ---- */

static void pause_until(struct load_worker *worker, struct load_client *client, enum load_step then,
			uint64_t due_ns)
{
	client->state = LOAD_STATE_PAUSE;
	client->step = (uint8_t)then;
	load_timer_set(worker, client, due_ns);
}

static void pause_for(struct load_worker *worker, struct load_client *client, enum load_step then,
		      double seconds)
{
	pause_until(worker, client, then, trib_clock_ns() + (uint64_t)(seconds * 1e9));
}

/* The first one is kept for people. */
static void tell(struct load_worker *worker, const char *format, ...) TRIB_PRINTF(2, 3);
static void tell(struct load_worker *worker, const char *format, ...)
{
	va_list args;

	if (worker->sampled) {
		return;
	}
	va_start(args, format);
	(void)vsnprintf(worker->sample, sizeof(worker->sample), format, args);
	va_end(args);
	__atomic_store_n(&worker->sampled, true, __ATOMIC_RELEASE);
}

static void trouble(struct load_worker *worker, enum load_trouble what)
{
	load_bump(&worker->troubles[what]);
	load_add(worker, LOAD_ERRORS, 1);
}

static void set_uploading(struct load_worker *worker, struct load_client *client, bool now)
{
	if (client->uploading != now) {
		client->uploading = now;
		load_add(worker, LOAD_UPLOADING, now ? 1 : -1);
	}
}

static void drop_offer(struct load_worker *worker, struct load_client *client)
{
	if (client->offer) {
		trib_free(client->offer);
		client->offer = NULL;
		load_add(worker, LOAD_OUT, -1);
	}
	set_uploading(worker, client, false);
	client->attempts = 0;
	client->ambiguous = false;
}

/* The update is done with, one way or the other. */
static void next_round(struct load_worker *worker, struct load_client *client, double pause_s)
{
	drop_offer(worker, client);
	if (worker->phase != LOAD_RUNNING || worker->run->plan->arrivals != LOAD_CLOSED) {
		load_client_rest(worker, client, false);
	} else if (pause_s > 0) {
		pause_for(worker, client, LOAD_STEP_CHECKIN, pause_s);
	} else {
		client->step = LOAD_STEP_CHECKIN;
		step(worker, client);
	}
}

/* ---- a client is born ---- */

static void draw_character(struct load_worker *worker, struct load_client *client)
{
	const struct load_plan *plan = worker->run->plan;
	double lot;

	client->rng = load_random_seed(plan->seed, client->name);
	client->slow = load_random_unit(&client->rng) < plan->slow;
	lot = load_random_unit(&client->rng);
	client->class = LOAD_CLASSES_MAX;
	for (unsigned i = 0; i < plan->class_count; i++) {
		if (lot < plan->classes[i].share) {
			client->class = (uint8_t)i;
			break;
		}
		lot -= plan->classes[i].share;
	}
	client->labels = LOAD_LABELS_MAX;
	lot = plan->labels_count ? load_random_unit(&client->rng) : 0;
	for (unsigned i = 0; i < plan->labels_count; i++) {
		if (lot < plan->labels[i].share) {
			client->labels = (uint8_t)i;
			break;
		}
		lot -= plan->labels[i].share;
	}
}

void load_client_begin_soon(struct load_worker *worker, struct load_client *client,
			    uint64_t intended_ns)
{
	draw_character(worker, client);
	client->visit_ns = intended_ns;
	client->known = 0;
	pause_until(worker, client, LOAD_STEP_CHECKIN, trib_clock_ns());
}

void load_client_begin(struct load_worker *worker, struct load_client *client, uint64_t intended_ns)
{
	if (client->state == LOAD_STATE_OFF) {
		load_add(worker, LOAD_CLIENTS, 1);
	}
	draw_character(worker, client);
	client->visit_ns = intended_ns;
	client->known = 0;
	client->step = LOAD_STEP_CHECKIN;
	step(worker, client);
}

/* What this update is going to be. */
static void draw_update(struct load_worker *worker, struct load_client *client)
{
	const struct load_plan *plan = worker->run->plan;

	client->variant = (uint8_t)load_random_between(&client->rng, 0, LOAD_VARIANTS - 1);
	client->weight = (uint32_t)load_random_between(&client->rng, 1, plan->weight_max);
	client->dies = load_random_unit(&client->rng) < plan->die;
	client->corrupts = load_random_unit(&client->rng) < plan->corrupt;
	client->duplicates = load_random_unit(&client->rng) < plan->duplicate;
	client->attacks = load_random_unit(&client->rng) < plan->hostile;
	client->attack = (uint8_t)load_random_between(&client->rng, 0, LOAD_ATTACK_KINDS - 1);
}

/* ---- requests ---- */

static int head_begin(struct load_worker *worker, const char *method, const char *what)
{
	const struct load_run *run = worker->run;
	const char *token = run->plan->token;

	return snprintf(worker->head, LOAD_HEAD_MAX,
			"%s /v1/jobs/%s/%s HTTP/1.1\r\nHost: %s\r\n%s%s%s", method, run->job, what,
			run->host, token ? "Authorization: Bearer " : "", token ? token : "",
			token ? "\r\n" : "");
}

static int print_client(const struct load_worker *worker, const struct load_client *client,
			char out[64])
{
	return snprintf(out, 64, "l%08llx-%llu", (unsigned long long)worker->run->tag,
			(unsigned long long)client->name);
}

static int send_checkin(struct load_worker *worker, struct load_client *client)
{
	const struct load_plan *plan = worker->run->plan;
	struct load_request request = { .timeout_ms = (plan->wait_s + CHECKIN_SLACK_S) * 1000 };
	int size = head_begin(worker, "POST", "checkins");
	char name[64];
	char prefer[48] = "";
	int name_size = print_client(worker, client, name);
	bool says = client->labels < LOAD_LABELS_MAX;
	const char *labels = says ? plan->labels[client->labels].json : "";

	name_size += says ? 10 + (int)strlen(labels) : 0;
	if (plan->wait_s) {
		(void)snprintf(prefer, sizeof(prefer), "Prefer: wait=%llu\r\n",
			       (unsigned long long)plan->wait_s);
	}
	size += snprintf(worker->head + size, LOAD_HEAD_MAX - (size_t)size,
			 "Content-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
			 "{\"client_id\":\"%s\"%s%s}",
			 name_size + 16, prefer, name, says ? ",\"labels\":" : "", labels);
	request.head_size = (size_t)size;
	load_add(worker, LOAD_CHECKINS, 1);
	return load_conn_request(worker, client, &request);
}

static int send_model(struct load_worker *worker, struct load_client *client)
{
	struct load_request request = { .timeout_ms = 60000 + worker->run->payload.size * 1000 /
								      MODEL_RATE_MIN };
	char what[48];
	int size;

	(void)snprintf(what, sizeof(what), "models/%u", client->offer->base);
	size = head_begin(worker, "GET", what);
	if (client->known == client->offer->base + 1 && client->etag[0]) {
		size += snprintf(worker->head + size, LOAD_HEAD_MAX - (size_t)size,
				 "If-None-Match: \"v%u-%s\"\r\n", client->offer->base,
				 client->etag);
	}
	size += snprintf(worker->head + size, LOAD_HEAD_MAX - (size_t)size, "\r\n");
	request.head_size = (size_t)size;
	return load_conn_request(worker, client, &request);
}

static uint64_t pace_of(const struct load_worker *worker, const struct load_client *client)
{
	return client->class < LOAD_CLASSES_MAX
		       ? worker->run->plan->classes[client->class].bytes_per_s
		       : 0;
}

static int send_upload(struct load_worker *worker, struct load_client *client)
{
	const struct load_payload *payload = &worker->run->payload;
	struct load_request request = {
		.payload = true,
		.variant = client->variant,
		.body_end = payload->size,
		.pace = pace_of(worker, client),
	};
	uint32_t crc = payload->crc[client->variant] ^ (client->corrupts ? 1u : 0u);
	char what[64];
	char name[64];
	int size;
	int rc;

	request.timeout_ms =
		1000 * (UPLOAD_S +
			payload->size * 2 / (request.pace ? request.pace : MODEL_RATE_MIN * 100));
	if (client->dies) { /* somewhere in the middle, never with the last byte */
		request.stops = true;
		request.body_end = load_random(&client->rng) % payload->size;
	}
	(void)snprintf(what, sizeof(what), "updates/%s", client->offer->update);
	(void)print_client(worker, client, name);
	size = head_begin(worker, "PUT", what);
	size += snprintf(worker->head + size, LOAD_HEAD_MAX - (size_t)size,
			 "Content-Type: application/vnd.safetensors\r\nContent-Length: %llu\r\n"
			 "FL-Ticket: %s\r\nFL-Client: %s\r\nFL-Round: %u\r\nFL-Base-Version: %u\r\n"
			 "FL-Weight: %u\r\nFL-Checksum: crc32c=%08x\r\n\r\n",
			 (unsigned long long)payload->size, client->offer->ticket, name,
			 client->offer->round, client->offer->base, client->weight, crc);
	request.head_size = (size_t)size;
	rc = load_conn_request(worker, client, &request);
	if (rc == 0) {
		load_add(worker, LOAD_UPLOADS, 1);
		load_add(worker, LOAD_RETRIES, client->attempts > 0);
	}
	return rc;
}

static int send_attack(struct load_worker *worker, struct load_client *client)
{
	char name[64];
	struct load_request request = { .timeout_ms = 30000 };
	int rc;

	(void)print_client(worker, client, name);
	load_attack_write(worker, client, name, &request);
	rc = load_conn_request(worker, client, &request);
	if (rc == 0) {
		load_add(worker, LOAD_ATTACKS, 1);
	}
	return rc;
}

static int send_step(struct load_worker *worker, struct load_client *client)
{
	switch ((enum load_step)client->step) {
	case LOAD_STEP_CHECKIN:
		return send_checkin(worker, client);
	case LOAD_STEP_MODEL:
		return send_model(worker, client);
	case LOAD_STEP_UPLOAD:
		set_uploading(worker, client, true);
		return send_upload(worker, client);
	case LOAD_STEP_DUPLICATE:
		return send_upload(worker, client);
	case LOAD_STEP_ATTACK:
		break;
	}
	return send_attack(worker, client);
}

/* Does client->step now. */
static void step(struct load_worker *worker, struct load_client *client)
{
	int rc;

	client->state = LOAD_STATE_BUSY;
	rc = send_step(worker, client);
	if (rc == -EBUSY) {
		client->state = LOAD_STATE_PAUSE; /* load_conn_freed sets its timer */
	} else if (rc) {
		trouble(worker, LOAD_TROUBLE_LOCAL);
		tell(worker, "a connection cannot be made: %s", strerrordesc_np(-rc));
		pause_for(worker, client, (enum load_step)client->step, 1);
	}
}

/* ---- check-in answered ---- */

static int read_offer(const char *body, struct load_offer *offer)
{
	const char *upload = NULL;
	const char *path;
	size_t size;

	/* The last member of that name: the job's own configuration stands before it. */
	for (const char *at = body; (at = strstr(at, "\"upload\"")) != NULL; at++) {
		upload = at;
	}
	path = upload ? strstr(upload, "/updates/") : NULL;
	if (!path || load_json_text(upload, "ticket", offer->ticket, sizeof(offer->ticket))) {
		return -EBADMSG;
	}
	path += 9;
	size = strcspn(path, "\"/");
	if (size == 0 || size >= sizeof(offer->update)) {
		return -EBADMSG;
	}
	memcpy(offer->update, path, size);
	offer->update[size] = '\0';
	offer->round = (uint32_t)load_json_number(body, "round", 0);
	offer->base = (uint32_t)load_json_number(body, "base_version", 0);
	return offer->round ? 0 : -EBADMSG;
}

/* "\"v3-<digest>\"" -> <digest> */
static void read_etag(struct load_client *client, const char *body)
{
	char etag[96];
	const char *dash;

	client->etag[0] = '\0';
	if (load_json_text(body, "etag", etag, sizeof(etag)) == 0 && (dash = strchr(etag, '-'))) {
		etag[strcspn(etag + 1, "\"") + 1] = '\0';
		if (trib_copy(client->etag, sizeof(client->etag), dash + 1)) {
			client->etag[0] = '\0';
		}
	}
}

static void train(struct load_worker *worker, struct load_client *client)
{
	const struct load_plan *plan = worker->run->plan;
	double seconds = plan->think_s * (0.5 + load_random_unit(&client->rng)) *
			 (client->slow ? (double)plan->slow_factor : 1);

	if (client->dies && load_random_unit(&client->rng) < 0.5) { /* and is not heard of again */
		load_add(worker, LOAD_DIED_SILENT, 1);
		load_conn_close(worker, client);
		next_round(worker, client, 5 * plan->think_s + 1);
		return;
	}
	client->step = client->attacks ? LOAD_STEP_ATTACK : LOAD_STEP_UPLOAD;
	client->intended_ns = trib_clock_ns() + (uint64_t)(seconds * 1e9);
	if (seconds > 0) {
		if (plan->close) {
			load_conn_close(worker, client);
		}
		pause_until(worker, client, (enum load_step)client->step, client->intended_ns);
	} else {
		step(worker, client);
	}
}

static void selected(struct load_worker *worker, struct load_client *client, const char *body)
{
	struct load_offer *offer = trib_alloc(sizeof(*offer));

	if (!offer || read_offer(body, offer)) {
		trib_free(offer);
		trouble(worker, LOAD_TROUBLE_ANSWER);
		tell(worker, "check-in answer not understood: %.150s", body);
		pause_for(worker, client, LOAD_STEP_CHECKIN, 1);
		return;
	}
	client->offer = offer;
	client->attempts = 0;
	load_add(worker, LOAD_OUT, 1);
	load_add(worker, LOAD_SELECTED, 1);
	load_histogram_add(&worker->latency[LOAD_CHECKIN], trib_clock_ns() - client->sent_ns);
	draw_update(worker, client);
	if (worker->run->plan->download) {
		read_etag(client, body);
		client->step = LOAD_STEP_MODEL;
		step(worker, client);
	} else {
		train(worker, client);
	}
}

static void wait_told(struct load_worker *worker, struct load_client *client, double seconds)
{
	load_add(worker, LOAD_WAITS, 1);
	if (worker->run->plan->close) {
		load_conn_close(worker, client);
	}
	if (worker->phase != LOAD_RUNNING) {
		load_client_rest(worker, client, true);
		return;
	}
	seconds = seconds > 0.01 ? seconds : 0.01;
	pause_for(worker, client, LOAD_STEP_CHECKIN,
		  seconds * (1 + 0.2 * load_random_unit(&client->rng)));
}

static void checkin_answered(struct load_worker *worker, struct load_client *client,
			     const struct load_reply *reply)
{
	char status[16];

	if (load_json_text(reply->body, "status", status, sizeof(status))) {
		status[0] = '\0';
	}
	if (strcmp(status, "selected") == 0) {
		selected(worker, client, reply->body);
	} else if (strcmp(status, "wait") == 0) {
		wait_told(worker, client, load_json_number(reply->body, "retry_after", 1));
	} else if (strcmp(status, "done") == 0) {
		__atomic_store_n(&worker->run->over, true, __ATOMIC_RELAXED);
		load_client_rest(worker, client, true);
	} else {
		trouble(worker, LOAD_TROUBLE_ANSWER);
		tell(worker, "check-in answer not understood: %.150s", reply->body);
		pause_for(worker, client, LOAD_STEP_CHECKIN, 1);
	}
}

/* ---- upload answered ---- */

static bool receipt_good(const struct load_worker *worker, const struct load_client *client,
			 const char *body)
{
	const struct load_payload *payload = &worker->run->payload;
	char text[64];
	char digest[64];

	(void)snprintf(digest, sizeof(digest), "crc32c-%08x-%llu", payload->crc[client->variant],
		       (unsigned long long)payload->size);
	return load_json_text(body, "update", text, sizeof(text)) == 0 &&
	       strcmp(text, client->offer->update) == 0 &&
	       load_json_text(body, "state", text, sizeof(text)) == 0 &&
	       strcmp(text, "accepted") == 0 &&
	       load_json_text(body, "digest", text, sizeof(text)) == 0 && strcmp(text, digest) == 0;
}

static void count_receipt(struct load_worker *worker, struct load_client *client, const char *body)
{
	uint64_t now = trib_clock_ns();
	double in = load_json_number(body, "counted_in", 0);
	double weight = load_json_number(body, "weight_used", client->weight);
	struct load_round *round =
		load_round_of(worker, in > 0 ? (uint32_t)in : client->offer->round);

	load_add(worker, LOAD_RECEIPTS, 1);
	load_add(worker, LOAD_BYTES_ACCEPTED, (int64_t)worker->run->payload.size);
	load_histogram_add(&worker->latency[LOAD_RECEIPT], now - client->intended_ns);
	load_histogram_add(&worker->latency[LOAD_SERVICE], now - client->sent_ns);
	if (worker->run->plan->arrivals != LOAD_CLOSED) {
		load_histogram_add(&worker->latency[LOAD_VISIT], now - client->visit_ns);
		load_add(worker, LOAD_VISITS, 1);
	}
	if (!round) {
		trouble(worker, LOAD_TROUBLE_LOCAL);
		return;
	}
	round->receipts++;
	round->weight_fx += (uint64_t)(weight * WEIGHT_ONE + 0.5);
	round->sum += weight * load_payload_value(client->variant);
}

static void accepted(struct load_worker *worker, struct load_client *client,
		     const struct load_reply *reply)
{
	if (client->corrupts) { /* a wrong checksum was believed */
		trouble(worker, LOAD_TROUBLE_ACCEPTED);
		tell(worker, "a corrupt update was accepted: %.150s", reply->body);
	} else if (!receipt_good(worker, client, reply->body)) {
		trouble(worker, LOAD_TROUBLE_RECEIPT);
		tell(worker, "receipt is not this update's: %.150s", reply->body);
	}
	load_add(worker, LOAD_REPLAYS, reply->status == 200);
	count_receipt(worker, client, reply->body);
	client->ambiguous = false;
	if (client->duplicates) {
		client->duplicates = false;
		load_add(worker, LOAD_DUPLICATES, 1);
		client->step = LOAD_STEP_DUPLICATE;
		step(worker, client);
		return;
	}
	next_round(worker, client, 0);
}

static enum trib_problem problem_of(const struct load_reply *reply)
{
	char code[48];

	if (load_json_text(reply->body, "code", code, sizeof(code)) == 0) {
		for (unsigned i = 0; i < TRIB_PROBLEM_COUNT; i++) {
			if (strcmp(trib_problem_code((enum trib_problem)i), code) == 0) {
				return (enum trib_problem)i;
			}
		}
	}
	return trib_problem_of_status((int)reply->status);
}

/* Too late, for good: the round went on without this update. */
static bool is_late(enum trib_problem problem)
{
	return problem == TRIB_PROBLEM_ROUND_CLOSED || problem == TRIB_PROBLEM_STALE ||
	       problem == TRIB_PROBLEM_TICKET_EXPIRED || problem == TRIB_PROBLEM_NOT_SELECTED ||
	       problem == TRIB_PROBLEM_JOB_NOT_RUNNING;
}

/* May the same request be sent again? */
static bool is_passing(const struct load_worker *worker, const struct load_client *client,
		       enum trib_problem problem)
{
	int status = trib_problem_status(problem);

	return status == 503 || status == 429 || problem == TRIB_PROBLEM_UPLOAD_BUSY ||
	       (problem == TRIB_PROBLEM_TOO_SLOW && pace_of(worker, client));
}

static void again(struct load_worker *worker, struct load_client *client, double seconds)
{
	double jitter = 1 + 0.5 * load_random_unit(&client->rng);

	if (client->attempts < ATTEMPTS_MAX) {
		client->attempts++;
		pause_for(worker, client, (enum load_step)client->step, seconds * jitter);
		return;
	}
	trouble(worker, LOAD_TROUBLE_TIMEOUT);
	tell(worker, "given up after %d attempts", ATTEMPTS_MAX);
	worker->unresolved += client->ambiguous;
	next_round(worker, client, 1);
}

/* An honest client was told no. */
static void refused(struct load_worker *worker, struct load_client *client,
		    const struct load_reply *reply)
{
	enum trib_problem problem = problem_of(reply);
	double seconds = load_json_number(reply->body, "retry_after", reply->retry_after);

	if (client->step == LOAD_STEP_UPLOAD && client->corrupts && reply->status == 422) {
		load_bump(&worker->intended[problem]);
		load_add(worker, LOAD_CORRUPT, 1);
		client->corrupts = false;
		again(worker, client, 0.01);
		return;
	}
	if (is_passing(worker, client, problem)) {
		load_bump(&worker->refused[problem]);
		load_add(worker, LOAD_REFUSALS, 1);
		again(worker, client, seconds > 0 ? seconds : 0.2);
		return;
	}
	if (is_late(problem)) {
		load_bump(&worker->refused[problem]);
		load_add(worker, LOAD_REFUSALS, 1);
		load_add(worker, LOAD_LATE, 1);
		next_round(worker, client, 0.05);
		return;
	}
	load_bump(&worker->wrong[problem]);
	load_add(worker, LOAD_ERRORS, 1);
	tell(worker, "%u %.180s", reply->status, reply->body);
	next_round(worker, client, 1);
}

static void attack_answered(struct load_worker *worker, struct load_client *client,
			    const struct load_reply *reply)
{
	if (reply->status < 300 || (reply->status >= 500 && reply->status != 503 &&
				    reply->status != 501 && reply->status != 505)) {
		trouble(worker, LOAD_TROUBLE_ACCEPTED);
		tell(worker, "attack %s was answered %u %.120s", load_attack_name(client->attack),
		     reply->status, reply->body);
	} else {
		load_bump(&worker->intended[problem_of(reply)]);
		load_add(worker, LOAD_ATTACKS_ANSWERED, 1);
	}
	load_conn_close(worker, client);
	client->attacks = false;
	client->step = LOAD_STEP_UPLOAD;
	client->intended_ns = trib_clock_ns();
	step(worker, client);
}

static void model_answered(struct load_worker *worker, struct load_client *client,
			   const struct load_reply *reply)
{
	if (reply->status != 200 && reply->status != 304) {
		refused(worker, client, reply);
		return;
	}
	load_add(worker, reply->status == 200 ? LOAD_MODELS : LOAD_MODELS_KNOWN, 1);
	load_histogram_add(&worker->latency[LOAD_MODEL], trib_clock_ns() - client->sent_ns);
	client->known = client->offer->base + 1;
	train(worker, client);
}

void load_client_answer(struct load_worker *worker, struct load_client *client,
			const struct load_reply *reply)
{
	bool good = reply->status == 200 || reply->status == 201;

	switch ((enum load_step)client->step) {
	case LOAD_STEP_CHECKIN:
		if (good) {
			checkin_answered(worker, client, reply);
		} else {
			refused(worker, client, reply);
		}
		break;
	case LOAD_STEP_MODEL:
		model_answered(worker, client, reply);
		break;
	case LOAD_STEP_UPLOAD:
		if (good) {
			accepted(worker, client, reply);
		} else {
			refused(worker, client, reply);
		}
		break;
	case LOAD_STEP_DUPLICATE:
		if (good && receipt_good(worker, client, reply->body)) {
			load_add(worker, LOAD_REPLAYS, 1);
			next_round(worker, client, 0);
		} else {
			refused(worker, client, reply);
		}
		break;
	case LOAD_STEP_ATTACK:
		attack_answered(worker, client, reply);
		break;
	}
}

/* ---- failures and timers ---- */

void load_client_failed(struct load_worker *worker, struct load_client *client,
			enum load_trouble what, bool stale)
{
	load_timer_stop(client);
	if (client->step == LOAD_STEP_ATTACK && what != LOAD_TROUBLE_CONNECT) {
		/* Cut off: an answer too. */
		load_add(worker, LOAD_ATTACKS_ANSWERED, 1);
		client->attacks = false;
		client->intended_ns = trib_clock_ns();
		pause_for(worker, client, LOAD_STEP_UPLOAD, 0);
		return;
	}
	if (client->dies && client->step == LOAD_STEP_UPLOAD) { /* it was dying anyway */
		load_add(worker, LOAD_DIED_BODY, 1);
		next_round(worker, client, 5 * worker->run->plan->think_s + 1);
		return;
	}
	if (stale) { /* kept alive too long; nobody's fault */
		pause_for(worker, client, (enum load_step)client->step, 0);
		return;
	}
	trouble(worker, what);
	tell(worker, "%s in step %u", load_trouble_names[what], client->step);
	again(worker, client, 0.1 * (client->attempts < 10 ? client->attempts + 1 : 10));
}

static void due(struct load_worker *worker, struct load_client *client)
{
	switch (load_conn_due(worker, client)) {
	case LOAD_CONN_FINE:
		return;
	case LOAD_CONN_STOPPED:
		load_conn_close(worker, client);
		load_add(worker, LOAD_DIED_BODY, 1);
		next_round(worker, client, 5 * worker->run->plan->think_s + 1);
		return;
	case LOAD_CONN_LATE:
		load_client_failed(worker, client, LOAD_TROUBLE_TIMEOUT, false);
		return;
	}
}

void load_client_wake(struct load_worker *worker, struct load_client *client)
{
	if (client->state == LOAD_STATE_BUSY) {
		due(worker, client);
		return;
	}
	if (client->state != LOAD_STATE_PAUSE) {
		return;
	}
	if (worker->phase != LOAD_RUNNING && client->step == LOAD_STEP_CHECKIN) {
		load_client_rest(worker, client, true);
		return;
	}
	step(worker, client);
}

void load_client_drain(struct load_worker *worker, struct load_client *client)
{
	bool keep = client->uploading && (client->state == LOAD_STATE_BUSY || client->ambiguous);

	if (client->state == LOAD_STATE_OVER || keep) {
		return;
	}
	drop_offer(worker, client);
	load_client_rest(worker, client, true);
}
