/* SPDX-License-Identifier: Apache-2.0
 * Labels: what is one, the canonical text and back.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/labels.h"

static const char *read(const char *text, int wanted)
{
	static char out[TRIB_LABELS_SIZE];
	char reason[160];
	json_t *json = NULL;

	assert_int_equal(trib_json_parse(text, strlen(text), &json, reason), 0);
	assert_int_equal(trib_labels_read(json, out), wanted);
	json_decref(json);
	return out;
}

static void test_read(void **state)
{
	(void)state;
	assert_string_equal(read("{}", 0), "");
	assert_string_equal(read("{\"b\":\"2\",\"a.b/c\":\"\",\"B\":\"x_y\"}", 0),
			    "B=x_y,a.b/c=,b=2");
	(void)read("[]", -EBADMSG);
	(void)read("{\"a\":1}", -EBADMSG);
	(void)read("{\"\":\"1\"}", -EBADMSG);
	(void)read("{\"a=b\":\"1\"}", -EBADMSG);
	(void)read("{\"a\":\"1,b=2\"}", -EBADMSG);
	(void)read("{\"a\":\"1|x\"}", -EBADMSG);
	(void)read("{\"a\":\"-\"}", -EBADMSG);
	(void)read("{\"a-\":\"1\"}", -EBADMSG);
	(void)read("{\"/a\":\"1\"}", -EBADMSG);
	(void)read("{\"a/\":\"1\"}", -EBADMSG);
	(void)read("{\"a/b/c\":\"1\"}", -EBADMSG);
	(void)read("{\"a\":\"\\u00e4\"}", -EBADMSG);
}

static void test_bounds(void **state)
{
	char text[8192] = "{";
	char key[TRIB_LABEL_KEY_MAX + 2];
	size_t size = 1;

	(void)state;
	for (int i = 0; i < TRIB_LABELS_MAX; i++) { /* the longest text that there is */
		memset(key, 'p', sizeof(key));
		key[TRIB_LABEL_KEY_MAX - TRIB_LABEL_NAME_MAX - 1] = '/';
		key[TRIB_LABEL_KEY_MAX] = '\0';
		key[0] = (char)('a' + i);
		size += (size_t)snprintf(text + size, sizeof(text) - size, "%s\"%s\":\"%063d\"",
					 i ? "," : "", key, i);
	}
	(void)snprintf(text + size, sizeof(text) - size, "}");
	assert_int_equal(strlen(read(text, 0)),
			 TRIB_LABELS_MAX * (TRIB_LABEL_KEY_MAX + 1 + TRIB_LABEL_NAME_MAX) +
				 TRIB_LABELS_MAX - 1);
	(void)snprintf(text + size, sizeof(text) - size, ",\"z\":\"\"}");
	(void)read(text, -E2BIG);
	memset(key, 'k', sizeof(key));
	key[TRIB_LABEL_NAME_MAX] = '\0';
	assert_true(trib_label_key_valid(key) && trib_label_value_valid(key));
	key[TRIB_LABEL_NAME_MAX] = 'k';
	key[TRIB_LABEL_NAME_MAX + 1] = '\0';
	assert_false(trib_label_key_valid(key) || trib_label_value_valid(key));
}

static void test_back(void **state)
{
	static const char *const texts[] = { "", "a=1", "a=,b=2,c.d/e=x" };
	char out[TRIB_LABELS_SIZE];

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(texts); i++) {
		json_t *json = trib_labels_json(texts[i]);

		assert_non_null(json);
		assert_int_equal(trib_labels_read(json, out), 0);
		assert_string_equal(out, texts[i]);
		json_decref(json);
	}
	assert_null(trib_labels_json("a"));
	assert_null(trib_labels_json("a=1,b"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
