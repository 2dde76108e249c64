/* SPDX-License-Identifier: Apache-2.0 */
#include "common/client_metrics.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS_MAX 40
#define VALUE_MAX  1e15

#define LETTERS    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"

struct entry {
	const char *name;
	size_t name_size;
	double value;
};

bool trib_metric_name_valid(const char *name, size_t size)
{
	if (size == 0 || size > TRIB_METRIC_NAME_MAX || !strchr(LETTERS, name[0])) {
		return false;
	}
	for (size_t i = 0; i < size; i++) {
		if (name[i] == '\0' || !strchr(LETTERS "0123456789.-", name[i])) {
			return false;
		}
	}
	return true;
}

/* [-]digits[.digits]; where it ends, or NULL. */
static const char *read_value(const char *text, double *ret_value)
{
	const char *at = text + (*text == '-');
	size_t whole = strspn(at, "0123456789");
	size_t fraction = 0;
	char digits[2 * DIGITS_MAX + 3];

	at += whole;
	if (*at == '.') {
		fraction = strspn(at + 1, "0123456789");
		at += 1 + fraction;
	}
	if (whole == 0 || whole > DIGITS_MAX || fraction > DIGITS_MAX ||
	    (at[-1] == '.' && fraction == 0)) {
		return NULL;
	}
	(void)snprintf(digits, sizeof(digits), "%.*s", (int)(at - text), text);
	*ret_value = strtod(digits, NULL);
	return fabs(*ret_value) <= VALUE_MAX ? at : NULL;
}

static bool known(const struct entry *entries, size_t count, const struct entry *entry)
{
	for (size_t i = 0; i < count; i++) {
		if (entries[i].name_size == entry->name_size &&
		    memcmp(entries[i].name, entry->name, entry->name_size) == 0) {
			return true;
		}
	}
	return false;
}

int trib_metrics_read(const char *text, char out[TRIB_METRICS_TEXT_SIZE])
{
	struct entry entries[TRIB_METRICS_MAX];
	size_t count = 0;
	size_t used = 0;

	for (;;) {
		struct entry *entry = &entries[count];

		text += strspn(text, " \t");
		if (count == TRIB_METRICS_MAX) {
			return -E2BIG;
		}
		entry->name = text;
		entry->name_size = strcspn(text, "=, \t");
		text += entry->name_size;
		if (*text != '=' || !trib_metric_name_valid(entry->name, entry->name_size)) {
			return -EINVAL;
		}
		text = read_value(text + 1, &entry->value);
		if (!text) {
			return -EINVAL;
		}
		if (known(entries, count, entry)) {
			return -EEXIST;
		}
		used += (size_t)snprintf(out + used, TRIB_METRICS_TEXT_SIZE - used, "%s%.*s=%.17g",
					 count ? "," : "", (int)entry->name_size, entry->name,
					 entry->value);
		count++;
		text += strspn(text, " \t");
		if (*text == '\0') {
			return 0;
		}
		if (*text++ != ',') {
			return -EINVAL;
		}
	}
}

json_t *trib_metrics_json(const char *text)
{
	json_t *json = json_object();

	while (json && *text) {
		size_t size = strcspn(text, ",");
		size_t name = strcspn(text, "=");
		char *end = NULL;
		double value;

		if (name < size && trib_metric_name_valid(text, name)) {
			value = strtod(text + name + 1, &end);
			if (end == text + size && isfinite(value)) {
				(void)json_object_setn_new(json, text, name, json_real(value));
			}
		}
		text += size + (text[size] == ',');
	}
	return json;
}
