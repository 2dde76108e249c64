/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/spec_internal.h"

#include <string.h>

#include "common/client_metrics.h"
#include "orchestrator/hook_rule.h"

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
	case KIND_SELECTOR:
		schema = spec_selector_schema();
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

	for (size_t i = 0; spec && i < spec_row_count; i++) {
		const char *dot = strrchr(spec_rows[i].path, '.');
		json_t *schema = row_schema(&spec_rows[i]);

		if (schema && json_object_set_new(properties_of(spec, spec_rows[i].path),
						  dot ? dot + 1 : spec_rows[i].path, schema)) {
			spec = NULL;
		}
	}
	return json_pack("{s:s, s:b, s:[s,s,s], s:{s:{s:s}, s:{s:s}, s:o, s:o}}", "type", "object",
			 "additionalProperties", 0, "required", "apiVersion", "kind", "metadata",
			 "properties", "apiVersion", "const", ORC_API_VERSION, "kind", "const",
			 ORC_KIND, "metadata", metadata, "spec", spec);
}
