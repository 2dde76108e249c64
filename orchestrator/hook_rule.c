/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/hook_rule.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *allowed;

/* The path's '/' of "http(s)://host[:port]/..", or NULL. */
static const char *path_of(const char *url)
{
	const char *host = strncmp(url, "https://", 8) == 0  ? url + 8
			   : strncmp(url, "http://", 7) == 0 ? url + 7
							     : NULL;
	size_t size = host ? strcspn(host, "/?#,") : 0;

	return size && host[size] == '/' ? host + size : NULL;
}

int orc_hooks_allow(const char *prefixes, const char **ret_reason)
{
	for (const char *at = prefixes; at && *at; at += strcspn(at, ",")) {
		at += *at == ',';
		if (!path_of(at)) {
			*ret_reason = "each must be http://host[:port]/ or https://host[:port]/, "
				      "perhaps with a path";
			return -EINVAL;
		}
	}
	allowed = prefixes && *prefixes ? prefixes : NULL;
	return 0;
}

static bool is_allowed(const char *url)
{
	for (const char *at = allowed; at && *at; at += strcspn(at, ",")) {
		size_t size;

		at += *at == ',';
		size = strcspn(at, ",");
		if (strncmp(url, at, size) == 0) {
			return true;
		}
	}
	return false;
}

static const char *url_wrong(const json_t *value)
{
	const char *url = json_string_value(value);
	const char *path;

	if (!url || strlen(url) > ORC_HOOK_URL_MAX) {
		return "must be an URL of at most 512 characters";
	}
	for (const char *c = url; *c; c++) {
		if (*c <= ' ' || *c > '~' || strchr("\\\"<>^`{|}#@", *c)) {
			return "holds characters that are not allowed";
		}
	}
	path = path_of(url);
	if (!path || strstr(path, "..") || strstr(path, "%2e") || strstr(path, "%2E")) {
		return "must be http(s)://host[:port]/path without dot segments";
	}
	if (!allowed) {
		return "this service sends no notifications (--webhook-allow)";
	}
	return is_allowed(url) ? NULL : "is not among what --webhook-allow names";
}

static const char *events_wrong(const json_t *events)
{
	if (!json_is_array(events) || json_array_size(events) == 0 ||
	    json_array_size(events) > ORC_HOOK_EVENTS_MAX) {
		return "must be 1 to 16 of \"round.open\", \"round.*\", .., \"*\"";
	}
	for (size_t i = 0; i < json_array_size(events); i++) {
		const char *text = json_string_value(json_array_get(events, i));
		size_t size = text ? strspn(text, "abcdefghijklmnopqrstuvwxyz.") : 0;

		if (!text || strlen(text) > 32 || (text[size] && strcmp(text + size, "*") != 0)) {
			return "must be 1 to 16 of \"round.open\", \"round.*\", .., \"*\"";
		}
	}
	return NULL;
}

static const char *secret_wrong(const json_t *value)
{
	size_t size = json_is_string(value) ? json_string_length(value) : 0;

	return size >= ORC_HOOK_SECRET_MIN && size <= ORC_HOOK_SECRET_MAX
		       ? NULL
		       : "must be 16 to 128 bytes of text";
}

static const char *hook_wrong(json_t *hook, const char **ret_key)
{
	const char *why = "must be an object with an url";
	const char *key;
	json_t *value;

	*ret_key = "";
	if (!json_is_object(hook) || !json_object_get(hook, "url")) {
		return why;
	}
	json_object_foreach(hook, key, value)
	{
		*ret_key = "";
		if (strcmp(key, "url") == 0) {
			why = url_wrong(value);
			*ret_key = "/url";
		} else if (strcmp(key, "events") == 0) {
			why = events_wrong(value);
			*ret_key = "/events";
		} else if (strcmp(key, "secret") == 0) {
			why = secret_wrong(value);
			*ret_key = "/secret";
		} else {
			why = "has an unknown key (url, events and secret are known)";
		}
		if (why) {
			return why;
		}
	}
	return NULL;
}

const char *orc_hooks_wrong(const json_t *hooks, char *ret_pointer, size_t size)
{
	ret_pointer[0] = '\0';
	if (!json_is_array(hooks) || json_array_size(hooks) > ORC_HOOKS_MAX) {
		return "must be an array of at most 4 {url, events, secret}";
	}
	for (size_t i = 0; i < json_array_size(hooks); i++) {
		const char *key;
		const char *why = hook_wrong(json_array_get(hooks, i), &key);

		if (why) {
			(void)snprintf(ret_pointer, size, "/%zu%s", i, key);
			return why;
		}
	}
	return NULL;
}

bool orc_hook_wants(const json_t *events, const char *type)
{
	static const char *const usual[] = { "job.", "round.", "model." };

	for (size_t i = 0; !events && i < TRIB_COUNT(usual); i++) {
		if (strncmp(type, usual[i], strlen(usual[i])) == 0) {
			return true;
		}
	}
	for (size_t i = 0; i < json_array_size(events); i++) {
		const char *text = json_string_value(json_array_get(events, i));
		size_t size = text ? strcspn(text, "*") : 0;

		if (text && strncmp(type, text, size) == 0 &&
		    (text[size] == '*' || type[size] == '\0')) {
			return true;
		}
	}
	return false;
}

void orc_hooks_redact(json_t *spec)
{
	json_t *hooks = json_object_get(spec, "notifications");

	for (size_t i = 0; i < json_array_size(hooks); i++) {
		(void)json_object_del(json_array_get(hooks, i), "secret");
	}
}
