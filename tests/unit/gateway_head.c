/* SPDX-License-Identifier: Apache-2.0
 * What an upload's head may say, and conditional requests.
 */
#include "gateway/conditions.c"
#include "gateway/upload_head.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void weights(void **unused)
{
	static const struct {
		const char *text;
		int rc;
		uint64_t fx;
	} cases[] = {
		{ "1", 0, 1ull << 20 },
		{ "512", 0, 512ull << 20 },
		{ "0.5", 0, 1ull << 19 },
		{ "1000000", 0, 1000000ull << 20 },
		{ "0.00000095367431640625", 0, 1 },  /* 2^-20 */
		{ "0.000001430511474609375", 0, 2 }, /* 1.5 * 2^-20: to even */
		{ "0.000002384185791015625", 0, 2 }, /* 2.5 * 2^-20: to even */
		{ "999999999999", 0, 999999999999ull << 20 },
		{ "0", -ERANGE, 0 },
		{ "0.0000001", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ "nan", -EINVAL, 0 },
		{ "inf", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ "1e3", -EINVAL, 0 },
		{ "1.", -EINVAL, 0 },
		{ ".5", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1,5", -EINVAL, 0 },
		{ "1.2.3", -EINVAL, 0 },
		{ "1000000000000", -EINVAL, 0 },
	};

	(void)unused;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		uint64_t fx = 0;

		print_message("%s\n", cases[i].text);
		assert_int_equal(gw_weight_read(cases[i].text, &fx), cases[i].rc);
		assert_int_equal(fx, cases[i].fx);
	}
}

static void checksums(void **unused)
{
	uint32_t crc = 0;

	(void)unused;
	assert_int_equal(gw_checksum_read("crc32c=9a71bb4c", &crc), 0);
	assert_int_equal(crc, 0x9a71bb4cu);
	assert_int_equal(gw_checksum_read("crc32c=9A71BB4C", &crc), 0);
	assert_int_equal(gw_checksum_read("crc32c=9a71bb4", &crc), -EINVAL);
	assert_int_equal(gw_checksum_read("crc32c=9a71bb4cc", &crc), -EINVAL);
	assert_int_equal(gw_checksum_read("crc32c=-a71bb4c", &crc), -EINVAL);
	assert_int_equal(gw_checksum_read("crc32=9a71bb4c", &crc), -EINVAL);
	assert_int_equal(gw_checksum_read("", &crc), -EINVAL);
}

static void ranges(void **unused)
{
	uint64_t first = 0;
	uint64_t last = 0;

	(void)unused;
	assert_int_equal(gw_range_parse("bytes=0-0", 10, &first, &last), 0);
	assert_true(first == 0 && last == 0);
	assert_int_equal(gw_range_parse("bytes=3-", 10, &first, &last), 0);
	assert_true(first == 3 && last == 9);
	assert_int_equal(gw_range_parse("bytes=3-99", 10, &first, &last), 0);
	assert_true(first == 3 && last == 9);
	assert_int_equal(gw_range_parse("bytes=-4", 10, &first, &last), 0);
	assert_true(first == 6 && last == 9);
	assert_int_equal(gw_range_parse("bytes=-40", 10, &first, &last), 0);
	assert_true(first == 0 && last == 9);
	assert_int_equal(gw_range_parse("bytes=10-", 10, &first, &last), -ERANGE);
	assert_int_equal(gw_range_parse("bytes=-0", 10, &first, &last), -ERANGE);
	assert_int_equal(gw_range_parse("bytes=5-3", 10, &first, &last), -ENOENT);
	assert_int_equal(gw_range_parse("bytes=0-1,3-4", 10, &first, &last), -ENOENT);
	assert_int_equal(gw_range_parse("items=0-1", 10, &first, &last), -ENOENT);
	assert_int_equal(gw_range_parse("bytes=", 10, &first, &last), -ENOENT);
	assert_int_equal(gw_range_parse("bytes=-", 10, &first, &last), -ENOENT);
	assert_int_equal(gw_range_parse("bytes=18446744073709551616-", 10, &first, &last), -ENOENT);
}

static void etags(void **unused)
{
	(void)unused;
	assert_true(gw_etag_listed("\"v1-a\"", "\"v1-a\""));
	assert_true(gw_etag_listed("W/\"v1-a\"", "\"v1-a\""));
	assert_true(gw_etag_listed("\"x\", \"v1-a\" ,\"y\"", "\"v1-a\""));
	assert_true(gw_etag_listed("*", "\"v1-a\""));
	assert_false(gw_etag_listed("\"v1-ab\"", "\"v1-a\""));
	assert_false(gw_etag_listed("", "\"v1-a\""));
	assert_false(gw_etag_listed(",,", "\"v1-a\""));
	assert_false(gw_etag_listed("v1-a", "\"v1-a\""));
}

static const uint8_t key[TRIB_TICKET_KEY_SIZE] = { 1, 2, 3 };

struct genuine { /* an upload nothing is wrong with until 1000 ms */
	char job[TRIB_ID_TEXT_SIZE];
	char update[TRIB_ID_TEXT_SIZE];
	char sealed[TRIB_TICKET_TEXT_SIZE];
	struct trib_http_request request;
};

static void make_genuine(struct genuine *g)
{
	struct trib_ticket ticket = { .version = 1,
				      .round = 2,
				      .job = trib_id_make(),
				      .update = trib_id_make(),
				      .client = trib_digest("c-1", 3).high,
				      .expires_ms = 1000,
				      .bytes_max = 500,
				      .base = 1 };

	trib_id_print("job_", &ticket.job, g->job);
	trib_id_print("upd_", &ticket.update, g->update);
	assert_int_equal(trib_ticket_seal(&ticket, key, g->sealed), 0);
	g->request = (struct trib_http_request){ .has_length = true, .length = 500 };
	g->request.field_count = 6;
	g->request.fields[0] = (struct trib_http_field){ "fl-client", "c-1" };
	g->request.fields[1] = (struct trib_http_field){ "fl-round", "2" };
	g->request.fields[2] = (struct trib_http_field){ "fl-base-version", "1" };
	g->request.fields[3] = (struct trib_http_field){ "fl-weight", "3" };
	g->request.fields[4] = (struct trib_http_field){ "fl-ticket", g->sealed };
	g->request.fields[5] =
		(struct trib_http_field){ "content-type", "application/octet-stream" };
}

/* The problem it is refused with, or TRIB_PROBLEM_COUNT. */
static enum trib_problem judge(const struct genuine *g, const struct trib_http_request *request,
			       uint64_t now_ms)
{
	struct gw_upload_head head;
	struct gw_refusal refusal;
	int rc = gw_upload_head_read(request, key, g->job, g->update, now_ms, &head, &refusal);

	assert_true(rc == 0 || rc == -EBADMSG);
	return rc ? refusal.problem : TRIB_PROBLEM_COUNT;
}

static void one_wrong_field_at_a_time(void **unused)
{
	static const struct {
		const char *name;
		const char *value; /* NULL: left out */
		enum trib_problem problem;
	} cases[] = {
		{ "fl-client", "c 1", TRIB_PROBLEM_BAD_REQUEST },
		{ "fl-client", "c-2", TRIB_PROBLEM_TICKET_INVALID },
		{ "fl-client", NULL, TRIB_PROBLEM_BAD_REQUEST },
		{ "fl-round", "3", TRIB_PROBLEM_TICKET_INVALID },
		{ "fl-round", "4294967296", TRIB_PROBLEM_BAD_REQUEST },
		{ "fl-base-version", "2", TRIB_PROBLEM_TICKET_INVALID },
		{ "fl-weight", "NaN", TRIB_PROBLEM_INVALID_WEIGHT },
		{ "fl-weight", NULL, TRIB_PROBLEM_INVALID_WEIGHT },
		{ "fl-ticket", NULL, TRIB_PROBLEM_TICKET_INVALID },
		{ "fl-ticket", "AAAA", TRIB_PROBLEM_TICKET_INVALID },
		{ "content-type", "text/html", TRIB_PROBLEM_UNSUPPORTED_MEDIA },
	};
	struct genuine g;

	(void)unused;
	make_genuine(&g);
	assert_int_equal(judge(&g, &g.request, 999), TRIB_PROBLEM_COUNT);
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		struct trib_http_request bad = g.request;

		for (size_t k = 0; k < bad.field_count; k++) {
			if (strcmp(bad.fields[k].name, cases[i].name) == 0) {
				bad.fields[k].value = cases[i].value;
				bad.fields[k].name = cases[i].value ? cases[i].name : "x";
			}
		}
		assert_int_equal(judge(&g, &bad, 999), cases[i].problem);
	}
}

static void time_and_size_are_bounded(void **unused)
{
	struct genuine g;
	struct genuine other;

	(void)unused;
	make_genuine(&g);
	make_genuine(&other);
	assert_int_equal(judge(&g, &g.request, 1001), TRIB_PROBLEM_TICKET_EXPIRED);
	assert_int_equal(judge(&other, &g.request, 999), TRIB_PROBLEM_TICKET_INVALID);
	g.request.length = 501;
	assert_int_equal(judge(&g, &g.request, 999), TRIB_PROBLEM_TOO_LARGE);
	g.request.length = 9;
	assert_int_equal(judge(&g, &g.request, 999), TRIB_PROBLEM_INVALID_HEADER);
	g.request.has_length = false;
	assert_int_equal(judge(&g, &g.request, 999), TRIB_PROBLEM_LENGTH_REQUIRED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(weights),
		cmocka_unit_test(checksums),
		cmocka_unit_test(ranges),
		cmocka_unit_test(etags),
		cmocka_unit_test(one_wrong_field_at_a_time),
		cmocka_unit_test(time_and_size_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
