/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/guard.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/load.h"
#include "gateway/metrics.h"

/* ---- tokens believed for a moment ---- */

struct gw_tokens {
	struct known {
		char job[TRIB_JOB_ID_SIZE]; /* "" = empty */
		char hash[TRIB_SHA256_TEXT_SIZE];
		struct gw_token_record record;
		uint64_t checked_ms;
	} known[GW_TOKENS_KEPT];
};

int gw_tokens_new(struct gw_tokens **ret_tokens)
{
	*ret_tokens = trib_alloc(sizeof(**ret_tokens));
	return *ret_tokens ? 0 : -ENOMEM;
}

struct gw_tokens *gw_tokens_free(struct gw_tokens *tokens)
{
	trib_free(tokens);
	return NULL;
}

void gw_tokens_forget(struct gw_worker *worker, const char *job)
{
	for (size_t i = 0; i < GW_TOKENS_KEPT; i++) {
		if (!*job || strcmp(worker->tokens->known[i].job, job) == 0) {
			worker->tokens->known[i].job[0] = '\0';
		}
	}
}

static struct known *place_of(struct gw_tokens *tokens, const char *hash)
{
	uint32_t place = 0;

	for (size_t i = 0; i < 8; i++) {
		place = place * 31 + (uint8_t)hash[i];
	}
	return &tokens->known[place % GW_TOKENS_KEPT];
}

static const struct known *find_known(struct gw_tokens *tokens, const char *job, const char *hash)
{
	const struct known *known = place_of(tokens, hash);

	return strcmp(known->job, job) == 0 && strcmp(known->hash, hash) == 0 &&
			       trib_clock_ms() - known->checked_ms < GW_TOKEN_MS
		       ? known
		       : NULL;
}

/* asked_ms: when Redis was asked, which is when the answer was true at the latest. */
static void learn(struct gw_tokens *tokens, const char *job, const char *hash,
		  const struct gw_token_record *record, uint64_t asked_ms)
{
	struct known *known = place_of(tokens, hash);

	known->record = *record;
	known->checked_ms = asked_ms;
	if (trib_copy(known->job, sizeof(known->job), job) ||
	    trib_copy(known->hash, sizeof(known->hash), hash)) {
		known->job[0] = '\0';
	}
}

/* ---- one request ---- */

struct guard {
	struct gw_worker *worker;
	struct trib_exchange *x; /* NULL: the client is gone */
	struct gw_job *job;      /* pinned */
	struct gw_path path;
	struct gw_grant grant;
	gw_guard_cb *then;
	uint64_t asked_ms;
};

static struct trib_exchange *leave(struct guard *g)
{
	struct trib_exchange *x = g->x;

	if (x) {
		trib_exchange_attach(x, NULL, NULL);
	}
	g->job = gw_job_put(g->job);
	trib_free(g);
	return x;
}

static void on_gone(void *data)
{
	struct guard *g = data;

	g->x = NULL; /* a call is outstanding and will find out */
}

static void pass(struct guard *g)
{
	struct gw_worker *worker = g->worker;
	struct gw_path path = g->path;
	struct gw_grant grant = g->grant;
	gw_guard_cb *then = g->then;
	struct trib_exchange *x = leave(g);

	if (x) {
		then(worker, x, &path, &grant);
	}
}

void gw_unauthenticated(struct trib_exchange *x, bool given, const char *detail)
{
	if (trib_http_header(x, "WWW-Authenticate",
			     given ? "Bearer realm=\"tributary\", error=\"invalid_token\""
				   : "Bearer realm=\"tributary\"")) {
		log_debug("guard", "no room for a header");
	}
	gw_count(GW_M_DENIED_401, 1);
	gw_refuse(x, TRIB_PROBLEM_UNAUTHENTICATED, detail);
}

static bool is_model_put(const struct guard *g)
{
	return g->x && trib_exchange_request(g->x)->method == TRIB_HTTP_PUT &&
	       strcmp(g->path.what, "models") == 0;
}

static void audit_denial(struct guard *g, int status)
{
	if (is_model_put(g)) {
		if (g->grant.who.name[0] == '\0') {
			(void)snprintf(g->grant.who.name, sizeof(g->grant.who.name), "-");
			(void)snprintf(g->grant.who.tenant, sizeof(g->grant.who.tenant), "-");
		}
		gw_audit(g->worker, &g->grant, "PUT", trib_exchange_request(g->x)->path, status);
	}
}

static void deny(struct guard *g, bool given, const char *detail)
{
	struct trib_exchange *x;

	audit_denial(g, 401);
	x = leave(g);
	if (x) {
		gw_unauthenticated(x, given, detail);
	}
}

static void refuse(struct guard *g, enum trib_problem problem, const char *detail)
{
	struct gw_worker *worker = g->worker;
	struct trib_exchange *x;

	if (problem != TRIB_PROBLEM_UNAVAILABLE) {
		audit_denial(g, trib_problem_status(problem));
	}
	x = leave(g);
	if (!x) {
		return;
	}
	if (problem == TRIB_PROBLEM_UNAVAILABLE) {
		gw_unavailable(worker, x, detail);
		return;
	}
	if (problem == TRIB_PROBLEM_FORBIDDEN) {
		gw_count(GW_M_DENIED_403, 1);
	}
	gw_refuse(x, problem, detail);
}

/* ---- operators ---- */

static void guard_operator(struct guard *g, enum trib_scope needed)
{
	struct trib_access *access = g->worker->gw->access;
	struct trib_operator *who = &g->grant.who;
	const char *detail;
	int rc = trib_access_who(access, trib_exchange_request(g->x), trib_wall_ms(), who, &detail);
	bool own;

	if (rc) {
		deny(g, rc != -ENOENT, detail);
		return;
	}
	own = strcmp(who->tenant, g->job->tenant) == 0;
	if (!trib_scopes_allow(who->scopes, needed)) {
		refuse(g, TRIB_PROBLEM_FORBIDDEN, "another scope is needed");
	} else if (own || trib_scopes_across(who->scopes, needed)) {
		pass(g);
	} else if (trib_scopes_across(who->scopes, TRIB_SCOPE_JOBS_READ)) {
		refuse(g, TRIB_PROBLEM_FORBIDDEN, "the job is another tenant's");
	} else {
		refuse(g, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
	}
}

/* ---- clients ---- */

bool gw_grant_fits(const struct gw_grant *grant, const char *client)
{
	return !grant->token || !grant->client[0] || strcmp(grant->client, client) == 0;
}

bool gw_grant_fresh(const struct gw_grant *grant)
{
	return !grant->token || trib_clock_ms() - grant->checked_ms < GW_TOKEN_MS;
}

/* Whom the request says it is from; "" when it does not say so in its head. */
static void claimed_client(const struct trib_http_request *request, char *out, size_t size)
{
	const char *field = trib_http_field(request, "fl-client");

	out[0] = '\0';
	if (field) {
		(void)snprintf(out, size, "%s", field);
	} else if (trib_http_query(request, "client", out, size)) {
		out[0] = '\0';
	}
}

static void judge_token(struct guard *g, const struct gw_token_record *record)
{
	const struct trib_http_request *request = trib_exchange_request(g->x);
	char client[2 * TRIB_CLIENT_ID_SIZE]; /* room to differ when it is too long */

	if (trib_wall_ms() >= record->expires_ms) {
		deny(g, true, "the token has expired");
		return;
	}
	g->grant.token = true;
	memcpy(g->grant.client, record->client, sizeof(g->grant.client));
	claimed_client(request, client, sizeof(client));
	if (client[0] && !gw_grant_fits(&g->grant, client)) {
		refuse(g, TRIB_PROBLEM_FORBIDDEN, "the token is another client's");
		return;
	}
	pass(g);
}

static void on_record(const struct trib_value *value, void *arg)
{
	struct guard *g = arg;
	struct gw_token_record record;

	if (!g->x) {
		(void)leave(g);
	} else if (!value || trib_value_type(value) == TRIB_VALUE_ERROR) {
		refuse(g, TRIB_PROBLEM_UNAVAILABLE, "Redis refused");
	} else if (trib_value_type(value) == TRIB_VALUE_NIL) {
		deny(g, true, "not a token of this job");
	} else if (gw_token_read(trib_value_text(value), &record)) {
		deny(g, true, "the token's record is not understood");
	} else {
		learn(g->worker->tokens, g->path.job, g->grant.hash, &record, g->asked_ms);
		g->grant.checked_ms = g->asked_ms;
		judge_token(g, &record);
	}
}

static int send_lookup(struct gw_worker *worker, const char *job, const char *hash,
		       trib_redis_cb *cb, void *arg)
{
	char key[GW_JOB_KEY_SIZE];

	gw_count(GW_M_TOKEN_LOOKUPS, 1);
	(void)snprintf(key, sizeof(key), "trib:{%s}:job", job);
	return trib_redis_send(worker->redis, cb, arg, "FCALL", "trib_token_find", "1", key, hash,
			       NULL);
}

static void guard_client(struct guard *g)
{
	const struct known *known;
	const char *token = NULL;
	int rc = trib_bearer_read(trib_exchange_request(g->x), &token);

	if (rc) {
		deny(g, rc != -ENOENT,
		     "a token of the job is needed (Authorization: Bearer flk_..)");
		return;
	}
	if (!trib_token_valid(TRIB_TOKEN_CLIENT, token)) {
		deny(g, true, "not a client's token");
		return;
	}
	if (trib_sha256(token, strlen(token), g->grant.hash)) {
		refuse(g, TRIB_PROBLEM_INTERNAL, NULL);
		return;
	}
	known = find_known(g->worker->tokens, g->path.job, g->grant.hash);
	if (known) {
		struct gw_token_record record = known->record;

		gw_count(GW_M_TOKEN_HITS, 1);
		g->grant.checked_ms = known->checked_ms;
		judge_token(g, &record);
		return;
	}
	g->asked_ms = trib_clock_ms();
	if (send_lookup(g->worker, g->path.job, g->grant.hash, on_record, g)) {
		refuse(g, TRIB_PROBLEM_UNAVAILABLE, "too many calls outstanding");
	}
}

/* ---- a grant again ---- */

struct again {
	struct gw_worker *worker;
	struct gw_grant *grant; /* the caller's */
	gw_again_cb *cb;
	void *arg;
	uint64_t asked_ms;
};

static void on_again(const struct trib_value *value, void *arg)
{
	struct again again = *(struct again *)arg;
	struct gw_token_record record;
	bool good = value && trib_value_type(value) == TRIB_VALUE_TEXT &&
		    gw_token_read(trib_value_text(value), &record) == 0 &&
		    trib_wall_ms() < record.expires_ms &&
		    strcmp(record.client, again.grant->client) == 0;

	trib_free(arg);
	if (good) {
		again.grant->checked_ms = again.asked_ms;
	}
	again.cb(good, again.arg);
}

int gw_grant_again(struct gw_worker *worker, const char *job, struct gw_grant *grant,
		   gw_again_cb *cb, void *arg)
{
	struct again *again = trib_alloc(sizeof(*again));
	int rc;

	if (!again) {
		return -ENOMEM;
	}
	*again = (struct again){ worker, grant, cb, arg, trib_clock_ms() };
	rc = send_lookup(worker, job, grant->hash, on_again, again);
	if (rc) {
		trib_free(again);
	}
	return rc;
}

/* ---- the way in ---- */

/* The job is known. */
static void decide(struct guard *g)
{
	const struct trib_http_request *request = trib_exchange_request(g->x);
	bool open = trib_access_is_open(g->worker->gw->access);
	bool reads = request->method == TRIB_HTTP_GET || request->method == TRIB_HTTP_HEAD;
	bool model = strcmp(g->path.what, "models") == 0;
	const char *token = NULL;

	if (is_model_put(g)) {
		guard_operator(g, TRIB_SCOPE_JOBS_WRITE);
	} else if (!g->job->client_tokens) {
		pass(g);
	} else if (model && reads && !open && trib_bearer_read(request, &token) == 0 &&
		   strncmp(token, TRIB_TOKEN_CLIENT, sizeof(TRIB_TOKEN_CLIENT) - 1) != 0) {
		guard_operator(g, TRIB_SCOPE_JOBS_READ); /* who runs the job may see its models */
	} else {
		guard_client(g);
	}
}

static void on_loaded(struct gw_job *job, enum trib_problem problem, const char *detail, void *arg)
{
	struct guard *g = arg;
	const char *ignored;

	g->job = job;
	if (!g->x) {
		(void)leave(g);
		return;
	}
	if (job) {
		decide(g);
		return;
	}
	/* Whether a job exists is told to nobody who may not put its model anyway. */
	if (is_model_put(g)) {
		int rc = trib_access_who(g->worker->gw->access, trib_exchange_request(g->x),
					 trib_wall_ms(), &g->grant.who, &ignored);

		if (rc) {
			deny(g, rc != -ENOENT, ignored);
			return;
		}
	}
	refuse(g, problem, detail);
}

void gw_guard(struct gw_worker *worker, struct trib_exchange *x, const struct gw_path *path,
	      gw_guard_cb *then)
{
	struct gw_job *job = gw_jobs_find(&worker->gw->jobs, path->job);
	struct guard *g = trib_alloc(sizeof(*g));

	if (!g) {
		(void)gw_job_put(job);
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	*g = (struct guard){ .worker = worker, .x = x, .path = *path, .then = then };
	trib_exchange_attach(x, g, on_gone);
	if (is_model_put(g)) {
		trib_trace_read(trib_exchange_request(x), g->grant.trace);
		(void)snprintf(g->grant.peer, sizeof(g->grant.peer), "%s", trib_exchange_peer(x));
	}
	if (job && gw_job_certain(&worker->gw->jobs, job)) {
		g->job = job;
		decide(g);
		return;
	}
	(void)gw_job_put(job);
	gw_load(worker, path->job, false, on_loaded, g);
}

/* ---- audit ---- */

static void on_audited(const struct trib_value *value, void *arg)
{
	(void)arg;
	if (!value || trib_value_type(value) == TRIB_VALUE_ERROR) {
		gw_count(GW_M_AUDIT_LOST, 1);
	}
}

void gw_audit(struct gw_worker *worker, const struct gw_grant *grant, const char *method,
	      const char *path, int status)
{
	struct trib_audit audit = { .program = "gateway",
				    .who = grant->who.name,
				    .tenant = grant->who.tenant,
				    .method = method,
				    .path = path,
				    .trace = grant->trace,
				    .peer = grant->peer,
				    .status = status };
	const char *words[TRIB_AUDIT_WORDS];
	size_t sizes[TRIB_AUDIT_WORDS];
	uint64_t now = trib_clock_ms() / 1000;
	bool unknown = strcmp(audit.who, "-") == 0;

	if (now != worker->audit_second) {
		worker->audit_second = now;
		worker->audit_unknown = 0;
	}
	trib_audit_words(&audit, words);
	for (size_t i = 0; i < TRIB_AUDIT_WORDS; i++) {
		sizes[i] = strlen(words[i]);
	}
	if ((unknown && worker->audit_unknown++ >= GW_AUDIT_UNKNOWN) || !worker->redis ||
	    trib_redis_call(worker->redis, on_audited, NULL, TRIB_AUDIT_WORDS, words, sizes)) {
		gw_count(GW_M_AUDIT_LOST, 1);
		log_warn("audit", "not-kept who=%s tenant=%s method=%s path=%s status=%d trace=%s",
			 audit.who, audit.tenant, method, audit.path_text, status, audit.trace);
	}
}
