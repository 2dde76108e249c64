/* SPDX-License-Identifier: Apache-2.0
 * The REST API: one table of routes, from which come dispatch, 405 with Allow and OpenAPI.
 *
 * A request lives from on_request until it is answered AND every Redis call made for it came
 * back. Handlers hold it across each call (orc_request_hold before, orc_request_release in the
 * callback). The exchange may go any time (answered, client gone, 2 s without an answer of
 * Redis: then 503): replying after that does nothing. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_API_H
#define TRIB_ORCHESTRATOR_API_H

#include "common/access.h"
#include "common/audit.h"
#include "common/httpd.h"
#include "common/json.h"
#include "orchestrator/app.h"
#include "orchestrator/store_redis.h"

#define ORC_BODY_MAX  (1u << 20)
#define ORC_LIMIT_MAX 500
#define ORC_ANSWER_MS 2000 /* longest wait for Redis */

struct orc_request;

enum orc_route_flags {
	ORC_ROUTE_WRITE = 1,  /* the leader's business */
	ORC_ROUTE_BODY = 2,   /* on_body is called with the body */
	ORC_ROUTE_DATA = 4,   /* a gateway's business: 307 */
	ORC_ROUTE_LIST = 8,   /* takes limit and cursor */
	ORC_ROUTE_REDIS = 16, /* needs Redis */
};

/* Of a route: what the caller's scopes must hold. 0, a row that does not say, needs ops:admin. */
#define ORC_SCOPE_NONE (1u << 30) /* free for all */

struct orc_route {
	enum trib_http_method method; /* GET takes HEAD, too */
	unsigned flags;
	const char *pattern; /* "/v1/jobs/{job}:pause" */
	void (*handle)(struct orc_request *r);
	void (*on_body)(struct orc_request *r, const char *body, size_t size);
	const char *name; /* operationId */
	const char *summary;
	int status;         /* of success, for OpenAPI */
	const char *answer; /* schema of success, NULL = none */
	unsigned scope;     /* enum trib_scope or ORC_SCOPE_NONE */
};
extern const struct orc_route orc_routes[];
extern const size_t orc_route_count;

struct orc_request {
	struct orc_app *app;
	struct trib_exchange *x; /* NULL once answered or gone */
	struct trib_timer *timer;
	const struct orc_route *route;
	unsigned holds;
	/* who asks (access.h) */
	struct trib_operator who;
	char trace[TRIB_TRACE_SIZE];
	bool known;   /* who is filled in */
	bool audited; /* its record is on the way */
	char method[8];
	char path[TRIB_AUDIT_PATH_SIZE];
	char peer[64];
	/* of the path */
	char job[TRIB_ID_TEXT_SIZE];
	uint64_t number;
	char token[16]; /* id of one, "" = none */
	char tenant[TRIB_TENANT_SIZE];
	char node[64];
	/* of the query */
	size_t limit;
	char cursor[64];
	bool force;
	bool purge;
	/* the handler's own; freed with the request */
	void *state;
	void (*state_free)(void *state);
};

TRIB_MUST_CHECK int orc_api_new(struct orc_app *app, int listen_fd, struct trib_httpd **ret_httpd);

void orc_request_hold(struct orc_request *r);
void orc_request_release(struct orc_request *r);
/* The result of a store call made after orc_request_hold: when it failed the hold is given back and
 * 503 is answered. */
void orc_request_sent(struct orc_request *r, int rc);
/* True when `word` says that Redis did not do its part: 503 is answered then. */
bool orc_request_failed(struct orc_request *r, enum orc_word word);

/* `body` is stolen. With `etag` a strong ETag is made of the text, and If-None-Match answered. */
void orc_reply_json(struct orc_request *r, int status, json_t *body, bool etag);
/* With an ETag "g<generation>-<digest>": it names the text, and its first part the spec. */
void orc_reply_versioned(struct orc_request *r, int status, json_t *body, uint64_t generation);
void orc_reply_text(struct orc_request *r, int status, const char *type, const char *text);
void orc_reply_empty(struct orc_request *r, int status);
void orc_reply_problem(struct orc_request *r, enum trib_problem code, const char *detail);
/* The same with another Retry-After. */
void orc_reply_later(struct orc_request *r, enum trib_problem code, const char *detail,
		     uint64_t retry_ms);
void orc_reply_errors(struct orc_request *r, enum trib_problem code, const json_t *errors);
void orc_reply_header(struct orc_request *r, const char *name, const char *value);
/* {items, next}: `items` is stolen; next cursor "" = the end. Adds Link: rel=next. */
void orc_reply_list(struct orc_request *r, json_t *items, const char *next);
/* The exchange is the caller's from now on (streams); its data and on_gone are not set. */
struct trib_exchange *orc_request_take(struct orc_request *r);

/* Value of a query parameter into out, "" when absent or too long. */
void orc_request_query(const struct orc_request *r, const char *name, char *out, size_t size);

#endif
