/* SPDX-License-Identifier: Apache-2.0 */
#include "common/problem.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static json_t *print(enum trib_problem problem, const char *detail, uint64_t retry_ms,
		     const char *errors, size_t size)
{
	static char out[8192];
	size_t used;
	json_t *json;

	memset(out, '#', sizeof(out));
	used = trib_problem_print(problem, detail, retry_ms, errors, out, size);
	assert_true(used < size);
	assert_int_equal(out[used], '\0');
	assert_int_equal(strlen(out), used);
	assert_int_equal(out[size], '#'); /* not one byte further */
	json = json_loads(out, JSON_REJECT_DUPLICATES, NULL);
	if (!json) {
		fail_msg("not JSON (size %zu): %s", size, out);
	}
	return json;
}

static void every_problem_prints(void **state)
{
	(void)state;
	for (int i = 0; i < TRIB_PROBLEM_COUNT; i++) {
		enum trib_problem problem = (enum trib_problem)i;
		json_t *json = print(problem, NULL, 0, NULL, 512);
		const char *type = json_string_value(json_object_get(json, "type"));
		const char *code = json_string_value(json_object_get(json, "code"));

		assert_int_equal(json_integer_value(json_object_get(json, "status")),
				 trib_problem_status(problem));
		assert_string_equal(code, trib_problem_code(problem));
		assert_int_equal(strncmp(type, "urn:trib:", 9), 0);
		assert_string_equal(type + 9, code);
		assert_string_equal(json_string_value(json_object_get(json, "title")),
				    trib_problem_title(problem));
		assert_int_equal(json_object_size(json), 4);
		json_decref(json);
	}
}

static void hostile_details_stay_json(void **state)
{
	static const char *const details[] = {
		"plain",
		"quote \" and \\ back",
		"ctl \x01\x1f\x7f\r\n",
		"\xff\xfe",
		"\xc0\x80",
		"\xed\xa0\x80",
		"\xf4\x90\x80\x80",
		"\xc3",
		"\xe2\x82",
		"caf\xc3\xa9 \xf0\x9f\x98\x80",
	};
	char large[6000];

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(details); i++) {
		json_t *json = print(TRIB_PROBLEM_BAD_REQUEST, details[i], 0, NULL, 512);

		assert_non_null(json_object_get(json, "detail"));
		json_decref(json);
	}
	/* Cut in every position, in the middle of escapes and characters too. */
	for (size_t i = 0; i + 12 < sizeof(large); i += 12) {
		memcpy(large + i, "\"\\\x01\xc3\xa9\xf0\x9f\x98\x80 ab", 12);
		large[i + 12] = '\0';
	}
	for (size_t size = 512; size < 900; size++) {
		json_t *json =
			print(TRIB_PROBLEM_IDEMPOTENCY_MISMATCH, large, 1234567, "[1,2]", size);

		assert_int_equal(json_array_size(json_object_get(json, "errors")), 2);
		assert_true(json_is_number(json_object_get(json, "retry_after")));
		json_decref(json);
	}
	/* Errors that do not fit are left out whole. */
	memset(large, ' ', 5000);
	large[0] = '[';
	large[4999] = ']';
	large[5000] = '\0';
	json_decref(print(TRIB_PROBLEM_INVALID_SPEC, "d", 0, large, 512));
}

static void seconds(void **state)
{
	static const struct {
		uint64_t ms;
		double seconds;
	} cases[] = { { 7500, 7.5 }, { 7000, 7 }, { 1, 0.001 }, { 10000, 10 }, { 250, 0.25 } };

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		json_t *json = print(TRIB_PROBLEM_THROTTLED, NULL, cases[i].ms, NULL, 512);

		assert_true(json_number_value(json_object_get(json, "retry_after")) ==
			    cases[i].seconds);
		json_decref(json);
	}
}

static void tiny_room(void **state)
{
	char out[512];

	(void)state;
	for (size_t size = 1; size < 200; size++) {
		size_t used =
			trib_problem_print(TRIB_PROBLEM_INTERNAL, "detail", 5, "[]", out, size);

		assert_true(used < size);
		assert_int_equal(strlen(out), used);
		assert_true(used == 0 || out[used - 1] == '}');
	}
	assert_int_equal(trib_problem_print(TRIB_PROBLEM_INTERNAL, NULL, 0, NULL, out, 0), 0);
}

static void statuses(void **state)
{
	static const int parser[] = { 400, 405, 408, 414, 417, 431, 501, 505 };

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(parser); i++) {
		assert_int_equal(trib_problem_status(trib_problem_of_status(parser[i])), parser[i]);
	}
	assert_int_equal(trib_problem_of_status(409), TRIB_PROBLEM_STATE_CONFLICT);
	assert_int_equal(trib_problem_of_status(503), TRIB_PROBLEM_UNAVAILABLE);
	assert_int_equal(trib_problem_of_status(403), TRIB_PROBLEM_FORBIDDEN);
	assert_int_equal(trib_problem_of_status(404), TRIB_PROBLEM_NO_SUCH_PATH);
	assert_int_equal(trib_problem_of_status(418), TRIB_PROBLEM_BAD_REQUEST);
	assert_int_equal(trib_problem_of_status(599), TRIB_PROBLEM_INTERNAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_problem_prints),
		cmocka_unit_test(hostile_details_stay_json),
		cmocka_unit_test(seconds),
		cmocka_unit_test(tiny_room),
		cmocka_unit_test(statuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
