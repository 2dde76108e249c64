/* SPDX-License-Identifier: Apache-2.0
 * Names of keys and the inside of struct orc_store, for store_redis.c and store_read.c alone.
 */
#ifndef TRIB_ORCHESTRATOR_STORE_KEYS_H
#define TRIB_ORCHESTRATOR_STORE_KEYS_H

#include <stdio.h>

#include "common/redis.h"
#include "orchestrator/store_redis.h"

#define ORC_KEY_SIZE   192
#define ORC_WORDS_MAX  16

#define ORC_KEY_LEASE  "trib:lease:orch"
#define ORC_KEY_FENCE  "trib:fence"
#define ORC_KEY_TICKET "trib:key:ticket"
#define ORC_KEY_JOBS   "trib:jobs"
#define ORC_KEY_NODES  "trib:nodes"
#define ORC_KEY_QUOTAS "trib:quotas"
#define ORC_CHANNEL    "trib:wake"

struct orc_store {
	struct trib_loop *loop;
	struct orc_store_handler handler;
	struct trib_redis *commands;
	struct trib_redis *subscriber;
	struct trib_timer *retry; /* of loading the functions */
	bool loaded;
	bool loading;
	bool loaded_once;
	bool closing;
};

struct orc_key {
	char text[ORC_KEY_SIZE];
};

static inline struct orc_key orc_key_job(const char *job)
{
	struct orc_key key;

	(void)snprintf(key.text, sizeof(key.text), "trib:{%s}:job", job);
	return key;
}

static inline struct orc_key orc_key_models(const char *job)
{
	struct orc_key key;

	(void)snprintf(key.text, sizeof(key.text), "trib:{%s}:models", job);
	return key;
}

static inline struct orc_key orc_key_tokens(const char *job)
{
	struct orc_key key;

	(void)snprintf(key.text, sizeof(key.text), "trib:{%s}:tok", job);
	return key;
}

static inline struct orc_key orc_key_events(const char *job)
{
	struct orc_key key;

	(void)snprintf(key.text, sizeof(key.text), "trib:{%s}:ev", job);
	return key;
}

static inline struct orc_key orc_key_round(const char *job, uint64_t round)
{
	struct orc_key key;

	(void)snprintf(key.text, sizeof(key.text), "trib:{%s}:r:%llu", job,
		       (unsigned long long)round);
	return key;
}

static inline struct orc_key orc_key_updates(const char *job, uint64_t round)
{
	struct orc_key key;

	(void)snprintf(key.text, sizeof(key.text), "trib:{%s}:r:%llu:upd", job,
		       (unsigned long long)round);
	return key;
}

static inline struct orc_key orc_key_node(const char *node)
{
	struct orc_key key;

	(void)snprintf(key.text, sizeof(key.text), "trib:node:%.96s", node);
	return key;
}

static inline struct orc_key orc_key_idem(const char *name)
{
	struct orc_key key;

	(void)snprintf(key.text, sizeof(key.text), "trib:idem:%.128s", name);
	return key;
}

/* A decimal for a command. */
struct orc_decimal {
	char text[24];
};

static inline struct orc_decimal orc_decimal(uint64_t value)
{
	struct orc_decimal decimal;

	(void)snprintf(decimal.text, sizeof(decimal.text), "%llu", (unsigned long long)value);
	return decimal;
}

static inline struct orc_decimal orc_signed(int64_t value)
{
	struct orc_decimal decimal;

	(void)snprintf(decimal.text, sizeof(decimal.text), "%lld", (long long)value);
	return decimal;
}

static inline uint64_t orc_value_u64(const struct trib_value *value)
{
	long long number = trib_value_integer(value);

	return number < 0 ? 0 : (uint64_t)number;
}

/* Sends `count` terminated words; refuses while down or closing (store_redis.c). */
TRIB_MUST_CHECK int orc_store_words(struct orc_store *store, trib_redis_cb *cb, void *arg,
				    size_t count, const char *const words[]);
/* Calls a function that answers {word, ..} (store_redis.c). */
TRIB_MUST_CHECK int orc_store_function(struct orc_store *store, struct orc_then then, size_t count,
				       const char *const words[]);
/* OK, ERROR (counted, and a missing function starts loading) or DOWN. */
enum orc_word orc_store_word_of(struct orc_store *store, const struct trib_value *value);

#endif
