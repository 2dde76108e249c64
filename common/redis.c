/* SPDX-License-Identifier: Apache-2.0
 * A call lives in exactly one of three lists, each ordered by the call's number:
 *
 *   waiting --write_calls--> sent --reply--> (callback, freed)
 *      ^                       |---LOADING, BUSY, TRYAGAIN---> again --50 ms--> waiting
 *      '------connection lost--'
 *
 * hiredis gets the call as private data, but owns nothing of it. When a connection ends hiredis
 * calls back for every command without an answer, with a NULL reply: those are ignored, the calls
 * simply go back to `waiting`. A context of which we let go has data == NULL, so that its last
 * callbacks find nothing to touch. Users are only called from a reply of a living connection and
 * from trib_redis_free; both may free the connection, so nothing is touched after such a call.
 */
#include "common/redis.h"

#include <errno.h>
#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/clock.h"
#include "common/log.h"

#define BACKOFF_MIN_MS 20
#define BACKOFF_MAX_MS 1000
#define STABLE_MS      1000 /* a connection that lived so long starts the back-off anew */
#define CONNECT_MS     3000
#define HOLD_MS        50
#define SILENCE_MS     10000 /* unacknowledged TCP data for so long: the peer is gone */
/* hiredis moves its whole output buffer after each partial write, so it gets a bounded part. */
#define SENT_CALLS_MAX    4096
#define SENT_BYTES_MAX    (4u << 20)
#define COMMAND_BYTES_MAX (64u << 20)
#define WORDS_MAX         64 /* of trib_redis_send */
#define HOST_MAX          256

struct call {
	TAILQ_ENTRY(call) entry;
	uint64_t number;
	trib_redis_cb *cb;
	void *arg;
	char *text; /* hiredis's */
	size_t size;
};

TAILQ_HEAD(call_list, call);

enum state {
	STATE_DOWN,       /* the timer will connect */
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
	bool probing; /* one call at a time until Redis really answers: keeps the order */
	uint64_t backoff_ms;
	uint64_t up_since_ms;
	char host[HOST_MAX]; /* or the path of the unix socket */
	int port;            /* 0: unix */

	struct call_list waiting;
	struct call_list sent;
	struct call_list again;
	size_t sent_count;
	size_t sent_bytes;
	size_t outstanding;
	uint64_t last_number;

	char *channel;
	trib_redis_message_cb *message_cb;
	trib_redis_again_cb *again_cb;
	void *subscribe_arg;
};

/* ---- values: redisReply under another name ---- */

static const redisReply nil_reply = { .type = REDIS_REPLY_NIL };

static const redisReply *reply_of(const struct trib_value *value)
{
	return value ? (const redisReply *)value : &nil_reply;
}

static const struct trib_value *value_of(const redisReply *reply)
{
	return (const struct trib_value *)reply;
}

enum trib_value_type trib_value_type(const struct trib_value *value)
{
	switch (reply_of(value)->type) {
	case REDIS_REPLY_INTEGER:
		return TRIB_VALUE_INTEGER;
	case REDIS_REPLY_STRING:
	case REDIS_REPLY_STATUS:
		return TRIB_VALUE_TEXT;
	case REDIS_REPLY_ARRAY:
		return TRIB_VALUE_ARRAY;
	case REDIS_REPLY_ERROR:
		return TRIB_VALUE_ERROR;
	default:
		return TRIB_VALUE_NIL;
	}
}

long long trib_value_integer(const struct trib_value *value)
{
	const redisReply *reply = reply_of(value);
	long long number;
	char *end;

	if (reply->type == REDIS_REPLY_INTEGER) {
		return reply->integer;
	}
	if (trib_value_type(value) != TRIB_VALUE_TEXT || reply->len == 0 ||
	    (reply->str[0] != '-' && (reply->str[0] < '0' || reply->str[0] > '9')) ||
	    (reply->str[0] == '-' && (reply->str[1] < '0' || reply->str[1] > '9'))) {
		return 0;
	}
	errno = 0;
	number = strtoll(reply->str, &end, 10);
	return errno || end != reply->str + reply->len ? 0 : number;
}

static bool has_text(const struct trib_value *value)
{
	enum trib_value_type type = trib_value_type(value);

	return type == TRIB_VALUE_TEXT || type == TRIB_VALUE_ERROR;
}

const char *trib_value_text(const struct trib_value *value)
{
	return has_text(value) ? reply_of(value)->str : "";
}

size_t trib_value_size(const struct trib_value *value)
{
	return has_text(value) ? reply_of(value)->len : 0;
}

size_t trib_value_count(const struct trib_value *value)
{
	return trib_value_type(value) == TRIB_VALUE_ARRAY ? reply_of(value)->elements : 0;
}

const struct trib_value *trib_value_at(const struct trib_value *value, size_t index)
{
	return value_of(index < trib_value_count(value) ? reply_of(value)->element[index]
							: &nil_reply);
}

const char *trib_value_field(const struct trib_value *value, const char *key, const char *otherwise)
{
	size_t count = trib_value_count(value);
	size_t size = strlen(key);

	for (size_t i = 0; i + 1 < count; i += 2) {
		const struct trib_value *name = trib_value_at(value, i);
		const struct trib_value *text = trib_value_at(value, i + 1);

		if (trib_value_type(name) == TRIB_VALUE_TEXT && trib_value_size(name) == size &&
		    memcmp(trib_value_text(name), key, size) == 0) {
			return trib_value_type(text) == TRIB_VALUE_TEXT ? trib_value_text(text)
									: otherwise;
		}
	}
	return otherwise;
}

/* ---- calls ---- */

static void call_free(struct call *call)
{
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

/* Bounded by SENT_CALLS_MAX; what is left is written as answers come. */
static void write_calls(struct trib_redis *redis)
{
	struct call *call;

	if (redis->state != STATE_UP || redis->channel) {
		return;
	}
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

static bool starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

/* Errors that say "not now": the command was not carried out. */
static bool is_passing(const redisReply *reply)
{
	static const char *const starts[] = { "LOADING ", "BUSY ", "TRYAGAIN ",
					      "ERR max number of clients reached" };

	for (size_t i = 0; i < TRIB_COUNT(starts) && reply->type == REDIS_REPLY_ERROR; i++) {
		if (starts_with(reply->str, starts[i])) {
			return true;
		}
	}
	return false;
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
	TAILQ_REMOVE(&redis->sent, call, entry);
	redis->sent_count--;
	redis->sent_bytes -= call->size;
	if (is_passing(reply)) {
		TAILQ_INSERT_TAIL(&redis->again, call, entry);
		redis->probing = true;
		if (redis->state == STATE_UP) {
			redis->state = STATE_HELD;
			trib_timer_after(redis->timer, HOLD_MS);
		}
		return;
	}
	redis->backoff_ms = BACKOFF_MIN_MS;
	redis->probing = !TAILQ_EMPTY(&redis->again);
	redis->outstanding--;
	cb = call->cb;
	arg = call->arg;
	call_free(call);
	write_calls(redis);
	if (cb) {
		cb(value_of(reply), arg);
	}
}

/* ---- connection ---- */

/* The context is gone or going: whatever it has not answered will be sent again. */
static void go_down(struct trib_redis *redis)
{
	bool was_stable = (redis->state == STATE_UP || redis->state == STATE_HELD) &&
			  trib_clock_ms() - redis->up_since_ms >= STABLE_MS;

	if (was_stable) {
		redis->backoff_ms = BACKOFF_MIN_MS;
	}
	redis->context = NULL;
	redis->state = STATE_DOWN;
	redis->probing = true; /* a server that comes back is LOADING at first */
	calls_merge(&redis->waiting, &redis->sent);
	calls_merge(&redis->waiting, &redis->again);
	redis->sent_count = 0;
	redis->sent_bytes = 0;
	trib_timer_after(redis->timer, redis->backoff_ms);
	redis->backoff_ms *= 2;
	if (redis->backoff_ms > BACKOFF_MAX_MS) {
		redis->backoff_ms = BACKOFF_MAX_MS;
	}
}

/* Lets go of the context; its last callbacks will find data == NULL. hiredis delays the release
 * itself when one of the context's callbacks is running. */
static void drop_context(struct trib_redis *redis)
{
	if (redis->context) {
		redis->context->data = NULL;
		redisAsyncFree(redis->context);
		redis->context = NULL;
	}
}

static void on_message(redisAsyncContext *context, void *data, void *private)
{
	struct trib_redis *redis = context->data;
	const struct trib_value *value = data;
	const char *kind;

	(void)private;
	if (!redis || !value || trib_value_count(value) != 3) {
		return;
	}
	redis->backoff_ms = BACKOFF_MIN_MS;
	kind = trib_value_text(trib_value_at(value, 0));
	if (strcmp(kind, "subscribe") == 0) {
		if (redis->again_cb) {
			redis->again_cb(redis->subscribe_arg);
		}
	} else if (strcmp(kind, "message") == 0) {
		redis->message_cb(trib_value_text(trib_value_at(value, 2)), redis->subscribe_arg);
	}
}

static void write_subscribe(struct trib_redis *redis)
{
	/* Fails when out of memory only: let the connection watch try again. */
	if (redisAsyncCommand(redis->context, on_message, NULL, "SUBSCRIBE %s", redis->channel) !=
	    REDIS_OK) {
		redis->state = STATE_CONNECTING;
		trib_timer_after(redis->timer, HOLD_MS);
	}
}

/* hiredis releases the context itself after a failure, and goes on using it after a success: so
 * it must not be freed in here. */
static void on_connect(const redisAsyncContext *context, int status)
{
	struct trib_redis *redis = context->data;

	if (!redis) {
		return;
	}
	if (status != REDIS_OK) {
		log_debug("redis", "connect-failed host=%s port=%d error=%s", redis->host,
			  redis->port, context->c.errstr);
		go_down(redis);
		return;
	}
	redis->state = STATE_UP;
	redis->up_since_ms = trib_clock_ms();
	trib_timer_stop(redis->timer);
	if (redis->channel) {
		write_subscribe(redis);
	} else {
		write_calls(redis);
	}
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
	struct trib_redis *redis = context->data;

	(void)status;
	if (redis) {
		log_debug("redis", "connection-lost host=%s port=%d error=%s", redis->host,
			  redis->port, context->errstr ? context->errstr : "");
		go_down(redis);
	}
}

/* A peer that vanished without a word must not keep calls for ever. Best effort. */
static void watch_peer(int fd)
{
	int on = 1;
	int idle_s = 10;
	int interval_s = 3;
	int probes = 3;
	int silence_ms = SILENCE_MS;

	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof(silence_ms));
}

static void start_connect(struct trib_redis *redis)
{
	redisAsyncContext *context = redis->port ? redisAsyncConnect(redis->host, redis->port)
						 : redisAsyncConnectUnix(redis->host);

	if (!context || context->err ||
	    redisLibeventAttach(context, trib_loop_base(redis->loop)) != REDIS_OK) {
		if (context) {
			redisAsyncFree(context);
		}
		go_down(redis);
		return;
	}
	if (redis->port) {
		watch_peer(context->c.fd);
	}
	context->data = redis;
	redis->context = context;
	redis->state = STATE_CONNECTING;
	trib_timer_after(redis->timer, CONNECT_MS);
	(void)redisAsyncSetConnectCallback(context, on_connect);
	(void)redisAsyncSetDisconnectCallback(context, on_disconnect);
}

static void on_timer(void *arg)
{
	struct trib_redis *redis = arg;

	switch (redis->state) {
	case STATE_DOWN:
		start_connect(redis);
		break;
	case STATE_CONNECTING:
		drop_context(redis);
		go_down(redis);
		break;
	case STATE_HELD:
		redis->state = STATE_UP;
		calls_merge(&redis->waiting, &redis->again);
		write_calls(redis);
		break;
	case STATE_UP:
		break;
	}
}

/* ---- interface ---- */

static int parse_address(struct trib_redis *redis, const char *address)
{
	const char *colon = strrchr(address, ':');
	uint64_t port;
	size_t size;

	if (starts_with(address, "unix:")) {
		const char *path = address + strlen("unix:");

		if (!*path || strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
			return -EINVAL;
		}
		return trib_copy(redis->host, sizeof(redis->host), path);
	}
	if (!colon || trib_parse_u64(colon + 1, strlen(colon + 1), 1, 65535, &port)) {
		return -EINVAL;
	}
	size = (size_t)(colon - address);
	if (size >= 2 && address[0] == '[' && address[size - 1] == ']') { /* [::1]:6379 */
		address++;
		size -= 2;
	}
	if (size == 0 || size >= sizeof(redis->host)) {
		return -EINVAL;
	}
	memcpy(redis->host, address, size);
	redis->host[size] = '\0';
	redis->port = (int)port;
	return 0;
}

int trib_redis_check(const char *address)
{
	struct trib_redis *redis = trib_alloc(sizeof(*redis));
	int rc = redis ? parse_address(redis, address) : -ENOMEM;

	trib_free(redis);
	return rc;
}

/* hiredis writes without MSG_NOSIGNAL: a server that dies would take us along. */
static void ignore_broken_pipes(void)
{
	struct sigaction action;

	if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
		action.sa_handler = SIG_IGN;
		(void)sigaction(SIGPIPE, &action, NULL);
	}
}

int trib_redis_new(struct trib_loop *loop, const char *address, struct trib_redis **ret_redis)
{
	struct trib_redis *redis = trib_alloc(sizeof(*redis));
	int rc;

	if (!redis) {
		return -ENOMEM;
	}
	ignore_broken_pipes();
	redis->loop = loop;
	redis->probing = true;
	redis->backoff_ms = BACKOFF_MIN_MS;
	TAILQ_INIT(&redis->waiting);
	TAILQ_INIT(&redis->sent);
	TAILQ_INIT(&redis->again);
	rc = parse_address(redis, address);
	if (!rc) {
		rc = trib_timer_new(loop, on_timer, redis, &redis->timer);
	}
	if (rc) {
		(void)trib_redis_free(redis);
		return rc;
	}
	start_connect(redis);
	*ret_redis = redis;
	return 0;
}

struct trib_redis *trib_redis_free(struct trib_redis *redis)
{
	struct call *call;

	if (!redis || redis->closing) {
		return NULL;
	}
	redis->closing = true;
	drop_context(redis);
	redis->timer = trib_timer_free(redis->timer);
	redis->state = STATE_DOWN;
	calls_merge(&redis->waiting, &redis->sent);
	calls_merge(&redis->waiting, &redis->again);
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
	write_calls(redis);
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
		write_subscribe(redis);
	}
	return 0;
}
