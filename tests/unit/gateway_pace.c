/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define STEP_MS 10

/* `count` clients that come back when told, +-50 %: asks in the last of `seconds`, as a rate. */
static uint64_t settled_rate(unsigned count, unsigned seconds)
{
	uint64_t *due = calloc(count, sizeof(*due));
	struct gw_pace pace = { .told = 0 };
	uint64_t rng = 1;
	uint64_t late = 0;

	assert_non_null(due);
	for (uint64_t now = 5000; now < 5000 + seconds * 1000ull; now += STEP_MS) {
		for (unsigned i = 0; i < count; i++) {
			uint64_t away;

			if (due[i] > now) {
				continue;
			}
			away = gw_pace_tell(&pace, now);
			assert_in_range(away, GW_PACE_MIN_MS, GW_PACE_MAX_MS);
			rng = rng * 6364136223846793005ull + 1442695040888963407ull;
			due[i] = now + away / 2 + (rng >> 33) % away;
			late += now >= 5000 + seconds * 500ull;
		}
	}
	free(due);
	return late * 2 / seconds;
}

static void few_are_not_kept_away(void **state)
{
	(void)state;
	assert_in_range(settled_rate(100, 60), 80, 130);
}

static void many_ask_no_more_often_than_wanted(void **state)
{
	(void)state;
	assert_in_range(settled_rate(10000, 400), GW_PACE_PER_S / 5, GW_PACE_PER_S * 3 / 2);
	assert_in_range(settled_rate(25000, 400), GW_PACE_PER_S / 5, GW_PACE_PER_S * 3 / 2);
}

static void a_pause_forgets(void **state)
{
	struct gw_pace pace = { .told = 0 };
	uint64_t now = 1000;

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		(void)gw_pace_tell(&pace, now + i / 10);
	}
	assert_true(gw_pace_tell(&pace, now + 10000) > 5000);
	assert_int_equal(gw_pace_tell(&pace, now + 10000 + 2 * GW_PACE_MAX_MS), GW_PACE_MIN_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(few_are_not_kept_away),
		cmocka_unit_test(many_ask_no_more_often_than_wanted),
		cmocka_unit_test(a_pause_forgets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
