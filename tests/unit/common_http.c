/* SPDX-License-Identifier: Apache-2.0 */
#include "common/http.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* The head lies right before a page nobody may touch: reading or writing past it is fatal. */
static char *guarded(const char *text, size_t size)
{
	static char *page;
	const size_t room = 32768;

	if (!page) {
		page = mmap(NULL, room + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
		assert_true(page != MAP_FAILED);
		assert_int_equal(mprotect(page + room, 4096, PROT_NONE), 0);
	}
	memcpy(page + room - size, text, size);
	return page + room - size;
}

static struct trib_http_request request;

static int parse_bytes(const char *text, size_t size)
{
	return trib_http_parse(guarded(text, size), size, &request);
}

static int parse(const char *text)
{
	return parse_bytes(text, strlen(text));
}

#define H "Host: a\r\n"

struct bad {
	const char *text;
	size_t size; /* 0: strlen */
	int status;
};

static const struct bad bads[] = {
	/* line ends and control characters */
	{ "GET / HTTP/1.1\n" H "\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\nHost: a\n\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "X: \rTransfer-Encoding: chunked\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "X: \nTransfer-Encoding: chunked\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "X: a\0b\r\n\r\n", 16 + 9 + 8 + 2, 400 },
	{ "GET / HTTP/1.1\r\n" H "X: a\x01z\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "X: a\x7fz\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "X: a\r\r\n\r\n", 0, 400 },
	{ "\r\nGET / HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "\r\nGET /2 HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H, 0, 400 }, /* no end */
	{ "\r\n\r\n", 0, 400 },
	/* fields */
	{ "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", 0, 400 }, /* obs-fold */
	{ "GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "Content-Length : 5\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "Content-Length\t: 5\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H ": x\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "novalue\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "X(: 1\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H "X\xc3\xa9: 1\r\n\r\n", 0, 400 },
	/* framing */
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: -5\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 5 5\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 5,\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 005\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 18446744073709551616\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 9223372036854775808\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 5\r\ncontent-length: 6\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 0,
	  400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", 0,
	  400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;x=1\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", 0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding: \x0b"
	  "chunked\r\n\r\n",
	  0, 400 },
	{ "PUT / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
	  0, 400 },
	{ "PUT / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", 0, 400 },
	/* host */
	{ "GET / HTTP/1.1\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\n" H H "\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 0, 400 },
	{ "GET / HTTP/1.1\r\nHost:\r\n\r\n", 0, 400 },
	{ "GET http://b/x HTTP/1.1\r\n" H "\r\n", 0, 400 }, /* two opinions */
	/* request line */
	{ "GET / HTTP/2.0\r\n" H "\r\n", 0, 505 },
	{ "PRI * HTTP/2.0\r\n" H "\r\n", 0, 505 },
	{ "GET / HTTP/0.9\r\n" H "\r\n", 0, 505 },
	{ "GET / HTTP/1.2\r\n" H "\r\n", 0, 505 },
	{ "GET /\r\n" H "\r\n", 0, 400 },
	{ "GET / \r\n" H "\r\n", 0, 400 },
	{ "GET / HTTP/1.1 \r\n" H "\r\n", 0, 400 },
	{ "GET / HTTP/1.10\r\n" H "\r\n", 0, 400 },
	{ "GET / http/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET  / HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET\t/ HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET / / HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ " GET / HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "get / HTTP/1.1\r\n" H "\r\n", 0, 501 },
	{ "BREW / HTTP/1.1\r\n" H "\r\n", 0, 501 },
	{ "G(T / HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "TRACE / HTTP/1.1\r\n" H "\r\n", 0, 405 },
	{ "CONNECT a:443 HTTP/1.1\r\n" H "\r\n", 0, 405 },
	{ "GET * HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "OPTIONS * HTTP/1.1\r\n" H "\r\n", 0, 501 },
	{ "GET x HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET ftp://a/ HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET http:///x HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET http://u:p@a/x HTTP/1.1\r\n" H "\r\n", 0, 400 },
	/* paths */
	{ "GET /a%00b HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a%2fb HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a%2Fb HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a%5cb HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a\\b HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a%0d%0aX:1 HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a%zz HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a%2 HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a% HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a%2?2e HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /../x HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a/.. HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a/%2e%2E/b HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a//../b HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /./b HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a#b HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /a?b#c HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", 0, 400 },
	{ "GET /?\xff HTTP/1.1\r\n" H "\r\n", 0, 400 },
	/* expectation */
	{ "PUT / HTTP/1.1\r\n" H "Expect: 200-ok\r\n\r\n", 0, 417 },
};

static void hostile_heads_are_refused(void **state)
{
	(void)state;
	assert_true(TRIB_COUNT(bads) >= 40);
	for (size_t i = 0; i < TRIB_COUNT(bads); i++) {
		size_t size = bads[i].size ? bads[i].size : strlen(bads[i].text);
		int status = parse_bytes(bads[i].text, size);

		if (status != bads[i].status) {
			fail_msg("head %zu: got %d, want %d: %s", i, status, bads[i].status,
				 bads[i].text);
		}
	}
}

static void sizes_are_bounded(void **state)
{
	char head[TRIB_HTTP_HEAD_MAX + 64];
	int n;

	(void)state;
	/* 64 fields are fine, 65 are not. */
	for (int fields = 64; fields <= 65; fields++) {
		n = snprintf(head, sizeof(head), "GET / HTTP/1.1\r\n" H);
		for (int i = 1; i < fields; i++) {
			n += snprintf(head + n, sizeof(head) - (size_t)n, "X%d: y\r\n", i);
		}
		n += snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
		assert_int_equal(parse_bytes(head, (size_t)n), fields == 64 ? 0 : 431);
	}
	/* Target. */
	n = snprintf(head, sizeof(head), "GET /");
	memset(head + n, 'a', 8200);
	n += 8200;
	n += snprintf(head + n, sizeof(head) - (size_t)n, " HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(parse_bytes(head, (size_t)n), 414);
	/* Exactly 16 KiB, and one byte more. */
	for (size_t total = TRIB_HTTP_HEAD_MAX; total <= TRIB_HTTP_HEAD_MAX + 1; total++) {
		n = snprintf(head, sizeof(head), "GET / HTTP/1.1\r\n" H "X: ");
		memset(head + n, 'v', total - (size_t)n - 4);
		memcpy(head + total - 4, "\r\n\r\n", 4);
		assert_int_equal(parse_bytes(head, total), total == TRIB_HTTP_HEAD_MAX ? 0 : 431);
	}
	assert_int_equal(parse_bytes("", 0), 400);
}

static void plain_request(void **state)
{
	(void)state;
	assert_int_equal(
		parse("PUT //v1///jobs/a%20b/?x=1&y=%41 HTTP/1.1\r\nHost: [::1]:80\r\n"
		      "FL-Weight: \t 512 \t\r\nEmpty:\r\nContent-Length: 9223372036854775807"
		      "\r\nExpect: 100-Continue\r\n\r\n"),
		0);
	assert_int_equal(request.method, TRIB_HTTP_PUT);
	assert_string_equal(request.path, "/v1/jobs/a b/");
	assert_string_equal(request.query, "x=1&y=%41");
	assert_true(request.keep_alive);
	assert_true(request.has_length);
	assert_false(request.chunked);
	assert_true(request.expect_continue);
	assert_true(request.length == INT64_MAX);
	assert_int_equal(request.field_count, 5);
	assert_string_equal(trib_http_field(&request, "fl-weight"), "512");
	assert_string_equal(trib_http_field(&request, "empty"), "");
	assert_null(trib_http_field(&request, "nothing"));
}

static void other_valid_heads(void **state)
{
	static const struct {
		const char *text;
		const char *path;
		bool keep_alive;
		bool chunked;
	} goods[] = {
		{ "GET / HTTP/1.1\r\n" H "\r\n", "/", true, false },
		{ "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n", "/", false, false },
		{ "GET / HTTP/1.1\r\n" H "Connection: a, Close ,b\r\n\r\n", "/", false, false },
		{ "GET / HTTP/1.0\r\n\r\n", "/", false, false },
		{ "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "/", true, false },
		{ "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "/", false, false },
		{ "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n", "/x", true, true },
		{ "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: Chunked \r\n\r\n", "/x", true,
		  true },
		{ "GET http://A/x?y HTTP/1.1\r\n" H "\r\n", "/x", true, false },
		{ "GET http://a HTTP/1.1\r\n" H "\r\n", "/", true, false },
		{ "GET http://a?q HTTP/1.1\r\n" H "\r\n", "/", true, false },
		{ "GET /...%252e/a..b/.x HTTP/1.1\r\n" H "\r\n", "/...%2e/a..b/.x", true, false },
		{ "GET /a%C3%A9 HTTP/1.1\r\n" H "\r\n", "/a\xc3\xa9", true, false },
		{ "GET /a HTTP/1.1\r\n" H "X: caf\xc3\xa9\r\n\r\n", "/a", true, false },
	};

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(goods); i++) {
		assert_int_equal(parse(goods[i].text), 0);
		assert_string_equal(request.path, goods[i].path);
		assert_int_equal(request.keep_alive, goods[i].keep_alive);
		assert_int_equal(request.chunked, goods[i].chunked);
	}
	assert_int_equal(parse("GET http://a?q HTTP/1.1\r\n" H "\r\n"), 0);
	assert_string_equal(request.query, "q");
}

static void query_values(void **state)
{
	char out[8];

	(void)state;
	assert_int_equal(
		parse("GET /?a=1&bb=x%20y&c&d=&e=%00&f=%4&g=1234567&h=12345678&a=2&=z&i==%3D "
		      "HTTP/1.1\r\n" H "\r\n"),
		0);
	assert_int_equal(trib_http_query(&request, "a", out, sizeof(out)), 0);
	assert_string_equal(out, "1");
	assert_int_equal(trib_http_query(&request, "bb", out, sizeof(out)), 0);
	assert_string_equal(out, "x y");
	assert_int_equal(trib_http_query(&request, "c", out, sizeof(out)), 0);
	assert_string_equal(out, "");
	assert_int_equal(trib_http_query(&request, "d", out, sizeof(out)), 0);
	assert_string_equal(out, "");
	assert_int_equal(trib_http_query(&request, "e", out, sizeof(out)), -EINVAL);
	assert_int_equal(trib_http_query(&request, "f", out, sizeof(out)), -EINVAL);
	assert_int_equal(trib_http_query(&request, "g", out, sizeof(out)), 0);
	assert_int_equal(trib_http_query(&request, "h", out, sizeof(out)), -ENAMETOOLONG);
	assert_int_equal(trib_http_query(&request, "b", out, sizeof(out)), -ENOENT);
	assert_int_equal(trib_http_query(&request, "i", out, sizeof(out)), 0);
	assert_string_equal(out, "==");
}

static void prefer_wait(void **state)
{
	static const struct {
		const char *value;
		unsigned wait;
	} cases[] = {
		{ "wait=25", 25 },
		{ "wait=99", 30 },
		{ "wait=-1", 0 },
		{ "wait=", 0 },
		{ "wait", 0 },
		{ "Wait=7", 7 },
		{ "respond-async, wait=5; x=1", 5 },
		{ "wait=5x", 0 },
		{ "wait=99999999999999999999999", 0 },
		{ "", 0 },
	};
	char head[256];

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		(void)snprintf(head, sizeof(head), "GET / HTTP/1.1\r\n" H "Prefer: %s\r\n\r\n",
			       cases[i].value);
		assert_int_equal(parse(head), 0);
		assert_int_equal(trib_http_prefer_wait(&request, 30), cases[i].wait);
	}
}

/* Decodes a chunked text; returns the step it ended with, data into out. */
static enum trib_http_chunk_step dechunk(const char *text, size_t size, char *out, size_t *used)
{
	struct trib_http_chunks chunks;
	enum trib_http_chunk_step step = TRIB_HTTP_CHUNK_MORE;
	size_t at = 0;

	trib_http_chunks_init(&chunks);
	while (at < size) {
		if (step == TRIB_HTTP_CHUNK_DATA && chunks.left) {
			size_t take = chunks.left < size - at ? (size_t)chunks.left : size - at;

			memcpy(out, text + at, take);
			out += take;
			at += take;
			chunks.left -= take;
			continue;
		}
		step = trib_http_chunk_byte(&chunks, (uint8_t)text[at++]);
		if (step == TRIB_HTTP_CHUNK_END || step == TRIB_HTTP_CHUNK_BAD) {
			break;
		}
	}
	*out = '\0';
	*used = at;
	return step;
}

static void chunks(void **state)
{
	static const char *const bad[] = {
		"\r\n",
		"x\r\n",
		" 5\r\nhello\r\n0\r\n\r\n",
		"5 \r\nhello\r\n0\r\n\r\n",
		"+5\r\nhello\r\n0\r\n\r\n",
		"0x5\r\nhello\r\n0\r\n\r\n",
		"5\nhello\r\n0\r\n\r\n",
		"5\rXhello\r\n0\r\n\r\n",
		"5\r\nhello0\r\n\r\n",
		"5\r\nhello\n0\r\n\r\n",
		"5\r\nhello\rX0\r\n\r\n",
		"5;a\nb\r\nhello\r\n0\r\n\r\n",
		"5;a\x01\r\nhello\r\n0\r\n\r\n",
		"1000000000000000\r\n", /* 16 digits */
		"ffffffffffffffffff\r\n",
		"0\r\n X: folded\r\n\r\n",
		"0\r\nX: a\nY: b\r\n\r\n",
		"0\r\n\rX",
		";\r\n",
	};
	static const char good[] =
		"5\r\nhello\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET";
	char out[65536];
	char text[65536];
	size_t used;
	int n;

	(void)state;
	assert_int_equal(dechunk(good, sizeof(good) - 1, out, &used), TRIB_HTTP_CHUNK_END);
	assert_string_equal(out, "hello0123456789");
	assert_string_equal(good + used, "GET");
	for (size_t i = 0; i < TRIB_COUNT(bad); i++) {
		if (dechunk(bad[i], strlen(bad[i]), out, &used) != TRIB_HTTP_CHUNK_BAD) {
			fail_msg("chunks %zu taken: %s", i, bad[i]);
		}
	}
	assert_int_equal(dechunk("fffffffffffffff\r\n", 17, out, &used), TRIB_HTTP_CHUNK_DATA);
	/* Extensions without end. */
	n = snprintf(text, sizeof(text), "5;");
	memset(text + n, 'e', 20000);
	assert_int_equal(dechunk(text, 20000, out, &used), TRIB_HTTP_CHUNK_BAD);
	assert_in_range(used, 16000, 16400);
	/* Trailers without end. */
	n = snprintf(text, sizeof(text), "0\r\n");
	while (n < 30000) {
		n += snprintf(text + n, sizeof(text) - (size_t)n, "X: y\r\n");
	}
	assert_int_equal(dechunk(text, (size_t)n, out, &used), TRIB_HTTP_CHUNK_BAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_heads_are_refused),
		cmocka_unit_test(sizes_are_bounded),
		cmocka_unit_test(plain_request),
		cmocka_unit_test(other_valid_heads),
		cmocka_unit_test(query_values),
		cmocka_unit_test(prefer_wait),
		cmocka_unit_test(chunks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
