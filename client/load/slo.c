/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/slo.h"

#include <stdio.h>
#include <string.h>

static const char *const latencies[] = { "visit", "receipt", "service", "checkin", "model" };
static const char *const points[] = { "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms" };

static const struct {
	const char *name;
	const char *path; /* in the report */
	bool least;       /* the value must be at least the limit; else at most */
} others[] = {
	{ "goodput_min_per_s", "totals.goodput_per_s", true },
	{ "errors_max", "totals.errors", false },
	{ "refusals_max", "totals.refusals", false },
	{ "refused_share_max", "totals.refused_share", false },
	{ "rss_max_mb", "server.rss_max_mb", false },
	{ "rounds_min", "rounds.published", true },
	{ "round_p99_s", "rounds.p99_s", false },
};

/* The path in the report of a limit's name; false when there is none of that name. */
static bool find(const char *name, char path[64], bool *ret_least)
{
	for (size_t i = 0; i < TRIB_COUNT(others); i++) {
		if (strcmp(others[i].name, name) == 0) {
			*ret_least = others[i].least;
			return trib_copy(path, 64, others[i].path) == 0;
		}
	}
	*ret_least = false;
	for (size_t l = 0; l < TRIB_COUNT(latencies); l++) {
		size_t size = strlen(latencies[l]);

		for (size_t p = 0; strncmp(name, latencies[l], size) == 0 && name[size] == '_' &&
				   p < TRIB_COUNT(points);
		     p++) {
			if (strcmp(name + size + 1, points[p]) == 0) {
				(void)snprintf(path, 64, "latency.%s.%s", latencies[l], points[p]);
				return true;
			}
		}
	}
	return false;
}

bool load_slo_check(const json_t *slo, char reason[200])
{
	const char *name;
	json_t *value;
	char path[64];
	bool least;

	if (!json_is_object(slo)) {
		(void)snprintf(reason, 200, "an object of limits is needed");
		return false;
	}
	json_object_foreach((json_t *)slo, name, value)
	{
		if (!find(name, path, &least)) {
			(void)snprintf(reason, 200, "no limit is called '%.100s'", name);
			return false;
		}
		if (!json_is_number(value) || json_number_value(value) < 0) {
			(void)snprintf(reason, 200, "%.100s: not a number of at least 0", name);
			return false;
		}
	}
	return true;
}

json_t *load_slo_judge(const json_t *slo, const json_t *report, bool *ret_ok)
{
	json_t *out = json_array();
	const char *name;
	json_t *limit;
	char path[64];
	bool least;

	*ret_ok = true;
	json_object_foreach((json_t *)slo, name, limit)
	{
		json_t *value = find(name, path, &least) ? trib_json_at(report, path) : NULL;
		double is = json_number_value(value);
		double want = json_number_value(limit);
		bool ok = json_is_number(value) && (least ? is >= want : is <= want);

		*ret_ok = *ret_ok && ok;
		(void)json_array_append_new(
			out, json_pack("{s:s, s:f, s:o, s:b}", "name", name, "limit", want, "value",
				       json_is_number(value) ? json_real(is) : json_null(), "ok",
				       (int)ok));
	}
	return out;
}
