/* SPDX-License-Identifier: Apache-2.0
 * HTTP/1.1 request heads, strict RFC 9112: what is not certain is refused (400 and close).
 * Pure: no I/O, no allocation. One parser for gateway and orchestrator.
 */
#ifndef TRIB_COMMON_HTTP_H
#define TRIB_COMMON_HTTP_H

#include "common/base.h"

#define TRIB_HTTP_HEAD_MAX   16384
#define TRIB_HTTP_FIELDS_MAX 64

enum trib_http_method {
	TRIB_HTTP_GET,
	TRIB_HTTP_HEAD,
	TRIB_HTTP_POST,
	TRIB_HTTP_PUT,
	TRIB_HTTP_PATCH,
	TRIB_HTTP_DELETE,
	TRIB_HTTP_OPTIONS,
};

struct trib_http_field {
	const char *name;  /* terminated, lower-cased in place */
	const char *value; /* terminated, outer blanks removed */
};

struct trib_http_request {
	enum trib_http_method method;
	const char *path;  /* terminated, percent-decoded once, "//" collapsed, starts with '/' */
	const char *query; /* terminated, raw, "" when absent */
	bool keep_alive;
	bool expect_continue;
	bool chunked;
	bool has_length;
	uint64_t length; /* Content-Length when has_length */
	uint32_t field_count;
	struct trib_http_field fields[TRIB_HTTP_FIELDS_MAX];
};

/* Parses buffer[0..size), which ends with the head's CRLFCRLF, IN PLACE (terminators are written
 * into it; the request borrows it). Returns 0, or the HTTP status to refuse with (400, 405, 414,
 * 417, 431, 501, 505), after which the connection must be closed. Refused among others: bare CR or
 * LF, NUL, obs-fold, blanks before ':', missing or repeated Host, Content-Length with signs, lists
 * or repeats, Content-Length with Transfer-Encoding, any coding but exactly "chunked", HTTP/1.0
 * with Transfer-Encoding, path with ".." segments or encoded NUL/slash. */
int trib_http_parse(char *buffer, size_t size, struct trib_http_request *ret_request);

/* "GET" */
const char *trib_http_method_text(enum trib_http_method method);
/* First field called `name` (lower case), or NULL. */
const char *trib_http_field(const struct trib_http_request *request, const char *name);
/* Value of `name` in the query, percent-decoded into out: 0, -ENOENT, -EINVAL, -ENAMETOOLONG. */
TRIB_MUST_CHECK int trib_http_query(const struct trib_http_request *request, const char *name,
				    char *out, size_t size);
/* `Prefer: wait=25` -> 25 (capped at `max`), 0 when absent or malformed. */
unsigned trib_http_prefer_wait(const struct trib_http_request *request, unsigned max);
const char *trib_http_reason(int status);

/* Chunked framing, one byte at a time for the lines between data. */
struct trib_http_chunks {
	uint8_t state;
	uint8_t digits;
	uint16_t line; /* bytes of trailer/extension seen, bounded */
	uint64_t left; /* data bytes of the current chunk still to come */
};
enum trib_http_chunk_step {
	TRIB_HTTP_CHUNK_MORE, /* feed the next byte */
	TRIB_HTTP_CHUNK_DATA, /* chunks->left data bytes follow; subtract what you take, then feed
				 on */
	TRIB_HTTP_CHUNK_END,  /* body complete */
	TRIB_HTTP_CHUNK_BAD,
};
void trib_http_chunks_init(struct trib_http_chunks *chunks);
enum trib_http_chunk_step trib_http_chunk_byte(struct trib_http_chunks *chunks, uint8_t byte);

#endif
