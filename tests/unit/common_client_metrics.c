/* SPDX-License-Identifier: Apache-2.0
 * FL-Metrics: what is read, what is refused, and that nothing leaves its bounds.
 */
#include "common/client_metrics.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *read_text(const char *text, int rc)
{
	static char out[TRIB_METRICS_TEXT_SIZE];

	memset(out, 'x', sizeof(out));
	assert_int_equal(trib_metrics_read(text, out), rc);
	return out;
}

static void reads_and_normalises(void **state)
{
	json_t *json;

	(void)state;
	assert_string_equal(read_text("loss=0.5", 0), "loss=0.5");
	assert_string_equal(read_text(" b.c-D_9=-2.25 ,\ta=1000000000000000 ", 0),
			    "b.c-D_9=-2.25,a=1000000000000000");
	assert_string_equal(read_text("a=0.0000000000000000000001", 0), "a=1e-22");
	json = trib_metrics_json(read_text("a=0.1,b=2", 0));
	assert_true(json_number_value(json_object_get(json, "a")) == 0.1);
	assert_true(json_number_value(json_object_get(json, "b")) == 2.0);
	json_decref(json);
	json = trib_metrics_json("a=1,=3,b,c=x,d=inf,e=4");
	assert_int_equal(json_object_size(json), 2);
	json_decref(json);
}

static void refuses(void **state)
{
	static const char *const bad[] = { "",      " ",     "a",         "a=",    "=1",
					   "a=1,",  ",a=1",  "a=1e3",     "a=nan", "a=.5",
					   "a=5.",  "a=--1", "a=+1",      "a= 1",  "a =1",
					   "1a=1",  ".a=1",  "a=1;b=2",   "a=0x1", "a/b=1",
					   "a=1 2", "a=1=2", "\xc3\xa4=1" };

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(bad); i++) {
		(void)read_text(bad[i], -EINVAL);
	}
	(void)read_text("a=1000000000000001", -EINVAL);
	(void)read_text("a=11111111111111111111111111111111111111111", -EINVAL);
	(void)read_text("a=1,b=2,a=1", -EEXIST);
}

static void the_longest_fits(void **state)
{
	char text[8192];
	size_t used = 0;
	const char *out;

	(void)state;
	for (int i = 0; i < TRIB_METRICS_MAX; i++) {
		used += (size_t)snprintf(text + used, sizeof(text) - used,
					 "%sn%047d=-0.00000000000000000000012345678901234567",
					 i ? "," : "", i);
	}
	out = read_text(text, 0);
	assert_true(strlen(out) < TRIB_METRICS_TEXT_SIZE);
	(void)snprintf(text + used, sizeof(text) - used, ",more=1");
	(void)read_text(text, -E2BIG);
	(void)read_text("n0000000000000000000000000000000000000000000000000=1", -EINVAL);
}

static void any_bytes_end_well(void **state)
{
	static const char alphabet[] = "abz_=,. -019\t";
	char text[64];

	(void)state;
	srandom(7);
	for (int i = 0; i < 200000; i++) {
		char out[TRIB_METRICS_TEXT_SIZE];
		size_t size = (size_t)random() % sizeof(text);

		for (size_t c = 0; c < size; c++) {
			text[c] = alphabet[(size_t)random() % (sizeof(alphabet) - 1)];
		}
		text[size ? size - 1 : 0] = '\0';
		if (trib_metrics_read(text, out) == 0) {
			json_t *json = trib_metrics_json(out);

			assert_true(json_object_size(json) >= 1);
			json_decref(json);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_and_normalises),
		cmocka_unit_test(refuses),
		cmocka_unit_test(the_longest_fits),
		cmocka_unit_test(any_bytes_end_well),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
