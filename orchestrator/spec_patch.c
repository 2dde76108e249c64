/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/spec_patch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PATH_SIZE 256
#define MUTABLE                                                                                   \
	"mode, sync, async, stop, aggregation.denominator, aggregation.population, checkpoints, " \
	"notifications, pool.share, pool.score, pool.min, pool.size, selection "                  \
	"and labels"

static const char *const may_change[] = { "mode",
					  "sync",
					  "async",
					  "stop",
					  "labels",
					  "aggregation.denominator",
					  "aggregation.population",
					  "checkpoints",
					  "notifications",
					  "pool.share",
					  "pool.score",
					  "pool.min",
					  "pool.size",
					  "selection" };

static void refuse(json_t *errors, const char *pointer, const char *detail)
{
	json_t *entry = json_pack("{s:s, s:s}", "pointer", pointer, "detail", detail);

	(void)json_array_append_new(errors, entry ? entry
						  : json_pack("{s:s, s:s}", "pointer", "", "detail",
							      "cannot be changed"));
}

/* ---- RFC 7396 ---- */

/* `target` is stolen; the result is owned. NULL: out of memory. */
static json_t *merge(json_t *target, json_t *patch)
{
	const char *key;
	json_t *value;

	if (!json_is_object(patch)) {
		json_decref(target);
		return json_deep_copy(patch);
	}
	if (!json_is_object(target)) {
		json_decref(target);
		target = json_object();
	}
	json_object_foreach(patch, key, value)
	{
		if (json_is_null(value)) {
			(void)json_object_del(target, key);
		} else if (json_object_set_new(
				   target, key,
				   merge(json_incref(json_object_get(target, key)), value))) {
			json_decref(target);
			return NULL;
		}
	}
	return target;
}

/* ---- what may change ---- */

static bool changeable(const char *path)
{
	for (size_t i = 0; i < TRIB_COUNT(may_change); i++) {
		size_t size = strlen(may_change[i]);

		if (strncmp(path, may_change[i], size) == 0 &&
		    (path[size] == '\0' || path[size] == '.')) {
			return true;
		}
	}
	return false;
}

static void fixed(const char *path, json_t *old, json_t *new, json_t *errors);

static void fixed_members(const char *path, json_t *from, json_t *old, json_t *new, json_t *errors)
{
	char inner[PATH_SIZE];
	const char *key;
	json_t *value;

	json_object_foreach(from, key, value)
	{
		(void)snprintf(inner, sizeof(inner), "%s%s%.60s", path, *path ? "." : "", key);
		if (from == old || !json_object_get(old, key)) {
			fixed(inner, json_object_get(old, key), json_object_get(new, key), errors);
		}
	}
}

/* Complains of every value that differs and may not. */
static void fixed(const char *path, json_t *old, json_t *new, json_t *errors)
{
	char pointer[PATH_SIZE + 8];

	if (changeable(path)) {
		return;
	}
	if (json_is_object(old) && json_is_object(new) && strcmp(path, "client_config") != 0) {
		fixed_members(path, old, old, new, errors);
		fixed_members(path, new, old, new, errors);
		return;
	}
	if (json_equal(old, new)) {
		return;
	}
	(void)snprintf(pointer, sizeof(pointer), "/spec/%s", path);
	for (char *c = pointer; *c; c++) {
		*c = *c == '.' ? '/' : *c;
	}
	refuse(errors, pointer, "cannot be changed in a job's life; only " MUTABLE " can");
}

/* Sums begun with a scale go on with it. */
static int keep_scale(const json_t *old, struct orc_spec *spec, json_t *errors)
{
	long long was = trib_json_integer(old, "aggregation.scale_bits", 0);
	long long is = trib_json_integer(spec->spec, "aggregation.scale_bits", 0);

	if (is < was) {
		refuse(errors, "/spec/sync/goal",
		       "that many clients need coarser sums than the job was made with "
		       "(aggregation.scale_bits); a new job is needed");
	}
	return json_object_set_new(json_object_get(spec->spec, "aggregation"), "scale_bits",
				   json_integer(was))
		       ? -ENOMEM
		       : 0;
}

/* Slots were made for a memory, and what is in them stays, or not. */
static void keep_memory(const json_t *old, const json_t *new, json_t *errors)
{
	bool was = strcmp(trib_json_text(old, "async.memory", "none"), "all") == 0;
	bool is = strcmp(trib_json_text(new, "async.memory", "none"), "all") == 0;

	if (was != is) {
		refuse(errors, "/spec/async/memory", "cannot be changed in a job's life");
	}
	if (was && is &&
	    strcmp(trib_json_text(old, "mode", ""), trib_json_text(new, "mode", "")) != 0) {
		refuse(errors, "/spec/mode", "cannot be changed with async.memory all");
	}
	if (was && is &&
	    trib_json_integer(new, "async.memory_clients", 0) >
		    trib_json_integer(old, "async.memory_clients", 0)) {
		refuse(errors, "/spec/async/memory_clients", "cannot grow");
	}
}

/* ---- the wire form ---- */

/* The job as a client would submit it; `old` stays whole. A quorum that is the goal follows it. */
static json_t *wire_form(const char *name, const json_t *old, const json_t *patch)
{
	json_t *spec = json_deep_copy(old);
	json_t *labels = json_incref(json_object_get(spec, "labels"));
	json_t *sync = json_object_get(spec, "sync");

	(void)json_object_del(spec, "labels");
	(void)json_object_del(json_object_get(spec, "aggregation"), "scale_bits");
	if (!trib_json_at(patch, "spec.sync.quorum") &&
	    json_equal(json_object_get(sync, "quorum"), json_object_get(sync, "goal"))) {
		(void)json_object_del(sync, "quorum");
	}
	return json_pack("{s:s, s:s, s:{s:s, s:o*}, s:o}", "apiVersion", ORC_API_VERSION, "kind",
			 ORC_KIND, "metadata", "name", name, "labels", labels, "spec", spec);
}

static int patched(const char *name, const json_t *old, json_t *patch, struct orc_spec *ret_spec,
		   json_t **ret_errors)
{
	json_t *body = wire_form(name, old, patch);
	json_t *errors;
	int rc;

	body = body ? merge(body, patch) : NULL;
	if (!body) {
		return -ENOMEM;
	}
	rc = orc_spec_read(body, ret_spec, ret_errors);
	json_decref(body);
	if (rc) {
		return rc;
	}
	errors = json_array();
	if (strcmp(ret_spec->name, name) != 0) {
		refuse(errors, "/metadata/name", "cannot be changed");
	}
	rc = keep_scale(old, ret_spec, errors);
	keep_memory(old, ret_spec->spec, errors);
	fixed("", (json_t *)old, ret_spec->spec, errors);
	if (rc == 0 && json_array_size(errors)) {
		*ret_errors = errors;
		errors = NULL;
		rc = -EBADMSG;
	}
	json_decref(errors);
	if (rc) {
		orc_spec_fini(ret_spec);
	}
	return rc;
}

int orc_spec_patch(const char *name, const char *stored, json_t *patch, struct orc_spec *ret_spec,
		   json_t **ret_errors)
{
	char reason[160];
	json_t *old = NULL;
	int rc;

	if (trib_json_parse(stored, strlen(stored), &old, reason) || !json_is_object(old)) {
		json_decref(old);
		return -EINVAL;
	}
	if (!json_is_object(patch)) {
		*ret_errors =
			json_pack("[{s:s, s:s}]", "pointer", "", "detail", "must be an object");
		json_decref(old);
		return *ret_errors ? -EBADMSG : -ENOMEM;
	}
	rc = patched(name, old, patch, ret_spec, ret_errors);
	json_decref(old);
	return rc;
}
