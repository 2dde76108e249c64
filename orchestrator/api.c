/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/crypto.h"
#include "common/log.h"
#include "orchestrator/access.h"
#include "orchestrator/leader.h"
#include "orchestrator/orc_metrics.h"

#define RETRY_MS   1000
#define ALLOW_SIZE 96

/* ---- life of a request ---- */

static void maybe_free(struct orc_request *r)
{
	if (r->x || r->holds) {
		return;
	}
	orc_access_audit(r, 0); /* nobody was there to be answered */
	if (r->state_free) {
		r->state_free(r->state);
	}
	r->timer = trib_timer_free(r->timer);
	trib_free(r);
}

void orc_request_hold(struct orc_request *r)
{
	r->holds++;
}

void orc_request_release(struct orc_request *r)
{
	TRIB_ASSERT(r->holds > 0);
	r->holds--;
	maybe_free(r);
}

static void on_gone(void *data)
{
	struct orc_request *r = data;

	r->x = NULL;
	if (r->timer) {
		trib_timer_stop(r->timer);
	}
	maybe_free(r);
}

/* Every reply begins with this: the exchange, once. Handlers hold the request, so that it lives
 * on until they let go. */
struct trib_exchange *orc_request_take(struct orc_request *r)
{
	struct trib_exchange *x = r->x;

	if (x) {
		trib_exchange_attach(x, NULL, NULL);
		r->x = NULL;
		if (r->timer) {
			trib_timer_stop(r->timer);
		}
	}
	return x;
}

static void on_late(void *arg)
{
	struct orc_request *r = arg;

	orc_count(ORC_M_HTTP_TIMEOUTS);
	orc_request_hold(r);
	orc_reply_problem(r, TRIB_PROBLEM_UNAVAILABLE, "Redis does not answer");
	orc_request_release(r);
}

void orc_request_sent(struct orc_request *r, int rc)
{
	if (rc) {
		orc_reply_problem(r, TRIB_PROBLEM_UNAVAILABLE, "Redis is not reachable");
		orc_request_release(r);
	}
}

bool orc_request_failed(struct orc_request *r, enum orc_word word)
{
	if (word == ORC_ERROR || word == ORC_DOWN) {
		orc_reply_problem(r, TRIB_PROBLEM_UNAVAILABLE,
				  word == ORC_DOWN ? "shutting down" : "Redis refused");
		return true;
	}
	if (word == ORC_FENCED) {
		orc_leader_fenced(r->app->leader);
		orc_reply_problem(r, TRIB_PROBLEM_FENCED, NULL);
		return true;
	}
	if (word == ORC_NOJOB) {
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
		return true;
	}
	return false;
}

/* ---- replies ---- */

static void count_status(struct orc_request *r, int status)
{
	static const enum orc_metric classes[] = { [2] = ORC_M_HTTP_2XX,
						   [3] = ORC_M_HTTP_3XX,
						   [4] = ORC_M_HTTP_4XX,
						   [5] = ORC_M_HTTP_5XX };

	orc_access_audit(r, status);
	if (status >= 200 && status < 600) {
		orc_count(classes[status / 100]);
	}
}

void orc_reply_header(struct orc_request *r, const char *name, const char *value)
{
	if (r->x && trib_http_header(r->x, name, value)) {
		log_warn("api", "header-left-out name=%s", name);
	}
}

/* Percent-encodes what a URL's path or query cannot hold. */
static void url_encode(const char *text, char *out, size_t size)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-._~/:@!$&'()*+,;=";
	size_t used = 0;

	for (; *text && used + 4 < size; text++) {
		if (strchr(plain, *text)) {
			out[used++] = *text;
		} else {
			used += (size_t)snprintf(out + used, size - used, "%%%02X",
						 (unsigned)(uint8_t)*text);
		}
	}
	out[used] = '\0';
}

/* Location: the same resource where it can be written. */
static void name_leader(const struct orc_request *r, struct trib_exchange *x)
{
	const struct trib_http_request *request = trib_exchange_request(x);
	const char *leader = orc_leader_elsewhere(r->app->leader);
	char path[1024];
	char location[2600];

	if (*leader && strlen(request->path) <= 300 && strlen(request->query) <= 1024) {
		url_encode(request->path, path, sizeof(path));
		(void)snprintf(location, sizeof(location), "%s%s%s%s", leader, path,
			       request->query[0] ? "?" : "", request->query);
		if (trib_http_header(x, "Location", location)) {
			log_warn("api", "header-left-out name=Location");
		}
	}
}

void orc_reply_later(struct orc_request *r, enum trib_problem code, const char *detail,
		     uint64_t retry_ms)
{
	struct trib_exchange *x = orc_request_take(r);

	if (x) {
		count_status(r, trib_problem_status(code));
		if (code == TRIB_PROBLEM_NOT_LEADER) {
			name_leader(r, x);
			trib_http_last(x); /* behind a balancer another connection finds it */
		}
		trib_http_problem(x, code, detail, retry_ms);
	}
}

void orc_reply_problem(struct orc_request *r, enum trib_problem code, const char *detail)
{
	int status = trib_problem_status(code);

	orc_reply_later(r, code, detail, status == 503 || status == 429 ? RETRY_MS : 0);
}

void orc_reply_errors(struct orc_request *r, enum trib_problem code, const json_t *errors)
{
	char *text = trib_json_print(errors);
	struct trib_exchange *x = orc_request_take(r);

	if (x) {
		count_status(r, trib_problem_status(code));
		trib_http_problem_errors(x, code, NULL, text);
	}
	trib_free(text);
}

/* True when one of the tags of If-None-Match (weak comparison) is `etag`. */
static bool matches(const char *header, const char *etag)
{
	size_t size = strlen(etag);

	while (header && *header) {
		header += strspn(header, " \t,");
		if (*header == '*') {
			return true;
		}
		header += strncmp(header, "W/", 2) == 0 ? 2 : 0;
		if (strncmp(header, etag, size) == 0) {
			return true;
		}
		header += strcspn(header, ",");
	}
	return false;
}

static void reply(struct orc_request *r, int status, const char *type, const char *text)
{
	struct trib_exchange *x = orc_request_take(r);

	if (x) {
		count_status(r, status);
		trib_http_reply(x, status, type, text, text ? strlen(text) : 0);
	}
}

void orc_reply_text(struct orc_request *r, int status, const char *type, const char *text)
{
	reply(r, status, type, text);
}

void orc_reply_empty(struct orc_request *r, int status)
{
	reply(r, status, NULL, NULL);
}

/* `prefix` of the ETag, NULL = there is none. */
static void reply_tagged(struct orc_request *r, int status, json_t *body, const char *prefix)
{
	char *text = body ? trib_json_print(body) : NULL;
	char tag[TRIB_DIGEST_TEXT_SIZE + 32];
	char digest[TRIB_DIGEST_TEXT_SIZE];

	json_decref(body);
	if (!text) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	if (prefix && r->x) {
		trib_digest_print(trib_digest(text, strlen(text)), digest);
		(void)snprintf(tag, sizeof(tag), "\"%.26s%s\"", prefix, digest);
		orc_reply_header(r, "ETag", tag);
		if (r->route->method == TRIB_HTTP_GET &&
		    matches(trib_http_field(trib_exchange_request(r->x), "if-none-match"), tag)) {
			orc_reply_empty(r, 304);
		}
	}
	reply(r, status, "application/json", text);
	trib_free(text);
}

void orc_reply_json(struct orc_request *r, int status, json_t *body, bool etag)
{
	reply_tagged(r, status, body, etag ? "" : NULL);
}

void orc_reply_versioned(struct orc_request *r, int status, json_t *body, uint64_t generation)
{
	char prefix[32];

	(void)snprintf(prefix, sizeof(prefix), "g%llu-", (unsigned long long)generation);
	reply_tagged(r, status, body, prefix);
}

void orc_reply_list(struct orc_request *r, json_t *items, const char *next)
{
	char link[640];
	char path[256];
	char state[24];

	if (r->x && *next) {
		url_encode(trib_exchange_request(r->x)->path, path, sizeof(path));
		orc_request_query(r, "state", state, sizeof(state));
		(void)snprintf(link, sizeof(link), "<%s?limit=%zu&cursor=%s%s%s>; rel=\"next\"",
			       path, r->limit, next, state[0] ? "&state=" : "", state);
		orc_reply_header(r, "Link", link);
	}
	orc_reply_json(r, 200,
		       json_pack("{s:o, s:s?}", "items", items, "next", *next ? next : NULL),
		       false);
}

/* ---- reading requests ---- */

void orc_request_query(const struct orc_request *r, const char *name, char *out, size_t size)
{
	out[0] = '\0';
	if (r->x && trib_http_query(trib_exchange_request(r->x), name, out, size)) {
		out[0] = '\0';
	}
}

static bool query_flag(const struct orc_request *r, const char *name)
{
	char text[8];

	orc_request_query(r, name, text, sizeof(text));
	return strcmp(text, "1") == 0 || strcmp(text, "true") == 0;
}

/* limit, cursor, force, purge. False: answered. */
static bool read_query(struct orc_request *r)
{
	char text[24];
	uint64_t limit;

	r->limit = 100;
	orc_request_query(r, "limit", text, sizeof(text));
	if (text[0] && (r->route->flags & ORC_ROUTE_LIST)) {
		if (trib_parse_u64(text, strlen(text), 1, ORC_LIMIT_MAX, &limit)) {
			orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, "limit must be 1 to 500");
			return false;
		}
		r->limit = (size_t)limit;
	}
	orc_request_query(r, "cursor", r->cursor, sizeof(r->cursor));
	r->force = query_flag(r, "force");
	r->purge = query_flag(r, "purge");
	return true;
}

/* Does `path` fit `pattern`? Values of {job}, {round}, {token} and {node} are noted as texts. */
struct match {
	char job[64];
	char round[24];
	char token[16];
	char tenant[TRIB_TENANT_SIZE];
	char node[64];
};

static bool fits(const char *pattern, const char *path, struct match *match)
{
	while (*pattern) {
		size_t size;
		char *out = NULL;
		size_t room = 0;

		if (*pattern != '{') {
			if (*pattern++ != *path++) {
				return false;
			}
			continue;
		}
		size = strcspn(path, "/:");
		if (strncmp(pattern, "{job}", 5) == 0) {
			out = match->job;
			room = sizeof(match->job);
		} else if (strncmp(pattern, "{round}", 7) == 0) {
			out = match->round;
			room = sizeof(match->round);
		} else if (strncmp(pattern, "{token}", 7) == 0) {
			out = match->token;
			room = sizeof(match->token);
		} else if (strncmp(pattern, "{tenant}", 8) == 0) {
			out = match->tenant;
			room = sizeof(match->tenant);
		} else if (strncmp(pattern, "{node}", 6) == 0) {
			out = match->node;
			room = sizeof(match->node);
		}
		if (size == 0) {
			return false;
		}
		if (out) { /* too long for any: cut, and refused later */
			(void)snprintf(out, room, "%.*s", (int)(size < room ? size : room), path);
		}
		path += size;
		pattern += strcspn(pattern, "}") + 1;
	}
	return *path == '\0';
}

static bool method_fits(const struct orc_route *route, enum trib_http_method method)
{
	return route->method == method ||
	       (route->method == TRIB_HTTP_GET && method == TRIB_HTTP_HEAD);
}

static void add_method(char *allow, const char *name)
{
	size_t used = strlen(allow);

	if (!strstr(allow, name)) {
		(void)snprintf(allow + used, ALLOW_SIZE - used, "%s%s", used ? ", " : "", name);
	}
}

/* The route, or NULL with what would be allowed here ("" when nothing is at this path). */
static const struct orc_route *find_route(const struct trib_http_request *request,
					  struct match *match, char allow[ALLOW_SIZE])
{
	allow[0] = '\0';
	for (size_t i = 0; i < orc_route_count; i++) {
		const struct orc_route *route = &orc_routes[i];

		*match = (struct match){ 0 };
		if (!fits(route->pattern, request->path, match)) {
			continue;
		}
		if (method_fits(route, request->method)) {
			return route;
		}
		add_method(allow, trib_http_method_text(route->method));
		if (route->method == TRIB_HTTP_GET) {
			add_method(allow, "HEAD");
		}
	}
	if (allow[0]) {
		add_method(allow, "OPTIONS");
	}
	return NULL;
}

static void redirect(struct orc_request *r, const struct trib_http_request *request)
{
	char path[2048];
	char location[4000];

	if (strlen(request->path) > 600 || strlen(request->query) > 1024) {
		orc_reply_problem(r, TRIB_PROBLEM_URI_TOO_LONG, NULL);
		return;
	}
	url_encode(request->path, path, sizeof(path));
	(void)snprintf(location, sizeof(location), "%.512s%s%s%s", r->app->data_url, path,
		       request->query[0] ? "?" : "", request->query);
	orc_reply_header(r, "Location", location);
	orc_reply_empty(r, 307);
}

/* ---- dispatch ---- */

static bool content_type_fits(const struct trib_http_request *request)
{
	const char *type = trib_http_field(request, "content-type");
	size_t size = type ? strcspn(type, "; \t") : 0;

	return size == 0 || (size == 16 && strncasecmp(type, "application/json", 16) == 0) ||
	       (size > 5 && strncasecmp(type + size - 5, "+json", 5) == 0);
}

static void arm(struct orc_request *r)
{
	if (!r->timer && trib_timer_new(r->app->loop, on_late, r, &r->timer)) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	trib_timer_after(r->timer, ORC_ANSWER_MS);
}

static void on_body(struct trib_exchange *x, const char *body, size_t size)
{
	struct orc_request *r = trib_exchange_data(x);

	orc_request_hold(r);
	arm(r);
	if (r->x) {
		r->route->on_body(r, body, size);
	}
	orc_request_release(r);
}

/* Who may do what now. False: answered. */
static bool admit(struct orc_request *r)
{
	if (!(r->route->flags & ORC_ROUTE_REDIS)) {
		return true;
	}
	if (!orc_store_connected(r->app->store)) {
		orc_reply_problem(r, TRIB_PROBLEM_UNAVAILABLE, "Redis is not reachable");
		return false;
	}
	if ((r->route->flags & ORC_ROUTE_WRITE) && !orc_leader_valid(r->app->leader)) {
		orc_reply_problem(r, TRIB_PROBLEM_NOT_LEADER, NULL);
		return false;
	}
	return true;
}

/* Values of the path. False: answered. */
static bool read_path(struct orc_request *r, const struct match *match)
{
	struct trib_id id;

	if (match->job[0] && (trib_id_parse("job_", match->job, &id) ||
			      trib_copy(r->job, sizeof(r->job), match->job))) {
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
		return false;
	}
	if (match->round[0] &&
	    trib_parse_u64(match->round, strlen(match->round), 1, UINT32_MAX, &r->number)) {
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_ROUND, NULL);
		return false;
	}
	memcpy(r->token, match->token, sizeof(r->token));
	memcpy(r->tenant, match->tenant, sizeof(r->tenant));
	memcpy(r->node, match->node, sizeof(r->node));
	return true;
}

/* The caller may do this. */
static void serve(struct orc_request *r)
{
	if (!r->x) {
		return;
	}
	if (r->route->flags & ORC_ROUTE_BODY) {
		if (!content_type_fits(trib_exchange_request(r->x))) {
			orc_reply_problem(r, TRIB_PROBLEM_UNSUPPORTED_MEDIA,
					  "application/json is wanted");
			return;
		}
		if (r->timer) {
			trib_timer_stop(r->timer); /* a body takes its time */
		}
		trib_http_want_buffer(r->x, ORC_BODY_MAX, on_body);
		return;
	}
	arm(r);
	if (r->x) {
		r->route->handle(r);
	}
}

static void start(struct orc_request *r, const struct trib_http_request *request,
		  const struct match *match)
{
	if (r->route->flags & ORC_ROUTE_DATA) {
		redirect(r, request);
		return;
	}
	if (!orc_access_identify(r) || !read_path(r, match) || !read_query(r) || !admit(r)) {
		return;
	}
	if (orc_access_needs_job(r)) {
		arm(r);
		orc_access_job(r, serve);
	} else {
		serve(r);
	}
}

static void on_request(struct trib_exchange *x, const struct trib_http_request *request, void *arg)
{
	struct orc_app *app = arg;
	struct orc_request *r = trib_alloc(sizeof(*r));
	char allow[ALLOW_SIZE];
	struct match match;

	if (!r) {
		trib_http_problem(x, TRIB_PROBLEM_INTERNAL, "out of memory", 0);
		return;
	}
	r->app = app;
	r->x = x;
	r->holds = 1;
	trib_exchange_attach(x, r, on_gone);
	r->route = find_route(request, &match, allow);
	if (r->route) {
		start(r, request, &match);
	} else if (allow[0] == '\0') {
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_PATH, NULL);
	} else {
		orc_reply_header(r, "Allow", allow);
		if (request->method == TRIB_HTTP_OPTIONS) {
			orc_reply_empty(r, 204);
		} else {
			orc_reply_problem(r, TRIB_PROBLEM_METHOD_NOT_ALLOWED, NULL);
		}
	}
	orc_request_release(r);
}

int orc_api_new(struct orc_app *app, int listen_fd, struct trib_httpd **ret_httpd)
{
	struct trib_httpd_limits limits = trib_httpd_limits_default;
	const struct trib_httpd_handler handler = { on_request, app };

	limits.conns_max = 4096;
	limits.buffer_max = ORC_BODY_MAX;
	limits.body_rate_min = 1024;
	return trib_httpd_new(app->loop, listen_fd, &limits, &handler, ret_httpd);
}
