/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/quotas.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/id.h"
#include "common/jwt.h"
#include "common/log.h"
#include "orchestrator/leader.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/store_access.h"

#define FILE_MAX    (1u << 20)
#define REASON_SIZE 160
#define ENTRY_SIZE  160 /* "tenant=a|b|c|d," */

static const char *const names[] = { "jobs", "clients", "slots", "bytes" };

struct orc_quotas {
	char *path; /* NULL: none */
	struct stat seen;
	char *text; /* "" = no quotas */
	struct orc_store *store;
	struct orc_leader *leader;
	bool written; /* Redis has `text` */
	bool writing;
	bool again; /* it changed meanwhile */
};

/* ---- the file ---- */

/* Members that are absent stay what they are. NULL, or what is wrong. */
static const char *read_limits(json_t *json, unsigned long long limits[TRIB_COUNT(names)])
{
	const char *key;
	json_t *value;

	if (!json_is_object(json)) {
		return "an object of jobs, clients, slots and bytes is wanted";
	}
	json_object_foreach(json, key, value)
	{
		size_t i = 0;

		while (i < TRIB_COUNT(names) && strcmp(key, names[i]) != 0) {
			i++;
		}
		if (i == TRIB_COUNT(names)) {
			return "quotas are jobs, clients, slots and bytes";
		}
		if (!json_is_integer(value) || json_integer_value(value) < 0 ||
		    (unsigned long long)json_integer_value(value) > ORC_QUOTA_MAX) {
			return "a quota is a whole number, 0 for none";
		}
		limits[i] = (unsigned long long)json_integer_value(value);
	}
	return NULL;
}

static size_t print_limits(const char *tenant, const unsigned long long limits[TRIB_COUNT(names)],
			   char *out)
{
	return (size_t)snprintf(out, ENTRY_SIZE, "%s=%llu|%llu|%llu|%llu,", tenant, limits[0],
				limits[1], limits[2], limits[3]);
}

static const char *read_all(json_t *json, char *out)
{
	unsigned long long common[TRIB_COUNT(names)] = { 0 };
	json_t *tenants = json_object_get(json, "tenants");
	json_t *fallback = json_object_get(json, "default");
	const char *wrong;
	const char *key;
	json_t *value;

	if (!json_is_object(json) ||
	    json_object_size(json) != (size_t)(tenants != NULL) + (size_t)(fallback != NULL)) {
		return "an object of default and tenants is wanted";
	}
	wrong = fallback ? read_limits(fallback, common) : NULL;
	if (wrong) {
		return wrong;
	}
	out += print_limits("*", common, out);
	if (tenants &&
	    (!json_is_object(tenants) || json_object_size(tenants) > ORC_QUOTA_TENANTS_MAX)) {
		return "tenants: an object of at most 1024";
	}
	json_object_foreach(tenants, key, value)
	{
		unsigned long long limits[TRIB_COUNT(names)];

		memcpy(limits, common, sizeof(limits));
		wrong = trib_name_valid(key) ? read_limits(value, limits)
					     : "a tenant: 1 to 63 of a-z 0-9 -";
		if (wrong) {
			return wrong;
		}
		out += print_limits(key, limits, out);
	}
	return NULL;
}

char *orc_quotas_read(const char *text, size_t size, char reason[160])
{
	const char *wrong;
	json_t *json = NULL;
	char *out;

	if (trib_json_parse(text, size, &json, reason)) {
		return NULL;
	}
	out = trib_alloc((json_object_size(json_object_get(json, "tenants")) + 2) * ENTRY_SIZE);
	wrong = out ? read_all(json, out) : "out of memory";
	json_decref(json);
	if (wrong) {
		(void)snprintf(reason, REASON_SIZE, "%s", wrong);
		trib_free(out);
		return NULL;
	}
	return out;
}

static int load(struct orc_quotas *quotas)
{
	char reason[REASON_SIZE] = "";
	char *file = NULL;
	char *text = NULL;
	size_t size = 0;
	int rc = trib_secret_file(quotas->path, FILE_MAX, &file, &size);

	if (rc == 0) {
		text = orc_quotas_read(file, size, reason);
		rc = text ? 0 : -EBADMSG;
	}
	trib_free(file);
	if (rc) {
		orc_count(ORC_M_QUOTAS_BAD);
		log_err("quotas", "not usable file=%s error=%s", quotas->path,
			reason[0] ? reason : strerrordesc_np(-rc));
		return rc;
	}
	trib_free(quotas->text);
	quotas->text = text;
	quotas->written = false;
	quotas->again = quotas->writing;
	log_info("quotas", "read file=%s", quotas->path);
	return 0;
}

int orc_quotas_new(const char *path, struct orc_store *store, struct orc_leader *leader,
		   struct orc_quotas **ret_quotas)
{
	struct orc_quotas *quotas = trib_alloc(sizeof(*quotas));
	int rc = 0;

	if (!quotas) {
		return -ENOMEM;
	}
	quotas->store = store;
	quotas->leader = leader;
	quotas->text = trib_strdup("");
	if (path) {
		quotas->path = trib_strdup(path);
		(void)stat(path, &quotas->seen);
		rc = quotas->path ? load(quotas) : -ENOMEM;
	}
	if (rc || !quotas->text) {
		(void)orc_quotas_free(quotas);
		return rc ? rc : -ENOMEM;
	}
	*ret_quotas = quotas;
	return 0;
}

struct orc_quotas *orc_quotas_free(struct orc_quotas *quotas)
{
	if (quotas) {
		trib_free(quotas->path);
		trib_free(quotas->text);
		trib_free(quotas);
	}
	return NULL;
}

/* ---- into Redis ---- */

static void on_written(const struct orc_reply *reply, void *arg)
{
	struct orc_quotas *quotas = arg;

	quotas->writing = false;
	if (reply->word == ORC_FENCED) {
		orc_leader_fenced(quotas->leader);
	}
	quotas->written = reply->word == ORC_OK && !quotas->again;
	quotas->again = false;
}

static void write_all(struct orc_quotas *quotas)
{
	if (quotas->written || quotas->writing || !orc_leader_valid(quotas->leader)) {
		return;
	}
	quotas->writing =
		orc_store_quotas_set(quotas->store, orc_leader_token(quotas->leader), quotas->text,
				     (struct orc_then){ on_written, quotas }) == 0;
}

void orc_quotas_lead(struct orc_quotas *quotas)
{
	quotas->written = false;
	quotas->again = quotas->writing;
	write_all(quotas);
}

void orc_quotas_tick(struct orc_quotas *quotas)
{
	struct stat now;

	if (quotas->path && stat(quotas->path, &now) == 0 &&
	    (now.st_ino != quotas->seen.st_ino || now.st_size != quotas->seen.st_size ||
	     now.st_mtim.tv_sec != quotas->seen.st_mtim.tv_sec ||
	     now.st_mtim.tv_nsec != quotas->seen.st_mtim.tv_nsec)) {
		quotas->seen = now;
		(void)load(quotas); /* told; what was in force stays */
	}
	write_all(quotas);
}
