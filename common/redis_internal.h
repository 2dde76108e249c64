/* SPDX-License-Identifier: Apache-2.0
 * What common/redis.c (calls) and common/redis_link.c (the connection) share, and nobody else.
 */
#ifndef TRIB_COMMON_REDIS_INTERNAL_H
#define TRIB_COMMON_REDIS_INTERNAL_H

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <string.h>
#include <sys/queue.h>

#include "common/redis.h"
#include "common/sentinel.h"

#define BACKOFF_MIN_MS 20
#define HOLD_MS        50
#define PATIENCE_MS    1000 /* without any answer: is there another master? */

struct call {
	TAILQ_ENTRY(call) entry;
	uint64_t number;
	trib_redis_cb *cb;
	void *arg;
	char *text; /* hiredis's */
	size_t size;
	redisReply *reply; /* held or ripe */
};

TAILQ_HEAD(call_list, call);

enum state {
	STATE_DOWN,       /* the timer will connect */
	STATE_ASKING,     /* the Sentinels who the master is */
	STATE_CONNECTING, /* the timer will give up */
	STATE_UP,
	STATE_HELD, /* up; the timer will send again */
};

struct trib_redis {
	struct trib_loop *loop;
	struct trib_timer *timer;   /* meaning: see enum state */
	redisAsyncContext *context; /* NULL when down */
	enum state state;
	bool closing;
	bool to_sentinel;
	uint64_t denied_ms; /* when that was logged last; 0: never */
	bool probing;       /* one call at a time until Redis really answers: keeps the order */
	uint64_t backoff_ms;
	uint64_t up_since_ms;
	char host[TRIB_MASTER_HOST_MAX]; /* or the path of the unix socket */
	int port;                        /* 0: unix */

	struct trib_sentinel *sentinel; /* NULL: the address is fixed */
	struct trib_timer *patience;    /* runs while answers are awaited */
	uint64_t config_epoch;
	uint64_t answers;        /* of Redis, all; to see that it still speaks */
	uint64_t answers_seen;   /* when the patience began */
	bool suspect;            /* it says that it is no master */
	unsigned confirm;        /* replicas that must have a write; 0: nobody is asked */
	bool confirming;         /* WAIT is out: nothing else is sent */
	size_t replicas;         /* connected, as ROLE said last */
	size_t told_replicas;    /* that may be promoted, as Sentinel said last.. */
	size_t known_replicas;   /* ..and the most that ROLE has shown since */
	uint64_t told_ms;        /* when Sentinel last said that this is the master, and well */
	uint64_t asked_ms;       /* about the replicas */
	size_t wanted;           /* by the WAIT that is out */
	uint64_t short_since_ms; /* not all that may be promoted had it since; 0: they had */
	size_t fewer;            /* so many are enough for now.. */
	uint64_t fewer_until_ms; /* ..until then */
	bool *freed;             /* set by trib_redis_free */

	struct call_list waiting;
	struct call_list sent;
	struct call_list again;
	struct call_list held;
	struct call_list ripe;
	size_t sent_count;
	size_t sent_bytes;
	size_t outstanding;
	uint64_t last_number;

	char *channel;
	trib_redis_message_cb *message_cb;
	trib_redis_again_cb *again_cb;
	void *subscribe_arg;
};

/* ---- redis.c ---- */

void redis_calls_write(struct trib_redis *redis);
/* Every call without an answer will be sent again. */
void redis_calls_return(struct trib_redis *redis);
/* Sends what was put off. */
void redis_calls_again(struct trib_redis *redis);

/* ---- redis_link.c ---- */

/* 0, -EINVAL, -ENOMEM */
TRIB_MUST_CHECK int redis_link_new(struct trib_redis *redis, const char *address);
void redis_link_free(struct trib_redis *redis);
/* Breaks the connection; it is made again. */
void redis_link_lose(struct trib_redis *redis);
void redis_link_subscribe(struct trib_redis *redis);
/* Logs, now and then, when `text`, an error of Redis, says that we may not. */
void redis_link_denied(struct trib_redis *redis, const char *text);
static inline void redis_link_answered(struct trib_redis *redis, const struct trib_value *value)
{
	if (trib_value_type(value) == TRIB_VALUE_ERROR) {
		redis_link_denied(redis, trib_value_text(value));
	}
}
bool redis_link_role(struct trib_redis *redis, const struct trib_value *role); /* a master's? */
void *redis_link_take(void *reply); /* the callback's reply: to be freed by freeReplyObject */

static inline bool redis_starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

#endif
