/* SPDX-License-Identifier: Apache-2.0 */
#include "common/http.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define TARGET_MAX     8192
#define CHUNK_DIGITS   15    /* 60 bits: no overflow possible */
#define CHUNK_LINE_MAX 16384 /* extensions and trailers of one body, together */

enum {
	IS_TOKEN = 1,
	IS_PATH = 2,
	IS_HOST = 4
};

/* RFC 9110 tchar; RFC 3986 pchar and '/' (without '%'); reg-name, IP literal and port. */
static const uint8_t kinds[256] = {
	['0' ... '9'] = IS_TOKEN | IS_PATH | IS_HOST,
	['A' ... 'Z'] = IS_TOKEN | IS_PATH | IS_HOST,
	['a' ... 'z'] = IS_TOKEN | IS_PATH | IS_HOST,
	['-'] = IS_TOKEN | IS_PATH | IS_HOST,
	['.'] = IS_TOKEN | IS_PATH | IS_HOST,
	['_'] = IS_TOKEN | IS_PATH | IS_HOST,
	['~'] = IS_TOKEN | IS_PATH | IS_HOST,
	['!'] = IS_TOKEN | IS_PATH,
	['$'] = IS_TOKEN | IS_PATH,
	['&'] = IS_TOKEN | IS_PATH,
	['\''] = IS_TOKEN | IS_PATH,
	['*'] = IS_TOKEN | IS_PATH,
	['+'] = IS_TOKEN | IS_PATH,
	['#'] = IS_TOKEN,
	['%'] = IS_TOKEN,
	['^'] = IS_TOKEN,
	['`'] = IS_TOKEN,
	['|'] = IS_TOKEN,
	['('] = IS_PATH,
	[')'] = IS_PATH,
	[','] = IS_PATH,
	[';'] = IS_PATH,
	['='] = IS_PATH,
	['@'] = IS_PATH,
	['/'] = IS_PATH,
	[':'] = IS_PATH | IS_HOST,
	['['] = IS_HOST,
	[']'] = IS_HOST,
};

static bool is(char c, int kind)
{
	return kinds[(uint8_t)c] & kind;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9') {
		return c - '0';
	}
	if (c >= 'a' && c <= 'f') {
		return c - 'a' + 10;
	}
	if (c >= 'A' && c <= 'F') {
		return c - 'A' + 10;
	}
	return -1;
}

/* What the fields say together, judged after all of them are known. */
struct facts {
	bool http10;
	bool host;
	bool length;
	bool coding;
	bool close;
	bool keep;
	const char *authority; /* of an absolute-form target, not terminated */
	size_t authority_size;
};

/* Line ends are CRLF and nothing else; no control character but HTAB. */
static bool bytes_fine(const char *buffer, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		uint8_t c = (uint8_t)buffer[i];

		if (c == '\r') {
			if (i + 1 == size || buffer[i + 1] != '\n') {
				return false;
			}
		} else if (c == '\n') {
			if (i == 0 || buffer[i - 1] != '\r') {
				return false;
			}
		} else if ((c < 0x20 && c != '\t') || c == 0x7f) {
			return false;
		}
	}
	return true;
}

static int parse_method(const char *method, size_t size, struct trib_http_request *request)
{
	static const struct {
		const char *text;
		enum trib_http_method method;
	} known[] = {
		{ "GET", TRIB_HTTP_GET },         { "HEAD", TRIB_HTTP_HEAD },
		{ "POST", TRIB_HTTP_POST },       { "PUT", TRIB_HTTP_PUT },
		{ "PATCH", TRIB_HTTP_PATCH },     { "DELETE", TRIB_HTTP_DELETE },
		{ "OPTIONS", TRIB_HTTP_OPTIONS },
	};

	for (size_t i = 0; i < size; i++) {
		if (!is(method[i], IS_TOKEN)) {
			return 400;
		}
	}
	for (size_t i = 0; i < TRIB_COUNT(known); i++) {
		if (strlen(known[i].text) == size && memcmp(known[i].text, method, size) == 0) {
			request->method = known[i].method;
			return 0;
		}
	}
	if ((size == 7 && memcmp(method, "CONNECT", 7) == 0) ||
	    (size == 5 && memcmp(method, "TRACE", 5) == 0)) {
		return 405;
	}
	return size ? 501 : 400;
}

static int parse_version(const char *version, size_t size, struct facts *facts)
{
	if (size != 8 || memcmp(version, "HTTP/", 5) != 0 || version[6] != '.' ||
	    version[5] < '0' || version[5] > '9' || version[7] < '0' || version[7] > '9') {
		return 400;
	}
	if (version[5] != '1' || version[7] > '1') {
		return 505;
	}
	facts->http10 = version[7] == '0';
	return 0;
}

/* A segment "." or ".." means that client and server may differ about what was asked for. */
static bool has_dot_segment(const char *path)
{
	for (const char *at = path; *at; at++) {
		const char *next = at + 1;

		if (*at != '/') {
			continue;
		}
		if (next[0] == '.' && (next[1] == '/' || next[1] == '\0')) {
			return true;
		}
		if (next[0] == '.' && next[1] == '.' && (next[2] == '/' || next[2] == '\0')) {
			return true;
		}
	}
	return false;
}

/* path[0..end) in place; *end may be overwritten. */
static int decode_path(char *path, const char *end)
{
	char *out = path;

	for (const char *at = path; at < end; at++) {
		char c = *at;

		if (c == '%') {
			int high = end - at > 2 ? hex_value(at[1]) : -1;
			int low = end - at > 2 ? hex_value(at[2]) : -1;

			if (high < 0 || low < 0) {
				return 400;
			}
			c = (char)(high << 4 | low);
			if ((uint8_t)c < 0x20 || c == 0x7f || c == '/' || c == '\\') {
				return 400;
			}
			at += 2;
		} else if (!is(c, IS_PATH)) {
			return 400;
		} else if (c == '/' && out > path && out[-1] == '/') {
			continue;
		}
		*out++ = c;
	}
	*out = '\0';
	return has_dot_segment(path) ? 400 : 0;
}

/* absolute-form: steps over "http://authority", telling the authority. Returns NULL if malformed.
 */
static char *skip_authority(char *target, const char *end, struct facts *facts)
{
	char *at = NULL;

	if (end - target > 7 && strncasecmp(target, "http://", 7) == 0) {
		at = target + 7;
	} else if (end - target > 8 && strncasecmp(target, "https://", 8) == 0) {
		at = target + 8;
	} else {
		return NULL;
	}
	facts->authority = at;
	while (at < end && is(*at, IS_HOST)) {
		at++;
	}
	facts->authority_size = (size_t)(at - facts->authority);
	return facts->authority_size && (at == end || *at == '/' || *at == '?') ? at : NULL;
}

static int parse_target(char *target, char *end, struct trib_http_request *request,
			struct facts *facts)
{
	char *query = NULL;
	char *path = target;

	if (end - target > TARGET_MAX) {
		return 414;
	}
	if (target == end) {
		return 400;
	}
	if (end - target == 1 && *target == '*' && request->method == TRIB_HTTP_OPTIONS) {
		return 501;
	}
	if (*target != '/') {
		path = skip_authority(target, end, facts);
		if (!path) {
			return 400;
		}
	}
	query = memchr(path, '?', (size_t)(end - path));
	request->query = "";
	if (query) {
		request->query = query + 1;
		for (const char *at = query + 1; at < end; at++) {
			if (*at <= 0x20 || *at == 0x7f || *at == '#') {
				return 400;
			}
		}
		*end = '\0';
	}
	if (path == (query ? query : end)) {
		request->path = "/";
		return 0;
	}
	request->path = path;
	return decode_path(path, query ? query : end);
}

static int parse_request_line(char *line, char *end, struct trib_http_request *request,
			      struct facts *facts)
{
	char *target = memchr(line, ' ', (size_t)(end - line));
	char *version = target ? memchr(target + 1, ' ', (size_t)(end - target - 1)) : NULL;
	int status;

	if (!version) {
		return end - line > TARGET_MAX ? 414 : 400;
	}
	status = parse_version(version + 1, (size_t)(end - version - 1), facts);
	if (status == 0) {
		status = parse_method(line, (size_t)(target - line), request);
	}
	if (status == 0) {
		status = parse_target(target + 1, version, request, facts);
	}
	return status;
}

static int parse_field(char *line, char *end, struct trib_http_request *request)
{
	struct trib_http_field *field;
	char *at = line;
	char *value_end = end;

	if (request->field_count == TRIB_HTTP_FIELDS_MAX) {
		return 431;
	}
	for (; at < end && is(*at, IS_TOKEN); at++) {
		if (*at >= 'A' && *at <= 'Z') {
			*at = (char)(*at | 0x20);
		}
	}
	if (at == line || at == end || *at != ':') { /* obs-fold and "name :" end here too */
		return 400;
	}
	*at++ = '\0';
	while (at < end && (*at == ' ' || *at == '\t')) {
		at++;
	}
	while (value_end > at && (value_end[-1] == ' ' || value_end[-1] == '\t')) {
		value_end--;
	}
	*value_end = '\0';
	field = &request->fields[request->field_count++];
	field->name = line;
	field->value = at;
	return 0;
}

/* Next member of a comma-separated list: false at its end. */
static bool list_next(const char **at, const char **ret_item, size_t *ret_size)
{
	const char *start = *at + strspn(*at, " \t,");
	size_t size = strcspn(start, ",");

	*at = start + size;
	while (size && (start[size - 1] == ' ' || start[size - 1] == '\t')) {
		size--;
	}
	*ret_item = start;
	*ret_size = size;
	return size > 0;
}

static bool item_is(const char *item, size_t size, const char *text)
{
	return strlen(text) == size && strncasecmp(item, text, size) == 0;
}

static int judge_host(const char *value, struct facts *facts)
{
	size_t size = strlen(value);

	if (facts->host || size == 0) {
		return 400;
	}
	facts->host = true;
	for (size_t i = 0; i < size; i++) {
		if (!is(value[i], IS_HOST)) {
			return 400;
		}
	}
	if (facts->authority &&
	    (facts->authority_size != size || strncasecmp(facts->authority, value, size) != 0)) {
		return 400;
	}
	return 0;
}

static int judge_field(const struct trib_http_field *field, struct trib_http_request *request,
		       struct facts *facts)
{
	const char *value = field->value;
	const char *item;
	size_t size;

	if (strcmp(field->name, "host") == 0) {
		return judge_host(value, facts);
	}
	if (strcmp(field->name, "content-length") == 0) {
		if (facts->length ||
		    trib_parse_u64(value, strlen(value), 0, INT64_MAX, &request->length)) {
			return 400;
		}
		facts->length = true;
	} else if (strcmp(field->name, "transfer-encoding") == 0) {
		if (facts->coding || strcasecmp(value, "chunked") != 0) {
			return 400;
		}
		facts->coding = true;
	} else if (strcmp(field->name, "connection") == 0) {
		while (list_next(&value, &item, &size)) {
			facts->close = facts->close || item_is(item, size, "close");
			facts->keep = facts->keep || item_is(item, size, "keep-alive");
		}
	} else if (strcmp(field->name, "expect") == 0) {
		if (strcasecmp(value, "100-continue") != 0) {
			return 417;
		}
		request->expect_continue = true;
	}
	return 0;
}

static int judge(struct trib_http_request *request, struct facts *facts)
{
	int status = 0;

	for (uint32_t i = 0; i < request->field_count && status == 0; i++) {
		status = judge_field(&request->fields[i], request, facts);
	}
	if (status) {
		return status;
	}
	if ((!facts->host && !facts->http10) || (facts->length && facts->coding) ||
	    (facts->coding && facts->http10)) {
		return 400;
	}
	request->has_length = facts->length;
	request->chunked = facts->coding;
	request->keep_alive = !facts->close && (!facts->http10 || facts->keep);
	request->expect_continue = request->expect_continue && !facts->http10;
	return 0;
}

int trib_http_parse(char *buffer, size_t size, struct trib_http_request *ret_request)
{
	struct facts facts = { 0 };
	char *at;
	char *end;
	int status;

	memset(ret_request, 0, offsetof(struct trib_http_request, fields));
	ret_request->path = "/";
	ret_request->query = "";
	if (size > TRIB_HTTP_HEAD_MAX) {
		return 431;
	}
	if (size < 4 || memcmp(buffer + size - 4, "\r\n\r\n", 4) != 0 ||
	    !bytes_fine(buffer, size)) {
		return 400;
	}
	end = memchr(buffer, '\r', size);
	status = parse_request_line(buffer, end, ret_request, &facts);
	at = end + 2;
	while (status == 0 && at < buffer + size - 2) {
		end = memchr(at, '\r', (size_t)(buffer + size - at));
		status = parse_field(at, end, ret_request);
		at = end + 2;
	}
	return status ? status : judge(ret_request, &facts);
}

const char *trib_http_method_text(enum trib_http_method method)
{
	static const char *const names[] = {
		[TRIB_HTTP_GET] = "GET",         [TRIB_HTTP_HEAD] = "HEAD",
		[TRIB_HTTP_POST] = "POST",       [TRIB_HTTP_PUT] = "PUT",
		[TRIB_HTTP_PATCH] = "PATCH",     [TRIB_HTTP_DELETE] = "DELETE",
		[TRIB_HTTP_OPTIONS] = "OPTIONS",
	};

	return names[method];
}

const char *trib_http_field(const struct trib_http_request *request, const char *name)
{
	for (uint32_t i = 0; i < request->field_count; i++) {
		if (strcmp(request->fields[i].name, name) == 0) {
			return request->fields[i].value;
		}
	}
	return NULL;
}

static int decode_value(const char *text, size_t text_size, char *out, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < text_size; i++) {
		char c = text[i];

		if (c == '%') {
			int high = text_size - i > 2 ? hex_value(text[i + 1]) : -1;
			int low = text_size - i > 2 ? hex_value(text[i + 2]) : -1;

			if (high < 0 || low < 0 || (high == 0 && low == 0)) {
				return -EINVAL;
			}
			c = (char)(high << 4 | low);
			i += 2;
		}
		if (used + 1 >= size) {
			return -ENAMETOOLONG;
		}
		out[used++] = c;
	}
	out[used] = '\0';
	return 0;
}

int trib_http_query(const struct trib_http_request *request, const char *name, char *out,
		    size_t size)
{
	size_t name_size = strlen(name);

	if (size == 0) {
		return -ENAMETOOLONG;
	}
	for (const char *at = request->query; *at;) {
		size_t pair = strcspn(at, "&");
		const char *equals = memchr(at, '=', pair);
		size_t key = equals ? (size_t)(equals - at) : pair;

		if (key == name_size && memcmp(at, name, key) == 0) {
			return equals ? decode_value(equals + 1, pair - key - 1, out, size)
				      : decode_value("", 0, out, size);
		}
		at += pair;
		at += *at == '&';
	}
	return -ENOENT;
}

unsigned trib_http_prefer_wait(const struct trib_http_request *request, unsigned max)
{
	for (uint32_t i = 0; i < request->field_count; i++) {
		const char *at = request->fields[i].value;
		const char *item;
		size_t size;

		if (strcmp(request->fields[i].name, "prefer") != 0) {
			continue;
		}
		while (list_next(&at, &item, &size)) {
			uint64_t wait;

			if (size < 5 || strncasecmp(item, "wait=", 5) != 0) {
				continue;
			}
			size = strcspn(item, "; \t,");
			if (trib_parse_u64(item + 5, size - 5, 0, UINT64_MAX, &wait)) {
				return 0;
			}
			return wait < max ? (unsigned)wait : max;
		}
	}
	return 0;
}

const char *trib_http_reason(int status)
{
	static const struct {
		int status;
		const char *text;
	} reasons[] = {
		{ 100, "Continue" },
		{ 200, "OK" },
		{ 201, "Created" },
		{ 202, "Accepted" },
		{ 204, "No Content" },
		{ 206, "Partial Content" },
		{ 301, "Moved Permanently" },
		{ 302, "Found" },
		{ 303, "See Other" },
		{ 304, "Not Modified" },
		{ 307, "Temporary Redirect" },
		{ 308, "Permanent Redirect" },
		{ 400, "Bad Request" },
		{ 401, "Unauthorized" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 406, "Not Acceptable" },
		{ 408, "Request Timeout" },
		{ 409, "Conflict" },
		{ 410, "Gone" },
		{ 411, "Length Required" },
		{ 412, "Precondition Failed" },
		{ 413, "Content Too Large" },
		{ 414, "URI Too Long" },
		{ 415, "Unsupported Media Type" },
		{ 416, "Range Not Satisfiable" },
		{ 417, "Expectation Failed" },
		{ 422, "Unprocessable Content" },
		{ 428, "Precondition Required" },
		{ 429, "Too Many Requests" },
		{ 431, "Request Header Fields Too Large" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 502, "Bad Gateway" },
		{ 503, "Service Unavailable" },
		{ 504, "Gateway Timeout" },
		{ 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < TRIB_COUNT(reasons); i++) {
		if (reasons[i].status == status) {
			return reasons[i].text;
		}
	}
	return "Unknown";
}

/*
 *  SIZE -digits-> SIZE -;-> EXTENSION -CR-> SIZE_LF -LF-> DATA (size > 0) | TRAILER_START (0)
 *  DATA -CR-> DATA_LF -LF-> SIZE
 *  TRAILER_START -CR-> END_LF -LF-> END;  -token-> TRAILER -CR-> TRAILER_LF -LF-> TRAILER_START
 */
enum {
	SIZE,
	EXTENSION,
	SIZE_LF,
	DATA,
	DATA_LF,
	TRAILER_START,
	TRAILER,
	TRAILER_LF,
	END_LF,
	END,
	BAD
};

void trib_http_chunks_init(struct trib_http_chunks *chunks)
{
	*chunks = (struct trib_http_chunks){ .state = SIZE };
}

static enum trib_http_chunk_step chunk_bad(struct trib_http_chunks *chunks)
{
	chunks->state = BAD;
	chunks->left = 0;
	return TRIB_HTTP_CHUNK_BAD;
}

static enum trib_http_chunk_step chunk_expect(struct trib_http_chunks *chunks, bool met, int state)
{
	if (!met) {
		return chunk_bad(chunks);
	}
	chunks->state = (uint8_t)state;
	return TRIB_HTTP_CHUNK_MORE;
}

/* A byte of an extension or trailer: bounded over the whole body, no control characters. */
static enum trib_http_chunk_step chunk_text(struct trib_http_chunks *chunks, uint8_t byte,
					    int state)
{
	bool fine = (byte >= 0x20 || byte == '\t') && byte != 0x7f && chunks->line < CHUNK_LINE_MAX;

	chunks->line++;
	return chunk_expect(chunks, fine, state);
}

static enum trib_http_chunk_step chunk_size(struct trib_http_chunks *chunks, uint8_t byte)
{
	int digit = hex_value((char)byte);

	if (digit >= 0 && chunks->digits < CHUNK_DIGITS) {
		chunks->left = chunks->left << 4 | (uint64_t)digit;
		chunks->digits++;
		return TRIB_HTTP_CHUNK_MORE;
	}
	if (chunks->digits && byte == ';') {
		return chunk_text(chunks, byte, EXTENSION);
	}
	return chunk_expect(chunks, chunks->digits && byte == '\r', SIZE_LF);
}

enum trib_http_chunk_step trib_http_chunk_byte(struct trib_http_chunks *chunks, uint8_t byte)
{
	switch (chunks->state) {
	case SIZE:
		return chunk_size(chunks, byte);
	case EXTENSION:
		return byte == '\r' ? chunk_expect(chunks, true, SIZE_LF)
				    : chunk_text(chunks, byte, EXTENSION);
	case SIZE_LF:
		if (byte != '\n') {
			return chunk_bad(chunks);
		}
		chunks->state = chunks->left ? DATA : TRAILER_START;
		return chunks->left ? TRIB_HTTP_CHUNK_DATA : TRIB_HTTP_CHUNK_MORE;
	case DATA:
		return chunk_expect(chunks, chunks->left == 0 && byte == '\r', DATA_LF);
	case DATA_LF:
		chunks->digits = 0;
		return chunk_expect(chunks, byte == '\n', SIZE);
	case TRAILER_START:
		if (byte == '\r') {
			return chunk_expect(chunks, true, END_LF);
		}
		return is((char)byte, IS_TOKEN) ? chunk_text(chunks, byte, TRAILER)
						: chunk_bad(chunks);
	case TRAILER:
		return byte == '\r' ? chunk_expect(chunks, true, TRAILER_LF)
				    : chunk_text(chunks, byte, TRAILER);
	case TRAILER_LF:
		return chunk_expect(chunks, byte == '\n', TRAILER_START);
	case END_LF:
		if (byte != '\n') {
			return chunk_bad(chunks);
		}
		chunks->state = END;
		return TRIB_HTTP_CHUNK_END;
	default: /* fed after END or BAD */
		return chunk_bad(chunks);
	}
}
