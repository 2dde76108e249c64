/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/spec.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/client_metrics.h"
#include "common/id.h"
#include "orchestrator/hook_rule.h"
#include "orchestrator/spec_rows.h"

#define PATH_MAX_    64
#define POINTER_SIZE 192
#define SCALE_MIN    8  /* fewer fraction bits than this make no useful sums */
#define WEIGHT_BITS  42 /* selected_max * max_weight, so that sums of weights fit 62 bits */

/* ---- errors ---- */

__attribute__((format(printf, 3, 4))) static void complain(json_t *errors, const char *pointer,
							   const char *format, ...)
{
	char detail[256];
	va_list args;
	json_t *entry;

	if (json_array_size(errors) >= ORC_SPEC_ERRORS_MAX) {
		return;
	}
	va_start(args, format);
	(void)vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	entry = json_pack("{s:s, s:s}", "pointer", pointer, "detail", detail);
	if (!entry) { /* a foreign key cut inside a character: tell the place without it */
		entry = json_pack("{s:s, s:s}", "pointer", "", "detail", "not valid here");
	}
	(void)json_array_append_new(errors, entry);
}

/* "/spec/sync/goal" of "sync.goal". */
static const char *pointer_of(const char *path, char out[POINTER_SIZE])
{
	(void)snprintf(out, POINTER_SIZE, "/spec%s%s", *path ? "/" : "", path);
	for (char *c = out; *c; c++) {
		if (*c == '.') {
			*c = '/';
		}
	}
	return out;
}

/* RFC 6901: "~" and "/" of a key are escaped; a long key is cut at a character's start. */
static const char *key_pointer(const char *parent, const char *key, char out[POINTER_SIZE])
{
	size_t size = (size_t)snprintf(out, POINTER_SIZE - 100, "%s/", parent);

	for (size_t i = 0; key[i] && size + 8 < POINTER_SIZE; i++) {
		bool begins = ((uint8_t)key[i] & 0xc0) != 0x80;

		if (begins && i >= 64) {
			break;
		}
		if (key[i] == '~' || key[i] == '/') {
			out[size++] = '~';
			out[size++] = key[i] == '~' ? '0' : '1';
		} else {
			out[size++] = key[i];
		}
	}
	out[size] = '\0';
	return out;
}

/* ---- names ---- */

static size_t smallest(size_t a, size_t b, size_t c)
{
	return a < b ? (a < c ? a : c) : (b < c ? b : c);
}

/* Levenshtein distance of short names; long ones are far from everything. */
static size_t distance(const char *a, const char *b)
{
	size_t row[40];
	size_t m = strlen(a);
	size_t n = strlen(b);

	if (m > 32 || n > 32) {
		return 99;
	}
	for (size_t j = 0; j <= n; j++) {
		row[j] = j;
	}
	for (size_t i = 1; i <= m; i++) {
		size_t corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t above = row[j];

			row[j] = smallest(above + 1, row[j - 1] + 1,
					  corner + (a[i - 1] != b[j - 1]));
			corner = above;
		}
	}
	return row[n];
}

static void complain_unknown(json_t *errors, const char *pointer, const char *key,
			     const char *nearest)
{
	size_t far = nearest ? distance(key, nearest) : 99;

	if (nearest && far <= 1 + strlen(nearest) / 3) {
		complain(errors, pointer, "unknown key; did you mean \"%s\"?", nearest);
	} else {
		complain(errors, pointer, "unknown key");
	}
}

/* The last part of `path` when its parent is `parent`, else NULL. */
static const char *child_name(const char *path, const char *parent)
{
	size_t size = strlen(parent);
	const char *name = path;

	if (size) {
		if (strncmp(path, parent, size) != 0 || path[size] != '.') {
			return NULL;
		}
		name = path + size + 1;
	}
	return strchr(name, '.') ? NULL : name;
}

static const struct row *row_of(const char *parent, const char *key)
{
	for (size_t i = 0; i < TRIB_COUNT(table); i++) {
		const char *name = child_name(table[i].path, parent);

		if (name && strcmp(name, key) == 0) {
			return &table[i];
		}
	}
	return NULL;
}

static const char *nearest_name(const char *parent, const char *key)
{
	const char *best = NULL;
	size_t least = 99;

	for (size_t i = 0; i < TRIB_COUNT(table); i++) {
		const char *name = child_name(table[i].path, parent);
		size_t far = name && table[i].kind != KIND_LATER ? distance(key, name) : 99;

		if (far < least) {
			least = far;
			best = name;
		}
	}
	return best;
}

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
		complain(errors, pointer, "must be a string");
	} else if (listed(row->later, word)) {
		complain(errors, pointer, "not supported yet (%s)", row->help);
	} else if (!listed(row->values, word)) {
		complain(errors, pointer, "must be one of:%.*s", (int)strlen(row->values) - 1,
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
		complain(errors, pointer, "must be an array of 1 to 8 strings");
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
		complain(errors, pointer,
			 row->kind == KIND_AUTO ? "must be an integer or \"auto\""
			 : whole                ? "must be an integer"
						: "must be a number");
	} else if (!(number >= row->min)) {
		complain(errors, pointer, "must be at least %.15g", row->min);
	} else if (!(number <= row->max)) {
		complain(errors, pointer, "must be at most %.15g", row->max);
	} else {
		return true;
	}
	return false;
}

static bool check_free(const struct row *row, const json_t *value, const char *pointer,
		       json_t *errors)
{
	if (!json_is_object(value)) {
		complain(errors, pointer, "must be an object");
	} else if (json_dumpb(value, NULL, 0, JSON_COMPACT) > (size_t)row->max) {
		complain(errors, pointer, "must be at most %.0f bytes of JSON", row->max);
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
		complain(errors, pointer, "must be %s",
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
		complain(errors, place, "%s", why);
	}
	return !why;
}

static bool check_value(const struct row *row, const json_t *value, const char *pointer,
			json_t *errors)
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
	case KIND_JOB:
	case KIND_NAME:
		return check_name(row, value, pointer, errors);
	case KIND_LATER:
		complain(errors, pointer, "not supported yet");
		return false;
	case KIND_OURS:
		complain(errors, pointer, "is computed by the server");
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

	(void)pointer_of(parent, pointer);
	if (!json_is_object(node)) {
		complain(errors, pointer, "must be an object");
		return;
	}
	json_object_foreach(node, key, value)
	{
		if (!row_of(parent, key)) {
			complain_unknown(errors, key_pointer(pointer, key, place), key,
					 nearest_name(parent, key));
		}
	}
}

/* Puts `value` (stolen) at `path` of `out`, whose parents are there already. */
static int put(json_t *out, const char *path, json_t *value)
{
	char parent[PATH_MAX_];
	const char *dot = strrchr(path, '.');

	if (!value || (dot && (size_t)(dot - path) >= sizeof(parent))) {
		json_decref(value);
		return -ENOMEM;
	}
	if (dot) {
		memcpy(parent, path, (size_t)(dot - path));
		parent[dot - path] = '\0';
		out = trib_json_at(out, parent);
		path = dot + 1;
	}
	return json_object_set_new(out, path, value) ? -ENOMEM : 0;
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
		return put(out, row->path, json_object());
	}
	if (value && check_value(row, value, pointer_of(row->path, pointer), errors)) {
		return put(out, row->path, json_deep_copy(value));
	}
	if (row->initial) {
		return put(out, row->path, json_loads(row->initial, JSON_DECODE_ANY, NULL));
	}
	return 0;
}

/* ---- rules between fields ---- */

static int log2_up(double value)
{
	int exponent;
	double mantissa = frexp(value, &exponent);

	return mantissa > 0.5 ? exponent : exponent - 1;
}

static bool says(const json_t *spec, const char *path, const char *word)
{
	return strcmp(trib_json_text(spec, path, ""), word) == 0;
}

static void denominator_rules(const json_t *out, json_t *errors)
{
	bool population = says(out, "aggregation.denominator", "population");

	if (!says(out, "aggregation.denominator", "weight_sum") &&
	    !says(out, "aggregation.input", "delta")) {
		complain(errors, "/spec/aggregation/denominator",
			 "must be weight_sum for whole weights");
	}
	if (population != (trib_json_at(out, "aggregation.population") != NULL)) {
		complain(errors, "/spec/aggregation/population",
			 population ? "is required by denominator population"
				    : "is for denominator population");
	}
}

static void staleness_rules(const json_t *out, json_t *errors)
{
	bool clock = says(out, "async.trigger", "clock");
	bool intervals = says(out, "async.staleness.fn", "intervals");

	if (clock && says(out, "aggregation.denominator", "goal")) {
		complain(errors, "/spec/aggregation/denominator",
			 "goal has no meaning with a clock: count, or population");
	}
	if (intervals && !clock) {
		complain(errors, "/spec/async/staleness/fn", "intervals needs trigger clock");
	}
	if (!says(out, "async.staleness.normaliser", "average")) {
		return;
	}
	if (intervals) {
		complain(errors, "/spec/async/staleness/normaliser",
			 "intervals has no value at a staleness");
	} else if (says(out, "aggregation.denominator", "weight_sum")) {
		complain(errors, "/spec/async/staleness/normaliser",
			 "cancels out in denominator weight_sum");
	}
}

/* How much more than its weight an update may count. */
static double factor_max(const json_t *out)
{
	if (says(out, "mode", "async") && says(out, "async.staleness.fn", "intervals")) {
		return trib_json_number(out, "async.max_staleness", 1) + 1;
	}
	return 1;
}

/* An asynchronous job's buffer is a round that any selected client may report to. */
static void mode_rules(struct orc_spec *spec, json_t *errors)
{
	const json_t *out = spec->spec;

	if (!says(out, "mode", "async")) {
		if (says(out, "sync.late", "next") && !says(out, "aggregation.input", "delta")) {
			complain(errors, "/spec/sync/late",
				 "next needs deltas: versions move on meanwhile");
		}
		return;
	}
	spec->goal = (uint64_t)trib_json_integer(out, "async.buffer_k", 1);
	spec->quorum = 1;
	spec->selected_max = (uint64_t)trib_json_integer(out, "async.concurrency", 1);
	spec->deadline_ms =
		(uint64_t)(trib_json_number(out, "async.flush_timeout_s", 1) * 1000 + 0.5);
	spec->lease_ms =
		(uint64_t)(trib_json_number(out, "async.client_timeout_s", 1) * 1000 + 0.5);
	if (!says(out, "aggregation.input", "delta")) {
		complain(errors, "/spec/aggregation/input",
			 "must be delta in an asynchronous job: versions move on meanwhile");
	} else {
		staleness_rules(out, errors);
	}
}

static int cross_rules(struct orc_spec *spec, json_t *errors)
{
	json_t *out = spec->spec;
	double range = trib_json_number(out, "aggregation.range", 1) * factor_max(out);
	double weight = trib_json_number(out, "aggregation.max_weight", 1) * factor_max(out);
	double selected;
	int bits;

	spec->goal = (uint64_t)trib_json_integer(out, "sync.goal", 1);
	spec->quorum = (uint64_t)trib_json_integer(out, "sync.quorum", (long long)spec->goal);
	if (put(out, "sync.quorum", json_integer((json_int_t)spec->quorum))) {
		return -ENOMEM;
	}
	if (spec->quorum > spec->goal) {
		complain(errors, "/spec/sync/quorum", "must not be more than the goal (%llu)",
			 (unsigned long long)spec->goal);
	}
	selected = (double)spec->goal * trib_json_number(out, "sync.over_select", 1) - 1e-9;
	spec->selected_max = (uint64_t)selected + 1; /* rounded up; 1e-9 forgives 10 * 1.1 */
	if (spec->selected_max > 1000000) {
		complain(errors, "/spec/sync/over_select",
			 "selects more than 1000000 clients per round");
	}
	spec->deadline_ms = (uint64_t)(trib_json_number(out, "sync.deadline_s", 1) * 1000 + 0.5);
	spec->lease_ms = (uint64_t)(trib_json_number(out, "sync.client_timeout_s", 1) * 1000 + 0.5);
	spec->stop_rounds = (uint64_t)trib_json_integer(out, "stop.rounds", 1);
	mode_rules(spec, errors);
	if (!says(out, "mode", "async") || says(out, "aggregation.input", "delta")) {
		denominator_rules(out, errors);
	}
	selected = (double)(spec->selected_max > spec->goal ? spec->selected_max : spec->goal);
	if (selected * weight > ldexp(1, WEIGHT_BITS)) {
		complain(errors, "/spec/aggregation/max_weight",
			 "times the clients of a round must not exceed 2^%d", WEIGHT_BITS);
	}
	bits = 51 - log2_up(range);
	if (62 - log2_up(selected) - log2_up(range) < bits) {
		bits = 62 - log2_up(selected) - log2_up(range);
	}
	bits = bits < 40 ? bits : 40;
	if (bits < SCALE_MIN) {
		complain(errors, "/spec/aggregation/range",
			 "too large for exact sums of that many clients");
	}
	return put(out, "aggregation.scale_bits", json_integer(bits));
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
		complain(errors, "/metadata/labels", "must be an object of at most %d strings",
			 ORC_LABELS_MAX);
		return 0;
	}
	json_object_foreach(labels, key, value)
	{
		const char *text = json_string_value(value);

		if (!label_text(key, false) || !text || !label_text(text, true)) {
			complain(errors, key_pointer("/metadata/labels", key, place),
				 "keys and values are up to 63 of [A-Za-z0-9._/-]");
		}
	}
	if (json_object_size(labels) == 0) {
		return 0;
	}
	return put(spec->spec, "labels", json_deep_copy(labels));
}

static int read_metadata(json_t *metadata, struct orc_spec *spec, json_t *errors)
{
	const char *name = trib_json_text(metadata, "name", NULL);
	char place[POINTER_SIZE];
	const char *key;
	json_t *value;

	if (!metadata) {
		complain(errors, "/metadata", "is required");
		return 0;
	}
	if (!json_is_object(metadata)) {
		complain(errors, "/metadata", "must be an object");
		return 0;
	}
	json_object_foreach(metadata, key, value)
	{
		(void)key_pointer("/metadata", key, place);
		if (strcmp(key, "id") == 0 || strcmp(key, "creationTimestamp") == 0) {
			complain(errors, place, "is set by the server");
		} else if (strcmp(key, "name") != 0 && strcmp(key, "labels") != 0) {
			complain_unknown(errors, place, key,
					 distance(key, "name") < distance(key, "labels")
						 ? "name"
						 : "labels");
		}
	}
	if (!json_object_get(metadata, "name")) {
		complain(errors, "/metadata/name", "is required");
	} else if (!name || !trib_name_valid(name) ||
		   trib_copy(spec->name, sizeof(spec->name), name)) {
		complain(errors, "/metadata/name",
			 "must be 1 to 63 of [a-z0-9-], with a letter or digit at both ends");
	}
	return read_labels(json_object_get(metadata, "labels"), spec, errors);
}

static void read_constant(const json_t *body, const char *key, const char *wanted, json_t *errors)
{
	const json_t *value = json_object_get(body, key);
	const char *text = json_string_value(value);
	char place[POINTER_SIZE];

	(void)key_pointer("", key, place);
	if (!value) {
		complain(errors, place, "is required");
	} else if (!text || strcmp(text, wanted) != 0) {
		complain(errors, place, "must be \"%s\"", wanted);
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
			if (distance(key, names[i]) < distance(key, nearest)) {
				nearest = names[i];
			}
		}
		if (strcmp(key, "status") == 0) {
			complain(errors, "/status", "is set by the server");
		} else if (strcmp(key, nearest) != 0) {
			complain_unknown(errors, key_pointer("", key, place), key, nearest);
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
	for (size_t i = 0; i < TRIB_COUNT(table) && !rc; i++) {
		rc = read_row(&table[i], inner, spec->spec, errors);
	}
	return rc ? rc : cross_rules(spec, errors);
}

int orc_spec_read(json_t *body, struct orc_spec *ret_spec, json_t **ret_errors)
{
	struct orc_spec spec = { .spec = json_object() };
	json_t *errors = json_array();
	int rc = -ENOMEM;

	if (spec.spec && errors) {
		rc = 0;
		if (!json_is_object(body)) {
			complain(errors, "", "must be an object");
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

/* ---- schema ---- */

static json_t *words_schema(const char *values)
{
	json_t *list = json_array();

	while (values && *values) {
		size_t blank = strspn(values, " ");
		size_t size = strcspn(values + blank, " ");

		if (size) {
			(void)json_array_append_new(list, json_stringn(values + blank, size));
		}
		values += blank + size;
	}
	return json_pack("{s:s, s:o}", "type", "string", "enum", list);
}

static json_t *object_schema(void)
{
	return json_pack("{s:s, s:b, s:{}}", "type", "object", "additionalProperties", 0,
			 "properties");
}

static json_t *row_schema(const struct row *row)
{
	json_t *schema = NULL;

	switch (row->kind) {
	case KIND_OBJECT:
		schema = object_schema();
		break;
	case KIND_FREE:
		schema = json_pack("{s:s}", "type", "object");
		break;
	case KIND_ENUM:
		schema = words_schema(row->values);
		break;
	case KIND_ENUMS:
		schema = json_pack("{s:s, s:o, s:i, s:i}", "type", "array", "items",
				   words_schema(row->values), "minItems", 1, "maxItems", 8);
		break;
	case KIND_INTEGER:
		schema = json_pack("{s:s, s:I, s:I}", "type", "integer", "minimum",
				   (json_int_t)row->min, "maximum", (json_int_t)row->max);
		break;
	case KIND_AUTO:
		schema = json_pack("{s:[{s:s, s:I, s:I}, {s:s}]}", "oneOf", "type", "integer",
				   "minimum", (json_int_t)row->min, "maximum", (json_int_t)row->max,
				   "const", "auto");
		break;
	case KIND_NUMBER:
		schema = json_pack("{s:s, s:f, s:f}", "type", "number", "minimum", row->min,
				   "maximum", row->max);
		break;
	case KIND_HOOKS:
		schema = json_pack("{s:s, s:i, s:{s:s, s:[s]}}", "type", "array", "maxItems",
				   ORC_HOOKS_MAX, "items", "type", "object", "required", "url");
		break;
	case KIND_JOB:
	case KIND_NAME:
		schema = json_pack("{s:s, s:i}", "type", "string", "maxLength",
				   TRIB_METRIC_NAME_MAX);
		break;
	case KIND_OURS:
		schema = json_pack("{s:s, s:b}", "type", "integer", "readOnly", 1);
		break;
	case KIND_LATER:
		return NULL;
	}
	if (row->initial) {
		(void)json_object_set_new(schema, "default",
					  json_loads(row->initial, JSON_DECODE_ANY, NULL));
	}
	(void)json_object_set_new(schema, "description", json_string(row->help));
	return schema;
}

/* Where the schema of a row goes: the "properties" of its parent's schema. */
static json_t *properties_of(json_t *root, const char *path)
{
	json_t *at = json_object_get(root, "properties");
	const char *dot;

	while ((dot = strchr(path, '.')) != NULL) {
		at = json_object_get(json_object_getn(at, path, (size_t)(dot - path)),
				     "properties");
		path = dot + 1;
	}
	return at;
}

json_t *orc_spec_schema(void)
{
	json_t *spec = object_schema();
	json_t *labels = json_pack("{s:s, s:{s:s}, s:i}", "type", "object", "additionalProperties",
				   "type", "string", "maxProperties", ORC_LABELS_MAX);
	json_t *metadata = json_pack("{s:s, s:b, s:[s], s:{s:{s:s, s:s}, s:o}}", "type", "object",
				     "additionalProperties", 0, "required", "name", "properties",
				     "name", "type", "string", "pattern",
				     "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "labels", labels);

	for (size_t i = 0; spec && i < TRIB_COUNT(table); i++) {
		const char *dot = strrchr(table[i].path, '.');
		json_t *schema = row_schema(&table[i]);

		if (schema && json_object_set_new(properties_of(spec, table[i].path),
						  dot ? dot + 1 : table[i].path, schema)) {
			spec = NULL;
		}
	}
	return json_pack("{s:s, s:b, s:[s,s,s], s:{s:{s:s}, s:{s:s}, s:o, s:o}}", "type", "object",
			 "additionalProperties", 0, "required", "apiVersion", "kind", "metadata",
			 "properties", "apiVersion", "const", ORC_API_VERSION, "kind", "const",
			 ORC_KIND, "metadata", metadata, "spec", spec);
}
