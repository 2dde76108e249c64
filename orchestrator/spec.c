/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/spec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/client_metrics.h"
#include "common/id.h"
#include "orchestrator/hook_rule.h"
#include "orchestrator/spec_internal.h"

/* ---- values ---- */

static bool listed(const char *list, const char *word)
{
	char padded[40];

	if (!list || strlen(word) > 32 || strchr(word, ' ') || !*word) {
		return false;
	}
	(void)snprintf(padded, sizeof(padded), " %s ", word);
	return strstr(list, padded) != NULL;
}

static bool check_word(const struct row *row, const json_t *value, const char *pointer,
		       json_t *errors)
{
	const char *word = json_string_value(value);

	if (!word) {
		spec_complain(errors, pointer, "must be a string");
	} else if (listed(row->later, word)) {
		spec_complain(errors, pointer, "not supported yet (%s)", row->help);
	} else if (!listed(row->values, word)) {
		spec_complain(errors, pointer, "must be one of:%.*s", (int)strlen(row->values) - 1,
			      row->values);
	} else {
		return true;
	}
	return false;
}

static bool check_words(const struct row *row, const json_t *value, const char *pointer,
			json_t *errors)
{
	size_t count = json_array_size(value);
	bool good = true;

	if (!json_is_array(value) || count == 0 || count > 8) {
		spec_complain(errors, pointer, "must be an array of 1 to 8 strings");
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		char place[POINTER_SIZE];

		(void)snprintf(place, sizeof(place), "%.150s/%zu", pointer, i);
		good = check_word(row, json_array_get(value, i), place, errors) && good;
	}
	return good;
}

static bool check_number(const struct row *row, const json_t *value, const char *pointer,
			 json_t *errors)
{
	bool whole = row->kind != KIND_NUMBER;
	double number = json_number_value(value);

	if (whole ? !json_is_integer(value) : !json_is_number(value)) {
		spec_complain(errors, pointer,
			      row->kind == KIND_AUTO ? "must be an integer or \"auto\""
			      : whole                ? "must be an integer"
						     : "must be a number");
	} else if (!(number >= row->min)) {
		spec_complain(errors, pointer, "must be at least %.15g", row->min);
	} else if (!(number <= row->max)) {
		spec_complain(errors, pointer, "must be at most %.15g", row->max);
	} else {
		return true;
	}
	return false;
}

static bool check_free(const struct row *row, const json_t *value, const char *pointer,
		       json_t *errors)
{
	if (!json_is_object(value)) {
		spec_complain(errors, pointer, "must be an object");
	} else if (json_dumpb(value, NULL, 0, JSON_COMPACT) > (size_t)row->max) {
		spec_complain(errors, pointer, "must be at most %.0f bytes of JSON", row->max);
	} else {
		return true;
	}
	return false;
}

static bool check_name(const struct row *row, const json_t *value, const char *pointer,
		       json_t *errors)
{
	const char *text = json_string_value(value);
	struct trib_id id;
	bool job = row->kind == KIND_JOB;
	bool good = text && (!*text || (job ? trib_id_parse("job_", text, &id) == 0
					    : trib_metric_name_valid(text, strlen(text))));

	if (!good) {
		spec_complain(errors, pointer, "must be %s",
			      job ? "the id of a job" : "\"\" or a name: " TRIB_METRIC_NAME_TEXT);
	}
	return good;
}

static bool check_hooks(const json_t *value, json_t *errors)
{
	char place[64] = "/spec/notifications";
	const char *why =
		orc_hooks_wrong(value, place + strlen(place), sizeof(place) - strlen(place));

	if (why) {
		spec_complain(errors, place, "%s", why);
	}
	return !why;
}

static bool check_value(const struct row *row, json_t *value, const char *pointer, json_t *errors)
{
	switch (row->kind) {
	case KIND_OBJECT:
		return json_is_object(value);
	case KIND_FREE:
		return check_free(row, value, pointer, errors);
	case KIND_ENUM:
		return check_word(row, value, pointer, errors);
	case KIND_ENUMS:
		return check_words(row, value, pointer, errors);
	case KIND_AUTO:
		if (json_is_string(value) && strcmp(json_string_value(value), "auto") == 0) {
			return true;
		}
		return check_number(row, value, pointer, errors);
	case KIND_INTEGER:
	case KIND_NUMBER:
		return check_number(row, value, pointer, errors);
	case KIND_HOOKS:
		return check_hooks(value, errors);
	case KIND_SELECTOR:
		return spec_check_selector(value, pointer, errors);
	case KIND_JOB:
	case KIND_NAME:
		return check_name(row, value, pointer, errors);
	case KIND_LATER:
		spec_complain(errors, pointer, "not supported yet");
		return false;
	case KIND_OURS:
		spec_complain(errors, pointer, "is computed by the server");
		return false;
	}
	return false;
}

/* ---- the walk ---- */

/* Every key of one object must be in the table. */
static void check_keys(json_t *node, const char *parent, json_t *errors)
{
	char pointer[POINTER_SIZE];
	char place[POINTER_SIZE];
	const char *key;
	json_t *value;

	(void)spec_pointer(parent, pointer);
	if (!json_is_object(node)) {
		spec_complain(errors, pointer, "must be an object");
		return;
	}
	json_object_foreach(node, key, value)
	{
		if (!spec_row_of(parent, key)) {
			spec_complain_unknown(errors, spec_key_pointer(pointer, key, place), key,
					      spec_nearest_name(parent, key));
		}
	}
}

/* One row: what the user gave if it is right, else the default, so that later rules can go on. */
static int read_row(const struct row *row, json_t *spec, json_t *out, json_t *errors)
{
	json_t *value = trib_json_at(spec, row->path);
	char pointer[POINTER_SIZE];

	if (row->kind == KIND_OBJECT) {
		if (value) {
			check_keys(value, row->path, errors);
		}
		return spec_put(out, row->path, json_object());
	}
	if (value && check_value(row, value, spec_pointer(row->path, pointer), errors)) {
		return spec_put(out, row->path, json_deep_copy(value));
	}
	if (row->initial) {
		return spec_put(out, row->path, json_loads(row->initial, JSON_DECODE_ANY, NULL));
	}
	return 0;
}

/* ---- around the spec ---- */

static bool label_text(const char *text, bool may_be_empty)
{
	size_t size = strlen(text);

	if (size > 63 || (size == 0 && !may_be_empty)) {
		return false;
	}
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			    "._-/") == size;
}

static int read_labels(json_t *labels, struct orc_spec *spec, json_t *errors)
{
	char place[POINTER_SIZE];
	const char *key;
	json_t *value;

	if (!labels) {
		return 0;
	}
	if (!json_is_object(labels) || json_object_size(labels) > ORC_LABELS_MAX) {
		spec_complain(errors, "/metadata/labels", "must be an object of at most %d strings",
			      ORC_LABELS_MAX);
		return 0;
	}
	json_object_foreach(labels, key, value)
	{
		const char *text = json_string_value(value);

		if (!label_text(key, false) || !text || !label_text(text, true)) {
			spec_complain(errors, spec_key_pointer("/metadata/labels", key, place),
				      "keys and values are up to 63 of [A-Za-z0-9._/-]");
		}
	}
	if (json_object_size(labels) == 0) {
		return 0;
	}
	return spec_put(spec->spec, "labels", json_deep_copy(labels));
}

static int read_metadata(json_t *metadata, struct orc_spec *spec, json_t *errors)
{
	const char *name = trib_json_text(metadata, "name", NULL);
	char place[POINTER_SIZE];
	const char *key;
	json_t *value;

	if (!metadata) {
		spec_complain(errors, "/metadata", "is required");
		return 0;
	}
	if (!json_is_object(metadata)) {
		spec_complain(errors, "/metadata", "must be an object");
		return 0;
	}
	json_object_foreach(metadata, key, value)
	{
		(void)spec_key_pointer("/metadata", key, place);
		if (strcmp(key, "id") == 0 || strcmp(key, "creationTimestamp") == 0) {
			spec_complain(errors, place, "is set by the server");
		} else if (strcmp(key, "name") != 0 && strcmp(key, "labels") != 0) {
			spec_complain_unknown(errors, place, key,
					      spec_distance(key, "name") <
							      spec_distance(key, "labels")
						      ? "name"
						      : "labels");
		}
	}
	if (!json_object_get(metadata, "name")) {
		spec_complain(errors, "/metadata/name", "is required");
	} else if (!name || !trib_name_valid(name) ||
		   trib_copy(spec->name, sizeof(spec->name), name)) {
		spec_complain(errors, "/metadata/name",
			      "must be 1 to 63 of [a-z0-9-], with a letter or digit at both ends");
	}
	return read_labels(json_object_get(metadata, "labels"), spec, errors);
}

static void read_constant(const json_t *body, const char *key, const char *wanted, json_t *errors)
{
	const json_t *value = json_object_get(body, key);
	const char *text = json_string_value(value);
	char place[POINTER_SIZE];

	(void)spec_key_pointer("", key, place);
	if (!value) {
		spec_complain(errors, place, "is required");
	} else if (!text || strcmp(text, wanted) != 0) {
		spec_complain(errors, place, "must be \"%s\"", wanted);
	}
}

static void check_top(json_t *body, json_t *errors)
{
	static const char *const names[] = { "apiVersion", "kind", "metadata", "spec" };
	char place[POINTER_SIZE];
	const char *key;
	json_t *value;

	read_constant(body, "apiVersion", ORC_API_VERSION, errors);
	read_constant(body, "kind", ORC_KIND, errors);
	json_object_foreach(body, key, value)
	{
		const char *nearest = names[0];

		for (size_t i = 1; i < TRIB_COUNT(names); i++) {
			if (spec_distance(key, names[i]) < spec_distance(key, nearest)) {
				nearest = names[i];
			}
		}
		if (strcmp(key, "status") == 0) {
			spec_complain(errors, "/status", "is set by the server");
		} else if (strcmp(key, nearest) != 0) {
			spec_complain_unknown(errors, spec_key_pointer("", key, place), key,
					      nearest);
		}
	}
}

static int read_all(json_t *body, struct orc_spec *spec, json_t *errors)
{
	json_t *inner = json_object_get(body, "spec");
	int rc;

	check_top(body, errors);
	rc = read_metadata(json_object_get(body, "metadata"), spec, errors);
	if (inner) {
		check_keys(inner, "", errors);
	}
	for (size_t i = 0; i < spec_row_count && !rc; i++) {
		rc = read_row(&spec_rows[i], inner, spec->spec, errors);
	}
	return rc ? rc : spec_cross_rules(spec, errors);
}

int orc_spec_read(json_t *body, struct orc_spec *ret_spec, json_t **ret_errors)
{
	struct orc_spec spec = { .spec = json_object() };
	json_t *errors = json_array();
	int rc = -ENOMEM;

	if (spec.spec && errors) {
		rc = 0;
		if (!json_is_object(body)) {
			spec_complain(errors, "", "must be an object");
		} else {
			rc = read_all(body, &spec, errors);
		}
	}
	if (rc == 0 && json_array_size(errors)) {
		*ret_errors = errors;
		errors = NULL;
		rc = -EBADMSG;
	}
	json_decref(errors);
	if (rc) {
		json_decref(spec.spec);
		return rc;
	}
	*ret_spec = spec;
	return 0;
}

void orc_spec_fini(struct orc_spec *spec)
{
	json_decref(spec->spec);
	spec->spec = NULL;
}
