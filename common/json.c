/* SPDX-License-Identifier: Apache-2.0 */
#include "common/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TEXT_MAX    (1u << 20)
#define REASON_SIZE 160
#define FIRST_SIZE  2048
#define PRINT_FLAGS (JSON_COMPACT | JSON_ENCODE_ANY)

static int parse(const char *text, size_t size, size_t flags, json_t **ret_json, char *reason)
{
	json_error_t error;
	json_t *json;

	if (size > TEXT_MAX) {
		(void)snprintf(reason, REASON_SIZE, "JSON text is longer than %u bytes", TEXT_MAX);
		return -EBADMSG;
	}
	/* jansson refuses bytes after the value, NUL, bad UTF-8 and more than 2048 levels itself.
	 */
	json = json_loadb(size ? text : "", size, JSON_REJECT_DUPLICATES | flags, &error);
	if (json) {
		*ret_json = json;
		return 0;
	}
	(void)snprintf(reason, REASON_SIZE, "line %d column %d: %.120s", error.line, error.column,
		       error.text);
	/* jansson quotes the input; the quotation may be cut inside a character. */
	for (char *c = reason; *c; c++) {
		if (*c < 0x20 || *c > 0x7e) {
			*c = '?';
		}
	}
	return -EBADMSG;
}

int trib_json_parse(const char *text, size_t size, json_t **ret_json, char reason[160])
{
	return parse(text, size, 0, ret_json, reason);
}

int trib_json_value(const char *text, size_t size, json_t **ret_json, char reason[160])
{
	return parse(text, size, JSON_DECODE_ANY, ret_json, reason);
}

char *trib_json_print(const json_t *json)
{
	char first[FIRST_SIZE]; /* most texts fit: printed once */
	size_t size = json_dumpb(json, first, sizeof(first), PRINT_FLAGS);
	char *text;

	if (size == 0) {
		return NULL;
	}
	text = trib_alloc(size + 1);
	if (text && size <= sizeof(first)) {
		memcpy(text, first, size);
	} else if (text && json_dumpb(json, text, size, PRINT_FLAGS) != size) {
		trib_free(text);
		return NULL;
	}
	return text;
}

json_t *trib_json_at(const json_t *json, const char *path)
{
	for (;;) {
		size_t size = strcspn(path, ".");

		json = json_object_getn(json, path, size);
		if (!json || path[size] == '\0') {
			return (json_t *)json; /* jansson's own getters drop const, too */
		}
		path += size + 1;
	}
}

const char *trib_json_text(const json_t *json, const char *path, const char *otherwise)
{
	const char *text = json_string_value(trib_json_at(json, path));

	return text ? text : otherwise;
}

long long trib_json_integer(const json_t *json, const char *path, long long otherwise)
{
	const json_t *value = trib_json_at(json, path);

	return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

double trib_json_number(const json_t *json, const char *path, double otherwise)
{
	const json_t *value = trib_json_at(json, path);

	return json_is_number(value) ? json_number_value(value) : otherwise;
}
