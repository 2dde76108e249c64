/* SPDX-License-Identifier: Apache-2.0
 * Records of clients' tokens, as the gateway reads them from Redis.
 */
#include "gateway/token_record.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define LONG "a23456789012345678901234567890123456789012345678901234567890123"

static void records(void **unused)
{
	static const struct {
		const char *text;
		int rc;
		const char *client;
		uint64_t expires_ms;
	} cases[] = {
		{ "|client|5|4", 0, "", 5 },
		{ "c-1|client|1700000000000|1600000000000", 0, "c-1", 1700000000000ull },
		{ LONG "x|client|5|4", 0, LONG "x", 5 },
		{ LONG "xy|client|5|4", -EBADMSG, NULL, 0 },
		{ "", -EBADMSG, NULL, 0 },
		{ "c-1", -EBADMSG, NULL, 0 },
		{ "c-1|client", -EBADMSG, NULL, 0 },
		{ "c-1|client|5", -EBADMSG, NULL, 0 },
		{ "c-1|client|5|", -EBADMSG, NULL, 0 },
		{ "c-1|client|5|4|3", -EBADMSG, NULL, 0 },
		{ "c-1|client|5|4|", -EBADMSG, NULL, 0 },
		{ "c-1|client|5|4|a=1|b", -EBADMSG, NULL, 0 },
		{ "c-1|client|5|4|a=1,b.c/d=", 0, "c-1", 5 },
		{ "c-1|admin|5|4", -EBADMSG, NULL, 0 },
		{ "c-1||5|4", -EBADMSG, NULL, 0 },
		{ "c 1|client|5|4", -EBADMSG, NULL, 0 },
		{ "c-1|client|-5|4", -EBADMSG, NULL, 0 },
		{ "c-1|client|5e9|4", -EBADMSG, NULL, 0 },
		{ "c-1|client|99999999999999999999|4", -EBADMSG, NULL, 0 },
	};

	(void)unused;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		struct gw_token_record record;

		assert_int_equal(gw_token_read(cases[i].text, &record), cases[i].rc);
		if (cases[i].client) {
			assert_string_equal(record.client, cases[i].client);
			assert_true(record.expires_ms == cases[i].expires_ms);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(records) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
