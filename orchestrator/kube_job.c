/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/kube_internal.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/spec.h"

#define MERGE     "application/merge-patch+json"
#define PAGES_MAX 500 /* of jobs, in search of one that was made */

static void object_path(const struct kube_object *object, const char *more, char *out, size_t size)
{
	(void)snprintf(out, size, "/apis/" KUBE_API "/namespaces/%s/aggregationjobs/%s%s",
		       object->space, object->name, more);
}

static void job_path(const struct kube_object *object, const char *query, char *out, size_t size)
{
	(void)snprintf(out, size, "/v1/jobs/%s%s", object->job, query);
}

static bool job_id_valid(const char *text)
{
	struct trib_id id;

	return trib_id_parse("job_", text, &id) == 0;
}

/* A label, not what status says, makes a job the object's: whoever may write status must not
 * command others' jobs. */
static bool is_its(const struct kube_object *object, const json_t *job)
{
	const json_t *labels = json_object_get(json_object_get(job, "metadata"), "labels");
	const char *uid = json_string_value(json_object_get(labels, KUBE_LABEL));

	return uid && strcmp(uid, object->uid) == 0;
}

/* ---- the finalizer ---- */

static bool has_finalizer(const json_t *json)
{
	const json_t *list = json_object_get(json_object_get(json, "metadata"), "finalizers");
	json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		const char *text = json_string_value(one);

		if (text && strcmp(text, KUBE_FINALIZER) == 0) {
			return true;
		}
	}
	return false;
}

/* Adds or takes away ours; others' stay: the version makes sure that none came meanwhile. */
static bool set_finalizer(struct orc_kube *kube, const struct kube_object *object,
			  const json_t *json, bool present)
{
	const json_t *old = json_object_get(json_object_get(json, "metadata"), "finalizers");
	json_t *list = json_array();
	char path[KUBE_URL_SIZE];
	struct kube_call call = { .method = "PATCH", .path = path, .type = MERGE };
	json_t *body;
	json_t *one;
	size_t i;
	long status;

	json_array_foreach(old, i, one)
	{
		const char *text = json_string_value(one);

		if (text && strcmp(text, KUBE_FINALIZER) != 0) {
			(void)json_array_append(list, one);
		}
	}
	if (present) {
		(void)json_array_append_new(list, json_string(KUBE_FINALIZER));
	}
	body = json_pack("{s:{s:o, s:s, s:s}}", "metadata", "finalizers", list, "resourceVersion",
			 trib_json_text(json, "metadata.resourceVersion", ""), "uid", object->uid);
	object_path(object, "", path, sizeof(path));
	call.body = body;
	if (body) {
		kube_server(kube, &call);
	}
	status = call.status;
	kube_call_fini(&call);
	json_decref(body);
	return status == 200 || (!present && status == 404);
}

/* ---- finding the job ---- */

/* 1: it is there and the object's (*ret_job owned); 0: it is not; -1: not known now. */
static int look(struct orc_kube *kube, struct kube_object *object, json_t **ret_job)
{
	char path[KUBE_URL_SIZE];
	struct kube_call call = { .method = "GET", .path = path };
	int rc = -1;

	*ret_job = NULL;
	job_path(object, "", path, sizeof(path));
	kube_ours(kube, &call);
	if (call.status == 200 && is_its(object, call.answer)) {
		*ret_job = json_incref(call.answer);
		rc = 1;
	} else if (call.status == 404 || call.status == 200) {
		rc = 0;
	}
	kube_call_fini(&call);
	return rc;
}

static bool search_page(struct kube_object *object, const json_t *answer)
{
	const json_t *items = json_object_get(answer, "items");
	json_t *job;
	size_t i;

	json_array_foreach(items, i, job)
	{
		const char *id = trib_json_text(job, "metadata.id", "");

		if (is_its(object, job) && job_id_valid(id)) {
			(void)snprintf(object->job, sizeof(object->job), "%s", id);
			return true;
		}
	}
	return false;
}

/* A job made for this object, of which its status does not tell (a crash between the two). 1, 0 or
 * -1 as of look. */
static int search(struct orc_kube *kube, struct kube_object *object)
{
	char path[KUBE_URL_SIZE];
	char next[128] = "";

	for (size_t pages = 0; pages < PAGES_MAX; pages++) {
		bool found = false;
		long status;
		struct kube_call call = { .method = "GET", .path = path };

		(void)snprintf(path, sizeof(path), "/v1/jobs?limit=20%s%s", *next ? "&cursor=" : "",
			       next);
		kube_ours(kube, &call);
		status = call.status;
		if (status == 200) {
			found = search_page(object, call.answer);
			(void)snprintf(next, sizeof(next), "%s",
				       trib_json_text(call.answer, "next", ""));
		}
		kube_call_fini(&call);
		if (status != 200 || found || !*next) {
			return status == 200 ? found : -1;
		}
	}
	return -1;
}

/* ---- create, change ---- */

/* The object as the REST API takes jobs. NULL: out of memory. */
static json_t *wanted(const struct kube_object *object, json_t *spec)
{
	return json_pack("{s:s, s:s, s:{s:s, s:{s:s, s:s}}, s:O*}", "apiVersion", ORC_API_VERSION,
			 "kind", ORC_KIND, "metadata", "name", object->name, "labels", KUBE_LABEL,
			 object->uid, KUBE_GROUP "/namespace", object->space, "spec", spec);
}

/* 422 and the like: told to the user, final for this generation. */
static bool is_final(long status)
{
	return status == 400 || status == 409 || status == 413 || status == 422;
}

static bool conclude(const struct kube_call *call, long long generation, const char *reason,
		     struct kube_object *object, struct kube_verdict *verdict)
{
	if (is_final(call->status)) {
		verdict->accepted = false;
		verdict->reason = reason;
		kube_explain(call, verdict);
		object->observed = generation;
		return true;
	}
	if (call->status != 200 && call->status != 201) {
		log_debug("kube", "later status=%ld error=%s", call->status, call->error);
		return false;
	}
	*verdict = (struct kube_verdict){ .accepted = true, .reason = "Applied" };
	object->observed = generation;
	return true;
}

static bool create(struct orc_kube *kube, struct kube_object *object, json_t *spec,
		   long long generation, struct kube_verdict *verdict)
{
	json_t *body = wanted(object, spec);
	char key[128];
	struct kube_call call = { .method = "POST", .path = "/v1/jobs", .body = body, .key = key };
	bool ok;

	(void)snprintf(key, sizeof(key), "kube-%s-%lld", object->uid, generation);
	if (body) {
		kube_ours(kube, &call);
	}
	ok = conclude(&call, generation, "InvalidSpec", object, verdict);
	if (ok && verdict->accepted) {
		const char *id = trib_json_text(call.answer, "metadata.id", "");

		ok = job_id_valid(id);
		(void)snprintf(object->job, sizeof(object->job), "%s", ok ? id : "");
		log_info("kube", "created object=%s/%s job=%s", object->space, object->name,
			 object->job);
	}
	kube_call_fini(&call);
	json_decref(body);
	return ok;
}

/* The patch that makes the job what a new one of this spec would be: every field named, with its
 * default where the user does not say. NULL: `call` tells why. Owned. */
static json_t *full_patch(struct orc_kube *kube, const struct kube_object *object, json_t *given,
			  struct kube_call *call)
{
	json_t *body = wanted(object, given);
	json_t *mine = json_object_get(given, "notifications");
	json_t *spec;
	json_t *patch = NULL;

	*call = (struct kube_call){ .method = "POST", .path = "/v1/jobs:validate", .body = body };
	if (body) {
		kube_ours(kube, call);
	}
	spec = json_object_get(call->answer, "spec");
	if (call->status == 200 && json_is_object(spec)) {
		(void)json_object_del(spec, "labels");
		(void)json_object_del(json_object_get(spec, "aggregation"), "scale_bits");
		if (mine) { /* shown without secrets */
			(void)json_object_set(spec, "notifications", mine);
		}
		patch = json_pack("{s:O}", "spec", spec);
	}
	json_decref(body);
	return patch;
}

static bool change(struct orc_kube *kube, struct kube_object *object, json_t *spec,
		   long long generation, struct kube_verdict *verdict)
{
	char path[KUBE_URL_SIZE];
	struct kube_call call;
	json_t *patch = full_patch(kube, object, spec, &call);
	bool ok;

	if (patch) {
		kube_call_fini(&call);
		job_path(object, "", path, sizeof(path));
		call = (struct kube_call){
			.method = "PATCH", .path = path, .type = MERGE, .body = patch, .any = true
		};
		kube_ours(kube, &call);
	}
	ok = conclude(&call, generation, call.status == 409 ? "JobIsOver" : "InvalidChange", object,
		      verdict);
	kube_call_fini(&call);
	json_decref(patch);
	return ok;
}

/* A job is made of the spec, or changed to it. False: not now. */
static bool obey(struct orc_kube *kube, struct kube_object *object, const json_t *json, bool exists,
		 struct kube_verdict *verdict)
{
	long long generation = trib_json_integer(json, "metadata.generation", 0);
	char reason[160];
	json_t *spec = kube_spec(json, reason);
	bool ok = true;

	if (!spec) {
		verdict->accepted = false;
		verdict->reason = exists ? "InvalidChange" : "InvalidSpec";
		(void)snprintf(verdict->message, sizeof(verdict->message), "/spec: %s", reason);
		object->observed = generation;
	} else if (exists) {
		ok = change(kube, object, spec, generation, verdict);
	} else {
		ok = create(kube, object, spec, generation, verdict);
	}
	json_decref(spec);
	return ok;
}

/* ---- the end ---- */

static bool end(struct orc_kube *kube, struct kube_object *object, const json_t *json)
{
	char path[KUBE_URL_SIZE];
	json_t *job = NULL;
	long status = 404;
	int rc = object->job[0] ? look(kube, object, &job) : 0;

	json_decref(job);
	if (rc == 0) { /* not told, or told wrongly */
		object->job[0] = '\0';
		rc = search(kube, object);
	}
	if (rc < 0) {
		return false;
	}
	if (rc == 1) {
		struct kube_call call = { .method = "DELETE", .path = path };

		job_path(object, "?force=1", path, sizeof(path));
		kube_ours(kube, &call);
		status = call.status;
		kube_call_fini(&call);
		log_info("kube", "deleted object=%s/%s job=%s status=%ld", object->space,
			 object->name, object->job, status);
	}
	return (status == 204 || status == 404) && set_finalizer(kube, object, json, false);
}

/* ---- status ---- */

static bool write_status(struct orc_kube *kube, struct kube_object *object, const json_t *json,
			 const json_t *job, const struct kube_verdict *verdict)
{
	json_t *status = kube_status(object, json, job, verdict);
	char path[KUBE_URL_SIZE];
	struct kube_call call = { .method = "PATCH", .path = path, .type = MERGE };
	json_t *body;
	bool ok;

	if (!status || (object->status && json_equal(status, object->status))) {
		ok = status != NULL;
		json_decref(status);
		return ok;
	}
	body = json_pack("{s:{s:s}, s:O}", "metadata", "uid", object->uid, "status", status);
	call.body = body;
	object_path(object, "/status", path, sizeof(path));
	if (body) {
		kube_server(kube, &call);
	}
	ok = call.status == 200;
	if (ok) {
		orc_count(ORC_M_KUBE_STATUS);
		json_decref(object->status);
		object->status = json_incref(status);
	}
	kube_call_fini(&call);
	json_decref(body);
	json_decref(status);
	return ok || call.status == 404; /* gone: the watch will say so */
}

/* What was said before, by us or the leader before us. */
static void remember(const json_t *json, struct kube_verdict *verdict)
{
	const json_t *list = json_object_get(json_object_get(json, "status"), "conditions");
	json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		if (strcmp(trib_json_text(one, "type", ""), "Accepted") == 0 &&
		    strcmp(trib_json_text(one, "status", ""), "False") == 0) {
			verdict->accepted = false;
			verdict->reason = trib_json_text(one, "reason", "InvalidSpec");
			(void)snprintf(verdict->message, sizeof(verdict->message), "%.1000s",
				       trib_json_text(one, "message", ""));
		}
	}
}

/* Takes over what status says, once. */
static void adopt(struct kube_object *object, const json_t *json)
{
	const char *id = trib_json_text(json, "status.job", "");

	if (object->observed < 0) {
		object->observed = trib_json_integer(json, "status.observedGeneration", 0);
	}
	if (!object->job[0] && job_id_valid(id)) {
		(void)snprintf(object->job, sizeof(object->job), "%s", id);
	}
}

/* Has the spec been dealt with? True and what is to be told, and `*ret_job`. */
static bool bring_in_line(struct orc_kube *kube, struct kube_object *object, const json_t *json,
			  struct kube_verdict *verdict, json_t **ret_job)
{
	long long generation = trib_json_integer(json, "metadata.generation", 0);
	int rc = object->job[0] ? look(kube, object, ret_job) : 0;

	if (rc < 0) {
		return false;
	}
	if (rc == 0 && !(object->job[0] && object->observed > 0)) {
		object->job[0] = '\0';
		if (generation == object->observed) {
			return true; /* refused before */
		}
		rc = search(kube, object);
		if (rc < 0 || (rc == 0 && !obey(kube, object, json, false, verdict))) {
			return false;
		}
		if (rc == 1) { /* made before, for whatever generation */
			object->observed = 0;
		}
		rc = object->job[0] ? look(kube, object, ret_job) : 0;
	}
	if (rc == 1 && generation != object->observed) {
		json_decref(*ret_job);
		*ret_job = NULL;
		if (!obey(kube, object, json, true, verdict)) {
			return false;
		}
		rc = look(kube, object, ret_job);
	}
	return rc >= 0;
}

bool kube_reconcile(struct orc_kube *kube, struct kube_object *object, const json_t *json)
{
	struct kube_verdict verdict = { .accepted = true, .reason = "Applied" };
	json_t *job = NULL;
	bool ok;

	adopt(object, json);
	if (trib_json_at(json, "metadata.deletionTimestamp")) {
		return !has_finalizer(json) || end(kube, object, json);
	}
	if (!has_finalizer(json)) {
		return set_finalizer(kube, object, json, true); /* seen by the watch: go on then */
	}
	remember(json, &verdict);
	ok = bring_in_line(kube, object, json, &verdict, &job) &&
	     write_status(kube, object, json, job, &verdict);
	json_decref(job);
	return ok;
}
