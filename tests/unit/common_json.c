/* SPDX-License-Identifier: Apache-2.0 */
#include "common/json.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static json_t *parsed(const char *text)
{
	json_t *json = NULL;
	char reason[160];

	assert_int_equal(trib_json_parse(text, strlen(text), &json, reason), 0);
	assert_non_null(json);
	return json;
}

static void foreign_text_is_judged_strictly(void **state)
{
	static const char *const texts[] = {
		"",
		" ",
		"{",
		"{}x",
		"{} {}",
		"{\"a\":1,\"a\":2}",
		"{\"a\":{\"b\":1,\"b\":1}}",
		"{\"a\":01}",
		"{\"a\":1,}",
		"{'a':1}",
		"{\"a\":NaN}",
		"{\"a\":1e999}",
		"{\"a\":99999999999999999999}",
		"{\"a\":\"\x01\"}",
		"{\"a\":\"\xff\"}",
		"{\"a\":\"\\u0000\"}",
		"// no\n{}",
	};

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(texts); i++) {
		json_t *json = NULL;
		char reason[160] = "";

		assert_int_equal(trib_json_parse(texts[i], strlen(texts[i]), &json, reason),
				 -EBADMSG);
		assert_null(json);
		assert_int_not_equal(strlen(reason), 0);
		for (const char *c = reason; *c; c++) {
			assert_in_range(*c, 0x20, 0x7e);
		}
	}
}

static void size_rules_not_the_terminator(void **state)
{
	json_t *json = NULL;
	char reason[160];

	(void)state;
	assert_int_equal(trib_json_parse("{}garbage", 2, &json, reason), 0);
	json_decref(json);
	assert_int_equal(trib_json_parse("{}\0", 3, &json, reason), -EBADMSG);
}

static void more_than_a_mebibyte_is_refused(void **state)
{
	size_t size = (1 << 20) + 1;
	char *text = trib_alloc(size);
	json_t *json = NULL;
	char reason[160];

	(void)state;
	assert_non_null(text);
	memset(text, ' ', size);
	memcpy(text, "{}", 2);
	assert_int_equal(trib_json_parse(text, size, &json, reason), -EBADMSG);
	assert_non_null(strstr(reason, "longer than"));
	assert_int_equal(trib_json_parse(text, size - 1, &json, reason), 0);
	json_decref(json);
	memset(text, '[', size);
	assert_int_equal(trib_json_parse(text, size - 1, &json, reason), -EBADMSG);
	trib_free(text);
}

static void members_are_found_by_path(void **state)
{
	json_t *json = parsed("{\"spec\":{\"sync\":{\"goal\":5,\"rate\":0.5,\"on\":true},"
			      "\"name\":\"x\",\"none\":null},\"list\":[1]}");

	(void)state;
	assert_int_equal(trib_json_integer(json, "spec.sync.goal", -1), 5);
	assert_int_equal(trib_json_integer(json, "spec.sync.rate", -1), -1);
	assert_int_equal(trib_json_integer(json, "spec.sync.none", -1), -1);
	assert_true(trib_json_number(json, "spec.sync.rate", 9) == 0.5);
	assert_true(trib_json_number(json, "spec.sync.goal", 9) == 5);
	assert_true(trib_json_number(json, "spec.name", 9) == 9);
	assert_string_equal(trib_json_text(json, "spec.name", "y"), "x");
	assert_string_equal(trib_json_text(json, "spec.sync", "y"), "y");
	assert_null(trib_json_text(json, "spec.nam", NULL));
	assert_true(json_is_null(trib_json_at(json, "spec.none")));
	assert_true(json_is_true(trib_json_at(json, "spec.sync.on")));
	assert_null(trib_json_at(json, "spec.sync.goal.x"));
	assert_null(trib_json_at(json, "spec."));
	assert_null(trib_json_at(json, ".spec"));
	assert_null(trib_json_at(json, ""));
	assert_null(trib_json_at(json, "list.0"));
	assert_null(trib_json_at(NULL, "spec"));
	json_decref(json);
}

static void printing_is_compact_and_complete(void **state)
{
	json_t *json = parsed(" { \"b\" : [ 1 , 2.5 , \"\\u00e9\\n\" ] , \"a\" : null } ");
	char *text = trib_json_print(json);
	json_t *word = json_string("w");

	(void)state;
	assert_string_equal(text, "{\"b\":[1,2.5,\"\xc3\xa9\\n\"],\"a\":null}");
	trib_free(text);
	text = trib_json_print(word);
	assert_string_equal(text, "\"w\"");
	trib_free(text);
	assert_null(trib_json_print(NULL));
	json_decref(word);
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(foreign_text_is_judged_strictly),
		cmocka_unit_test(size_rules_not_the_terminator),
		cmocka_unit_test(more_than_a_mebibyte_is_refused),
		cmocka_unit_test(members_are_found_by_path),
		cmocka_unit_test(printing_is_compact_and_complete),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
