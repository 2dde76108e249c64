/* SPDX-License-Identifier: Apache-2.0
 * selection.labels: {matchLabels: {key: value}, matchExpressions: [{key, operator, values}]}, as in
 * Kubernetes. An empty one takes everybody.
 */
#include <stdio.h>
#include <string.h>

#include "common/labels.h"
#include "orchestrator/spec_internal.h"

static void check_label(const char *key, const json_t *value, const char *pointer, json_t *errors)
{
	const char *text = json_string_value(value);

	if (!trib_label_key_valid(key)) {
		spec_complain(errors, pointer,
			      "a key is [prefix/]name, names up to 63 of "
			      "[A-Za-z0-9._-]");
	}
	if (value &&
	    (!text || strlen(text) != json_string_length(value) || !trib_label_value_valid(text))) {
		spec_complain(errors, pointer, "a value is a string of up to 63 of [A-Za-z0-9._-]");
	}
}

static void check_labels(json_t *labels, const char *pointer, json_t *errors)
{
	char place[POINTER_SIZE];
	const char *key;
	json_t *value;

	if (!json_is_object(labels) || json_object_size(labels) > ORC_SELECTOR_MAX) {
		spec_complain(errors, pointer, "must be an object of at most %d labels",
			      ORC_SELECTOR_MAX);
		return;
	}
	json_object_foreach(labels, key, value)
	{
		check_label(key, value, spec_key_pointer(pointer, key, place), errors);
	}
}

static void check_values(const json_t *values, bool wanted, const char *pointer, json_t *errors)
{
	size_t count = json_array_size(values);

	if (!wanted) {
		if (count || (values && !json_is_array(values))) {
			spec_complain(errors, pointer, "values are for In and NotIn");
		}
		return;
	}
	if (!json_is_array(values) || count == 0 || count > ORC_SELECTOR_MAX) {
		spec_complain(errors, pointer, "In and NotIn want 1 to %d values",
			      ORC_SELECTOR_MAX);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		check_label("k", json_array_get(values, i), pointer, errors);
	}
}

static void check_expression(json_t *entry, const char *pointer, json_t *errors)
{
	static const char *const operators[] = { "In", "NotIn", "Exists", "DoesNotExist" };
	char place[POINTER_SIZE];
	const char *operator= trib_json_text(entry, "operator", "");
	const char *key;
	json_t *value;
	size_t at = 0;

	if (!json_is_object(entry)) {
		spec_complain(errors, pointer, "must be an object: key, operator, values");
		return;
	}
	json_object_foreach(entry, key, value)
	{
		if (strcmp(key, "key") != 0 && strcmp(key, "operator") != 0 &&
		    strcmp(key, "values") != 0) {
			spec_complain_unknown(errors, spec_key_pointer(pointer, key, place), key,
					      "values");
		}
	}
	check_label(trib_json_text(entry, "key", ""), NULL, spec_key_pointer(pointer, "key", place),
		    errors);
	while (at < TRIB_COUNT(operators) && strcmp(operator, operators[at]) != 0) {
		at++;
	}
	if (at == TRIB_COUNT(operators)) {
		spec_complain(errors, spec_key_pointer(pointer, "operator", place),
			      "must be one of: In NotIn Exists DoesNotExist");
		return;
	}
	check_values(json_object_get(entry, "values"), at < 2,
		     spec_key_pointer(pointer, "values", place), errors);
}

static void check_expressions(json_t *list, const char *pointer, json_t *errors)
{
	char place[POINTER_SIZE];

	if (!json_is_array(list) || json_array_size(list) > ORC_SELECTOR_MAX) {
		spec_complain(errors, pointer, "must be an array of at most %d conditions",
			      ORC_SELECTOR_MAX);
		return;
	}
	for (size_t i = 0; i < json_array_size(list); i++) {
		(void)snprintf(place, sizeof(place), "%.150s/%zu", pointer, i);
		check_expression(json_array_get(list, i), place, errors);
	}
}

bool spec_check_selector(json_t *value, const char *pointer, json_t *errors)
{
	size_t before = json_array_size(errors);
	char place[POINTER_SIZE];
	const char *key;
	json_t *member;

	if (!json_is_object(value)) {
		spec_complain(errors, pointer, "must be an object");
		return false;
	}
	json_object_foreach(value, key, member)
	{
		(void)spec_key_pointer(pointer, key, place);
		if (strcmp(key, "matchLabels") == 0) {
			check_labels(member, place, errors);
		} else if (strcmp(key, "matchExpressions") == 0) {
			check_expressions(member, place, errors);
		} else {
			spec_complain_unknown(errors, place, key,
					      spec_distance(key, "matchLabels") <
							      spec_distance(key, "matchExpressions")
						      ? "matchLabels"
						      : "matchExpressions");
		}
	}
	return json_array_size(errors) == before;
}

json_t *spec_selector_schema(void)
{
	return json_pack("{s:s, s:b, s:{s:{s:s, s:i, s:{s:s}}, s:{s:s, s:i, s:{s:s, s:b, s:[s,s], "
			 "s:{s:{s:s}, s:{s:s, s:[s,s,s,s]}, s:{s:s, s:i, s:{s:s}}}}}}}",
			 "type", "object", "additionalProperties", 0, "properties", "matchLabels",
			 "type", "object", "maxProperties", ORC_SELECTOR_MAX,
			 "additionalProperties", "type", "string", "matchExpressions", "type",
			 "array", "maxItems", ORC_SELECTOR_MAX, "items", "type", "object",
			 "additionalProperties", 0, "required", "key", "operator", "properties",
			 "key", "type", "string", "operator", "type", "string", "enum", "In",
			 "NotIn", "Exists", "DoesNotExist", "values", "type", "array", "maxItems",
			 ORC_SELECTOR_MAX, "items", "type", "string");
}
