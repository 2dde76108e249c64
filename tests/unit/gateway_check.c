/* SPDX-License-Identifier: Apache-2.0
 * The check kernels against a plain reference, and the intake that feeds them.
 */
#include "gateway/check.c"
#include "gateway/intake.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static uint32_t state = 12345;

static uint32_t next_random(void)
{
	state = state * 1664525u + 1013904223u;
	return state;
}

static uint32_t reference(const uint8_t *at, size_t count, uint32_t worst)
{
	for (size_t i = 0; i < count; i++) {
		uint32_t bits;

		memcpy(&bits, at + 4 * i, 4);
		bits &= 0x7fffffffu;
		worst = bits > worst ? bits : worst;
	}
	return worst;
}

static void kernels_agree_with_the_reference(void **unused)
{
	uint8_t memory[4 * 300 + 8];

	(void)unused;
	for (int round = 0; round < 2000; round++) {
		size_t shift = next_random() % 5;
		size_t count = next_random() % 300;
		uint32_t most;

		for (size_t i = 0; i < sizeof(memory); i++) {
			memory[i] = (uint8_t)(next_random() >> 24);
		}
		most = reference(memory + shift, count, 7);
		assert_int_equal(gw_check_floats(memory + shift, count, 7), most);
		assert_int_equal(gw_check_floats_portable(memory + shift, count, 7), most);
	}
}

static void squares_are_summed_alike_everywhere(void **unused)
{
	float values[301];
	uint8_t memory[sizeof(values) + 3];

	(void)unused;
	for (size_t count = 0; count <= TRIB_COUNT(values); count++) {
		double plain = 0;
		double sum;

		for (size_t i = 0; i < count; i++) {
			values[i] = (float)((double)next_random() / 4294967296.0 - 0.5) * 1e6f;
			plain += (double)values[i] * (double)values[i];
		}
		memcpy(memory + 3, values, sizeof(values)); /* at any alignment */
		sum = gw_check_squares(memory + 3, count);
		assert_true(sum >= plain * (1 - 1e-12) && sum <= plain * (1 + 1e-12));
		assert_true(sum == squares_portable(values, count));
	}
}

static void norms_are_taken_when_wanted(void **unused)
{
	struct gw_check check = { .wants_norm = true };
	struct gw_check plain = { 0 };
	float values[40000];

	(void)unused;
	for (size_t i = 0; i < TRIB_COUNT(values); i++) {
		values[i] = 0.5f;
	}
	for (size_t at = 0; at < sizeof(values); at += 1003) { /* elements cut anywhere */
		size_t size = sizeof(values) - at < 1003 ? sizeof(values) - at : 1003;

		gw_check_run(&check, (const uint8_t *)values, at, size);
		gw_check_run(&plain, (const uint8_t *)values, at, size);
	}
	assert_true(check.norm == 10000.0); /* quarters: exact */
	assert_true(plain.norm == 0 && plain.crc == check.crc);
}

static uint32_t worst_of(float value)
{
	float values[37] = { 0 };

	values[31] = value;
	return gw_check_floats(values, 37, 0);
}

static void non_finite_and_range_are_seen(void **unused)
{
	(void)unused;
	assert_false(gw_check_finite(worst_of(__builtin_nanf(""))));
	assert_false(gw_check_finite(worst_of(-__builtin_nanf(""))));
	assert_false(gw_check_finite(worst_of(__builtin_inff())));
	assert_false(gw_check_finite(worst_of(-__builtin_inff())));
	assert_true(gw_check_finite(worst_of(-3.4028234663852886e38f)));
	assert_true(gw_check_in_range(worst_of(-2.0f), 512.0, 1024.0));
	assert_false(gw_check_in_range(worst_of(-2.0f), 512.5, 1024.0));
	assert_true(gw_check_in_range(worst_of(-0.0f), 1e6, 1.0));
}

/* Feeds a body of header and payload in pieces of random size, as the kernel would. */
static int feed(struct gw_intake *in, const uint8_t *body, size_t size, uint8_t *slot,
		const struct trib_piece *pieces, uint32_t count)
{
	const char *detail = NULL;
	size_t at = 0;

	while (at < size) {
		struct iovec vectors[4];
		int n = gw_intake_next(in, vectors, 4);
		size_t part = 1 + next_random() % 13;
		size_t landed = 0;
		int rc;

		assert_true(n > 0 && n <= 4);
		part = part < size - at ? part : size - at;
		for (int i = 0; i < n && landed < part; i++) {
			size_t take = vectors[i].iov_len;

			take = take < part - landed ? take : part - landed;
			memcpy(vectors[i].iov_base, body + at + landed, take);
			landed += take;
		}
		rc = gw_intake_landed(in, landed, &detail);
		if (rc) {
			return rc;
		}
		at += landed;
		if (in->phase == GW_INTAKE_PARSED) {
			gw_intake_target(in, slot, pieces, count);
		}
	}
	return 0;
}

static void pieces_land_where_they_belong(void **unused)
{
	/* canonical: A (8 bytes) B (4) C (12); sent: C B A; an empty piece in between */
	const struct trib_piece pieces[] = { { 12, 12 }, { 8, 0 }, { 8, 4 }, { 0, 8 } };
	const float sent[6] = { 5, 6, -9, 4, 1, 2 };
	const float canonical[6] = { 1, 2, 4, 5, 6, -9 };
	uint8_t body[8 + 3 + sizeof(sent)] = { 3, 0, 0, 0, 0, 0, 0, 0, '{', '}', ' ' };
	float slot[6];

	(void)unused;
	memcpy(body + 11, sent, sizeof(sent));
	for (int round = 0; round < 500; round++) {
		struct gw_intake in;

		gw_intake_init(&in, sizeof(body), 100);
		memset(slot, 0, sizeof(slot));
		assert_int_equal(feed(&in, body, sizeof(body), (uint8_t *)slot, pieces, 4), 0);
		assert_int_equal(in.phase, GW_INTAKE_FULL);
		assert_memory_equal(slot, canonical, sizeof(slot));
		assert_int_equal(in.check.crc, trib_crc32c(0, body, sizeof(body)));
		assert_int_equal(in.check.worst, worst_of(-9));
		gw_intake_fini(&in);
	}
}

static void a_straddling_nan_is_found(void **unused)
{
	const struct trib_piece piece = { 0, 24 };
	float slot[6];

	(void)unused;
	for (int where = 0; where < 6; where++) {
		float sent[6] = { 1, 2, 3, 4, 5, 6 };
		uint8_t body[10 + sizeof(sent)] = { 2, 0, 0, 0, 0, 0, 0, 0, '{', '}' };

		sent[where] = __builtin_nanf("");
		memcpy(body + 10, sent, sizeof(sent));
		for (int round = 0; round < 100; round++) {
			struct gw_intake in;

			gw_intake_init(&in, sizeof(body), 100);
			assert_int_equal(feed(&in, body, sizeof(body), (uint8_t *)slot, &piece, 1),
					 0);
			assert_false(gw_check_finite(in.check.worst));
			gw_intake_fini(&in);
		}
	}
}

static void impossible_lengths_are_refused(void **unused)
{
	static const struct {
		uint8_t bytes[8];
		int rc;
	} cases[] = {
		{ { 1 }, -EBADMSG },
		{ { 0 }, -EBADMSG },
		{ { 101 }, -EBADMSG }, /* more than header_max */
		{ { 93 }, -EBADMSG },  /* more than the body */
		{ { 0, 0, 0, 0, 0, 0, 0, 0x80 }, -EBADMSG },
		{ { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, -EBADMSG },
		{ { 92 }, 0 },
		{ { 2 }, 0 },
	};

	(void)unused;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		struct gw_intake in;

		gw_intake_init(&in, 100, 100);
		assert_int_equal(feed(&in, cases[i].bytes, 8, NULL, NULL, 0), cases[i].rc);
		gw_intake_fini(&in);
	}
}

static void a_byte_too_many_is_refused(void **unused)
{
	const uint8_t body[] = { 2, 0, 0, 0, 0, 0, 0, 0, '{', '}', 'x' };
	struct gw_intake in;

	(void)unused;
	gw_intake_init(&in, 10, 100);
	assert_int_equal(feed(&in, body, sizeof(body), NULL, NULL, 0), -EMSGSIZE);
	gw_intake_fini(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernels_agree_with_the_reference),
		cmocka_unit_test(squares_are_summed_alike_everywhere),
		cmocka_unit_test(norms_are_taken_when_wanted),
		cmocka_unit_test(non_finite_and_range_are_seen),
		cmocka_unit_test(pieces_land_where_they_belong),
		cmocka_unit_test(a_straddling_nan_is_found),
		cmocka_unit_test(impossible_lengths_are_refused),
		cmocka_unit_test(a_byte_too_many_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
