/* SPDX-License-Identifier: Apache-2.0
 * The only door to hiredis (0.14, RESP2, asynchronous, on a trib_loop).
 *
 * A connection that breaks is made again with back-off (20 ms .. 1 s) and every call still without
 * an answer is sent again, in order: so only idempotent commands may be sent (every function of
 * orchestrator/functions/ is). Nothing is ever answered that Redis has not said, but by
 * trib_redis_free, which answers NULL to what is outstanding.
 */
#ifndef TRIB_COMMON_REDIS_H
#define TRIB_COMMON_REDIS_H

#include "common/loop.h"

#define TRIB_REDIS_CALLS_MAX 65536

struct trib_redis;
struct trib_value; /* one reply, borrowed until the callback returns */

enum trib_value_type {
	TRIB_VALUE_NIL,
	TRIB_VALUE_INTEGER,
	TRIB_VALUE_TEXT, /* bulk or status */
	TRIB_VALUE_ARRAY,
	TRIB_VALUE_ERROR,
};

enum trib_value_type trib_value_type(const struct trib_value *value);
long long
trib_value_integer(const struct trib_value *value); /* of INTEGER or decimal TEXT, else 0 */
/* Terminated text of TEXT or ERROR, else "". Element i of an ARRAY, or a NIL value. */
const char *trib_value_text(const struct trib_value *value);
size_t trib_value_size(const struct trib_value *value);
size_t trib_value_count(const struct trib_value *value);
const struct trib_value *trib_value_at(const struct trib_value *value, size_t index);
/* HGETALL shape [k,v,k,v..]: the text of field `key`, or `otherwise`. */
const char *trib_value_field(const struct trib_value *value, const char *key,
			     const char *otherwise);

/* `value` is NULL when the connection was freed before an answer came. */
typedef void trib_redis_cb(const struct trib_value *value, void *arg);

/* address: "unix:/path", "host:port" or "sentinel://.." (common/sentinel.h). Through Sentinels the
 * master is found and found again after each fail-over, and an answer is given once `confirm`
 * replicas have all that was written before it. Connects in the background (but a host NAME is
 * looked up blocking, at each connect: give an IP address where a loop must not wait). Logs in as
 * common/redis_login.h was told; a login that is refused is logged and tried again. Sets SIGPIPE
 * to be ignored if it is at its default: hiredis writes without MSG_NOSIGNAL. 0, -EINVAL, -ENOMEM.
 */
TRIB_MUST_CHECK int trib_redis_new(struct trib_loop *loop, const char *address,
				   struct trib_redis **ret_redis);
/* The same to a Sentinel: logs in as Sentinels want it (common/redis_login.h). */
TRIB_MUST_CHECK int trib_redis_new_to_sentinel(struct trib_loop *loop, const char *address,
					       struct trib_redis **ret_redis);
struct trib_redis *trib_redis_free(struct trib_redis *redis);
/* Sentinel's, of the master that is connected or was last; 0 without Sentinels. */
uint64_t trib_redis_config_epoch(const struct trib_redis *redis);
/* Is it such an address? Connects to nothing, looks nothing up. 0, -EINVAL, -ENOMEM. */
TRIB_MUST_CHECK int trib_redis_check(const char *address);
bool trib_redis_connected(const struct trib_redis *redis);
size_t trib_redis_outstanding(const struct trib_redis *redis);

/* Arguments are copied. cb may be NULL. 0, -ENOBUFS (too many outstanding) or -ENOMEM; misuse:
 * -EINVAL (no words, or a command with more or less than one answer), -E2BIG (> 64 words to send),
 * -EMSGSIZE (> 64 MiB), -ESHUTDOWN (a subscriber, or being freed). */
TRIB_MUST_CHECK int trib_redis_call(struct trib_redis *redis, trib_redis_cb *cb, void *arg,
				    size_t count, const char *const words[], const size_t sizes[]);
/* The same for terminated words, ended by NULL:
 * trib_redis_send(r, cb, arg, "FCALL", "trib_reserve", "1", key, client, NULL). */
TRIB_MUST_CHECK int trib_redis_send(struct trib_redis *redis, trib_redis_cb *cb, void *arg, ...)
	__attribute__((sentinel));

typedef void trib_redis_message_cb(const char *message, void *arg);
typedef void trib_redis_again_cb(void *arg);
/* Turns the connection into a subscriber (no calls any more); subscribes again after a
 * reconnect, then calls `again` since messages may have been missed (also the first time).
 * 0, -ENOMEM, -EBUSY (calls outstanding, or a subscriber already) or -ESHUTDOWN. */
TRIB_MUST_CHECK int trib_redis_subscribe(struct trib_redis *redis, const char *channel,
					 trib_redis_message_cb *cb, trib_redis_again_cb *again,
					 void *arg);

#endif
