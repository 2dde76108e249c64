/* SPDX-License-Identifier: Apache-2.0 */
#include "common/id.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/crypto.h"

static void made_ids_are_uuid7_and_sort_by_time(void **state)
{
	uint64_t before = trib_wall_ms();
	struct trib_id a = trib_id_make();
	struct trib_id b = trib_id_make();
	struct trib_id later = a;
	uint64_t ms = 0;
	char text_a[TRIB_ID_TEXT_SIZE];
	char text_later[TRIB_ID_TEXT_SIZE];

	(void)state;
	for (int i = 0; i < 6; i++) {
		ms = ms << 8 | a.bytes[i];
	}
	assert_in_range(ms, before, trib_wall_ms());
	assert_int_equal(a.bytes[6] >> 4, 7);
	assert_int_equal(a.bytes[8] >> 6, 2);
	assert_memory_not_equal(a.bytes, b.bytes, sizeof(a.bytes));
	for (int i = 5; i >= 0 && ++later.bytes[i] == 0; i--) {
	}
	trib_id_print("job_", &a, text_a);
	trib_id_print("job_", &later, text_later);
	assert_true(strcmp(text_a, text_later) < 0);
}

static void known_values_are_printed(void **state)
{
	struct trib_id id = { { 0 } };
	char text[TRIB_ID_TEXT_SIZE];

	(void)state;
	trib_id_print("", &id, text);
	assert_string_equal(text, "00000000000000000000000000");
	memset(id.bytes, 0xff, sizeof(id.bytes));
	trib_id_print("agg_", &id, text);
	assert_string_equal(text, "agg_7zzzzzzzzzzzzzzzzzzzzzzzzz");
	/* the example of the ULID specification's reference writer */
	memcpy(id.bytes, "\x01\x56\x3e\x3a\xb5\xd3\xd6\x76\x4c\x61\xef\xb9\x93\x02\xbd\x5b", 16);
	trib_id_print("x_", &id, text);
	assert_string_equal(text, "x_01arz3ndektsv4rrffq69g5fav");
}

static void parse_undoes_print(void **state)
{
	(void)state;
	for (int i = 0; i < 10000; i++) {
		char text[TRIB_ID_TEXT_SIZE];
		struct trib_id id;
		struct trib_id back;

		assert_int_equal(trib_random(&id, sizeof(id)), 0);
		trib_id_print("upd_", &id, text);
		assert_int_equal(strlen(text), 30);
		assert_int_equal(trib_id_parse("upd_", text, &back), 0);
		assert_memory_equal(id.bytes, back.bytes, sizeof(id.bytes));
	}
}

static void other_texts_are_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"job_",
		"upd_01arz3ndektsv4rrffq69g5fav",
		"01arz3ndektsv4rrffq69g5fav",
		"job_01arz3ndektsv4rrffq69g5fa",
		"job_01arz3ndektsv4rrffq69g5favv",
		"job_01ARZ3NDEKTSV4RRFFQ69G5FAV",
		"job_81arz3ndektsv4rrffq69g5fav", /* 131 bits */
		"job_z1arz3ndektsv4rrffq69g5fav",
		"job_01arz3ndektsv4rrffq69g5fai", /* i l o u are not digits */
		"job_01arz3ndektsv4rrffq69g5fal",
		"job_01arz3ndektsv4rrffq69g5fao",
		"job_01arz3ndektsv4rrffq69g5fau",
		"job_ 1arz3ndektsv4rrffq69g5fav",
		"job_-1arz3ndektsv4rrffq69g5fav",
		"job_01arz3ndektsv4rrffq69g5fav ",
		"jobs01arz3ndektsv4rrffq69g5fav",
		"job_01arz3ndektsv4rrffq69g5f\xc3\xa9",
	};
	struct trib_id id;

	(void)state;
	assert_int_equal(trib_id_parse("job_", "job_01arz3ndektsv4rrffq69g5fav", &id), 0);
	for (size_t i = 0; i < TRIB_COUNT(texts); i++) {
		assert_int_equal(trib_id_parse("job_", texts[i], &id), -EINVAL);
	}
}

static void client_ids_are_judged(void **state)
{
	char text[66];

	(void)state;
	assert_true(trib_client_id_valid("c-7"));
	assert_true(trib_client_id_valid("A.b_c:d-9"));
	assert_true(trib_client_id_valid("_"));
	assert_false(trib_client_id_valid(""));
	assert_false(trib_client_id_valid(".a"));
	assert_false(trib_client_id_valid("-a"));
	assert_false(trib_client_id_valid("a b"));
	assert_false(trib_client_id_valid("a/b"));
	assert_false(trib_client_id_valid("a{b}"));
	assert_false(trib_client_id_valid("a\n"));
	assert_false(trib_client_id_valid("\xc3\xa9"));
	memset(text, 'a', sizeof(text));
	text[64] = '\0';
	assert_true(trib_client_id_valid(text));
	text[64] = 'a';
	text[65] = '\0';
	assert_false(trib_client_id_valid(text));
}

static void names_are_dns_labels(void **state)
{
	char text[65];

	(void)state;
	assert_true(trib_name_valid("a"));
	assert_true(trib_name_valid("mnist-2"));
	assert_false(trib_name_valid(""));
	assert_false(trib_name_valid("-a"));
	assert_false(trib_name_valid("a-"));
	assert_false(trib_name_valid("A"));
	assert_false(trib_name_valid("a_b"));
	assert_false(trib_name_valid("a.b"));
	memset(text, 'a', sizeof(text));
	text[63] = '\0';
	assert_true(trib_name_valid(text));
	text[63] = 'a';
	text[64] = '\0';
	assert_false(trib_name_valid(text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(made_ids_are_uuid7_and_sort_by_time),
		cmocka_unit_test(known_values_are_printed),
		cmocka_unit_test(parse_undoes_print),
		cmocka_unit_test(other_texts_are_refused),
		cmocka_unit_test(client_ids_are_judged),
		cmocka_unit_test(names_are_dns_labels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
