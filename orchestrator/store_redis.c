/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/store_redis.h"

#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/store_keys.h"

#define LOAD_RETRY_MS 300

extern const char trib_functions_lua[]; /* functions/, embedded by the Makefile */

static const char *const word_texts[ORC_WORD_COUNT] = {
#define X(name, text) [ORC_##name] = (text),
	ORC_WORDS(X)
#undef X
};

static const char *const word_names[ORC_WORD_COUNT] = {
#define X(name, text) [ORC_##name] = #name,
	ORC_WORDS(X)
#undef X
};

const char *orc_word_text(enum orc_word word)
{
	return word < ORC_WORD_COUNT ? word_names[word] : "?";
}

/* ---- sending ---- */

int orc_store_words(struct orc_store *store, trib_redis_cb *cb, void *arg, size_t count,
		    const char *const words[])
{
	size_t few[ORC_WORDS_MAX];
	size_t *sizes = few;
	int rc;

	if (store->closing) {
		return -ESHUTDOWN;
	}
	if (!trib_redis_connected(store->commands)) {
		orc_count(ORC_M_REDIS_REFUSED);
		return -ENOTCONN;
	}
	if (count > ORC_WORDS_MAX) {
		sizes = trib_alloc_array(count, sizeof(*sizes));
		if (!sizes) {
			return -ENOMEM;
		}
	}
	for (size_t i = 0; i < count; i++) {
		sizes[i] = strlen(words[i]);
	}
	rc = trib_redis_call(store->commands, cb, arg, count, words, sizes);
	if (sizes != few) {
		trib_free(sizes);
	}
	if (rc) {
		orc_count(ORC_M_REDIS_REFUSED);
	}
	return rc;
}

/* ---- loading the functions ---- */

static void load_functions(struct orc_store *store);

static void on_loaded(const struct trib_value *value, void *arg)
{
	struct orc_store *store = arg;

	store->loading = false;
	if (!value || store->closing) {
		return;
	}
	if (trib_value_type(value) == TRIB_VALUE_ERROR &&
	    !strstr(trib_value_text(value), "already exists")) {
		orc_count(ORC_M_REDIS_ERRORS);
		log_warn("store", "functions-not-loaded error=%s", trib_value_text(value));
		trib_timer_after(store->retry, LOAD_RETRY_MS);
		return;
	}
	store->loaded = true;
	if (!store->loaded_once) {
		log_info("store", "functions-loaded");
	}
	store->loaded_once = true;
	store->handler.on_ready(store->handler.arg);
}

/* The first time what Redis has is replaced by ours; later on it is only made sure that there is
 * one, lest an older process takes it back at every hiccup while versions change. */
static void load_functions(struct orc_store *store)
{
	const char *first[] = { "FUNCTION", "LOAD", "REPLACE", trib_functions_lua };
	const char *again[] = { "FUNCTION", "LOAD", trib_functions_lua };

	if (store->loading || store->closing) {
		return;
	}
	if (store->loaded_once ? orc_store_words(store, on_loaded, store, 3, again)
			       : orc_store_words(store, on_loaded, store, 4, first)) {
		trib_timer_after(store->retry, LOAD_RETRY_MS);
		return;
	}
	store->loading = true;
}

static void on_retry(void *arg)
{
	load_functions(arg);
}

enum orc_word orc_store_word_of(struct orc_store *store, const struct trib_value *value)
{
	if (!value) {
		return ORC_DOWN;
	}
	if (trib_value_type(value) != TRIB_VALUE_ERROR) {
		return ORC_OK;
	}
	orc_count(ORC_M_REDIS_ERRORS);
	log_warn("store", "redis-error text=%s", trib_value_text(value));
	if (strstr(trib_value_text(value), "Function not found")) {
		store->loaded = false;
		load_functions(store);
	}
	return ORC_ERROR;
}

/* ---- calling them ---- */

struct call {
	struct orc_store *store;
	struct orc_then then;
};

static struct orc_reply decode(struct orc_store *store, const struct trib_value *value)
{
	struct orc_reply reply = { .word = orc_store_word_of(store, value), .text = "" };
	const struct trib_value *first = trib_value_at(value, 0);
	const struct trib_value *second = trib_value_at(value, 1);

	if (reply.word != ORC_OK) {
		return reply;
	}
	reply.word = ORC_ERROR;
	for (int i = 0; i < ORC_OTHER; i++) {
		if (strcmp(trib_value_text(first), word_texts[i]) == 0) {
			reply.word = (enum orc_word)i;
		}
	}
	if (reply.word == ORC_ERROR) {
		log_err("store", "unknown-answer word=%.32s", trib_value_text(first));
	}
	reply.text = trib_value_text(second);
	reply.text_size = trib_value_size(second);
	reply.number = trib_value_integer(second);
	return reply;
}

static void on_function(const struct trib_value *value, void *arg)
{
	struct call *call = arg;
	struct orc_reply reply = decode(call->store, value);
	struct orc_then then = call->then;

	trib_free(call);
	then.cb(&reply, then.arg);
}

/* {epoch, new?} or {0, 0, who, ms left} */
static void on_lease(const struct trib_value *value, void *arg)
{
	struct call *call = arg;
	struct orc_then then = call->then;
	struct orc_reply reply = { .word = orc_store_word_of(call->store, value), .text = "" };

	trib_free(call);
	if (reply.word == ORC_OK) {
		reply.number = trib_value_integer(trib_value_at(value, 0));
		if (reply.number <= 0) {
			reply.word = ORC_OTHER;
			reply.text = trib_value_text(trib_value_at(value, 2));
			reply.number = trib_value_integer(trib_value_at(value, 3));
			reply.more = trib_value_text(trib_value_at(value, 4));
		} else if (trib_value_integer(trib_value_at(value, 1)) == 1) {
			reply.word = ORC_NEW;
		}
	}
	then.cb(&reply, then.arg);
}

/* A text or a number that says nothing by its shape. */
static void on_plain(const struct trib_value *value, void *arg)
{
	struct call *call = arg;
	struct orc_then then = call->then;
	struct orc_reply reply = { .word = orc_store_word_of(call->store, value) };

	trib_free(call);
	reply.text = reply.word == ORC_OK ? trib_value_text(value) : "";
	reply.number = trib_value_integer(value);
	then.cb(&reply, then.arg);
}

static int call_words(struct orc_store *store, trib_redis_cb *cb, struct orc_then then,
		      size_t count, const char *const words[])
{
	struct call *call = trib_alloc(sizeof(*call));
	int rc;

	if (!call) {
		return -ENOMEM;
	}
	*call = (struct call){ store, then };
	rc = orc_store_words(store, cb, call, count, words);
	if (rc) {
		trib_free(call);
	}
	return rc;
}

int orc_store_function(struct orc_store *store, struct orc_then then, size_t count,
		       const char *const words[])
{
	return call_words(store, on_function, then, count, words);
}

int orc_store_cluster_init(struct orc_store *store, const char *candidate, struct orc_then then)
{
	const char *words[] = { "FCALL", "trib_cluster_init", "1", ORC_KEY_TICKET, candidate };

	return call_words(store, on_plain, then, TRIB_COUNT(words), words);
}

uint64_t orc_store_config_epoch(const struct orc_store *store)
{
	return trib_redis_config_epoch(store->commands);
}

int orc_store_lease_take(struct orc_store *store, const char *who, const char *url, uint64_t ttl_ms,
			 struct orc_then then)
{
	struct orc_decimal ttl = orc_decimal(ttl_ms);
	struct orc_decimal epoch = orc_decimal(orc_store_config_epoch(store));
	const char *words[] = { "FCALL",  "trib_lease_take", "2", ORC_KEY_LEASE, ORC_KEY_FENCE, who,
				ttl.text, epoch.text,        url };

	return call_words(store, on_lease, then, TRIB_COUNT(words), words);
}

int orc_store_lease_drop(struct orc_store *store, const char *who, struct orc_then then)
{
	const char *words[] = { "FCALL", "trib_lease_drop", "1", ORC_KEY_LEASE, who };

	return call_words(store, on_plain, then, TRIB_COUNT(words), words);
}

int orc_store_job_create(struct orc_store *store, const char *token, const struct orc_job_new *job,
			 struct orc_then then)
{
	struct orc_key key = orc_key_job(job->id);
	struct orc_decimal goal = orc_decimal(job->goal);
	struct orc_decimal quorum = orc_decimal(job->quorum);
	struct orc_decimal selected = orc_decimal(job->selected_max);
	struct orc_decimal deadline = orc_decimal(job->deadline_ms);
	struct orc_decimal lease = orc_decimal(job->lease_ms);
	struct orc_decimal stop = orc_decimal(job->stop_rounds);
	const char *words[] = {
		"FCALL",    "trib_job_create", "1",           key.text,
		token,      job->id,           job->name,     job->spec,
		goal.text,  quorum.text,       selected.text, deadline.text,
		lease.text, stop.text,         job->tenant,   job->initial ? job->initial : ""
	};

	return call_words(store, on_function, then, TRIB_COUNT(words), words);
}

int orc_store_job_set(struct orc_store *store, const char *token, const struct orc_job_move *move,
		      struct orc_then then)
{
	struct orc_key key = orc_key_job(move->job);
	const char *words[] = { "FCALL", "trib_job_set", "1",      key.text,
				token,   move->from,     move->to, move->reason };

	return call_words(store, on_function, then, TRIB_COUNT(words), words);
}

int orc_store_job_delete(struct orc_store *store, const char *token, const char *job, bool purge,
			 struct orc_then then)
{
	struct orc_key key = orc_key_job(job);
	const char *words[] = {
		"FCALL", "trib_job_delete", "1", key.text, token, purge ? "1" : "0"
	};

	return call_words(store, on_function, then, TRIB_COUNT(words), words);
}

int orc_store_round_open(struct orc_store *store, const char *token,
			 const struct orc_round_new *round, struct orc_then then)
{
	struct orc_key key = orc_key_job(round->job);
	struct orc_decimal number = orc_decimal(round->number);
	struct orc_decimal base = orc_signed(round->base);
	struct orc_decimal goal = orc_decimal(round->goal);
	struct orc_decimal quorum = orc_decimal(round->quorum);
	struct orc_decimal selected = orc_decimal(round->selected_max);
	struct orc_decimal deadline = orc_decimal(round->deadline_ms);
	const char *words[] = { "FCALL",     "trib_round_open", "1",          key.text,
				token,       number.text,       base.text,    goal.text,
				quorum.text, selected.text,     deadline.text };

	return call_words(store, on_function, then, TRIB_COUNT(words), words);
}

int orc_store_deadline(struct orc_store *store, const char *token,
		       const struct orc_round_close *close, struct orc_then then)
{
	struct orc_key key = orc_key_job(close->job);
	struct orc_decimal number = orc_decimal(close->number);
	struct orc_decimal force = orc_decimal((uint64_t)close->force);
	const char *words[] = { "FCALL", "trib_deadline", "1",       key.text,
				token,   number.text,     force.text };

	return call_words(store, on_function, then, TRIB_COUNT(words), words);
}

int orc_store_publish(struct orc_store *store, const char *token,
		      const struct orc_publication *publication, struct orc_then then)
{
	struct orc_key key = orc_key_job(publication->job);
	struct orc_decimal number = orc_decimal(publication->number);
	struct orc_decimal version = orc_signed(publication->version);
	struct orc_decimal bytes = orc_decimal(publication->bytes);
	const char *words[] = { "FCALL",   "trib_publish", "1",          key.text,
				token,     number.text,    version.text, publication->digest,
				bytes.text };

	return call_words(store, on_function, then, TRIB_COUNT(words), words);
}

int orc_store_idem_begin(struct orc_store *store, const char *key, const char *fingerprint,
			 struct orc_then then)
{
	struct orc_key name = orc_key_idem(key);
	const char *words[] = { "FCALL", "trib_idem_begin", "1", name.text, fingerprint, "0" };

	return call_words(store, on_function, then, TRIB_COUNT(words), words);
}

int orc_store_idem_end(struct orc_store *store, const struct orc_idem_result *result,
		       struct orc_then then)
{
	struct orc_key name = orc_key_idem(result->key);
	struct orc_decimal ttl = orc_decimal(result->ttl_ms);
	const char *words[] = { "FCALL",  "trib_idem_end", "1", name.text, result->fingerprint,
				ttl.text, result->text };

	return call_words(store, on_function, then, TRIB_COUNT(words), words);
}

/* ---- wake channel ---- */

static void on_message(const char *message, void *arg)
{
	struct orc_store *store = arg;
	const char *blank = strchr(message, ' ');
	struct trib_id id;
	char what[16];

	orc_count(ORC_M_WAKES);
	if (!blank || (size_t)(blank - message) >= sizeof(what) ||
	    trib_id_parse("job_", blank + 1, &id)) {
		return; /* not for us */
	}
	memcpy(what, message, (size_t)(blank - message));
	what[blank - message] = '\0';
	store->handler.on_wake(what, blank + 1, store->handler.arg);
}

static void on_again(void *arg)
{
	struct orc_store *store = arg;

	load_functions(store); /* Redis may have come back without them */
	store->handler.on_again(store->handler.arg);
}

/* ---- life ---- */

int orc_store_new(struct trib_loop *loop, const char *address,
		  const struct orc_store_handler *handler, struct orc_store **ret_store)
{
	struct orc_store *store = trib_alloc(sizeof(*store));
	int rc;

	if (!store) {
		return -ENOMEM;
	}
	store->loop = loop;
	store->handler = *handler;
	rc = trib_timer_new(loop, on_retry, store, &store->retry);
	if (!rc) {
		rc = trib_redis_new(loop, address, &store->commands);
	}
	if (!rc) {
		rc = trib_redis_new(loop, address, &store->subscriber);
	}
	if (!rc) {
		rc = trib_redis_subscribe(store->subscriber, ORC_CHANNEL, on_message, on_again,
					  store);
	}
	if (rc) {
		(void)orc_store_free(store);
		return rc;
	}
	*ret_store = store;
	return 0;
}

struct orc_store *orc_store_free(struct orc_store *store)
{
	if (!store) {
		return NULL;
	}
	store->closing = true;
	store->subscriber = trib_redis_free(store->subscriber);
	store->commands = trib_redis_free(store->commands);
	store->retry = trib_timer_free(store->retry);
	trib_free(store);
	return NULL;
}

bool orc_store_connected(const struct orc_store *store)
{
	return trib_redis_connected(store->commands);
}

bool orc_store_ready(const struct orc_store *store)
{
	return store->loaded && trib_redis_connected(store->commands);
}

size_t orc_store_outstanding(const struct orc_store *store)
{
	return trib_redis_outstanding(store->commands);
}
