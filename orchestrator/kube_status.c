/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "orchestrator/kube_internal.h"

void kube_explain(const struct kube_call *call, struct kube_verdict *verdict)
{
	const json_t *errors = json_object_get(call->answer, "errors");
	size_t used = 0;
	json_t *one;
	size_t i;

	verdict->message[0] = '\0';
	json_array_foreach(errors, i, one)
	{
		const char *pointer = trib_json_text(one, "pointer", "");
		const char *detail = trib_json_text(one, "detail", "");
		int size = snprintf(verdict->message + used, sizeof(verdict->message) - used,
				    "%s%s: %s", used ? "; " : "", pointer, detail);

		if (size < 0 || used + (size_t)size >= sizeof(verdict->message)) {
			verdict->message[used] = '\0'; /* whole ones alone */
			break;
		}
		used += (size_t)size;
	}
	if (used == 0) {
		const char *title = trib_json_text(call->answer, "title", "");

		(void)snprintf(verdict->message, sizeof(verdict->message), "%.900s",
			       trib_json_text(call->answer, "detail", title));
	}
}

/* The time of the last change stays while the condition does. */
static json_t *condition(const json_t *json, long long generation,
			 const struct kube_verdict *verdict)
{
	const char *value = verdict->accepted ? "True" : "False";
	const json_t *old = json_object_get(json_object_get(json, "status"), "conditions");
	char when[TRIB_RFC3339_SIZE];
	const char *since = when;
	json_t *one;
	size_t i;

	trib_rfc3339(trib_wall_ms(), when);
	json_array_foreach(old, i, one)
	{
		if (strcmp(trib_json_text(one, "type", ""), "Accepted") == 0 &&
		    strcmp(trib_json_text(one, "status", ""), value) == 0) {
			since = trib_json_text(one, "lastTransitionTime", when);
		}
	}
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "type", "Accepted", "status", value,
			 "reason", verdict->reason, "message", verdict->message,
			 "lastTransitionTime", since, "observedGeneration", (json_int_t)generation);
}

static void copy(json_t *to, const json_t *from, const char *name)
{
	json_t *value = json_object_get(from, name);

	if (value) {
		(void)json_object_set(to, name, value);
	}
}

json_t *kube_status(const struct kube_object *object, const json_t *json, const json_t *job,
		    const struct kube_verdict *verdict)
{
	static const char *const same[] = { "phase", "round", "version", "counted", "reason" };
	const json_t *from = json_object_get(job, "status");
	json_t *metrics = json_object_get(from, "metrics");
	json_t *status = json_object();
	json_t *one = condition(json, object->observed, verdict);

	for (size_t i = 0; i < TRIB_COUNT(same); i++) {
		copy(status, from, same[i]);
	}
	/* A merge patch replaces members: metrics of an older version must be named to go. */
	if (json_is_object(metrics)) {
		(void)json_object_set(status, "metrics", metrics);
		(void)json_object_set(status, "accuracy",
				      json_object_get(metrics, "accuracy")
					      ? json_object_get(metrics, "accuracy")
					      : json_null());
	}
	if (!from) {
		(void)json_object_set_new(status, "phase",
					  json_string(object->job[0] ? "Deleted" : "Refused"));
	}
	if (object->job[0]) {
		(void)json_object_set_new(status, "job", json_string(object->job));
	}
	(void)json_object_set_new(status, "observedGeneration", json_integer(object->observed));
	(void)json_object_set_new(status, "conditions", one ? json_pack("[o]", one) : NULL);
	if (!json_object_get(status, "conditions")) {
		json_decref(status);
		return NULL;
	}
	return status;
}
