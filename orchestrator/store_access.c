/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/store_access.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/labels.h"
#include "common/operators.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/store_keys.h"

#define ID_DIGITS 12

/* ---- tenants ---- */

struct tenant_read {
	struct orc_store *store;
	struct orc_then then;
};

static void on_tenant(const struct trib_value *value, void *arg)
{
	struct tenant_read *read = arg;
	struct orc_reply reply = { .word = orc_store_word_of(read->store, value), .text = "" };
	struct orc_then then = read->then;

	trib_free(read);
	if (reply.word == ORC_OK && trib_value_size(trib_value_at(value, 0)) == 0) {
		reply.word = ORC_NOJOB;
	} else if (reply.word == ORC_OK) {
		reply.text = trib_value_text(trib_value_at(value, 1));
		reply.text = *reply.text ? reply.text : TRIB_TENANT_DEFAULT;
	}
	then.cb(&reply, then.arg);
}

int orc_store_tenant(struct orc_store *store, const char *job, struct orc_then then)
{
	struct orc_key key = orc_key_job(job);
	const char *words[] = { "HMGET", key.text, "state", "tenant" };
	struct tenant_read *read = trib_alloc(sizeof(*read));
	int rc;

	if (!read) {
		return -ENOMEM;
	}
	*read = (struct tenant_read){ store, then };
	rc = orc_store_words(store, on_tenant, read, TRIB_COUNT(words), words);
	if (rc) {
		trib_free(read);
	}
	return rc;
}

int orc_store_quotas_set(struct orc_store *store, const char *token, const char *text,
			 struct orc_then then)
{
	const char *words[] = { "FCALL", "trib_quotas_set", "1", ORC_KEY_QUOTAS, token, text };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

int orc_store_tenants(struct orc_store *store, const char *tenant, struct orc_then then)
{
	const char *words[] = { "FCALL", "trib_tenants_view", "1", ORC_KEY_QUOTAS, tenant };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

/* ---- tokens ---- */

int orc_store_tokens_issue(struct orc_store *store, const char *token,
			   const struct orc_tokens_new *tokens, struct orc_then then)
{
	struct orc_key key = orc_key_job(tokens->job);
	struct orc_decimal ttl = orc_decimal(tokens->ttl_ms);
	const char *words[] = { "FCALL",        "trib_tokens_issue", "1",           key.text,
				token,          tokens->client,      tokens->scope, ttl.text,
				tokens->hashes, tokens->labels };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

int orc_store_token_revoke(struct orc_store *store, const char *token, const char *job,
			   const char *id, struct orc_then then)
{
	struct orc_key key = orc_key_job(job);
	const char *words[] = { "FCALL", "trib_token_revoke", "1", key.text, token, id };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

/* ---- pages ---- */

struct page_read {
	struct orc_store *store;
	size_t count;
	orc_page_cb *cb;
	void *arg;
};

static int send_page(const struct page_read *wanted, trib_redis_cb *on_page, size_t count,
		     const char *const words[])
{
	struct page_read *read = trib_alloc(sizeof(*read));
	int rc;

	if (!read) {
		return -ENOMEM;
	}
	*read = *wanted;
	rc = orc_store_words(read->store, on_page, read, count, words);
	if (rc) {
		trib_free(read);
	}
	return rc;
}

static json_t *time_json(const char *text, size_t size)
{
	char when[TRIB_RFC3339_SIZE];
	uint64_t ms;

	if (trib_parse_u64(text, size, 1, INT64_MAX, &ms)) {
		return json_null();
	}
	trib_rfc3339(ms, when);
	return json_string(when);
}

/* client|scope|expires_ms|created_ms[|labels] */
static json_t *token_json(const char *hash, const char *text)
{
	const char *parts[4] = { text };
	size_t sizes[4] = { 0 };
	const char *labels;

	for (size_t i = 0; i < 4; i++) {
		sizes[i] = strcspn(parts[i], "|");
		if (i < 3 && parts[i][sizes[i]] == '\0') {
			return NULL;
		}
		if (i < 3) {
			parts[i + 1] = parts[i] + sizes[i] + 1;
		}
	}
	if (strlen(hash) < ID_DIGITS) {
		return NULL;
	}
	labels = parts[3] + sizes[3];
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "labels",
			 trib_labels_json(labels + (*labels == '|')), "id",
			 json_stringn(hash, ID_DIGITS), "client",
			 sizes[0] ? json_stringn(parts[0], sizes[0]) : json_null(), "scope",
			 json_stringn(parts[1], sizes[1]), "expires", time_json(parts[2], sizes[2]),
			 "created", time_json(parts[3], sizes[3]));
}

static void on_tokens(const struct trib_value *value, void *arg)
{
	struct page_read *read = arg;
	enum orc_word word = orc_store_word_of(read->store, value);
	const struct trib_value *pairs = trib_value_at(value, 1);
	const char *next = trib_value_text(trib_value_at(value, 0));
	json_t *items = json_array();

	for (size_t i = 0; i + 1 < trib_value_count(pairs); i += 2) {
		json_t *item = token_json(trib_value_text(trib_value_at(pairs, i)),
					  trib_value_text(trib_value_at(pairs, i + 1)));

		if (item) {
			(void)json_array_append_new(items, item);
		}
	}
	read->cb(items ? word : ORC_ERROR, items, strcmp(next, "0") == 0 ? "" : next, read->arg);
	json_decref(items);
	trib_free(read);
}

int orc_store_tokens(struct orc_store *store, const char *job, uint64_t cursor, size_t count,
		     orc_page_cb *cb, void *arg)
{
	const struct page_read read = { store, count, cb, arg };
	struct orc_key key = orc_key_tokens(job);
	struct orc_decimal from = orc_decimal(cursor);
	struct orc_decimal limit = orc_decimal(count);
	const char *words[] = { "HSCAN", key.text, from.text, "COUNT", limit.text };

	return send_page(&read, on_tokens, TRIB_COUNT(words), words);
}

/* ---- audit ---- */

static json_t *audit_json(const struct trib_value *entry)
{
	const char *id = trib_value_text(trib_value_at(entry, 0));
	const struct trib_value *fields = trib_value_at(entry, 1);
	json_t *json = json_pack("{s:s, s:o}", "id", id, "at", time_json(id, strcspn(id, "-")));

	for (size_t i = 0; json && i + 1 < trib_value_count(fields) && i < 64; i += 2) {
		const char *name = trib_value_text(trib_value_at(fields, i));
		const struct trib_value *text = trib_value_at(fields, i + 1);
		json_t *item = strcmp(name, "status") == 0 ? json_integer(trib_value_integer(text))
							   : json_string(trib_value_text(text));

		if (item) { /* else: no UTF-8 */
			(void)json_object_set_new(json, name, item);
		}
	}
	return json;
}

static void on_audit_page(const struct trib_value *value, void *arg)
{
	struct page_read *read = arg;
	enum orc_word word = orc_store_word_of(read->store, value);
	size_t count = trib_value_count(value);
	const char *last = "";
	json_t *items = json_array();

	for (size_t i = 0; i < count; i++) {
		json_t *item = audit_json(trib_value_at(value, i));

		last = trib_value_text(trib_value_at(trib_value_at(value, i), 0));
		if (item) {
			(void)json_array_append_new(items, item);
		}
	}
	read->cb(items ? word : ORC_ERROR, items, count == read->count ? last : "", read->arg);
	json_decref(items);
	trib_free(read);
}

int orc_store_audit_list(struct orc_store *store, const char *before, size_t count, orc_page_cb *cb,
			 void *arg)
{
	const struct page_read read = { store, count, cb, arg };
	struct orc_decimal limit = orc_decimal(count);
	char from[64];
	const char *words[] = { "XREVRANGE", TRIB_AUDIT_KEY, from, "-", "COUNT", limit.text };

	(void)snprintf(from, sizeof(from), "%s%s", *before ? "(" : "+", before);
	return send_page(&read, on_audit_page, TRIB_COUNT(words), words);
}

static void on_audited(const struct trib_value *value, void *arg)
{
	if (orc_store_word_of(arg, value) != ORC_OK) {
		orc_count(ORC_M_AUDIT_LOST);
	}
}

int orc_store_audit(struct orc_store *store, struct trib_audit *audit)
{
	const char *words[TRIB_AUDIT_WORDS];

	trib_audit_words(audit, words);
	return orc_store_words(store, on_audited, store, TRIB_COUNT(words), words);
}
