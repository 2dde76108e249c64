/* SPDX-License-Identifier: Apache-2.0 */
#include "common/options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool verbose;
static const char *redis;
static uint64_t port_count;

static const struct trib_option table[] = {
	{ "verbose", TRIB_OPTION_FLAG, &verbose, 0, 0, NULL, "talk" },
	{ "redis", TRIB_OPTION_TEXT, &redis, 0, 0, "ADDR", "where Redis is" },
	{ "port-count", TRIB_OPTION_NUMBER, &port_count, 1, 100, "N", "ports" },
	{ 0 },
};

static int parse(int *first, ...)
{
	char *argv[16] = { (char *)(uintptr_t) "prog" };
	int argc = 1;
	va_list args;

	va_start(args, first);
	while ((argv[argc] = va_arg(args, char *))) {
		argc++;
	}
	va_end(args);
	return trib_options_parse(argc, argv, "prog [options]", table, first);
}

static int reset(void **state)
{
	(void)state;
	verbose = false;
	redis = "default";
	port_count = 5;
	(void)unsetenv("TRIBUTARY_REDIS");
	(void)unsetenv("TRIBUTARY_VERBOSE");
	(void)unsetenv("TRIBUTARY_PORT_COUNT");
	return 0;
}

static void takes_values(void **state)
{
	int first = 0;

	(void)state;
	assert_int_equal(
		parse(&first, "--redis", "a:1", "--port-count=7", "--verbose", "op", "--x", NULL),
		0);
	assert_string_equal(redis, "a:1");
	assert_true(port_count == 7);
	assert_true(verbose);
	assert_int_equal(first, 5); /* options end at the first operand */
	assert_int_equal(parse(&first, NULL), 0);
	assert_int_equal(first, 1);
	assert_int_equal(parse(&first, "--verbose=no", "--", "--redis", NULL), 0);
	assert_false(verbose);
	assert_int_equal(first, 3);
}

static void environment_is_the_default(void **state)
{
	int first = 0;

	(void)state;
	(void)setenv("TRIBUTARY_REDIS", "env:1", 1);
	(void)setenv("TRIBUTARY_PORT_COUNT", "9", 1);
	(void)setenv("TRIBUTARY_VERBOSE", "yes", 1);
	assert_int_equal(parse(&first, NULL), 0);
	assert_string_equal(redis, "env:1");
	assert_true(port_count == 9);
	assert_true(verbose);
	assert_int_equal(parse(&first, "--redis=line:2", NULL), 0);
	assert_string_equal(redis, "line:2");
	(void)setenv("TRIBUTARY_PORT_COUNT", "900", 1);
	assert_int_equal(parse(&first, NULL), -EINVAL);
	(void)setenv("TRIBUTARY_PORT_COUNT", "9", 1);
	(void)setenv("TRIBUTARY_VERBOSE", "perhaps", 1);
	assert_int_equal(parse(&first, NULL), -EINVAL);
}

static void refuses(void **state)
{
	int first = -7;

	(void)state;
	assert_int_equal(parse(&first, "--unknown", NULL), -EINVAL);
	assert_int_equal(parse(&first, "--red", "x", NULL), -EINVAL); /* abbreviation */
	assert_int_equal(parse(&first, "--redis", NULL), -EINVAL);
	assert_int_equal(parse(&first, "-r", "x", NULL), -EINVAL);
	assert_int_equal(parse(&first, "--port-count", "0", NULL), -EINVAL);
	assert_int_equal(parse(&first, "--port-count", "101", NULL), -EINVAL);
	assert_int_equal(parse(&first, "--port-count", "5x", NULL), -EINVAL);
	assert_int_equal(parse(&first, "--port-count=", NULL), -EINVAL);
	assert_int_equal(parse(&first, "--verbose=maybe", NULL), -EINVAL);
	assert_int_equal(parse(&first, "--help=x", NULL), -EINVAL);
	assert_int_equal(first, -7); /* written only on success */
}

static void help_and_version(void **state)
{
	int first;

	(void)state;
	assert_int_equal(parse(&first, "--help", NULL), 1);
	assert_int_equal(parse(&first, "--version", NULL), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(takes_values, reset),
		cmocka_unit_test_setup(environment_is_the_default, reset),
		cmocka_unit_test_setup(refuses, reset),
		cmocka_unit_test_setup(help_and_version, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
