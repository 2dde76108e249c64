/* SPDX-License-Identifier: Apache-2.0
 * Who may use the data plane: clients by their job's tokens (where the job wants them), operators
 * for the initial model. Every request passes here before its handler, and before a byte of its
 * body is read. Tokens are looked up in Redis by their hash and believed for GW_TOKEN_MS; a wake-up
 * of the job makes the worker forget them sooner. Worker thread.
 */
#ifndef TRIB_GATEWAY_GUARD_H
#define TRIB_GATEWAY_GUARD_H

#include "common/audit.h"
#include "common/token.h"
#include "gateway/router.h"

#define GW_TOKEN_MS    700  /* with the time of a look-up: less than a second after a revocation */
#define GW_TOKENS_KEPT 1024 /* per worker; a power of two */

/* Whom the guard let in. */
struct gw_grant {
	bool token;                       /* by a client's token: what follows is filled in */
	char client[TRIB_CLIENT_ID_SIZE]; /* the only one it is for, "" = any */
	char hash[TRIB_SHA256_TEXT_SIZE];
	uint64_t checked_ms;
	/* an operator */
	struct trib_operator who;
	char trace[TRIB_TRACE_SIZE];
	char peer[64];
};

typedef void gw_guard_cb(struct gw_worker *worker, struct trib_exchange *x,
			 const struct gw_path *path, const struct gw_grant *grant);
/* Calls `then` at once or later, or answers 401, 403, 404 or 503 itself. */
void gw_guard(struct gw_worker *worker, struct trib_exchange *x, const struct gw_path *path,
	      gw_guard_cb *then);
/* Is the grant for this client? */
bool gw_grant_fits(const struct gw_grant *grant, const char *client);
/* Was it checked so lately that a revocation cannot be older than allowed? */
bool gw_grant_fresh(const struct gw_grant *grant);
typedef void gw_again_cb(bool good, void *arg);
/* Looks the token up again: 0 and cb is called later; -errno: it is not. */
TRIB_MUST_CHECK int gw_grant_again(struct gw_worker *worker, const char *job,
				   struct gw_grant *grant, gw_again_cb *cb, void *arg);
/* 401 with WWW-Authenticate; `given`: there were credentials, not valid ones. */
void gw_unauthenticated(struct trib_exchange *x, bool given, const char *detail);

/* Writes down what an operator did (status 0: nobody was there to be answered). */
void gw_audit(struct gw_worker *worker, const struct gw_grant *grant, const char *method,
	      const char *path, int status);

struct gw_tokens;
TRIB_MUST_CHECK int gw_tokens_new(struct gw_tokens **ret_tokens);
struct gw_tokens *gw_tokens_free(struct gw_tokens *tokens);
void gw_tokens_forget(struct gw_worker *worker, const char *job); /* "": all */

/* "client|scope|expires_ms|created_ms[|labels]", read strictly. -EBADMSG. */
struct gw_token_record {
	char client[TRIB_CLIENT_ID_SIZE];
	uint64_t expires_ms;
};
TRIB_MUST_CHECK int gw_token_read(const char *text, struct gw_token_record *ret_record);

#endif
