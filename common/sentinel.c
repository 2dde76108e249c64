/* SPDX-License-Identifier: Apache-2.0 */
#include "common/sentinel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/redis.h"

#define SENTINELS_MAX 9
#define MASTER_NAME   65 /* of a master, with its end */
#define ASK_MS        500
#define CONFIRM_MAX   16

struct trib_sentinel {
	struct trib_loop *loop;
	trib_sentinel_answer_cb *answer;
	trib_sentinel_hint_cb *hint;
	void *arg;
	char addresses[SENTINELS_MAX][TRIB_MASTER_HOST_MAX + 8];
	unsigned count;
	unsigned current; /* the one that is asked, or knew last */
	unsigned watched; /* the one `watch` is connected to */
	unsigned tried;   /* in this asking */
	unsigned confirm;
	char name[MASTER_NAME];
	struct trib_master found;
	bool has_address;
	bool asking;
	struct trib_timer *limit; /* ends an attempt; never runs while not asking */
	struct trib_redis *query; /* NULL while not asking */
	struct trib_redis *watch;
};

static void attempt(struct trib_sentinel *sentinel);

/* ---- answers ---- */

static void on_switch(const char *message, void *arg)
{
	struct trib_sentinel *sentinel = arg;
	size_t size = strlen(sentinel->name);

	if (strncmp(message, sentinel->name, size) == 0 && message[size] == ' ') {
		sentinel->hint(sentinel->arg);
	}
}

static void on_listening(void *arg)
{
	struct trib_sentinel *sentinel = arg;

	sentinel->hint(sentinel->arg); /* something may have been missed */
}

/* Listens to the Sentinel that answered. Best effort: without it a fail-over is noticed by calls
 * that stay without an answer. */
static void listen_to(struct trib_sentinel *sentinel)
{
	if (sentinel->watch &&
	    (sentinel->watched == sentinel->current || trib_redis_connected(sentinel->watch))) {
		return;
	}
	sentinel->watch = trib_redis_free(sentinel->watch);
	sentinel->watched = sentinel->current;
	if (trib_redis_new_to_sentinel(sentinel->loop, sentinel->addresses[sentinel->current],
				       &sentinel->watch) ||
	    trib_redis_subscribe(sentinel->watch, "+switch-master", on_switch, on_listening,
				 sentinel)) {
		sentinel->watch = trib_redis_free(sentinel->watch);
	}
}

static void finish(struct trib_sentinel *sentinel, bool found)
{
	struct trib_master master = sentinel->found;

	sentinel->asking = false;
	trib_timer_stop(sentinel->limit);
	sentinel->query = trib_redis_free(sentinel->query);
	if (found) {
		listen_to(sentinel);
	}
	sentinel->answer(found ? &master : NULL, sentinel->arg);
}

/* This one is down, does not know the master or talks nonsense. */
static void try_next(struct trib_sentinel *sentinel)
{
	sentinel->query = trib_redis_free(sentinel->query);
	sentinel->current = (sentinel->current + 1) % sentinel->count;
	if (++sentinel->tried >= sentinel->count) {
		finish(sentinel, false);
		return;
	}
	attempt(sentinel);
}

static void on_limit(void *arg)
{
	try_next(arg);
}

static bool take_address(struct trib_sentinel *sentinel, const struct trib_value *value)
{
	const struct trib_value *host = trib_value_at(value, 0);
	const struct trib_value *port = trib_value_at(value, 1);
	const char *text = trib_value_text(host);
	uint64_t number;

	if (trib_value_count(value) != 2 || trib_value_type(host) != TRIB_VALUE_TEXT ||
	    trib_value_size(host) == 0 || strlen(text) != trib_value_size(host) ||
	    strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:_-") !=
		    trib_value_size(host) ||
	    trib_parse_u64(trib_value_text(port), trib_value_size(port), 1, 65535, &number) ||
	    trib_copy(sentinel->found.host, sizeof(sentinel->found.host), text)) {
		return false;
	}
	sentinel->found.port = (int)number;
	return true;
}

/* A link that is cut says little: a promotion cuts all links to the one that is promoted. */
static size_t count_promotable(const struct trib_value *replicas)
{
	size_t count = 0;

	for (size_t i = 0; i < trib_value_count(replicas); i++) {
		const struct trib_value *replica = trib_value_at(replicas, i);

		count += !strstr(trib_value_field(replica, "flags", ""), "_down") &&
			 strcmp(trib_value_field(replica, "slave-priority", ""), "0") != 0;
	}
	return count;
}

/* Freed inside its own callback a connection answers NULL to the rest, which is not heard. */
static void on_address(const struct trib_value *value, void *arg)
{
	struct trib_sentinel *sentinel = arg;

	if (!value) {
		return;
	}
	sentinel->has_address = take_address(sentinel, value);
	if (!sentinel->has_address) {
		log_debug("sentinel", "not-known master=%s sentinel=%s", sentinel->name,
			  sentinel->addresses[sentinel->current]);
		try_next(sentinel);
	}
}

static void on_record(const struct trib_value *value, void *arg)
{
	struct trib_sentinel *sentinel = arg;
	const char *epoch, *flags;

	if (!value) {
		return;
	}
	epoch = trib_value_field(value, "config-epoch", "");
	/* Times 1e9 it must stay exact in a double. */
	if (!sentinel->has_address ||
	    trib_parse_u64(epoch, strlen(epoch), 0, 9000000, &sentinel->found.config_epoch)) {
		try_next(sentinel);
		return;
	}
	flags = trib_value_field(value, "flags", "");
	sentinel->found.steady = !strstr(flags, "_down") && !strstr(flags, "failover");
}

static void on_replicas(const struct trib_value *value, void *arg)
{
	struct trib_sentinel *sentinel = arg;

	if (!value) {
		return;
	}
	if (trib_value_type(value) != TRIB_VALUE_ARRAY) {
		try_next(sentinel);
		return;
	}
	sentinel->found.replicas = count_promotable(value);
	finish(sentinel, true);
}

static void attempt(struct trib_sentinel *sentinel)
{
	sentinel->has_address = false;
	trib_timer_after(sentinel->limit, ASK_MS);
	/* The address first: the epoch that is read after it is not older than it. */
	if (trib_redis_new_to_sentinel(sentinel->loop, sentinel->addresses[sentinel->current],
				       &sentinel->query) ||
	    trib_redis_send(sentinel->query, on_address, sentinel, "SENTINEL",
			    "get-master-addr-by-name", sentinel->name, NULL) ||
	    trib_redis_send(sentinel->query, on_record, sentinel, "SENTINEL", "MASTER",
			    sentinel->name, NULL) ||
	    trib_redis_send(sentinel->query, on_replicas, sentinel, "SENTINEL", "REPLICAS",
			    sentinel->name, NULL)) {
		log_warn(
			"sentinel", "not-asked sentinel=%s",
			sentinel->addresses[sentinel->current]); /* the limit goes on to the next */
	}
}

void trib_sentinel_ask(struct trib_sentinel *sentinel)
{
	if (!sentinel->asking) {
		sentinel->asking = true;
		sentinel->tried = 0;
		attempt(sentinel);
	}
}

void trib_sentinel_ask_another(struct trib_sentinel *sentinel)
{
	if (!sentinel->asking) {
		sentinel->current = (sentinel->current + 1) % sentinel->count;
		trib_sentinel_ask(sentinel);
	}
}

unsigned trib_sentinel_confirm(const struct trib_sentinel *sentinel)
{
	return sentinel->confirm;
}

/* ---- the address ---- */

static int parse_options(struct trib_sentinel *sentinel, const char *text)
{
	static const char confirm[] = "confirm=";
	uint64_t number;

	if (strncmp(text, confirm, strlen(confirm)) != 0 ||
	    trib_parse_u64(text + strlen(confirm), strlen(text) - strlen(confirm), 0, CONFIRM_MAX,
			   &number)) {
		return -EINVAL;
	}
	sentinel->confirm = (unsigned)number;
	return 0;
}

static int parse_name(struct trib_sentinel *sentinel, const char *text)
{
	size_t size = strcspn(text, "?");

	if (size == 0 || size >= sizeof(sentinel->name) ||
	    strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
		    size) {
		return -EINVAL;
	}
	memcpy(sentinel->name, text, size);
	sentinel->name[size] = '\0';
	return text[size] ? parse_options(sentinel, text + size + 1) : 0;
}

/* Whether HOST:PORT is one is left to trib_redis_new, which is asked in trib_sentinel_new. */
static int parse(struct trib_sentinel *sentinel, const char *address)
{
	const char *at = address + strlen(TRIB_SENTINEL_SCHEME);
	const char *slash = strchr(at, '/');

	if (strncmp(address, TRIB_SENTINEL_SCHEME, strlen(TRIB_SENTINEL_SCHEME)) != 0 || !slash) {
		return -EINVAL;
	}
	while (at < slash) {
		size_t size = strcspn(at, ",/");

		if (sentinel->count == SENTINELS_MAX || size == 0 ||
		    size >= sizeof(sentinel->addresses[0])) {
			return -EINVAL;
		}
		memcpy(sentinel->addresses[sentinel->count++], at, size);
		at += size;
		if (*at == ',' && at[1] == '/') {
			return -EINVAL;
		}
		at += *at == ',';
	}
	return sentinel->count ? parse_name(sentinel, slash + 1) : -EINVAL;
}

static int check_addresses(struct trib_sentinel *sentinel)
{
	int rc = 0;

	for (unsigned i = 0; i < sentinel->count && !rc; i++) {
		struct trib_redis *redis = NULL;

		if (strncmp(sentinel->addresses[i], "unix:", 5) == 0 ||
		    strncmp(sentinel->addresses[i], "sentinel:", 9) == 0) {
			return -EINVAL;
		}
		rc = trib_redis_new_to_sentinel(sentinel->loop, sentinel->addresses[i], &redis);
		redis = rc ? NULL : trib_redis_free(redis);
	}
	return rc;
}

int trib_sentinel_check(const char *address)
{
	struct trib_sentinel *sentinel = trib_alloc(sizeof(*sentinel));
	int rc = sentinel ? parse(sentinel, address) : -ENOMEM;

	for (uint32_t i = 0; rc == 0 && i < sentinel->count; i++) {
		rc = trib_redis_check(sentinel->addresses[i]);
	}
	trib_free(sentinel);
	return rc;
}

int trib_sentinel_new(struct trib_loop *loop, const char *address, trib_sentinel_answer_cb *answer,
		      trib_sentinel_hint_cb *hint, void *arg, struct trib_sentinel **ret_sentinel)
{
	struct trib_sentinel *sentinel = trib_alloc(sizeof(*sentinel));
	int rc;

	if (!sentinel) {
		return -ENOMEM;
	}
	sentinel->loop = loop;
	sentinel->answer = answer;
	sentinel->hint = hint;
	sentinel->arg = arg;
	sentinel->confirm = 1;
	rc = parse(sentinel, address);
	if (!rc) {
		rc = check_addresses(sentinel);
	}
	if (!rc) {
		rc = trib_timer_new(loop, on_limit, sentinel, &sentinel->limit);
	}
	if (rc) {
		(void)trib_sentinel_free(sentinel);
		return rc;
	}
	*ret_sentinel = sentinel;
	return 0;
}

struct trib_sentinel *trib_sentinel_free(struct trib_sentinel *sentinel)
{
	if (sentinel) {
		sentinel->query = trib_redis_free(sentinel->query);
		sentinel->watch = trib_redis_free(sentinel->watch);
		sentinel->limit = trib_timer_free(sentinel->limit);
		trib_free(sentinel);
	}
	return NULL;
}
