/* SPDX-License-Identifier: Apache-2.0
 * A call lives in exactly one list, each ordered by the call's number:
 *
 *   waiting --write_calls--> sent --reply--> (callback, freed)
 *      ^                       |---LOADING, BUSY, TRYAGAIN---> again --50 ms--> waiting
 *      '------connection lost--'
 *
 * With Sentinels ("confirm") a batch of calls is followed by WAIT, and the next batch by its
 * answer:
 *
 *   sent --reply--> held --enough replicas have it--> ripe --> (callback, freed)
 *                     '---too few, connection lost--> waiting
 *
 * A reply that has been seen is therefore never undone by a fail-over. WAIT covers all that was
 * written before it on any connection, so reads are confirmed as well.
 *
 * hiredis gets the call as private data, but owns nothing of it. When a connection ends hiredis
 * calls back for every command without an answer, with a NULL reply: those are ignored, the calls
 * simply go back to `waiting`. A context of which we let go has data == NULL, so that its last
 * callbacks find nothing to touch. Users are only called from a reply of a living connection and
 * from trib_redis_free; both may free the connection, so nothing is touched after such a call.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <strings.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/redis_internal.h"

/* hiredis moves its whole output buffer after each partial write, so it gets a bounded part. */
#define SENT_CALLS_MAX    4096
#define SENT_BYTES_MAX    (4u << 20)
#define COMMAND_BYTES_MAX (64u << 20)
#define WORDS_MAX         64    /* of trib_redis_send */
#define CONFIRM_TEXT      "500" /* ms that a replica may take.. */
#define SHORT_MS          5000  /* for so long those that are behind are not waited for.. */
#define LAG_MS            3000  /* ..once they have been behind for so long, or are down */
#define STALE_MS          1000  /* what was known is worth nothing so long after that */
#define ASK_AGAIN_MS      250

static const struct trib_value *value_of(const redisReply *reply)
{
	return (const struct trib_value *)reply;
}

/* ---- calls ---- */

static void call_free(struct call *call)
{
	if (call->reply) {
		freeReplyObject(call->reply);
	}
	redisFreeCommand(call->text);
	trib_free(call);
}

/* Moves all of `from` to where the numbers say in `to`. Both are ordered as a rule and `from` goes
 * before `to`, so that this is linear in `from`; it is right in any case. */
static void calls_merge(struct call_list *to, struct call_list *from)
{
	struct call *after = NULL; /* every call of `to` up to this one has a smaller number */
	struct call *call;

	while ((call = TAILQ_FIRST(from)) != NULL) {
		struct call *next;

		TAILQ_REMOVE(from, call, entry);
		if (after && after->number > call->number) {
			after = NULL;
		}
		next = after ? TAILQ_NEXT(after, entry) : TAILQ_FIRST(to);
		while (next && next->number < call->number) {
			next = TAILQ_NEXT(next, entry);
		}
		if (next) {
			TAILQ_INSERT_BEFORE(next, call, entry);
		} else {
			TAILQ_INSERT_TAIL(to, call, entry);
		}
		after = call;
	}
}

static void on_reply(redisAsyncContext *context, void *data, void *private);

static void confirm_calls(struct trib_redis *redis);

/* Bounded by SENT_CALLS_MAX; what is left is written as answers come. */
static void write_batch(struct trib_redis *redis)
{
	struct call *call;

	while ((call = TAILQ_FIRST(&redis->waiting)) != NULL) {
		if (redis->sent_count > 0 &&
		    (redis->probing || redis->sent_count >= SENT_CALLS_MAX ||
		     redis->sent_bytes + call->size > SENT_BYTES_MAX)) {
			return;
		}
		/* Fails when the connection is about to end (it is tried again after that), or
		 * when out of memory: then with the next answer or call. */
		if (redisAsyncFormattedCommand(redis->context, on_reply, call, call->text,
					       call->size) != REDIS_OK) {
			return;
		}
		TAILQ_REMOVE(&redis->waiting, call, entry);
		TAILQ_INSERT_TAIL(&redis->sent, call, entry);
		redis->sent_count++;
		redis->sent_bytes += call->size;
	}
}

void redis_calls_write(struct trib_redis *redis)
{
	if (redis->state != STATE_UP || redis->channel || redis->confirming) {
		return;
	}
	write_batch(redis);
	if (redis->sent_count > 0 && redis->confirm) {
		confirm_calls(redis);
	}
	if (redis->sent_count > 0 && redis->sentinel && redis->answers_seen == UINT64_MAX) {
		redis->answers_seen = redis->answers;
		trib_timer_after(redis->patience, PATIENCE_MS);
	}
}

static bool is_error(const redisReply *reply, const char *const starts[])
{
	for (; reply->type == REDIS_REPLY_ERROR && *starts; starts++) {
		if (redis_starts_with(reply->str, *starts)) {
			return true;
		}
	}
	return false;
}

/* Errors that say "not now": the command was not carried out. */
static bool is_passing(struct trib_redis *redis, const redisReply *reply)
{
	static const char *const busy[] = { "LOADING ", "BUSY ", "TRYAGAIN ",
					    "ERR max number of clients reached", NULL };
	static const char *const few[] = { "NOREPLICAS ", NULL };
	static const char *const replica[] = { "READONLY ", "MASTERDOWN ", NULL };

	if (!redis->sentinel) {
		return is_error(reply, busy);
	}
	if (is_error(reply, replica)) {
		redis->suspect = true;
		return true;
	}
	return is_error(reply, busy) || is_error(reply, few);
}

static void hold(struct trib_redis *redis)
{
	redis->probing = true;
	if (redis->state == STATE_UP) {
		redis->state = STATE_HELD;
		trib_timer_after(redis->timer, HOLD_MS);
	}
}

static void on_reply(redisAsyncContext *context, void *data, void *private)
{
	struct trib_redis *redis = context->data;
	const redisReply *reply = data;
	struct call *call = private;
	trib_redis_cb *cb;
	void *arg;

	if (!redis || !reply) {
		return; /* the connection ends: not an answer */
	}
	redis->answers++;
	TAILQ_REMOVE(&redis->sent, call, entry);
	redis->sent_count--;
	redis->sent_bytes -= call->size;
	redis_link_answered(redis, value_of(reply));
	if (is_passing(redis, reply)) {
		TAILQ_INSERT_TAIL(&redis->again, call, entry);
		hold(redis);
		return;
	}
	if (redis->confirm) {
		call->reply = redis_link_take(data);
		TAILQ_INSERT_TAIL(&redis->held, call, entry);
		return;
	}
	redis->backoff_ms = BACKOFF_MIN_MS;
	redis->probing = !TAILQ_EMPTY(&redis->again);
	redis->outstanding--;
	cb = call->cb;
	arg = call->arg;
	call_free(call);
	redis_calls_write(redis);
	if (cb) {
		cb(value_of(reply), arg);
	}
}

/* ---- confirmation ---- */

/* Calls back, in order; a user may free the connection. */
static void answer_ripe(struct trib_redis *redis)
{
	bool freed = false;
	bool *outer = redis->freed;
	struct call *call;

	redis->freed = &freed;
	while (!freed && (call = TAILQ_FIRST(&redis->ripe)) != NULL) {
		TAILQ_REMOVE(&redis->ripe, call, entry);
		redis->outstanding--;
		if (call->cb) {
			call->cb(value_of(call->reply), call->arg);
		}
		call_free(call);
	}
	if (!freed) {
		redis->freed = outer;
	} else if (outer) {
		*outer = true;
	}
}

static void forget_replies(struct call_list *calls)
{
	struct call *call;

	TAILQ_FOREACH(call, calls, entry) {
		freeReplyObject(call->reply);
		call->reply = NULL;
	}
}

void redis_calls_return(struct trib_redis *redis)
{
	forget_replies(&redis->held);
	calls_merge(&redis->waiting, &redis->held);
	calls_merge(&redis->waiting, &redis->sent);
	calls_merge(&redis->waiting, &redis->again);
	redis->sent_count = 0;
	redis->sent_bytes = 0;
}

void redis_calls_again(struct trib_redis *redis)
{
	calls_merge(&redis->waiting, &redis->again);
	redis_calls_write(redis);
}

/* A replica that lacks it may be promoted this very moment: a master that was frozen does not know
 * that a fail-over goes on, and the replicas left to it confirm what they will lose in a second. So
 * nobody is left out but those whom Sentinel calls down, or who are behind for LAG_MS while this
 * master remains the master, well by what the Sentinels say in turn. */
static bool may_leave_out(struct trib_redis *redis, size_t have)
{
	uint64_t now = trib_clock_ms();
	bool down, late;

	if (now < redis->fewer_until_ms && have >= redis->fewer) {
		return true;
	}
	if (redis->short_since_ms == 0 ||
	    (redis->fewer_until_ms > 0 && now > redis->fewer_until_ms + STALE_MS)) {
		redis->short_since_ms = now;
		redis->fewer_until_ms = 0;
	}
	down = redis->told_ms > redis->short_since_ms && redis->told_replicas <= have;
	late = redis->told_ms >= redis->short_since_ms + LAG_MS;
	if (down || late) {
		redis->fewer = have;
		redis->fewer_until_ms = now + SHORT_MS;
		return true;
	}
	if (now >= redis->asked_ms + ASK_AGAIN_MS) {
		redis->asked_ms = now;
		trib_sentinel_ask_another(redis->sentinel);
	}
	return false;
}

static bool is_confirmed(struct trib_redis *redis, size_t have)
{
	if (have < redis->confirm) {
		return false;
	}
	if (have >= redis->known_replicas) {
		redis->short_since_ms = 0;
		redis->fewer_until_ms = 0;
		return true;
	}
	return may_leave_out(redis, have);
}

static void on_confirmed(redisAsyncContext *context, void *data, void *private)
{
	struct trib_redis *redis = context->data;
	const redisReply *reply = data;

	(void)private;
	if (!redis || !reply) {
		return;
	}
	redis->answers++;
	redis->confirming = false;
	if (reply->type != REDIS_REPLY_INTEGER) {
		redis_link_lose(redis); /* "WAIT cannot be used with replica instances" */
		return;
	}
	if (!is_confirmed(redis, reply->integer > 0 ? (size_t)reply->integer : 0)) {
		log_warn("redis", "not-confirmed host=%s port=%d replicas=%lld wanted=%u of=%zu",
			 redis->host, redis->port, reply->integer, redis->confirm,
			 redis->told_replicas);
		forget_replies(&redis->held);
		calls_merge(&redis->again, &redis->held);
		hold(redis);
		return;
	}
	if (!TAILQ_EMPTY(&redis->held)) {
		redis->backoff_ms = BACKOFF_MIN_MS;
		redis->probing = !TAILQ_EMPTY(&redis->again);
	}
	TAILQ_CONCAT(&redis->ripe, &redis->held, entry);
	redis_calls_write(redis);
	answer_ripe(redis);
}

static void on_role_again(redisAsyncContext *context, void *data, void *private)
{
	struct trib_redis *redis = context->data;

	(void)private;
	if (redis && data && !redis_link_role(redis, data)) {
		redis_link_lose(redis);
	}
}

/* Of all that are connected, since any of them may be promoted. */
static void confirm_calls(struct trib_redis *redis)
{
	size_t wanted = redis->replicas;

	if (trib_clock_ms() < redis->fewer_until_ms && redis->fewer < wanted) {
		wanted = redis->fewer;
	}
	redis->wanted = wanted > redis->confirm ? wanted : redis->confirm;
	redis->confirming = true;
	if (redisAsyncCommand(redis->context, on_role_again, NULL, "ROLE") != REDIS_OK ||
	    redisAsyncCommand(redis->context, on_confirmed, NULL, "WAIT %d " CONFIRM_TEXT,
			      (int)redis->wanted) != REDIS_OK) {
		redis_link_lose(redis); /* out of memory */
	}
}

/* ---- interface ---- */

/* hiredis writes without MSG_NOSIGNAL: a server that dies would take us along. */
static void ignore_broken_pipes(void)
{
	struct sigaction action;

	if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
		action.sa_handler = SIG_IGN;
		(void)sigaction(SIGPIPE, &action, NULL);
	}
}

static int redis_new(struct trib_loop *loop, const char *address, bool to_sentinel,
		     struct trib_redis **ret_redis)
{
	struct trib_redis *redis = trib_alloc(sizeof(*redis));
	int rc;

	if (!redis) {
		return -ENOMEM;
	}
	ignore_broken_pipes();
	redis->loop = loop;
	redis->to_sentinel = to_sentinel;
	redis->probing = true;
	TAILQ_INIT(&redis->waiting);
	TAILQ_INIT(&redis->sent);
	TAILQ_INIT(&redis->again);
	TAILQ_INIT(&redis->held);
	TAILQ_INIT(&redis->ripe);
	rc = redis_link_new(redis, address);
	if (rc) {
		(void)trib_redis_free(redis);
		return rc;
	}
	*ret_redis = redis;
	return 0;
}

int trib_redis_new(struct trib_loop *loop, const char *address, struct trib_redis **ret_redis)
{
	return redis_new(loop, address, false, ret_redis);
}

int trib_redis_new_to_sentinel(struct trib_loop *loop, const char *address,
			       struct trib_redis **ret_redis)
{
	return redis_new(loop, address, true, ret_redis);
}

struct trib_redis *trib_redis_free(struct trib_redis *redis)
{
	struct call *call;

	if (!redis || redis->closing) {
		return NULL;
	}
	redis->closing = true;
	if (redis->freed) {
		*redis->freed = true;
	}
	redis_link_free(redis);
	redis_calls_return(redis);
	calls_merge(&redis->waiting, &redis->ripe);
	while ((call = TAILQ_FIRST(&redis->waiting)) != NULL) {
		TAILQ_REMOVE(&redis->waiting, call, entry);
		redis->outstanding--;
		if (call->cb) {
			call->cb(NULL, call->arg);
		}
		call_free(call);
	}
	trib_free(redis->channel);
	trib_free(redis);
	return NULL;
}

uint64_t trib_redis_config_epoch(const struct trib_redis *redis)
{
	return redis->config_epoch;
}

bool trib_redis_connected(const struct trib_redis *redis)
{
	return redis->state == STATE_UP || redis->state == STATE_HELD;
}

size_t trib_redis_outstanding(const struct trib_redis *redis)
{
	return redis->outstanding;
}

/* Commands after which Redis says more, or less, than one answer. */
static bool changes_protocol(const char *word, size_t size)
{
	static const char *const words[] = { "SUBSCRIBE",   "PSUBSCRIBE",   "SSUBSCRIBE",
					     "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE",
					     "MONITOR",     "QUIT",         "HELLO",
					     "SYNC",        "PSYNC" };

	for (size_t i = 0; i < TRIB_COUNT(words); i++) {
		if (size == strlen(words[i]) && strncasecmp(word, words[i], size) == 0) {
			return true;
		}
	}
	return false;
}

int trib_redis_call(struct trib_redis *redis, trib_redis_cb *cb, void *arg, size_t count,
		    const char *const words[], const size_t sizes[])
{
	struct call *call;
	size_t bytes = 0;
	int size;

	if (redis->closing || redis->channel) {
		return -ESHUTDOWN;
	}
	if (count == 0 || count > INT32_MAX || changes_protocol(words[0], sizes[0])) {
		return -EINVAL;
	}
	if (redis->outstanding >= TRIB_REDIS_CALLS_MAX) {
		return -ENOBUFS;
	}
	for (size_t i = 0; i < count; i++) {
		if (sizes[i] > COMMAND_BYTES_MAX - bytes) {
			return -EMSGSIZE;
		}
		bytes += sizes[i];
	}
	call = trib_alloc(sizeof(*call));
	if (!call) {
		return -ENOMEM;
	}
	/* The prototype lacks a const; it only reads. */
	size = redisFormatCommandArgv(&call->text, (int)count, (const char **)words, sizes);
	if (size < 0) {
		trib_free(call);
		return -ENOMEM;
	}
	call->size = (size_t)size;
	call->cb = cb;
	call->arg = arg;
	call->number = ++redis->last_number;
	TAILQ_INSERT_TAIL(&redis->waiting, call, entry);
	redis->outstanding++;
	redis_calls_write(redis);
	return 0;
}

int trib_redis_send(struct trib_redis *redis, trib_redis_cb *cb, void *arg, ...)
{
	const char *words[WORDS_MAX];
	size_t sizes[WORDS_MAX];
	size_t count = 0;
	const char *word;
	va_list list;

	va_start(list, arg);
	while ((word = va_arg(list, const char *)) != NULL && count < WORDS_MAX) {
		words[count] = word;
		sizes[count] = strlen(word);
		count++;
	}
	va_end(list);
	return word ? -E2BIG : trib_redis_call(redis, cb, arg, count, words, sizes);
}

int trib_redis_subscribe(struct trib_redis *redis, const char *channel, trib_redis_message_cb *cb,
			 trib_redis_again_cb *again, void *arg)
{
	if (redis->closing) {
		return -ESHUTDOWN;
	}
	if (redis->outstanding > 0 || redis->channel) {
		return -EBUSY;
	}
	redis->channel = trib_strdup(channel);
	if (!redis->channel) {
		return -ENOMEM;
	}
	redis->message_cb = cb;
	redis->again_cb = again;
	redis->subscribe_arg = arg;
	if (redis->state == STATE_UP) {
		redis_link_subscribe(redis);
	}
	return 0;
}
