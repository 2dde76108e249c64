/* SPDX-License-Identifier: Apache-2.0 */
#include "common/config_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/httpd.h"
#include "common/privilege.h"
#include "common/redis.h"

static const char *name = "here";
static const struct trib_option table[] = {
	{ "name", TRIB_OPTION_TEXT, &name, 0, 0, "NAME", "whose" },
	{ 0 },
};

static void addresses_to_listen_on(void **state)
{
	static const char *const good[] = { "127.0.0.1:80", "0.0.0.0:0",   ":9090", "[::]:8080",
					    "name:1",       "unix:/tmp/x", "fd:3" };
	static const char *const bad[] = { "",      "80",    "1.2.3.4:", "::1:80",  "h:65536",
					   "h:-1",  "unix:", "fd:x",     "fd:2",    "h: 80",
					   "h:080", "fd:",   "unix",     "1:2:3:4", "h:80 " };
	char longest[200];

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(good); i++) {
		assert_int_equal(trib_listen_check(good[i]), 0);
	}
	for (size_t i = 0; i < TRIB_COUNT(bad); i++) {
		assert_int_not_equal(trib_listen_check(bad[i]), 0);
	}
	(void)snprintf(longest, sizeof(longest), "unix:/%0150d", 1);
	assert_int_not_equal(trib_listen_check(longest), 0);
}

static void addresses_of_redis(void **state)
{
	(void)state;
	assert_int_equal(trib_redis_check("redis.svc:6379"), 0);
	assert_int_equal(trib_redis_check("[::1]:6379"), 0);
	assert_int_equal(trib_redis_check("unix:/run/redis.sock"), 0);
	assert_int_not_equal(trib_redis_check("redis"), 0);
	assert_int_not_equal(trib_redis_check("redis:0"), 0);
	assert_int_not_equal(trib_redis_check("unix:"), 0);
}

static void faults_are_counted_and_decide(void **state)
{
	struct trib_config_check check = { .program = "test" };

	(void)state;
	trib_config_listen(&check, "listen", "0.0.0.0:80");
	trib_config_url(&check, "url", "https://host:1");
	trib_config_directory(&check, "dir", "/tmp");
	trib_config_place(&check, "file", "/tmp/not-there");
	trib_config_program(&check, "program", "/bin/sh");
	assert_int_equal(check.faults, 0);
	assert_int_equal(trib_config_verdict(&check, table), 0);
	trib_config_listen(&check, "listen", "nowhere");
	trib_config_url(&check, "url", "ftp://host");
	trib_config_url(&check, "url", "http://");
	trib_config_url(&check, "url", "http://a b");
	trib_config_directory(&check, "dir", "/etc/passwd");
	trib_config_directory(&check, "dir", "/nowhere/at/all");
	trib_config_place(&check, "file", "/nowhere/file");
	trib_config_place(&check, "file", "");
	trib_config_program(&check, "program", "/tmp/no-such-program");
	assert_int_equal(check.faults, 9);
	assert_int_equal(trib_config_verdict(&check, table), 2);
}

static void variables_nobody_reads_are_faults(void **state)
{
	struct trib_config_check check = { .program = "test" };

	(void)state;
	assert_int_equal(setenv("TRIBUTARY_NAME", "x", 1), 0);
	assert_int_equal(setenv("TRIBUTARY_LOG", "info", 1), 0);
	assert_int_equal(trib_options_strangers("test", table), 0);
	assert_int_equal(setenv("TRIBUTARY_NAMES", "x", 1), 0);
	assert_int_equal(trib_options_strangers("test", table), 1);
	assert_int_equal(trib_config_verdict(&check, table), 2);
	assert_int_equal(unsetenv("TRIBUTARY_NAMES"), 0);
	assert_int_equal(unsetenv("TRIBUTARY_NAME"), 0);
}

static void files_are_for_the_owner_or_the_group(void **state)
{
	(void)state;
	trib_privilege_share(false);
	assert_int_equal(umask(0077), 0077);
	trib_privilege_share(true);
	assert_int_equal(umask(0022), 0007);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_to_listen_on),
		cmocka_unit_test(addresses_of_redis),
		cmocka_unit_test(faults_are_counted_and_decide),
		cmocka_unit_test(variables_nobody_reads_are_faults),
		cmocka_unit_test(files_are_for_the_owner_or_the_group),
	};

	(void)unsetenv("TRIBUTARY_BIN"); /* of tests/system; nobody's option */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
