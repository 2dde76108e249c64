/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api_tokens.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/labels.h"
#include "common/token.h"
#include "orchestrator/leader.h"
#include "orchestrator/store_access.h"

#define ID_DIGITS 12
#define HASH_SIZE (TRIB_SHA256_TEXT_SIZE - 1)

struct issue {
	char client[65]; /* "" = any */
	char labels[TRIB_LABELS_SIZE];
	uint64_t ttl_ms;
	size_t count;
	char (*tokens)[TRIB_TOKEN_TEXT_SIZE];
	char *hashes; /* HASH_SIZE each */
};

static void issue_free(void *state)
{
	struct issue *issue = state;

	if (issue->tokens) {
		explicit_bzero(issue->tokens, issue->count * sizeof(issue->tokens[0]));
	}
	trib_free(issue->tokens);
	trib_free(issue->hashes);
	trib_free(issue);
}

/* ---- issue ---- */

static json_t *issued_json(const struct issue *issue, uint64_t expires)
{
	json_t *items = json_array();
	char when[TRIB_RFC3339_SIZE];

	trib_rfc3339(expires, when);
	for (size_t i = 0; i < issue->count; i++) {
		(void)json_array_append_new(
			items, json_pack("{s:o, s:s, s:s?, s:s, s:o}", "id",
					 json_stringn(issue->hashes + i * HASH_SIZE, ID_DIGITS),
					 "token", issue->tokens[i], "client",
					 issue->client[0] ? issue->client : NULL, "expires", when,
					 "labels", trib_labels_json(issue->labels)));
	}
	return json_pack("{s:o}", "items", items);
}

static void on_issued(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;

	if (orc_request_failed(r, reply->word)) {
		orc_request_release(r);
		return;
	}
	if (reply->word == ORC_OK && reply->number > 0) {
		orc_reply_header(r, "Cache-Control", "no-store");
		orc_reply_json(r, 201, issued_json(r->state, (uint64_t)reply->number), false);
	} else {
		orc_reply_problem(r, TRIB_PROBLEM_THROTTLED,
				  "the job has too many tokens: revoke some, or let them expire");
	}
	orc_request_release(r);
}

static int make_tokens(struct issue *issue)
{
	issue->tokens = trib_alloc_array(issue->count, sizeof(issue->tokens[0]));
	issue->hashes = trib_alloc(issue->count * HASH_SIZE + 1);
	if (!issue->tokens || !issue->hashes) {
		return -1;
	}
	for (size_t i = 0; i < issue->count; i++) {
		if (trib_token_make(TRIB_TOKEN_CLIENT, issue->tokens[i]) ||
		    trib_sha256(issue->tokens[i], TRIB_TOKEN_TEXT_SIZE - 1,
				issue->hashes + i * HASH_SIZE)) {
			return -1;
		}
	}
	return 0;
}

/* A whole number in [1, max], `otherwise` when absent; 0: not valid. */
static uint64_t whole(const json_t *json, const char *name, uint64_t otherwise, uint64_t max)
{
	const json_t *value = json_object_get(json, name);
	long long number = json_integer_value(value);

	if (!value) {
		return otherwise;
	}
	return json_is_integer(value) && number >= 1 && (uint64_t)number <= max ? (uint64_t)number
										: 0;
}

/* NULL, or what is wrong. */
static const char *read_issue(json_t *json, struct issue *issue)
{
	const json_t *client = json_object_get(json, "client");
	const json_t *labels = json_object_get(json, "labels");
	size_t known = (client != NULL) + (json_object_get(json, "ttl_s") != NULL) +
		       (json_object_get(json, "count") != NULL) + (labels != NULL);

	issue->count = (size_t)whole(json, "count", 1, ORC_TOKENS_MAX);
	issue->ttl_ms = whole(json, "ttl_s", ORC_TOKEN_TTL_S, ORC_TOKEN_TTL_MAX_S) * 1000;
	if (!json_is_object(json) || json_object_size(json) != known) {
		return "an object of client, ttl_s, count and labels is wanted, each optional";
	}
	if (client && !json_is_null(client) &&
	    (!json_is_string(client) || !trib_client_id_valid(json_string_value(client)) ||
	     trib_copy(issue->client, sizeof(issue->client), json_string_value(client)))) {
		return "client: 1 to 64 of A-Z a-z 0-9 . _ : -";
	}
	if (trib_labels_read(labels, issue->labels)) {
		return TRIB_LABELS_TEXT;
	}
	if (issue->ttl_ms == 0) {
		return "ttl_s: 1 to 31536000 seconds";
	}
	return issue->count ? NULL : "count: 1 to 1000";
}

void orc_tokens_issue_body(struct orc_request *r, const char *body, size_t size)
{
	struct issue *issue = trib_alloc(sizeof(*issue));
	struct orc_tokens_new tokens = { .job = r->job, .scope = "client" };
	char reason[160];
	const char *wrong;
	json_t *json = NULL;

	if (!issue) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	r->state = issue;
	r->state_free = issue_free;
	if (trib_json_parse(size ? body : "{}", size ? size : 2, &json, reason)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, reason);
		return;
	}
	wrong = read_issue(json, issue);
	json_decref(json);
	if (wrong) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, wrong);
		return;
	}
	if (!orc_leader_valid(r->app->leader)) { /* the body may have taken its time */
		orc_reply_problem(r, TRIB_PROBLEM_NOT_LEADER, NULL);
		return;
	}
	if (make_tokens(issue)) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "no tokens could be made");
		return;
	}
	tokens.client = issue->client;
	tokens.labels = issue->labels;
	tokens.ttl_ms = issue->ttl_ms;
	tokens.hashes = issue->hashes;
	orc_request_hold(r);
	orc_request_sent(r, orc_store_tokens_issue(r->app->store, orc_leader_token(r->app->leader),
						   &tokens, (struct orc_then){ on_issued, r }));
}

/* ---- revoke ---- */

static void on_revoked(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;

	if (!orc_request_failed(r, reply->word)) {
		if (reply->word == ORC_OK) {
			orc_reply_empty(r, 204);
		} else {
			orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_TOKEN, NULL);
		}
	}
	orc_request_release(r);
}

void orc_tokens_revoke(struct orc_request *r)
{
	if (strlen(r->token) != ID_DIGITS || strspn(r->token, "0123456789abcdef") != ID_DIGITS) {
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_TOKEN,
				  "an id of the list is wanted (12 hex digits)");
		return;
	}
	orc_request_hold(r);
	orc_request_sent(r, orc_store_token_revoke(r->app->store, orc_leader_token(r->app->leader),
						   r->job, r->token,
						   (struct orc_then){ on_revoked, r }));
}

/* ---- lists ---- */

static void on_page(enum orc_word word, json_t *items, const char *next, void *arg)
{
	struct orc_request *r = arg;

	if (!orc_request_failed(r, word)) {
		orc_reply_list(r, json_incref(items), next);
	}
	orc_request_release(r);
}

static void on_there(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	uint64_t cursor = 0;

	if (!orc_request_failed(r, reply->word)) {
		if (r->cursor[0] &&
		    trib_parse_u64(r->cursor, strlen(r->cursor), 0, UINT64_MAX, &cursor)) {
			orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, "not a cursor of this list");
		} else {
			orc_request_hold(r);
			orc_request_sent(r, orc_store_tokens(r->app->store, r->job, cursor,
							     r->limit, on_page, r));
		}
	}
	orc_request_release(r);
}

void orc_tokens_list(struct orc_request *r)
{
	orc_request_hold(r);
	orc_request_sent(r, orc_store_tenant(r->app->store, r->job,
					     (struct orc_then){ on_there, r })); /* 404 */
}

void orc_audit_list(struct orc_request *r)
{
	struct orc_event_id id;

	if (r->cursor[0] && orc_event_id_parse(r->cursor, &id)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, "not a cursor of this list");
		return;
	}
	orc_request_hold(r);
	orc_request_sent(r, orc_store_audit_list(r->app->store, r->cursor, r->limit, on_page, r));
}
