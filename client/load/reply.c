/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/reply.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The value of a line if it is the field `name`, else NULL. Lines end with CR. */
static const char *field(const char *line, const char *name)
{
	size_t size = strlen(name);

	if (strncasecmp(line, name, size) != 0 || line[size] != ':') {
		return NULL;
	}
	line += size + 1;
	return line + strspn(line, " \t");
}

static int read_field(const char *line, struct load_reply_head *reply)
{
	const char *value = field(line, "content-length");

	if (value) {
		size_t digits = strspn(value, "0123456789");

		return digits && value[digits] == '\r'
			       ? trib_parse_u64(value, digits, 0, 1ull << 50, &reply->length)
			       : -EBADMSG;
	}
	value = field(line, "connection");
	if (value) {
		reply->close = strncasecmp(value, "close", 5) == 0;
	}
	value = field(line, "retry-after");
	if (value) {
		reply->retry_after = (double)strtoul(value, NULL, 10);
	}
	return field(line, "transfer-encoding") ? -EBADMSG : 0;
}

int load_reply_head_read(const char *head, size_t size, struct load_reply_head *reply)
{
	const char *end = head + size;
	const char *line;

	reply->length = 0;
	reply->retry_after = -1;
	reply->close = false;
	if (size < 16 || size > LOAD_REPLY_HEAD_MAX || strncmp(head, "HTTP/1.", 7) != 0 ||
	    head[8] != ' ' || strspn(head + 9, "0123456789") != 3) {
		return -EBADMSG;
	}
	reply->status = (unsigned)strtoul(head + 9, NULL, 10);
	line = memchr(head, '\n', size);
	while (line && line + 1 < end && line[1] != '\r') {
		if (read_field(line + 1, reply)) {
			return -EBADMSG;
		}
		line = memchr(line + 1, '\n', (size_t)(end - line - 1));
	}
	return 0;
}

/* Just behind `"name":`, blanks skipped; NULL when there is no such member. */
static const char *member(const char *json, const char *name)
{
	char key[64];
	int size = snprintf(key, sizeof(key), "\"%s\"", name);
	const char *at = json;

	while ((at = strstr(at, key)) != NULL) {
		at += size;
		at += strspn(at, " \t\r\n");
		if (*at == ':') {
			at++;
			return at + strspn(at, " \t\r\n");
		}
	}
	return NULL;
}

int load_json_text(const char *json, const char *name, char *out, size_t size)
{
	const char *at = member(json, name);
	size_t used = 0;

	out[0] = '\0';
	if (!at || *at != '"') {
		return -ENOENT;
	}
	for (at++; *at && *at != '"'; at++) {
		at += *at == '\\' && at[1];
		if (used + 1 >= size) {
			out[0] = '\0';
			return -ENAMETOOLONG;
		}
		out[used++] = *at;
	}
	out[used] = '\0';
	return *at == '"' ? 0 : -ENOENT;
}

double load_json_number(const char *json, const char *name, double otherwise)
{
	const char *at = member(json, name);
	char *end;
	double number;

	if (!at) {
		return otherwise;
	}
	number = strtod(at, &end);
	return end == at ? otherwise : number;
}
