/* SPDX-License-Identifier: Apache-2.0
 * Against a real redis-server on a unix socket, started and killed by the tests. What a real one
 * does not do on demand is in common_redis_peer.c.
 */
#include "common/redis.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/redis_answers.h"

static char folder[64];
static char socket_path[96];
static char address[112];
static char server_program[256];
static pid_t server_pid;

/* ---- the real server ---- */

static void server_start(void)
{
	server_pid = fork();
	assert_true(server_pid >= 0);
	if (server_pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)execl(server_program, "redis-server", "--port", "0", "--unixsocket",
			    socket_path, "--save", "", "--appendonly", "no", "--dir", folder,
			    "--logfile", "redis.log", "--busy-reply-threshold", "30",
			    "--enable-debug-command", "yes", (char *)NULL);
		_exit(127);
	}
}

static void server_kill(void)
{
	if (server_pid > 0) {
		assert_int_equal(kill(server_pid, SIGKILL), 0);
		assert_int_equal(waitpid(server_pid, NULL, 0), server_pid);
		server_pid = 0;
	}
}

static bool find_server(void)
{
	const char *path = getenv("PATH");

	while (path && *path) {
		size_t size = strcspn(path, ":");

		(void)snprintf(server_program, sizeof(server_program), "%.*s/redis-server",
			       (int)size, path);
		if (access(server_program, X_OK) == 0) {
			return true;
		}
		path += size + (path[size] == ':');
	}
	return false;
}

static int teardown(void **state)
{
	(void)loop_teardown(state);
	if (server_pid == 0) {
		server_start();
	}
	return 0;
}

static void bad_addresses_are_refused(void **state)
{
	static const char *const bad[] = { "",
					   "unix:",
					   "localhost",
					   "localhost:",
					   ":6379",
					   "h:0",
					   "h:65536",
					   "h:6379x",
					   "h:-1",
					   "[]:6379",
					   "h: 1",
					   "unix:/a/path/that/is/longer/than/what/sockaddr_un/can/"
					   "hold/so/that/it/must/be/refused/at/once/and/not/later/"
					   "when/it/would/be/cut/short/"
					   "on" };
	struct trib_redis *redis = NULL;

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(bad); i++) {
		if (trib_redis_new(loop, bad[i], &redis) != -EINVAL) {
			fail_msg("\"%s\" was taken", bad[i]);
		}
		assert_null(redis);
	}
	assert_null(trib_redis_free(NULL));
}

/* ---- values ---- */

static void send_and_wait(struct trib_redis *redis, const char *a, const char *b, const char *c,
			  const char *d)
{
	size_t goal = got.count + 1;

	assert_int_equal(trib_redis_send(redis, on_answer, NULL, a, b, c, d, NULL), 0);
	assert_true(run(&got.count, goal, 10000));
}

static void simple_values_are_read(void **state)
{
	struct trib_redis *redis = connection(address);

	(void)state;
	send_and_wait(redis, "FLUSHALL", NULL, NULL, NULL);
	assert_int_equal(got.type, TRIB_VALUE_TEXT); /* a status */
	assert_string_equal(got.text, "OK");
	assert_true(trib_redis_connected(redis));
	send_and_wait(redis, "GET", "k", NULL, NULL);
	assert_int_equal(got.type, TRIB_VALUE_NIL);
	assert_string_equal(got.text, "");
	send_and_wait(redis, "SET", "k", "-42", NULL);
	send_and_wait(redis, "GET", "k", NULL, NULL);
	assert_int_equal(got.type, TRIB_VALUE_TEXT);
	assert_int_equal(got.integer, -42);
	assert_int_equal(got.size, 3);
	send_and_wait(redis, "INCR", "k", NULL, NULL);
	assert_int_equal(got.type, TRIB_VALUE_INTEGER);
	assert_int_equal(got.integer, -41);
	send_and_wait(redis, "LPUSH", "k", "x", NULL);
	assert_int_equal(got.type, TRIB_VALUE_ERROR);
	assert_non_null(strstr(got.text, "WRONGTYPE"));
	assert_int_equal(got.integer, 0);
	send_and_wait(redis, "FCALL", "no_such", "0", NULL);
	assert_int_equal(got.type, TRIB_VALUE_ERROR);
	assert_non_null(strstr(got.text, "Function not found"));
	assert_int_equal(trib_redis_outstanding(redis), 0);
	redis = trib_redis_free(redis);
}

static void decimal_text_is_judged_whole(void **state)
{
	static const struct {
		const char *text;
		long long integer;
	} pairs[] = {
		{ "7", 7 },
		{ "-7", -7 },
		{ "", 0 },
		{ "-", 0 },
		{ "+7", 0 },
		{ " 7", 0 },
		{ "7 ", 0 },
		{ "7x", 0 },
		{ "- 7", 0 },
		{ "0x7", 0 },
		{ "9223372036854775807", 9223372036854775807LL },
		{ "9223372036854775808", 0 },
	};
	struct trib_redis *redis = connection(address);

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(pairs); i++) {
		send_and_wait(redis, "ECHO", pairs[i].text, NULL, NULL);
		assert_int_equal(got.integer, pairs[i].integer);
	}
	redis = trib_redis_free(redis);
}

static void on_array(const struct trib_value *value, void *arg)
{
	const struct trib_value *inner;

	(*(size_t *)arg)++;
	assert_int_equal(trib_value_type(value), TRIB_VALUE_ARRAY);
	assert_int_equal(trib_value_count(value), 7);
	assert_string_equal(trib_value_text(value), "");
	assert_string_equal(trib_value_field(value, "a", "?"), "1");
	assert_string_equal(trib_value_field(value, "list", "?"), "?");
	assert_string_equal(trib_value_field(value, "1", "?"), "?");   /* a value, not a key */
	assert_string_equal(trib_value_field(value, "odd", "?"), "?"); /* no value follows */
	assert_null(trib_value_field(value, "none", NULL));
	inner = trib_value_at(value, 3);
	assert_int_equal(trib_value_count(inner), 2);
	assert_int_equal(trib_value_integer(trib_value_at(inner, 1)), 9);
	assert_int_equal(trib_value_type(trib_value_at(inner, 2)), TRIB_VALUE_NIL);
	assert_int_equal(trib_value_type(trib_value_at(trib_value_at(inner, 5), 7)),
			 TRIB_VALUE_NIL);
	assert_int_equal(trib_value_type(NULL), TRIB_VALUE_NIL);
	assert_string_equal(trib_value_text(NULL), "");
	assert_int_equal(trib_value_count(NULL), 0);
}

static void arrays_and_fields_are_read(void **state)
{
	struct trib_redis *redis = connection(address);
	size_t count = 0;

	(void)state;
	assert_int_equal(trib_redis_send(redis, on_array, &count, "EVAL",
					 "return {'a','1','list',{'x',9},'b','2','odd'}", "0",
					 NULL),
			 0);
	assert_true(run(&count, 1, 10000));
	redis = trib_redis_free(redis);
}

static void words_may_hold_any_bytes(void **state)
{
	static const char *const words[] = { "ECHO", "a\0b\r\n$9\xff" };
	static const size_t sizes[] = { 4, 8 };
	struct trib_redis *redis = connection(address);

	(void)state;
	assert_int_equal(trib_redis_call(redis, on_answer, NULL, 2, words, sizes), 0);
	assert_true(run(&got.count, 1, 10000));
	assert_int_equal(got.size, 8);
	assert_string_equal(got.text, "a");
	redis = trib_redis_free(redis);
}

static void misuse_is_refused(void **state)
{
	struct trib_redis *redis = connection(address);
	static const size_t huge[] = { 4, (size_t)1 << 40 };
	static const char *const words[] = { "ECHO", "x" };

	(void)state;
	assert_int_equal(trib_redis_call(redis, NULL, NULL, 0, words, huge), -EINVAL);
	assert_int_equal(trib_redis_call(redis, NULL, NULL, 2, words, huge), -EMSGSIZE);
	assert_int_equal(trib_redis_send(redis, NULL, NULL, "subscribe", "x", NULL), -EINVAL);
	assert_int_equal(trib_redis_send(redis, NULL, NULL, "MONITOR", NULL), -EINVAL);
	assert_int_equal(trib_redis_outstanding(redis), 0);
	assert_int_equal(echo(redis, 0), 0);
	assert_int_equal(trib_redis_send(redis, NULL, NULL, "PING", NULL), 0); /* no callback */
	assert_int_equal(trib_redis_outstanding(redis), 2);
	assert_true(run(&got.count, 1, 10000));
	(void)run(NULL, 0, 20);
	assert_int_equal(trib_redis_outstanding(redis), 0);
	redis = trib_redis_free(redis);
}

/* ---- order, bounds ---- */

static void many_calls_are_answered_in_order(void **state)
{
	struct trib_redis *redis = connection(address);
	const int count = 20000; /* several times what is written at once */

	(void)state;
	for (int i = 0; i < count; i++) {
		assert_int_equal(echo(redis, i), 0);
	}
	assert_int_equal(trib_redis_outstanding(redis), count);
	assert_true(run(&got.count, (size_t)count, 20000));
	assert_in_order((size_t)count);
	assert_int_equal(trib_redis_outstanding(redis), 0);
	redis = trib_redis_free(redis);
}

static void large_words_pass(void **state)
{
	struct trib_redis *redis = connection(address);
	size_t size = 6 << 20; /* more than is written at once */
	char *large = trib_alloc(size);
	const char *words[] = { "SET", "large", large };
	const size_t sizes[] = { 3, 5, size };

	(void)state;
	assert_non_null(large);
	memset(large, 'x', size);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(trib_redis_call(redis, on_answer, NULL, 3, words, sizes), 0);
	}
	assert_int_equal(trib_redis_send(redis, on_answer, NULL, "STRLEN", "large", NULL), 0);
	assert_true(run(&got.count, 5, 20000));
	assert_int_equal(got.integer, size);
	trib_free(large);
	redis = trib_redis_free(redis);
}

static void call_from_null(const struct trib_value *value, void *arg)
{
	struct trib_redis *redis = *(struct trib_redis **)arg;

	assert_null(value);
	got.count++;
	assert_true(trib_redis_send(redis, NULL, NULL, "PING", NULL) < 0);
	assert_null(trib_redis_free(redis)); /* under way: nothing happens */
}

static void too_many_calls_are_refused_and_freed_with_null(void **state)
{
	struct trib_redis *redis = connection("unix:/nonexistent/redis.sock");

	(void)state;
	assert_false(trib_redis_connected(redis));
	for (int i = 0; i < TRIB_REDIS_CALLS_MAX; i++) {
		assert_int_equal(trib_redis_send(redis, call_from_null, &redis, "PING", NULL), 0);
	}
	assert_int_equal(trib_redis_send(redis, call_from_null, &redis, "PING", NULL), -ENOBUFS);
	assert_int_equal(trib_redis_outstanding(redis), TRIB_REDIS_CALLS_MAX);
	(void)run(NULL, 0, 100);
	assert_int_equal(got.count, 0);
	(void)trib_redis_free(redis);
	assert_int_equal(got.count, TRIB_REDIS_CALLS_MAX);
}

/* ---- the server dies ---- */

static void calls_survive_the_server(void **state)
{
	struct trib_redis *redis = connection(address);
	int next = 0;

	(void)state;
	assert_int_equal(echo(redis, next++), 0);
	assert_true(run(&got.count, 1, 10000));
	/* 50 are written, but a stopped server cannot answer; it dies; 50 more while it is down */
	assert_int_equal(kill(server_pid, SIGSTOP), 0);
	while (next < 51) {
		assert_int_equal(echo(redis, next++), 0);
	}
	(void)run(NULL, 0, 50);
	assert_int_equal(got.count, 1);
	server_kill();
	while (next < 76) { /* before the loss was noticed */
		assert_int_equal(echo(redis, next++), 0);
	}
	(void)run(NULL, 0, 400);
	assert_false(trib_redis_connected(redis));
	while (next < 101) {
		assert_int_equal(echo(redis, next++), 0);
	}
	assert_int_equal(trib_redis_outstanding(redis), 100);
	assert_int_equal(got.count, 1);
	server_start();
	assert_true(run(&got.count, 101, 10000));
	assert_in_order(101);
	assert_true(trib_redis_connected(redis));
	assert_int_equal(trib_redis_outstanding(redis), 0);
	redis = trib_redis_free(redis);
}

static void calls_survive_many_deaths(void **state)
{
	struct trib_redis *redis = connection(address);
	const int count = 30000;

	(void)state;
	for (int i = 0; i < count; i++) {
		assert_int_equal(echo(redis, i), 0);
	}
	for (int i = 0; i < 4; i++) {
		(void)run(&got.count, got.count + 2000, 2000);
		server_kill();
		(void)run(NULL, 0, 10);
		server_start();
	}
	assert_true(run(&got.count, (size_t)count, 20000));
	assert_in_order((size_t)count);
	redis = trib_redis_free(redis);
}

static void a_server_that_starts_later_is_found(void **state)
{
	struct trib_redis *redis;

	(void)state;
	server_kill();
	redis = connection(address);
	assert_int_equal(echo(redis, 0), 0);
	(void)run(NULL, 0, 100);
	server_start();
	assert_true(run(&got.count, 1, 10000));
	assert_in_order(1);
	redis = trib_redis_free(redis);
}

static void busy_is_tried_again(void **state)
{
	static const char script[] = "local function ms() local t = redis.call('TIME') "
				     "return t[1] * 1000 + t[2] / 1000 end "
				     "local start = ms() while ms() - start < 400 do end return 1";
	struct trib_redis *slow = connection(address);
	struct trib_redis *redis = connection(address);
	size_t slow_before;

	(void)state;
	assert_int_equal(echo(redis, 0), 0);
	assert_true(run(&got.count, 1, 10000));
	assert_int_equal(trib_redis_send(slow, NULL, NULL, "EVAL", script, "0", NULL), 0);
	(void)run(NULL, 0, 100);
	for (int i = 1; i < 20; i++) {
		assert_int_equal(echo(redis, i), 0);
	}
	(void)run(NULL, 0, 100);
	slow_before = trib_redis_outstanding(slow);
	assert_int_equal(got.count, 1);
	assert_true(run(&got.count, 20, 10000));
	assert_in_order(20);
	assert_int_equal(slow_before, 1);
	redis = trib_redis_free(redis);
	slow = trib_redis_free(slow);
}

/* ---- freed by its own callback ---- */

static void free_in_answer(const struct trib_value *value, void *arg)
{
	struct trib_redis **redis = arg;

	assert_int_equal(trib_value_type(value), TRIB_VALUE_TEXT);
	got.count++;
	*redis = trib_redis_free(*redis); /* on_answer sees NULL for the calls behind this one */
	got.count++;
}

static void a_callback_may_free_the_connection(void **state)
{
	(void)state;
	for (int behind = 0; behind < 6000; behind = behind * 10 + 1) {
		struct trib_redis *redis = connection(address);

		memset(&got, 0, sizeof(got));
		assert_int_equal(trib_redis_send(redis, free_in_answer, &redis, "PING", NULL), 0);
		for (int i = 0; i < behind; i++) {
			assert_int_equal(echo(redis, i), 0);
		}
		assert_true(run(&got.count, (size_t)behind + 2, 10000));
		assert_null(redis);
		assert_int_equal(got.null_count, behind);
		(void)run(NULL, 0, 20);
		assert_int_equal(got.count, behind + 2);
	}
}

/* ---- subscriber ---- */

static struct {
	size_t again_count;
	size_t message_count;
	char text[64];
	struct trib_redis *free_in_again;
	struct trib_redis *free_in_message;
} heard;

static void on_again(void *arg)
{
	assert_ptr_equal(arg, &heard);
	heard.again_count++;
	heard.free_in_again = trib_redis_free(heard.free_in_again);
}

static void on_heard(const char *message, void *arg)
{
	assert_ptr_equal(arg, &heard);
	heard.message_count++;
	(void)snprintf(heard.text, sizeof(heard.text), "%s", message);
	heard.free_in_message = trib_redis_free(heard.free_in_message);
}

static void a_subscription_survives_the_server(void **state)
{
	struct trib_redis *caller = connection(address);
	struct trib_redis *redis = connection(address);

	(void)state;
	memset(&heard, 0, sizeof(heard));
	assert_int_equal(trib_redis_subscribe(redis, "news:x y", on_heard, on_again, &heard), 0);
	assert_int_equal(trib_redis_subscribe(redis, "more", on_heard, on_again, &heard), -EBUSY);
	assert_int_equal(echo(redis, 0), -ESHUTDOWN);
	assert_true(run(&heard.again_count, 1, 10000));
	send_and_wait(caller, "PUBLISH", "news:x y", "one", NULL);
	assert_int_equal(got.integer, 1);
	assert_true(run(&heard.message_count, 1, 10000));
	assert_string_equal(heard.text, "one");
	for (size_t i = 2; i < 5; i++) {
		server_kill();
		(void)run(NULL, 0, 60);
		assert_false(trib_redis_connected(redis));
		server_start();
		assert_true(run(&heard.again_count, i, 10000));
		send_and_wait(caller, "PUBLISH", "news:x y", "more", NULL);
		assert_int_equal(got.integer, 1); /* subscribed once, not twice */
		assert_true(run(&heard.message_count, i, 10000));
	}
	send_and_wait(caller, "PUBLISH", "other", "two", NULL);
	assert_int_equal(got.integer, 0);
	redis = trib_redis_free(redis);
	caller = trib_redis_free(caller);
}

static void a_living_connection_may_subscribe(void **state)
{
	struct trib_redis *redis = connection(address);

	(void)state;
	memset(&heard, 0, sizeof(heard));
	assert_int_equal(echo(redis, 0), 0);
	assert_int_equal(trib_redis_subscribe(redis, "x", on_heard, NULL, &heard), -EBUSY);
	assert_true(run(&got.count, 1, 10000));
	assert_int_equal(trib_redis_subscribe(redis, "x", on_heard, on_again, &heard), 0);
	assert_true(run(&heard.again_count, 1, 10000));
	redis = trib_redis_free(redis);
}

static void a_subscriber_may_be_freed_by_its_callbacks(void **state)
{
	struct trib_redis *caller = connection(address);

	(void)state;
	memset(&heard, 0, sizeof(heard));
	heard.free_in_again = connection(address);
	assert_int_equal(trib_redis_subscribe(heard.free_in_again, "x", on_heard, on_again, &heard),
			 0);
	assert_true(run(&heard.again_count, 1, 10000));
	assert_null(heard.free_in_again);
	heard.free_in_message = connection(address);
	assert_int_equal(
		trib_redis_subscribe(heard.free_in_message, "x", on_heard, on_again, &heard), 0);
	assert_true(run(&heard.again_count, 2, 10000));
	send_and_wait(caller, "PUBLISH", "x", "one", NULL);
	assert_true(run(&heard.message_count, 1, 10000));
	assert_null(heard.free_in_message);
	send_and_wait(caller, "PUBLISH", "x", "two", NULL);
	(void)run(NULL, 0, 20);
	assert_int_equal(heard.message_count, 1);
	caller = trib_redis_free(caller);
}

static int run_all(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, loop_setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(bad_addresses_are_refused),
		TEST(simple_values_are_read),
		TEST(decimal_text_is_judged_whole),
		TEST(arrays_and_fields_are_read),
		TEST(words_may_hold_any_bytes),
		TEST(misuse_is_refused),
		TEST(many_calls_are_answered_in_order),
		TEST(large_words_pass),
		TEST(too_many_calls_are_refused_and_freed_with_null),
		TEST(calls_survive_the_server),
		TEST(calls_survive_many_deaths),
		TEST(a_server_that_starts_later_is_found),
		TEST(busy_is_tried_again),
		TEST(a_callback_may_free_the_connection),
		TEST(a_subscription_survives_the_server),
		TEST(a_living_connection_may_subscribe),
		TEST(a_subscriber_may_be_freed_by_its_callbacks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
	char log_path[96];
	int rc;

	if (!find_server()) {
		(void)printf("skip: redis-server is not installed\n");
		return 77;
	}
	(void)snprintf(folder, sizeof(folder), "/tmp/trib_redis.XXXXXX");
	if (!mkdtemp(folder)) {
		perror("mkdtemp");
		return 1;
	}
	(void)snprintf(socket_path, sizeof(socket_path), "%s/redis.sock", folder);
	(void)snprintf(address, sizeof(address), "unix:%s", socket_path);
	(void)snprintf(log_path, sizeof(log_path), "%s/redis.log", folder);
	server_start();
	rc = run_all();
	server_kill();
	(void)unlink(socket_path);
	(void)unlink(log_path);
	(void)rmdir(folder);
	return rc;
}
