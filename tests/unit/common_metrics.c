/* SPDX-License-Identifier: Apache-2.0 */
#include "common/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static size_t count_of(const char *text, const char *piece)
{
	size_t count = 0;

	for (const char *at = strstr(text, piece); at; at = strstr(at + 1, piece)) {
		count++;
	}
	return count;
}

static void prints_the_table(void **state)
{
	static struct trib_metric table[] = {
		{ "tributary_a_total", NULL, "Plain.", TRIB_COUNTER, 0, 0 },
		{ "tributary_b_total", "reason=\"x\"", "Two\nlines \\ back", TRIB_COUNTER, 0, 0 },
		{ "tributary_b_total", "reason=\"y\"", "Two\nlines \\ back", TRIB_COUNTER, 0, 7 },
		{ "tributary_c_seconds", NULL, "Scaled.", TRIB_GAUGE, 1e-6, 1500000 },
		{ "tributary_d", NULL, "Negative.", TRIB_GAUGE, 0, -3 },
	};
	char *text;

	(void)state;
	trib_metric_add(&table[0], 9007199254740993);
	trib_metric_set(&table[1], 2);
	assert_int_equal(trib_metric_get(&table[1]), 2);
	text = trib_metrics_print(table, TRIB_COUNT(table), "unit");
	assert_non_null(text);
	assert_non_null(strstr(text, "# HELP tributary_a_total Plain.\n"
				     "# TYPE tributary_a_total counter\n"
				     "tributary_a_total 9007199254740993\n"));
	assert_non_null(strstr(text, "# HELP tributary_b_total Two\\nlines \\\\ back\n"));
	assert_int_equal(count_of(text, "# TYPE tributary_b_total"), 1);
	assert_non_null(strstr(text, "\ntributary_b_total{reason=\"x\"} 2\n"
				     "tributary_b_total{reason=\"y\"} 7\n"));
	assert_non_null(strstr(text, "\ntributary_c_seconds 1.5\n"));
	assert_non_null(strstr(text, "\ntributary_d -3\n"));
	assert_non_null(strstr(text, "program=\"unit\"} 1\n"));
	assert_non_null(strstr(text, "\nprocess_open_fds "));
	assert_non_null(strstr(text, "\nprocess_resident_memory_bytes "));
	assert_non_null(strstr(text, "\nprocess_start_time_seconds "));
	assert_non_null(strstr(text, "\nprocess_cpu_seconds_total "));
	assert_int_equal(text[strlen(text) - 1], '\n');
	trib_free(text);
}

static void grows(void **state)
{
	struct trib_metric *table = trib_alloc_array(2000, sizeof(*table));
	char *text;

	(void)state;
	assert_non_null(table);
	for (size_t i = 0; i < 2000; i++) {
		table[i] = (struct trib_metric){ .name = "tributary_rows", .labels = "k=\"v\"" };
	}
	text = trib_metrics_print(table, 2000, "unit");
	assert_non_null(text);
	assert_int_equal(count_of(text, "\ntributary_rows{k=\"v\"} 0"), 2000);
	trib_free(text);
	trib_free(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prints_the_table),
		cmocka_unit_test(grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
