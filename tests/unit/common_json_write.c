/* SPDX-License-Identifier: Apache-2.0 */
#include "common/json_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"

static size_t sample(char *out, size_t size)
{
	struct trib_json_writer w = trib_json_writer(out, size);

	trib_json_open(&w, NULL, '{');
	trib_json_put_text(&w, "plain", "abc");
	trib_json_put_text(&w, "odd", "\"a\\b\"\b\f\n\r\t\x01\x1f\x7f \xc3\xa4");
	trib_json_put_text(&w, "empty", "");
	trib_json_put_integer(&w, "none", 0);
	trib_json_put_integer(&w, "most", INT64_MAX);
	trib_json_put_real(&w, "one", 1);
	trib_json_put_real(&w, "half", 0.5);
	trib_json_put_real(&w, "third", 1.0 / 3);
	trib_json_put_real(&w, "large", 9007199254740993.0);
	trib_json_put_real(&w, "whole", 8999999999999999.0);
	trib_json_put_real(&w, "less", -3);
	trib_json_put_true(&w, "yes");
	trib_json_open(&w, "inner", '{');
	trib_json_put_raw(&w, "raw", "{\"x\":[1,2]}");
	trib_json_close(&w, '}');
	trib_json_open(&w, "list", '[');
	trib_json_put_text(&w, NULL, "a");
	trib_json_put_integer(&w, NULL, 7);
	trib_json_close(&w, ']');
	trib_json_open(&w, "nothing", '[');
	trib_json_close(&w, ']');
	trib_json_close(&w, '}');
	return trib_json_written(&w);
}

static void it_is_what_the_printer_makes_of_the_same_value(void **state)
{
	char text[1024];
	size_t size = sample(text, sizeof(text));
	json_t *same = json_pack("{s:s,s:s,s:s,s:I,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:b,s:{s:{s:[i,i]}},"
				 "s:[s,i],s:[]}",
				 "plain", "abc", "odd", "\"a\\b\"\b\f\n\r\t\x01\x1f\x7f \xc3\xa4",
				 "empty", "", "none", (json_int_t)0, "most", (json_int_t)INT64_MAX,
				 "one", 1.0, "half", 0.5, "third", 1.0 / 3, "large",
				 9007199254740993.0, "whole", 8999999999999999.0, "less", -3.0,
				 "yes", 1, "inner", "raw", "x", 1, 2, "list", "a", 7, "nothing");
	char *printed = trib_json_print(same);

	(void)state;
	assert_non_null(printed);
	assert_int_equal(size, strlen(text));
	assert_string_equal(text, printed);
	trib_free(printed);
	json_decref(same);
}

static void small_and_large_reals_read_back_as_they_were(void **state)
{
	static const double values[] = { 9.5367431640625e-07, 1e300, 123456.000001, 1e17, 9e15 };

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(values); i++) {
		char text[64];
		char reason[160];
		struct trib_json_writer w = trib_json_writer(text, sizeof(text));
		json_t *json = NULL;

		trib_json_put_real(&w, NULL, values[i]);
		assert_int_not_equal(trib_json_written(&w), 0);
		assert_int_equal(trib_json_value(text, strlen(text), &json, reason), 0);
		assert_true(json_is_real(json));
		assert_true(json_real_value(json) == values[i]);
		json_decref(json);
	}
}

static void what_does_not_fit_is_seen(void **state)
{
	char whole[1024];
	size_t size = sample(whole, sizeof(whole));

	(void)state;
	for (size_t room = 1; room <= size; room++) {
		char text[1024];

		memset(text, 'x', sizeof(text));
		assert_int_equal(sample(text, room), 0);
		assert_int_equal(text[room], 'x');
	}
	assert_int_equal(sample(whole, size + 1), size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_what_the_printer_makes_of_the_same_value),
		cmocka_unit_test(small_and_large_reals_read_back_as_they_were),
		cmocka_unit_test(what_does_not_fit_is_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
