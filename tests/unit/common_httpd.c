/* SPDX-License-Identifier: Apache-2.0
 * common/httpd.h: requests, bodies and replies. Limits and endings: common_httpd_limits.c.
 */
#include "tests/unit/httpd_fixture.h"

static void keep_alive_and_pipelining(void **state)
{
	int fd;

	(void)state;
	start(NULL);
	fd = dial();
	for (int i = 0; i < 3; i++) {
		say(fd, "GET /get?one HTTP/1.1\r\n" H "\r\n");
		assert_int_equal(hear(fd, false)->status, 200);
		assert_string_equal(last.body, "one");
	}
	say(fd, "GET /get?a HTTP/1.1\r\n" H "\r\n"
		"POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello"
		"GET /later HTTP/1.1\r\n" H "\r\n"
		"GET /get?d HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
	assert_string_equal(hear(fd, false)->body, "a");
	assert_string_equal(hear(fd, false)->body, "hello");
	assert_string_equal(hear(fd, false)->body, "late");
	assert_string_equal(hear(fd, false)->body, "d");
	assert_non_null(strstr(last.head, "X-Peer: 127.0.0.1\r\n"));
	assert_non_null(strstr(last.head, "Connection: close\r\n"));
	assert_true(closed(fd));
	hang_up(fd);
	stop();
	assert_int_equal(server.stats.requests, 7);
	assert_int_equal(server.stats.replies_by_class[2], 7);
	assert_int_equal(server.stats.connections, 1);
	assert_int_equal(server.gone, 0);
}

static void split_byte_by_byte(void **state)
{
	static const char text[] = "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
				   "00f;x\r\n0123456789abcde\r\n3\r\nxyz\r\n0\r\nT: x\r\n\r\n"
				   "GET /get?next HTTP/1.1\r\n" H "\r\n";
	int fd;

	(void)state;
	start(NULL);
	fd = dial();
	for (size_t i = 0; i + 1 < sizeof(text); i++) {
		assert_true(say_bytes(fd, text + i, 1));
		pause_us(300);
	}
	assert_string_equal(hear(fd, false)->body, "0123456789abcdexyz");
	assert_string_equal(hear(fd, false)->body, "next");
	hang_up(fd);
	stop();
}

static void check_sunk(int fd, const char *bytes)
{
	assert_int_equal(hear(fd, false)->status, 201);
	assert_string_equal(last.body, "8388608");
	assert_memory_equal(server.sunk, bytes, BIG);
	memset(server.sunk, 0, BIG);
}

static void uploads_land_in_the_sink(void **state)
{
	char *bytes = pattern(BIG);
	char line[32];
	int fd;

	(void)state;
	server.sunk = trib_alloc(BIG);
	start(NULL);
	fd = dial();
	/* With a length, and a request right behind it. */
	say(fd, "PUT /sink HTTP/1.1\r\n" H "Content-Length: 8388608\r\n\r\n");
	assert_true(say_bytes(fd, bytes, BIG));
	say(fd, "GET /get?behind HTTP/1.1\r\n" H "\r\n");
	check_sunk(fd, bytes);
	assert_string_equal(hear(fd, false)->body, "behind");
	/* Asked for later, from another callback. */
	say(fd, "PUT /later-sink HTTP/1.1\r\n" H "Content-Length: 8388608\r\n\r\n");
	assert_true(say_bytes(fd, bytes, BIG));
	check_sunk(fd, bytes);
	/* Chunked in uneven sizes. */
	say(fd, "PUT /sink HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n");
	for (size_t at = 0, size = 1; at < BIG; at += size, size = size * 3 % 300007 + 1) {
		size = size < BIG - at ? size : BIG - at;
		(void)snprintf(line, sizeof(line), "%zx\r\n", size);
		say(fd, line);
		assert_true(say_bytes(fd, bytes + at, size));
		say(fd, "\r\n");
	}
	say(fd, "0\r\n\r\nGET /get?end HTTP/1.1\r\n" H "\r\n");
	check_sunk(fd, bytes);
	assert_string_equal(hear(fd, false)->body, "end");
	/* Nothing to upload. */
	say(fd, "PUT /sink HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n");
	assert_string_equal(hear(fd, false)->body, "0");
	hang_up(fd);
	stop();
	assert_true(server.stats.bytes_in_sink == 3 * BIG);
	assert_int_equal(server.completed, 4);
	trib_free(bytes);
	trib_free(server.sunk);
}

static void early_refusal_reaches_the_client(void **state)
{
	char *bytes = pattern(BIG);
	int fd;

	(void)state;
	server.sunk = trib_alloc(BIG);
	start(NULL);
	fd = dial();
	say(fd, "PUT /early HTTP/1.1\r\n" H "Content-Length: 8388608\r\n\r\n");
	assert_true(say_bytes(fd, bytes, BIG)); /* all of it, as Python requests does */
	assert_int_equal(hear(fd, false)->status, 413);
	assert_non_null(strstr(last.head, "Connection: close\r\n"));
	assert_non_null(strstr(last.head, "Content-Type: application/problem+json\r\n"));
	assert_non_null(strstr(last.body, "\"detail\":\"no \\\"room\\\"\""));
	assert_true(closed(fd));
	hang_up(fd);
	/* Refused by the sink in the middle of the body. */
	fd = dial();
	say(fd, "PUT /sink-refuse HTTP/1.1\r\n" H "Content-Length: 8388608\r\n\r\n");
	assert_true(say_bytes(fd, bytes, BIG));
	assert_int_equal(hear(fd, false)->status, 422);
	assert_true(closed(fd));
	hang_up(fd);
	stop();
	assert_int_equal(server.gone, 0);
	trib_free(bytes);
	trib_free(server.sunk);
}

/* Its body is thrown away and the connection goes on, however the bytes come. */
static void small_refusals_keep_the_connection(void **state)
{
	char *bytes = pattern(70000);
	int fd;

	(void)state;
	start(NULL);
	fd = dial();
	for (int i = 0; i < 3; i++) {
		say(fd, "PUT /early HTTP/1.1\r\n" H "Content-Length: 65536\r\n\r\n");
		assert_true(say_bytes(fd, bytes, 30000));
		assert_int_equal(hear(fd, false)->status, 413);
		assert_null(strstr(last.head, "Connection: close"));
		assert_true(say_bytes(fd, bytes, 65536 - 30000));
		say(fd, "GET /get HTTP/1.1\r\n" H "\r\n");
		assert_int_equal(hear(fd, false)->status, 200);
	}
	/* The next request at once behind the body. */
	say(fd, "PUT /early HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabcGET /get HTTP/1.1\r\n" H
		"\r\n");
	assert_int_equal(hear(fd, false)->status, 413);
	assert_int_equal(hear(fd, false)->status, 200);
	/* Too much, of unknown length, or perhaps never sent: not waited for. */
	say(fd, "PUT /early HTTP/1.1\r\n" H "Content-Length: 65537\r\n\r\n");
	assert_true(say_bytes(fd, bytes, 65537));
	assert_int_equal(hear(fd, false)->status, 413);
	assert_true(closed(fd));
	hang_up(fd);
	fd = dial();
	say(fd, "PUT /early HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
	assert_int_equal(hear(fd, false)->status, 413);
	assert_true(closed(fd));
	hang_up(fd);
	stop();
	trib_free(bytes);
}

static void continue_when_the_body_is_asked_for(void **state)
{
	uint64_t began;
	int fd;

	(void)state;
	start(NULL);
	fd = dial();
	began = trib_clock_ms();
	say(fd,
	    "POST /later-body HTTP/1.1\r\n" H "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
	assert_int_equal(hear(fd, false)->status, 100);
	assert_true(trib_clock_ms() - began >= 40); /* not before the handler asked */
	say(fd, "hi");
	assert_string_equal(hear(fd, false)->body, "hi");
	say(fd, "POST /early HTTP/1.1\r\n" H "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
	assert_int_equal(hear(fd, false)->status, 413);
	assert_true(closed(fd));
	hang_up(fd);
	stop();
}

static void buffers_are_bounded(void **state)
{
	struct trib_httpd_limits limits = trib_httpd_limits_default;
	int fd;

	(void)state;
	limits.buffer_max = 10;
	start(&limits);
	fd = dial();
	say(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\n0123456789");
	assert_string_equal(hear(fd, false)->body, "0123456789");
	say(fd, "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
		"a\r\n0123456789\r\n0\r\n\r\n");
	assert_string_equal(hear(fd, false)->body, "0123456789");
	say(fd, "POST /echo HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, false)->status, 200);
	say(fd, "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
		"b\r\n0123456789a\r\n0\r\n\r\n");
	assert_int_equal(hear(fd, false)->status, 413);
	assert_true(closed(fd));
	hang_up(fd);
	fd = dial();
	say(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 11\r\nExpect: 100-continue\r\n\r\n");
	assert_int_equal(hear(fd, false)->status, 413);
	assert_true(closed(fd));
	hang_up(fd);
	stop();
}

static void bad_requests_are_answered_and_closed(void **state)
{
	static const struct {
		const char *text;
		int status;
	} cases[] = {
		{ "GET / HTTP/1.1\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\n", 400 }, /* at once, not after the timeout */
		{ "GET / HTTP/2.0\r\n" H "\r\n", 505 },
		{ "BREW / HTTP/1.1\r\n" H "\r\n", 501 },
		{ "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400 },
		{ "POST /echo HTTP/1.1\r\n" H
		  "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
		  400 },
	};
	char large[20000];
	int fd;

	(void)state;
	start(NULL);
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		fd = dial();
		say(fd, cases[i].text);
		assert_int_equal(hear(fd, false)->status, cases[i].status);
		assert_non_null(strstr(last.body, "\"type\":\"urn:trib:"));
		assert_true(closed(fd));
		hang_up(fd);
	}
	fd = dial();
	memset(large, 'x', sizeof(large));
	memcpy(large, "GET / HTTP/1.1\r\nX: ", 19);
	assert_true(say_bytes(fd, large, sizeof(large)));
	assert_int_equal(hear(fd, false)->status, 431);
	assert_true(closed(fd));
	hang_up(fd);
	stop();
	assert_int_equal(server.stats.head_errors, 6);
	assert_int_equal(server.stats.replies_by_class[4], 5);
	assert_int_equal(server.stats.replies_by_class[5], 2);
}

static void streams_and_heads(void **state)
{
	int fd;

	(void)state;
	start(NULL);
	fd = dial();
	say(fd, "GET /sse HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, false)->status, 200);
	assert_string_equal(last.body, "data: 1\n\ndata: 2\n\n");
	assert_null(strstr(last.head, "Content-Length"));
	hang_up(fd);
	fd = dial();
	say(fd, "HEAD /get?four HTTP/1.1\r\n" H "\r\nHEAD /memory HTTP/1.1\r\n" H "\r\n"
		"GET /twice HTTP/1.1\r\n" H "\r\nGET /get?x HTTP/1.1\r\n" H "\r\n");
	assert_non_null(strstr(hear(fd, true)->head, "Content-Length: 4\r\n"));
	assert_non_null(strstr(hear(fd, true)->head, "Content-Length: 33554432\r\n"));
	assert_int_equal(hear(fd, true)->status, 204);
	assert_null(strstr(last.head, "Content-Length"));
	assert_string_equal(hear(fd, false)->body, "x");
	assert_true(wait_for(&server.done, 1, 1000));
	say(fd, "GET /throttled HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, false)->status, 429);
	assert_non_null(strstr(last.head, "Retry-After: 2\r\n"));
	assert_non_null(strstr(last.body, "\"retry_after\":1.5"));
	say(fd, "GET /errors HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, false)->status, 422);
	assert_non_null(strstr(last.body, "\"errors\":[{\"at\":\"x\"}]"));
	hang_up(fd);
	stop();
	assert_int_equal(server.stream_refused, 0);
	assert_int_equal(server.gone, 0);
}

static void big_memory_is_sent_in_pieces(void **state)
{
	char *got = trib_alloc(MEMORY);
	size_t size = 0;
	int fd;

	(void)state;
	server.memory = pattern(MEMORY);
	start(NULL);
	fd = dial();
	say(fd, "GET /memory HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, true)->status, 200);
	while (size < MEMORY) {
		ssize_t n = recv(fd, got + size, MEMORY - size, 0);

		assert_true(n > 0);
		size += (size_t)n;
	}
	assert_memory_equal(got, server.memory, MEMORY);
	assert_true(wait_for(&server.done, 1, 1000));
	say(fd, "GET /get?still HTTP/1.1\r\n" H "\r\n");
	assert_string_equal(hear(fd, false)->body, "still");
	/* Not read to the end: done all the same. */
	say(fd, "GET /memory HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, true)->status, 200);
	hang_up(fd);
	assert_true(wait_for(&server.done, 2, 1000));
	stop();
	trib_free(got);
	trib_free(server.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keep_alive_and_pipelining),
		cmocka_unit_test(split_byte_by_byte),
		cmocka_unit_test(uploads_land_in_the_sink),
		cmocka_unit_test(early_refusal_reaches_the_client),
		cmocka_unit_test(small_refusals_keep_the_connection),
		cmocka_unit_test(continue_when_the_body_is_asked_for),
		cmocka_unit_test(buffers_are_bounded),
		cmocka_unit_test(bad_requests_are_answered_and_closed),
		cmocka_unit_test(streams_and_heads),
		cmocka_unit_test(big_memory_is_sent_in_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
