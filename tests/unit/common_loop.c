/* SPDX-License-Identifier: Apache-2.0
 * common/loop.c: when timers fire. What is late on a busy machine is not judged, what is early is.
 */
#include "common/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"

#define PERIOD_MS 300
#define EARLY_MS  5 /* libevent's clock is a coarse one */

static struct trib_loop *loop;
static uint64_t fired[4];
static size_t count;

static void on_timer(void *arg)
{
	(void)arg;
	fired[count++] = trib_clock_ms();
	if (count == TRIB_COUNT(fired)) {
		trib_loop_stop(loop);
	}
}

static void about_is_at_a_multiple(void **state)
{
	struct trib_timer *timers[TRIB_COUNT(fired)];
	uint64_t due[TRIB_COUNT(fired)];

	(void)state;
	count = 0;
	assert_int_equal(trib_loop_new(&loop), 0);
	for (size_t i = 0; i < TRIB_COUNT(timers); i++) {
		uint64_t now = trib_clock_ms();

		due[i] = (now + PERIOD_MS / 2) / PERIOD_MS * PERIOD_MS + PERIOD_MS;
		assert_int_equal(trib_timer_new(loop, on_timer, NULL, &timers[i]), 0);
		trib_timer_about(timers[i], PERIOD_MS);
	}
	assert_int_equal(trib_loop_run(loop), 0);
	for (size_t i = 0; i < TRIB_COUNT(timers); i++) {
		assert_true(fired[i] + EARLY_MS >= due[i]);
		timers[i] = trib_timer_free(timers[i]);
	}
	trib_loop_free(loop);
}

static void a_second_s_period_goes_on(void **state)
{
	struct trib_timer *timer = NULL;
	uint64_t began = trib_clock_ms();

	(void)state;
	count = TRIB_COUNT(fired) - 2;
	assert_int_equal(trib_loop_new(&loop), 0);
	assert_int_equal(trib_timer_new(loop, on_timer, NULL, &timer), 0);
	trib_timer_every(timer, 1000);
	assert_int_equal(trib_loop_run(loop), 0);
	assert_true(fired[TRIB_COUNT(fired) - 1] + EARLY_MS >= began + 1500);
	trib_timer_after(timer, 10); /* and may be set to something else */
	count = TRIB_COUNT(fired) - 1;
	assert_int_equal(trib_loop_run(loop), 0);
	timer = trib_timer_free(timer);
	trib_loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(about_is_at_a_multiple),
		cmocka_unit_test(a_second_s_period_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
