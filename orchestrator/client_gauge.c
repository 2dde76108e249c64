/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/client_gauge.h"

#include <stdio.h>
#include <string.h>

#include "orchestrator/orc_metrics.h"

#define ROW_SIZE 160

struct gauge {
	char job[TRIB_ID_TEXT_SIZE]; /* "" = free */
	char name[TRIB_METRIC_NAME_MAX + 1];
	double value;
};

static struct gauge gauges[ORC_GAUGES_MAX];

void orc_client_gauge_drop(const char *job)
{
	for (size_t i = 0; i < ORC_GAUGES_MAX; i++) {
		if (strcmp(gauges[i].job, job) == 0) {
			gauges[i].job[0] = '\0';
		}
	}
}

static struct gauge *unused(void)
{
	for (size_t i = 0; i < ORC_GAUGES_MAX; i++) {
		if (gauges[i].job[0] == '\0') {
			return &gauges[i];
		}
	}
	return NULL;
}

void orc_client_gauge_set(const char *job, const char *metrics)
{
	json_t *json;
	const char *name;
	json_t *value;

	orc_client_gauge_drop(job);
	if (!*metrics) {
		return;
	}
	json = trib_metrics_json(metrics);
	json_object_foreach(json, name, value)
	{
		struct gauge *gauge = unused();

		if (!gauge || trib_copy(gauge->name, sizeof(gauge->name), name) ||
		    trib_copy(gauge->job, sizeof(gauge->job), job)) {
			orc_count(ORC_M_CLIENT_METRICS_LEFT);
			continue;
		}
		gauge->value = json_real_value(value);
	}
	json_decref(json);
}

char *orc_client_gauge_print(char *text)
{
	size_t used = text ? strlen(text) : 0;
	size_t room = used + (ORC_GAUGES_MAX + 2) * ROW_SIZE;
	char *out = trib_alloc(room);

	if (!out || !text) {
		trib_free(out);
		trib_free(text);
		return NULL;
	}
	memcpy(out, text, used);
	trib_free(text);
	used += (size_t)snprintf(out + used, room - used,
				 "# HELP tributary_client_metric Mean over the clients of the last "
				 "version\n# TYPE tributary_client_metric gauge\n");
	for (size_t i = 0; i < ORC_GAUGES_MAX; i++) {
		if (gauges[i].job[0]) {
			used += (size_t)snprintf(
				out + used, room - used,
				"tributary_client_metric{job=\"%s\",name=\"%s\"} %.9g\n",
				gauges[i].job, gauges[i].name, gauges[i].value);
		}
	}
	return out;
}
