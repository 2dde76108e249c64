/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api_tenants.h"

#include <string.h>

#include "orchestrator/access.h"
#include "orchestrator/store_access.h"

/* "tenant;jobs=limit|used,clients=.. " of `*at`, which moves on. NULL: nothing (more). */
static json_t *next_tenant(const char **at)
{
	json_t *quotas = json_object();
	json_t *use = json_object();
	size_t name = strcspn(*at, ";");
	const char *text = *at + name;
	json_t *json;

	if (*text != ';') {
		json_decref(quotas);
		json_decref(use);
		return NULL;
	}
	json = json_pack("{s:o, s:o, s:o}", "tenant", json_stringn(*at, name), "quotas", quotas,
			 "use", use);
	for (text++; json && *text && *text != ' '; text += *text == ',') {
		size_t key = strcspn(text, "=");
		const char *limit = text + key + 1;
		size_t size = strcspn(text, ", ");
		const char *bar = memchr(text, '|', size);
		uint64_t numbers[2];

		if (!bar || limit > bar ||
		    trib_parse_u64(limit, (size_t)(bar - limit), 0, INT64_MAX, &numbers[0]) ||
		    trib_parse_u64(bar + 1, (size_t)(text + size - bar - 1), 0, INT64_MAX,
				   &numbers[1])) {
			json_decref(json);
			return NULL;
		}
		(void)json_object_setn_new(quotas, text, key,
					   numbers[0] ? json_integer((json_int_t)numbers[0])
						      : json_null());
		(void)json_object_setn_new(use, text, key, json_integer((json_int_t)numbers[1]));
		text += size;
	}
	*at = text + (*text == ' ');
	return json;
}

static void on_listed(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	const char *at = reply->text;
	json_t *items = json_array();
	json_t *item;

	if (!orc_request_failed(r, reply->word)) {
		while ((item = next_tenant(&at))) {
			(void)json_array_append_new(items, item);
		}
		orc_reply_list(r, json_incref(items), "");
	}
	json_decref(items);
	orc_request_release(r);
}

void orc_tenants_list(struct orc_request *r)
{
	const char *tenant =
		trib_scopes_across(r->who.scopes, TRIB_SCOPE_JOBS_READ) ? "" : r->who.tenant;

	orc_request_hold(r);
	orc_request_sent(
		r, orc_store_tenants(r->app->store, tenant, (struct orc_then){ on_listed, r }));
}

static void on_tenant(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	const char *at = reply->text;
	json_t *item;

	if (!orc_request_failed(r, reply->word)) {
		item = next_tenant(&at);
		if (item) {
			orc_reply_json(r, 200, item, false);
		} else {
			orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "not understood");
		}
	}
	orc_request_release(r);
}

void orc_tenants_get(struct orc_request *r)
{
	if (!trib_name_valid(r->tenant) || !orc_access_sees(r, r->tenant)) {
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_TENANT, NULL);
		return;
	}
	orc_request_hold(r);
	orc_request_sent(
		r, orc_store_tenants(r->app->store, r->tenant, (struct orc_then){ on_tenant, r }));
}
