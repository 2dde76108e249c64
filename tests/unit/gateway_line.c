/* SPDX-License-Identifier: Apache-2.0
 * The line of clients without a slot: how often they ask, and whether slots wait for them.
 */
#include "gateway/line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define CLIENTS 2000

static uint64_t rng = 0x9e3779b97f4a7c15ull;

static uint64_t jitter(uint64_t low, uint64_t high)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return low + (rng * 0x2545f4914f6cdd1dull >> 16) % (high - low + 1);
}

struct outcome {
	uint64_t ms; /* until the last one got a slot */
	uint64_t asked;
	uint64_t most; /* in any 100 ms, but the first */
};

/* All come at once for `slots` that are busy for service_ms each; from 0 to stall_ms none is freed.
 */
static struct outcome rush(uint64_t slots, uint64_t service_ms, uint64_t stall_ms)
{
	static uint64_t comes[CLIENTS];
	uint64_t free_at[64] = { 0 };
	uint64_t taken_at[64] = { 0 };
	struct gw_line line = { 0 };
	struct outcome o = { 0 };
	uint64_t left = CLIENTS;
	const uint64_t begun = 1000;
	uint64_t now = begun;
	uint64_t lately = 0;

	for (size_t i = 0; i < CLIENTS; i++) {
		comes[i] = now;
	}
	for (; left > 0 && now < 10000000; now++) {
		lately = now % 100 ? lately : 0;
		for (size_t i = 0; i < slots; i++) {
			if (free_at[i] && free_at[i] <= now) {
				gw_line_freed(&line, now, now - taken_at[i]);
				free_at[i] = 0;
			}
		}
		for (size_t i = 0; i < CLIENTS; i++) {
			uint64_t slot = 0;
			uint64_t ms;

			if (comes[i] != now) {
				continue;
			}
			o.asked++;
			lately++;
			while (slot < slots && free_at[slot]) {
				slot++;
			}
			if (slot < slots) {
				taken_at[slot] = now;
				gw_line_taken(&line, now);
				free_at[slot] = (now < begun + stall_ms ? begun + stall_ms : now) +
						service_ms;
				comes[i] = 0;
				left--;
				continue;
			}
			ms = gw_line_join(&line, (uint32_t)slots, now);
			comes[i] = now + jitter(ms - ms / 2, ms + ms / 2);
		}
		o.most = now >= 1100 && lately > o.most ? lately : o.most;
	}
	o.ms = now - 1000;
	return o;
}

static void slots_do_not_wait_and_clients_do(void **state)
{
	static const struct {
		uint64_t slots;
		uint64_t service_ms;
	} nodes[] = { { 64, 4 }, { 16, 20 }, { 8, 50 }, { 4, 100 }, { 2, 20 } };

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(nodes); i++) {
		uint64_t ideal = CLIENTS * nodes[i].service_ms / nodes[i].slots;
		struct outcome o = rush(nodes[i].slots, nodes[i].service_ms, 0);

		print_message("%llu slots of %llu ms: %llu ms (ideal %llu), asked %llu times, "
			      "at most %llu in 100 ms\n",
			      (unsigned long long)nodes[i].slots,
			      (unsigned long long)nodes[i].service_ms, (unsigned long long)o.ms,
			      (unsigned long long)ideal, (unsigned long long)o.asked,
			      (unsigned long long)o.most);
		assert_true(o.ms < ideal * 3 / 2 + 2 * GW_LINE_GUESS_MS);
		assert_true(o.asked < CLIENTS * 6);
	}
}

/* Nobody empties the slots for a while: those who ask are told to come ever later. */
static void who_is_stuck_is_left_alone(void **state)
{
	struct outcome o = rush(8, 10, 60000);

	(void)state;
	print_message("stuck for 60 s: asked %llu times, %llu ms\n", (unsigned long long)o.asked,
		      (unsigned long long)o.ms);
	assert_true(o.asked < CLIENTS * 20);
	assert_true(o.ms < 60000 + 2 * GW_LINE_MAX_MS);
}

static void turns_follow_one_another(void **state)
{
	struct gw_line line = { 0 };

	(void)state;
	gw_line_taken(&line, 5000);
	assert_int_equal(gw_line_join(&line, 16, 5000), GW_LINE_GUESS_MS);
	assert_int_equal(gw_line_join(&line, 16, 5000), GW_LINE_GUESS_MS);
	assert_int_equal(gw_line_join(&line, 16, 8000), 3000);
	line = (struct gw_line){ 0 };
	gw_line_freed(&line, 5000, 20);
	assert_int_equal(gw_line_join(&line, 16, 5001), GW_LINE_MIN_MS);
	for (int i = 0; i < 999; i++) { /* a thousand in the line, 1.1 a millisecond */
		(void)gw_line_join(&line, 16, 5001);
	}
	assert_in_range(gw_line_join(&line, 16, 5001), 905, 915);
	assert_in_range(gw_line_join(&line, 16, 5011), 895, 905); /* it moves on */
	assert_int_equal(gw_line_join(&line, 16, 9000), 181);     /* but no slot became free */
	assert_int_equal(gw_line_join(&line, 1, 900000), GW_LINE_MAX_MS);
	gw_line_freed(&line, 900001, 20);
	assert_in_range(gw_line_join(&line, 16, 931000), 1350, 1450); /* 31 s ago */
	gw_line_taken(&line, 1800000); /* idle for long, then all taken at once */
	assert_int_equal(gw_line_join(&line, 16, 1800001), GW_LINE_MIN_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots_do_not_wait_and_clients_do),
		cmocka_unit_test(who_is_stuck_is_left_alone),
		cmocka_unit_test(turns_follow_one_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
