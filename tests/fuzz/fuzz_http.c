/* SPDX-License-Identifier: Apache-2.0
 * libFuzzer: request heads and chunked framing. First byte chooses; the rest is the input.
 *   clang-14 -g -O1 -std=gnu11 -D_GNU_SOURCE -I. -fsanitize=fuzzer,address,undefined \
 *       tests/fuzz/fuzz_http.c common/http.c common/base.c -o fuzz_http && ./fuzz_http
 * -max_len=4096
 */
#include <string.h>

#include "common/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool inside(const char *text, const char *head, size_t size)
{
	return text >= head && text + strlen(text) < head + size;
}

/* What handlers rely on, of every head that was taken. */
static void check(const struct trib_http_request *request, const char *head, size_t size)
{
	char out[64];

	TRIB_ASSERT(request->path[0] == '/');
	TRIB_ASSERT(strcmp(request->path, "/") == 0 || inside(request->path, head, size));
	TRIB_ASSERT(!strstr(request->path, "//") && !strstr(request->path, "/../"));
	TRIB_ASSERT(!(request->chunked && request->has_length));
	TRIB_ASSERT(request->field_count <= TRIB_HTTP_FIELDS_MAX);
	TRIB_ASSERT(*request->query == '\0' || inside(request->query, head, size));
	for (uint32_t i = 0; i < request->field_count; i++) {
		const struct trib_http_field *field = &request->fields[i];

		TRIB_ASSERT(*field->name && inside(field->name, head, size));
		TRIB_ASSERT(inside(field->value, head, size));
		TRIB_ASSERT(!strpbrk(field->name, " \t:\r\n") && !strpbrk(field->value, "\r\n"));
	}
	TRIB_ASSERT(request->chunked == !!trib_http_field(request, "transfer-encoding"));
	TRIB_ASSERT(request->has_length == !!trib_http_field(request, "content-length"));
	if (trib_http_query(request, "a", out, sizeof(out)) == 0) {
		TRIB_ASSERT(strlen(out) < sizeof(out));
	}
	TRIB_ASSERT(trib_http_prefer_wait(request, 30) <= 30);
}

static void fuzz_head(const uint8_t *data, size_t size)
{
	struct trib_http_request request;
	char *head = trib_alloc(size);
	int status;

	if (!head) {
		return;
	}
	memcpy(head, data, size);
	status = trib_http_parse(head, size, &request);
	TRIB_ASSERT(status == 0 || (status >= 400 && status <= 505));
	if (status == 0) {
		check(&request, head, size);
	}
	trib_free(head);
}

static void fuzz_chunks(const uint8_t *data, size_t size)
{
	enum trib_http_chunk_step step = TRIB_HTTP_CHUNK_MORE;
	struct trib_http_chunks chunks;
	size_t lines = 0;

	trib_http_chunks_init(&chunks);
	for (size_t at = 0; at < size;) {
		if (step == TRIB_HTTP_CHUNK_DATA && chunks.left) {
			size_t take = chunks.left < size - at ? (size_t)chunks.left : size - at;

			chunks.left -= take;
			at += take;
			continue;
		}
		step = trib_http_chunk_byte(&chunks, data[at++]);
		lines++;
		TRIB_ASSERT(step != TRIB_HTTP_CHUNK_DATA || chunks.left > 0);
		TRIB_ASSERT(chunks.left < (UINT64_C(1) << 60));
		if (step == TRIB_HTTP_CHUNK_END || step == TRIB_HTTP_CHUNK_BAD) {
			break;
		}
	}
	if (step == TRIB_HTTP_CHUNK_END || step == TRIB_HTTP_CHUNK_BAD) {
		TRIB_ASSERT(trib_http_chunk_byte(&chunks, '0') == TRIB_HTTP_CHUNK_BAD);
	}
	TRIB_ASSERT(lines <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0) {
		return 0;
	}
	if (data[0] & 1) {
		fuzz_chunks(data + 1, size - 1);
	} else {
		fuzz_head(data + 1, size - 1);
	}
	return 0;
}
