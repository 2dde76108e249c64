/* SPDX-License-Identifier: Apache-2.0 */
#include "common/labels.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static bool part_valid(const char *text, size_t size)
{
	return size > 0 && strspn(text, ALNUM "-_.") >= size && strchr(ALNUM, text[0]) &&
	       strchr(ALNUM, text[size - 1]);
}

bool trib_label_key_valid(const char *text)
{
	const char *slash = strchr(text, '/');
	const char *name = slash ? slash + 1 : text;
	size_t size = strlen(name);

	return strlen(text) <= TRIB_LABEL_KEY_MAX && size <= TRIB_LABEL_NAME_MAX &&
	       part_valid(name, size) && (!slash || part_valid(text, (size_t)(slash - text)));
}

bool trib_label_value_valid(const char *text)
{
	size_t size = strlen(text);

	return size == 0 || (size <= TRIB_LABEL_NAME_MAX && part_valid(text, size));
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int trib_labels_read(const json_t *labels, char out[TRIB_LABELS_SIZE])
{
	const char *keys[TRIB_LABELS_MAX];
	const char *key;
	json_t *value;
	size_t count = 0;
	size_t size = 0;

	out[0] = '\0';
	if (!labels || json_is_null(labels)) {
		return 0;
	}
	if (!json_is_object(labels)) {
		return -EBADMSG;
	}
	if (json_object_size(labels) > TRIB_LABELS_MAX) {
		return -E2BIG;
	}
	json_object_foreach((json_t *)labels, key, value)
	{
		if (!json_is_string(value) || !trib_label_key_valid(key) ||
		    strlen(json_string_value(value)) != json_string_length(value) ||
		    !trib_label_value_valid(json_string_value(value))) {
			return -EBADMSG;
		}
		keys[count++] = key;
	}
	qsort(keys, count, sizeof(keys[0]), compare);
	for (size_t i = 0; i < count; i++) {
		const char *text = json_string_value(json_object_get(labels, keys[i]));

		size += (size_t)snprintf(out + size, TRIB_LABELS_SIZE - size, "%s%s=%s",
					 i ? "," : "", keys[i], text);
	}
	return 0;
}

json_t *trib_labels_json(const char *text)
{
	json_t *json = json_object();

	while (json && *text) {
		size_t size = strcspn(text, ",");
		size_t key = strcspn(text, "=");

		if (key >= size ||
		    json_object_setn_new(json, text, key,
					 json_stringn(text + key + 1, size - key - 1))) {
			json_decref(json);
			return NULL;
		}
		text += size;
		text += *text == ',';
	}
	return json;
}
