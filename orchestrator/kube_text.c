/* SPDX-License-Identifier: Apache-2.0
 * Listings and watches carry what anybody wrote who may make objects. One that is too large, or
 * that JSON parsers differ about (depth, NUL, integers beyond 64 bits), must not keep the others
 * from being seen: so answers are cut up before anything is parsed, and of an object only those
 * members are that are used here.
 */
#include <stdio.h>
#include <string.h>

#include "orchestrator/kube_internal.h"

#define VALUE_MAX 65536 /* of one member of metadata or status */

static const char *blank(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')) {
		p++;
	}
	return p;
}

/* Past the text that begins at p, or NULL. */
static const char *past_text(const char *p, const char *end)
{
	for (p++; p < end; p++) {
		if (*p == '\\') {
			p++;
		} else if (*p == '"') {
			return p + 1;
		}
	}
	return NULL;
}

static const char *past_word(const char *p, const char *end)
{
	while (p < end && !strchr(",]} \t\r\n", *p)) {
		p++;
	}
	return p;
}

/* Past the value that begins at p, or NULL when it does not end. */
static const char *past(const char *p, const char *end)
{
	size_t depth = 0;

	if (p == end || (*p != '"' && *p != '{' && *p != '[')) {
		return past_word(p, end);
	}
	while (p && p < end) {
		if (*p == '"') {
			p = past_text(p, end);
		} else {
			depth += *p == '{' || *p == '[';
			depth -= *p == '}' || *p == ']';
			p++;
		}
		if (depth == 0) {
			return p;
		}
	}
	return NULL;
}

/* What is between two braces or brackets. */
static bool walk(const char *p, const char *end, const char *pair, kube_on_member *on_member,
		 void *arg)
{
	bool keys = *pair == '{';

	p = blank(p, end);
	if (p == end || *p != pair[0]) {
		return false;
	}
	for (p = blank(p + 1, end); p < end && *p != pair[1]; p = blank(p, end)) {
		const char *key = p;
		const char *after = keys && *p == '"' ? past_text(p, end) : p;
		const char *value = after && keys ? blank(after, end) : after;

		if (!value || (keys && (value == end || *value != ':'))) {
			return false;
		}
		value = keys ? blank(value + 1, end) : value;
		p = past(value, end);
		if (!p || p == value) {
			return false;
		}
		on_member(key, (size_t)(after - key), value, (size_t)(p - value), arg);
		p = blank(p, end);
		if (p < end && *p == ',') {
			p++;
		} else if (p == end || *p != pair[1]) {
			return false;
		}
	}
	return p < end && blank(p + 1, end) == end;
}

bool kube_members(const char *text, size_t size, kube_on_member *on_member, void *arg)
{
	return walk(text, text + size, "{}", on_member, arg);
}

bool kube_elements(const char *text, size_t size, kube_on_member *on_member, void *arg)
{
	return walk(text, text + size, "[]", on_member, arg);
}

bool kube_is(const char *key, size_t size, const char *name)
{
	return size == strlen(name) + 2 && memcmp(key + 1, name, size - 2) == 0;
}

/* ---- one object ---- */

struct kept {
	const char *const *names; /* ended by NULL */
	json_t *into;
	bool lost; /* one that could not be kept */
};

static void keep(const char *key, size_t key_size, const char *value, size_t size, void *arg)
{
	struct kept *kept = arg;
	char reason[160];
	json_t *json = NULL;

	for (const char *const *name = kept->names; *name; name++) {
		if (!kube_is(key, key_size, *name)) {
			continue;
		}
		if (size <= VALUE_MAX && trib_json_value(value, size, &json, reason) == 0) {
			(void)json_object_set_new(kept->into, *name, json);
		} else {
			kept->lost = true;
		}
	}
}

struct slim {
	json_t *object;
	bool odd;
};

/* The spec stays text: a thousand parsed ones would be large. Finalizers that are not known whole
 * could not be written back. */
static void part(const char *key, size_t key_size, const char *value, size_t size, void *arg)
{
	static const char *const meta[] = { "name",
					    "namespace",
					    "uid",
					    "generation",
					    "resourceVersion",
					    "deletionTimestamp",
					    "finalizers",
					    NULL };
	static const char *const told[] = { "job", "observedGeneration", "conditions", NULL };
	struct slim *slim = arg;
	struct kept kept = { .names = kube_is(key, key_size, "metadata") ? meta
				      : kube_is(key, key_size, "status") ? told
									 : NULL };

	if (kept.names) {
		kept.into = json_object();
		slim->odd |= !kept.into || !kube_members(value, size, keep, &kept) ||
			     (kept.names == meta && kept.lost);
		(void)json_object_set_new(slim->object, kept.names == meta ? "metadata" : "status",
					  kept.into);
	} else if (kube_is(key, key_size, "spec")) {
		(void)json_object_set_new(slim->object, "spec",
					  size <= KUBE_SPEC_MAX ? json_stringn(value, size)
								: json_null());
	}
}

json_t *kube_slim(const char *text, size_t size)
{
	struct slim slim = { .object = json_object() };

	if (slim.object && (!kube_members(text, size, part, &slim) || slim.odd)) {
		json_decref(slim.object);
		slim.object = NULL;
	}
	return slim.object;
}

json_t *kube_spec(const json_t *json, char reason[160])
{
	const json_t *spec = json_object_get(json, "spec");
	json_t *parsed = NULL;

	if (!json_is_string(spec)) {
		(void)snprintf(reason, 160, "must be at most %d bytes of JSON", KUBE_SPEC_MAX);
		return NULL;
	}
	return trib_json_parse(json_string_value(spec), json_string_length(spec), &parsed, reason)
		       ? NULL
		       : parsed;
}
