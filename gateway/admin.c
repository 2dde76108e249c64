/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/admin.h"

#include <string.h>

#include "gateway/attach.h"
#include "gateway/link.h"
#include "gateway/metrics.h"

static void ready(const struct gw_admin *admin, struct trib_exchange *x)
{
	const char *why = NULL;

	if (gw_stopping(admin->gw)) {
		why = "shutting down";
	} else if (!trib_redis_connected(admin->redis)) {
		why = "not connected to Redis";
	} else if (!gw_key_known(admin->gw)) {
		why = "no ticket key from Redis yet";
	} else if (!gw_link_up(admin->gw->link)) {
		why = "not linked to the agent";
	}
	if (why) {
		trib_http_problem(x, TRIB_PROBLEM_UNAVAILABLE, why, 1000);
		return;
	}
	trib_http_reply(x, 200, "text/plain", "ready\n", 6);
}

static void metrics(const struct gw_admin *admin, struct trib_exchange *x)
{
	int64_t counts[4] = { 0 };
	char *text;

	gw_jobs_states(&admin->gw->jobs, counts);
	gw_gauge(GW_M_SLOTS_FREE, counts[TRIB_SLOT_FREE]);
	gw_gauge(GW_M_SLOTS_FILLING, counts[TRIB_SLOT_FILLING]);
	gw_gauge(GW_M_SLOTS_READY, counts[TRIB_SLOT_READY]);
	gw_gauge(GW_M_SLOTS_CLAIMED, counts[TRIB_SLOT_CLAIMED]);
	gw_gauge(GW_M_REDIS_UP, trib_redis_connected(admin->redis));
	text = trib_metrics_print(gw_metrics, GW_M_COUNT, "gateway");
	if (!text) {
		trib_http_problem(x, TRIB_PROBLEM_INTERNAL, "out of memory", 0);
		return;
	}
	trib_http_reply(x, 200, "text/plain; version=0.0.4", text, strlen(text));
	trib_free(text);
}

void gw_admin_on_request(struct trib_exchange *x, const struct trib_http_request *request,
			 void *arg)
{
	const struct gw_admin *admin = arg;

	if (request->method != TRIB_HTTP_GET && request->method != TRIB_HTTP_HEAD) {
		trib_http_problem(x, TRIB_PROBLEM_METHOD_NOT_ALLOWED, "GET, HEAD", 0);
	} else if (strcmp(request->path, "/healthz") == 0) {
		trib_http_reply(x, 200, "text/plain", "ok\n", 3);
	} else if (strcmp(request->path, "/readyz") == 0) {
		ready(admin, x);
	} else if (strcmp(request->path, "/metrics") == 0) {
		metrics(admin, x);
	} else {
		trib_http_problem(x, TRIB_PROBLEM_NO_SUCH_PATH, NULL, 0);
	}
}
