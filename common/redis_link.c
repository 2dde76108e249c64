/* SPDX-License-Identifier: Apache-2.0
 * The connection of a trib_redis: made, lost, made again, and with Sentinels to whom.
 *
 *   DOWN --> (ASKING, a Sentinel) --> CONNECTING --> (ROLE, a master's) --> UP
 */
#include <errno.h>
#include <hiredis/adapters/libevent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/redis_internal.h"
#include "common/redis_login.h"

#define BACKOFF_MAX_MS 1000
#define STABLE_MS      1000 /* a connection that lived so long starts the back-off anew */
#define CONNECT_MS     3000
#define DENIED_MS      10000 /* how often that is logged */
#define SILENCE_MS     10000 /* unacknowledged TCP data for so long: the peer is gone */

/* hiredis frees a reply after its callback, unless the callback took it. */
static _Thread_local void *taken_reply;
static _Thread_local redisReplyObjectFunctions reply_functions;

static void free_unless_taken(void *reply)
{
	if (reply == taken_reply) {
		taken_reply = NULL;
	} else {
		freeReplyObject(reply);
	}
}

void *redis_link_take(void *reply)
{
	taken_reply = reply;
	return reply;
}

static void make_replies_takable(redisAsyncContext *context)
{
	reply_functions = *context->c.reader->fn;
	reply_functions.freeObject = free_unless_taken;
	context->c.reader->fn = &reply_functions;
}

bool redis_link_role(struct trib_redis *redis, const struct trib_value *value)
{
	if (strcmp(trib_value_text(trib_value_at(value, 0)), "master") != 0) {
		return false;
	}
	redis->replicas = trib_value_count(trib_value_at(value, 2));
	if (redis->known_replicas < redis->replicas) {
		redis->known_replicas = redis->replicas;
	}
	return true;
}

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
	redis->suspect = false;
	redis->confirming = false;
	redis->answers_seen = UINT64_MAX;
	if (redis->patience) {
		trib_timer_stop(redis->patience);
	}
	redis_calls_return(redis);
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

void redis_link_lose(struct trib_redis *redis)
{
	drop_context(redis);
	go_down(redis);
}

static void on_message(redisAsyncContext *context, void *data, void *private)
{
	struct trib_redis *redis = context->data;
	const struct trib_value *value = data;
	const char *kind;

	(void)private;
	if (!redis || !value || trib_value_count(value) != 3) {
		return; /* an error of Redis ends the connection (on_disconnect) */
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

void redis_link_subscribe(struct trib_redis *redis)
{
	/* Fails when out of memory only: let the connection watch try again. */
	if (redisAsyncCommand(redis->context, on_message, NULL, "SUBSCRIBE %s", redis->channel) !=
	    REDIS_OK) {
		redis->state = STATE_CONNECTING;
		trib_timer_after(redis->timer, HOLD_MS);
	}
}

static void come_up(struct trib_redis *redis)
{
	redis->state = STATE_UP;
	redis->up_since_ms = trib_clock_ms();
	trib_timer_stop(redis->timer);
	if (redis->channel) {
		redis_link_subscribe(redis);
	} else {
		redis_calls_write(redis);
	}
}

/* ---- login ---- */

void redis_link_denied(struct trib_redis *redis, const char *text)
{
	bool password;
	const char *user;
	uint64_t now;

	if (!redis_starts_with(text, "NOAUTH") && !redis_starts_with(text, "NOPERM") &&
	    !redis_starts_with(text, "WRONGPASS") && !redis_starts_with(text, "ERR AUTH")) {
		return;
	}
	now = trib_clock_ms();
	if (redis->denied_ms && now - redis->denied_ms < DENIED_MS) {
		return;
	}
	redis->denied_ms = now;
	password = trib_redis_login_of(redis->to_sentinel, &user) != NULL;
	log_err("redis", "denied host=%s port=%d user=%s password=%s error=\"%.160s\" hint=--%s",
		redis->host, redis->port, user ? user : "default", password ? "given" : "none",
		text, redis->to_sentinel ? "sentinel-password-file" : "redis-password-file");
}

static void greet(struct trib_redis *redis);

static void on_login(redisAsyncContext *context, void *data, void *private)
{
	struct trib_redis *redis = context->data;

	(void)private;
	if (!redis || !data) {
		return;
	}
	if (trib_value_type(data) == TRIB_VALUE_ERROR) {
		redis_link_answered(redis, data);
		redis->backoff_ms = BACKOFF_MAX_MS;
		redis_link_lose(redis);
		return;
	}
	greet(redis);
}

static int log_in(struct trib_redis *redis)
{
	const char *user;
	const char *password = trib_redis_login_of(redis->to_sentinel, &user);

	if (!password) {
		greet(redis);
		return REDIS_OK;
	}
	return user ? redisAsyncCommand(redis->context, on_login, NULL, "AUTH %s %s", user,
					password)
		    : redisAsyncCommand(redis->context, on_login, NULL, "AUTH %s", password);
}

/* What a Sentinel calls the master may have ceased to be one. */
static void on_role(redisAsyncContext *context, void *data, void *private)
{
	struct trib_redis *redis = context->data;

	(void)private;
	if (!redis || !data) {
		return;
	}
	redis_link_answered(redis, data);
	if (!redis_link_role(redis, data)) {
		log_debug("redis", "no-master host=%s port=%d", redis->host, redis->port);
		redis_link_lose(redis);
		return;
	}
	log_info("redis", "master host=%s port=%d config-epoch=%llu replicas=%zu", redis->host,
		 redis->port, (unsigned long long)redis->config_epoch, redis->replicas);
	come_up(redis);
}

/* Logged in, where that is wanted. */
static void greet(struct trib_redis *redis)
{
	if (!redis->sentinel) {
		come_up(redis);
	} else if (redisAsyncCommand(redis->context, on_role, NULL, "ROLE") != REDIS_OK) {
		trib_timer_after(redis->timer, 0); /* out of memory: gives up */
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
	if (log_in(redis) != REDIS_OK) {
		trib_timer_after(redis->timer, 0); /* out of memory: gives up */
	}
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
	struct trib_redis *redis = context->data;

	(void)status;
	if (redis) {
		log_debug("redis", "connection-lost host=%s port=%d error=%s", redis->host,
			  redis->port, context->errstr ? context->errstr : "");
		redis_link_denied(redis, context->errstr ? context->errstr : "");
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
	make_replies_takable(context);
	context->data = redis;
	redis->context = context;
	redis->state = STATE_CONNECTING;
	trib_timer_after(redis->timer, CONNECT_MS);
	(void)redisAsyncSetConnectCallback(context, on_connect);
	(void)redisAsyncSetDisconnectCallback(context, on_disconnect);
}

static void start(struct trib_redis *redis)
{
	if (redis->sentinel) {
		redis->state = STATE_ASKING;
		trib_sentinel_ask(redis->sentinel);
	} else {
		start_connect(redis);
	}
}

static void on_master(const struct trib_master *master, void *arg)
{
	struct trib_redis *redis = arg;
	bool other =
		master && (master->port != redis->port || strcmp(master->host, redis->host) != 0);

	if (redis->state == STATE_ASKING && !master) {
		go_down(redis);
		return;
	}
	if (master) {
		redis->told_replicas = master->replicas;
		redis->known_replicas = master->replicas;
		redis->told_ms = master->steady ? trib_clock_ms() : redis->told_ms;
		if (!master->steady && redis->short_since_ms > 0) {
			redis->short_since_ms = trib_clock_ms();
		}
	}
	if (!master || (redis->state != STATE_ASKING && !other)) {
		return; /* none, or none other, is known: what is there goes on */
	}
	if (other) {
		redis->short_since_ms = 0;
		redis->fewer_until_ms = 0;
	}
	if (redis->state != STATE_ASKING) {
		log_info("redis", "master-changed from=%s:%d to=%s:%d", redis->host, redis->port,
			 master->host, master->port);
		redis_link_lose(redis);
		redis->backoff_ms = BACKOFF_MIN_MS;
	}
	(void)snprintf(redis->host, sizeof(redis->host), "%s", master->host);
	redis->port = master->port;
	redis->config_epoch = master->config_epoch;
	start_connect(redis);
}

static void on_hint(void *arg)
{
	struct trib_redis *redis = arg;

	if (redis->state != STATE_ASKING) {
		trib_sentinel_ask(redis->sentinel);
	}
}

/* A master that stands still breaks no connection. */
static void on_patience(void *arg)
{
	struct trib_redis *redis = arg;
	bool awaited = redis->sent_count > 0 || redis->confirming;

	if (awaited && redis->answers == redis->answers_seen) {
		trib_sentinel_ask(redis->sentinel);
	}
	redis->answers_seen = awaited ? redis->answers : UINT64_MAX;
	if (awaited) {
		trib_timer_after(redis->patience, PATIENCE_MS);
	}
}

static void on_timer(void *arg)
{
	struct trib_redis *redis = arg;

	switch (redis->state) {
	case STATE_DOWN:
		start(redis);
		break;
	case STATE_ASKING: /* its answer will come */
		break;
	case STATE_CONNECTING:
		redis_link_lose(redis);
		break;
	case STATE_HELD:
		if (redis->suspect) {
			redis_link_lose(redis);
			break;
		}
		redis->state = STATE_UP;
		redis_calls_again(redis);
		break;
	case STATE_UP:
		break;
	}
}

static int parse_address(struct trib_redis *redis, const char *address)
{
	const char *colon = strrchr(address, ':');
	uint64_t port;
	size_t size;

	if (redis_starts_with(address, "unix:")) {
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

/* ---- life ---- */

static int use_sentinels(struct trib_redis *redis, const char *address)
{
	int rc = trib_sentinel_new(redis->loop, address, on_master, on_hint, redis,
				   &redis->sentinel);

	if (!rc) {
		redis->confirm = trib_sentinel_confirm(redis->sentinel);
		rc = trib_timer_new(redis->loop, on_patience, redis, &redis->patience);
	}
	return rc;
}

int trib_redis_check(const char *address)
{
	struct trib_redis *redis;
	int rc;

	if (redis_starts_with(address, TRIB_SENTINEL_SCHEME)) {
		return trib_sentinel_check(address);
	}
	redis = trib_alloc(sizeof(*redis));
	rc = redis ? parse_address(redis, address) : -ENOMEM;
	trib_free(redis);
	return rc;
}

int redis_link_new(struct trib_redis *redis, const char *address)
{
	int rc = redis_starts_with(address, TRIB_SENTINEL_SCHEME) ? use_sentinels(redis, address)
								  : parse_address(redis, address);

	redis->backoff_ms = BACKOFF_MIN_MS;
	redis->answers_seen = UINT64_MAX;
	if (!rc) {
		rc = trib_timer_new(redis->loop, on_timer, redis, &redis->timer);
	}
	if (!rc) {
		start(redis);
	}
	return rc;
}

void redis_link_free(struct trib_redis *redis)
{
	drop_context(redis);
	redis->sentinel = trib_sentinel_free(redis->sentinel);
	redis->timer = trib_timer_free(redis->timer);
	redis->patience = trib_timer_free(redis->patience);
	redis->state = STATE_DOWN;
}
