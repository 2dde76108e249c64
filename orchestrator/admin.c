/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/admin.h"

#include <string.h>

#include "orchestrator/client_gauge.h"
#include "orchestrator/leader.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/store_redis.h"

static void reply_metrics(const struct orc_app *app, struct trib_exchange *x)
{
	const struct trib_httpd_stats *api = trib_httpd_stats(app->api);
	char *text;

	orc_gauge(ORC_M_REDIS_CONNECTED, orc_store_connected(app->store));
	orc_gauge(ORC_M_REDIS_OUTSTANDING, (int64_t)orc_store_outstanding(app->store));
	orc_gauge(ORC_M_CONNS, (int64_t)api->connections_open);
	orc_gauge(ORC_M_TLS_HANDSHAKES, (int64_t)api->tls_handshakes);
	orc_gauge(ORC_M_TLS_REFUSED, (int64_t)api->tls_refused);
	orc_gauge(ORC_M_TLS_ERRORS, (int64_t)api->tls_errors);
	text = orc_client_gauge_print(trib_metrics_print(orc_metrics, ORC_M_COUNT, "orchestrator"));
	if (!text) {
		trib_http_problem(x, TRIB_PROBLEM_INTERNAL, "out of memory", 0);
		return;
	}
	trib_http_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", text, strlen(text));
	trib_free(text);
}

static const char *not_ready(const struct orc_app *app)
{
	if (app->stopping) {
		return "shutting down";
	}
	if (!orc_store_connected(app->store)) {
		return "Redis is not reachable";
	}
	if (!orc_store_ready(app->store)) {
		return "Redis has not got the functions yet";
	}
	if (!orc_leader_known(app->leader)) {
		return "nobody is known to hold the lease";
	}
	return NULL;
}

static void on_request(struct trib_exchange *x, const struct trib_http_request *request, void *arg)
{
	const struct orc_app *app = arg;
	const char *why;

	if (request->method != TRIB_HTTP_GET && request->method != TRIB_HTTP_HEAD) {
		trib_http_problem(x, TRIB_PROBLEM_METHOD_NOT_ALLOWED, NULL, 0);
	} else if (strcmp(request->path, "/healthz") == 0) {
		trib_http_reply(x, 200, "text/plain", "ok", 2);
	} else if (strcmp(request->path, "/metrics") == 0) {
		reply_metrics(app, x);
	} else if (strcmp(request->path, "/readyz") == 0) {
		why = not_ready(app);
		if (why) {
			trib_http_problem(x, TRIB_PROBLEM_UNAVAILABLE, why, 1000);
		} else {
			trib_http_reply(x, 200, "text/plain", "ok", 2);
		}
	} else {
		trib_http_problem(x, TRIB_PROBLEM_NO_SUCH_PATH, NULL, 0);
	}
}

int orc_admin_new(struct orc_app *app, int listen_fd, struct trib_httpd **ret_httpd)
{
	struct trib_httpd_limits limits = trib_httpd_limits_default;
	const struct trib_httpd_handler handler = { on_request, app };

	limits.conns_max = 256;
	return trib_httpd_new(app->loop, listen_fd, &limits, &handler, ret_httpd);
}
