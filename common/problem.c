/* SPDX-License-Identifier: Apache-2.0 */
#include "common/problem.h"

#include <stdio.h>
#include <string.h>

static const struct {
	const char *code;
	int status;
	const char *title;
} problems[] = {
#define X(name, code, status, title) [TRIB_PROBLEM_##name] = { code, status, title },
	TRIB_PROBLEMS(X)
#undef X
};

const char *trib_problem_code(enum trib_problem problem)
{
	return problems[problem < TRIB_PROBLEM_COUNT ? problem : TRIB_PROBLEM_INTERNAL].code;
}

const char *trib_problem_title(enum trib_problem problem)
{
	return problems[problem < TRIB_PROBLEM_COUNT ? problem : TRIB_PROBLEM_INTERNAL].title;
}

int trib_problem_status(enum trib_problem problem)
{
	return problems[problem < TRIB_PROBLEM_COUNT ? problem : TRIB_PROBLEM_INTERNAL].status;
}

enum trib_problem trib_problem_of_status(int status)
{
	/* Where the first of a status is a special case. */
	if (status == 409) {
		return TRIB_PROBLEM_STATE_CONFLICT;
	}
	if (status == 503) {
		return TRIB_PROBLEM_UNAVAILABLE;
	}
	for (size_t i = 0; i < TRIB_PROBLEM_COUNT; i++) {
		if (problems[i].status == status) {
			return (enum trib_problem)i;
		}
	}
	return status >= 500 ? TRIB_PROBLEM_INTERNAL : TRIB_PROBLEM_BAD_REQUEST;
}

/* Size of the well-formed UTF-8 character at `at`, 0 if there is none (RFC 3629 table). */
static size_t utf8_size(const uint8_t *at)
{
	uint8_t low = 0x80;
	uint8_t high = 0xbf;
	size_t size;

	if (at[0] < 0x80) {
		return 1;
	}
	if (at[0] < 0xc2 || at[0] > 0xf4) {
		return 0;
	}
	size = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
	if (at[0] == 0xe0) {
		low = 0xa0;
	} else if (at[0] == 0xed) {
		high = 0x9f;
	} else if (at[0] == 0xf0) {
		low = 0x90;
	} else if (at[0] == 0xf4) {
		high = 0x8f;
	}
	if (at[1] < low || at[1] > high) {
		return 0;
	}
	for (size_t i = 2; i < size; i++) {
		if ((at[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	return size;
}

/* Text as the inside of a JSON string, at most `room` bytes, whole characters. Returns the size. */
static size_t escape(const char *text, char *out, size_t room)
{
	const uint8_t *at = (const uint8_t *)text;
	size_t used = 0;

	while (*at) {
		char piece[8] = { 0 };
		size_t taken = utf8_size(at);
		size_t size = taken;

		if (taken == 0) {
			taken = 1;
			size = (size_t)snprintf(piece, sizeof(piece), "\\ufffd");
		} else if (*at == '"' || *at == '\\') {
			size = (size_t)snprintf(piece, sizeof(piece), "\\%c", *at);
		} else if (*at < 0x20 || *at == 0x7f) {
			size = (size_t)snprintf(piece, sizeof(piece), "\\u%04x", *at);
		} else {
			memcpy(piece, at, taken);
		}
		if (used + size > room) {
			break;
		}
		memcpy(out + used, piece, size);
		used += size;
		at += taken;
	}
	return used;
}

/* Milliseconds as JSON seconds: "7", "7.5", "0.25". */
static void print_seconds(uint64_t ms, char out[32])
{
	int size = snprintf(out, 32, "%llu.%03u", (unsigned long long)(ms / 1000),
			    (unsigned)(ms % 1000));

	while (size > 0 && out[size - 1] == '0') {
		out[--size] = '\0';
	}
	if (size > 0 && out[size - 1] == '.') {
		out[--size] = '\0';
	}
}

size_t trib_problem_print(enum trib_problem problem, const char *detail, uint64_t retry_after_ms,
			  const char *errors_json, char *out, size_t size)
{
	static const char detail_key[] = ",\"detail\":\"";
	static const char errors_key[] = ",\"errors\":";
	char tail[64] = "";
	char seconds[32];
	size_t tail_size;
	size_t errors_size = errors_json ? strlen(errors_json) : 0;
	size_t used;
	int n;

	if (size == 0) {
		return 0;
	}
	n = snprintf(out, size,
		     "{\"type\":\"urn:trib:%s\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\"",
		     trib_problem_code(problem), trib_problem_title(problem),
		     trib_problem_status(problem), trib_problem_code(problem));
	if (retry_after_ms) {
		print_seconds(retry_after_ms, seconds);
		(void)snprintf(tail, sizeof(tail), ",\"retry_after\":%s", seconds);
	}
	tail_size = strlen(tail) + 2; /* with "}" and NUL */
	if (n < 0 || (size_t)n + tail_size > size) {
		out[0] = '\0'; /* smaller than any problem: nothing rather than half a text */
		return 0;
	}
	used = (size_t)n;
	if (errors_size && used + sizeof(errors_key) + errors_size + tail_size > size) {
		errors_size = 0;
	}
	if (errors_size) {
		tail_size += sizeof(errors_key) - 1 + errors_size;
	}
	if (detail && *detail && used + sizeof(detail_key) + tail_size < size) {
		memcpy(out + used, detail_key, sizeof(detail_key) - 1);
		used += sizeof(detail_key) - 1;
		used += escape(detail, out + used, size - used - tail_size - 1);
		out[used++] = '"';
	}
	if (errors_size) {
		memcpy(out + used, errors_key, sizeof(errors_key) - 1);
		used += sizeof(errors_key) - 1;
		memcpy(out + used, errors_json, errors_size);
		used += errors_size;
	}
	n = snprintf(out + used, size - used, "%s}", tail);
	return used + (size_t)n;
}
