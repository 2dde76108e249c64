/* SPDX-License-Identifier: Apache-2.0
 * What the tests of common/redis.c share: running a loop until something was counted, and calls
 * that know their number so that order and content of the answers can be judged.
 */
#ifndef TRIB_TESTS_UNIT_REDIS_ANSWERS_H
#define TRIB_TESTS_UNIT_REDIS_ANSWERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/redis.h"

static struct trib_loop *loop;

/* ---- running the loop ---- */

struct wait {
	const size_t *counter;
	size_t goal;
	uint64_t deadline_ms;
	bool reached;
};

static void on_wait(void *arg)
{
	struct wait *wait = arg;

	wait->reached = wait->counter && *wait->counter >= wait->goal;
	if (wait->reached || trib_clock_ms() >= wait->deadline_ms) {
		trib_loop_stop(loop);
	}
}

/* Runs the loop until *counter >= goal (true) or `ms` have passed. */
static bool run(const size_t *counter, size_t goal, uint64_t ms)
{
	struct wait wait = { counter, goal, trib_clock_ms() + ms, false };
	struct trib_timer *timer = NULL;

	assert_int_equal(trib_timer_new(loop, on_wait, &wait, &timer), 0);
	trib_timer_every(timer, 1);
	assert_int_equal(trib_loop_run(loop), 0);
	timer = trib_timer_free(timer);
	return wait.reached;
}

/* ---- answers ---- */

#define ANSWERS_MAX 70000

static struct {
	size_t count;
	size_t null_count;
	enum trib_value_type type;
	long long integer;
	size_t size;
	char text[128];
	int order[ANSWERS_MAX]; /* the number echoed by answer i; -1 when it was none */
} got;

static void on_answer(const struct trib_value *value, void *arg)
{
	(void)arg;
	assert_true(got.count < ANSWERS_MAX);
	got.null_count += value == NULL;
	got.type = trib_value_type(value);
	got.integer = trib_value_integer(value);
	got.size = trib_value_size(value);
	(void)snprintf(got.text, sizeof(got.text), "%s", trib_value_text(value));
	got.order[got.count] = value && got.type == TRIB_VALUE_TEXT && got.size == 5
				       ? (int)trib_value_integer(value) - 10000
				       : -1;
	got.count++;
}

/* ECHO with five digits: every command has 25 bytes, which keeps the scripted peer simple. */
static int echo(struct trib_redis *redis, int number)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%05d", 10000 + number);
	return trib_redis_send(redis, on_answer, NULL, "ECHO", text, NULL);
}

static void assert_in_order(size_t count)
{
	assert_int_equal(got.count, count);
	assert_int_equal(got.null_count, 0);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(got.order[i], i);
	}
}

static struct trib_redis *connection(const char *where)
{
	struct trib_redis *redis = NULL;

	assert_int_equal(trib_redis_new(loop, where, &redis), 0);
	assert_non_null(redis);
	return redis;
}

static int loop_setup(void **state)
{
	(void)state;
	memset(&got, 0, sizeof(got));
	return trib_loop_new(&loop);
}

static int loop_teardown(void **state)
{
	(void)state;
	trib_loop_free(loop);
	loop = NULL;
	return 0;
}

#endif
