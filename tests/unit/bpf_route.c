/* SPDX-License-Identifier: Apache-2.0 */
/* The routing rule, host build: a table of cases and random bytes against a second, naive copy. */
#include "bpf/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bpf/maps.h"

struct read_case {
	uint32_t size;
	uint32_t magic;
	enum trib_route_verdict verdict;
};

static void test_reading(void **state)
{
	static const struct read_case cases[] = {
		{ 0, TRIB_DESCRIPTOR_MAGIC, TRIB_ROUTE_BAD_SIZE },
		{ 1, TRIB_DESCRIPTOR_MAGIC, TRIB_ROUTE_BAD_SIZE },
		{ 63, TRIB_DESCRIPTOR_MAGIC, TRIB_ROUTE_BAD_SIZE },
		{ 64, TRIB_DESCRIPTOR_MAGIC, TRIB_ROUTE_OK },
		{ 65, TRIB_DESCRIPTOR_MAGIC, TRIB_ROUTE_OK },
		{ 128, TRIB_DESCRIPTOR_MAGIC, TRIB_ROUTE_OK },
		{ 64, 0, TRIB_ROUTE_BAD_MAGIC },
		{ 64, TRIB_DESCRIPTOR_MAGIC + 1, TRIB_ROUTE_BAD_MAGIC },
		{ 64, 0x54524231u, TRIB_ROUTE_BAD_MAGIC }, /* the other byte order */
	};
	struct trib_descriptor d[2] = { { .route = 7169, .sent_us = 0xfffffff0u } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t route = 1;
		uint32_t sent_us = 2;
		enum trib_route_verdict verdict;

		d[0].magic = cases[i].magic;
		verdict = trib_route_read(d, (const uint8_t *)d + cases[i].size, &route, &sent_us);
		assert_int_equal(verdict, cases[i].verdict);
		assert_int_equal(route, verdict ? 1 : 7169);
		assert_int_equal(sent_us, verdict ? 2 : 0xfffffff0u);
	}
}

struct decide_case {
	int64_t sender; /* -1: none */
	int64_t route;
	enum trib_route_verdict verdict;
};

static void test_deciding(void **state)
{
	static const struct decide_case cases[] = {
		{ 7, 7, TRIB_ROUTE_OK },
		{ 0, 0, TRIB_ROUTE_OK },
		{ 7, 8, TRIB_ROUTE_OTHER_TENANT },
		{ 0, 7, TRIB_ROUTE_OTHER_TENANT },
		{ 7, 0, TRIB_ROUTE_OTHER_TENANT },
		{ 7, -1, TRIB_ROUTE_UNKNOWN },
		{ -1, 7, TRIB_ROUTE_NO_SENDER },
		{ -1, -1, TRIB_ROUTE_NO_SENDER },
		{ TRIB_ROUTE_ANY_JOB, 7, TRIB_ROUTE_OK },
		{ TRIB_ROUTE_ANY_JOB, -1, TRIB_ROUTE_UNKNOWN },
		{ TRIB_ROUTE_ANY_JOB, TRIB_ROUTE_ANY_JOB, TRIB_ROUTE_OK },
		{ 7, TRIB_ROUTE_ANY_JOB, TRIB_ROUTE_OTHER_TENANT }, /* no way to the forwarder */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t sender = (uint32_t)cases[i].sender;
		uint32_t route = (uint32_t)cases[i].route;

		assert_int_equal(trib_route_decide(cases[i].sender < 0 ? NULL : &sender,
						   cases[i].route < 0 ? NULL : &route),
				 cases[i].verdict);
	}
}

static void test_waiting_time_wraps(void **state)
{
	(void)state;
	assert_int_equal(trib_route_waited_us(100, 40), 60);
	assert_int_equal(trib_route_waited_us(5, 5), 0);
	assert_int_equal(trib_route_waited_us(10, 0xfffffff6u), 20);
	assert_int_equal(trib_route_waited_us(0x80000000u, 0), 0x80000000u);
	assert_int_equal(trib_route_waited_us(0x80000001u, 0), 0);
	assert_int_equal(trib_route_waited_us(40, 100), 0); /* sent in the future */
}

static void test_random_bytes(void **state)
{
	uint64_t x = 88172645463325252u; /* xorshift64, fixed seed */
	uint32_t fit = 0;

	(void)state;
	for (uint32_t i = 0; i < 200000; i++) {
		struct trib_descriptor d;
		uint8_t *bytes = (uint8_t *)&d;
		uint32_t route = 0;
		uint32_t sent_us = 0;
		uint32_t size;
		uint32_t magic;
		enum trib_route_verdict verdict;

		for (size_t j = 0; j < sizeof(d); j++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			bytes[j] = (uint8_t)(x >> 32);
		}
		if (i % 3 == 0) {
			memcpy(bytes, "TRB1", 4);
		}
		size = i % 5 ? 64 : (uint32_t)(x % 64);
		memcpy(&magic, bytes, 4);
		verdict = trib_route_read(&d, bytes + size, &route, &sent_us);
		if (size < 64) {
			assert_int_equal(verdict, TRIB_ROUTE_BAD_SIZE);
		} else if (memcmp(bytes, "TRB1", 4) != 0) {
			assert_int_equal(verdict, TRIB_ROUTE_BAD_MAGIC);
		} else {
			assert_int_equal(verdict, TRIB_ROUTE_OK);
			assert_memory_equal(&route, bytes + 8, 4);
			assert_memory_equal(&sent_us, bytes + 56, 4);
			fit++;
		}
	}
	assert_true(fit > 50000);
}

/* Kernel totals are indexed by verdict: the two enums must not overlap. */
static void test_totals_hold_every_verdict(void **state)
{
	(void)state;
	assert_true(TRIB_TOTAL_REDIRECTED >= (int)TRIB_ROUTE_VERDICTS);
	assert_true(TRIB_TOTAL_FORWARDED < TRIB_TOTALS);
	assert_true(TRIB_MAP_ROUTES_MAX < TRIB_MAP_ENTRIES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reading),
		cmocka_unit_test(test_deciding),
		cmocka_unit_test(test_waiting_time_wraps),
		cmocka_unit_test(test_random_bytes),
		cmocka_unit_test(test_totals_hold_every_verdict),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
