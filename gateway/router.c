/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/router.h"

#include <errno.h>
#include <string.h>

#include "gateway/checkin.h"
#include "gateway/guard.h"
#include "gateway/metrics.h"
#include "gateway/model_get.h"
#include "gateway/model_put.h"
#include "gateway/receipt.h"
#include "gateway/resume.h"
#include "gateway/upload.h"

#define PREFIX    "/v1/jobs/"
#define POOL_PATH "/v1/checkins"

static int segment(const char **at, char *out, size_t size)
{
	size_t length = strcspn(*at, "/");

	if (length == 0 || length >= size) {
		return -ENOENT;
	}
	memcpy(out, *at, length);
	out[length] = '\0';
	*at += length;
	return 0;
}

int gw_path_parse(const char *path, struct gw_path *ret_path)
{
	struct gw_path found = { .job = "" };
	const char *at = path + sizeof(PREFIX) - 1;

	if (strncmp(path, PREFIX, sizeof(PREFIX) - 1) != 0 ||
	    segment(&at, found.job, sizeof(found.job)) || *at++ != '/' ||
	    segment(&at, found.what, sizeof(found.what))) {
		return -ENOENT;
	}
	if (*at == '/') {
		at++;
		if (segment(&at, found.item, sizeof(found.item)) || *at) {
			return -ENOENT;
		}
	}
	*ret_path = found;
	return 0;
}

static void not_allowed(struct trib_exchange *x, const char *allow)
{
	if (trib_http_header(x, "Allow", allow)) {
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, NULL);
		return;
	}
	gw_refuse(x, TRIB_PROBLEM_METHOD_NOT_ALLOWED, allow);
}

static void route_model(struct gw_worker *worker, struct trib_exchange *x,
			enum trib_http_method method, const struct gw_path *path,
			const struct gw_grant *grant)
{
	if (method == TRIB_HTTP_GET || method == TRIB_HTTP_HEAD) {
		gw_model_get(worker, x, path->job, path->item);
	} else if (method == TRIB_HTTP_PUT && strcmp(path->item, "0") == 0) {
		gw_model_put_begin(worker, x, path->job, grant);
	} else {
		not_allowed(x, strcmp(path->item, "0") == 0 ? "GET, HEAD, PUT" : "GET, HEAD");
	}
}

static void route_update(struct gw_worker *worker, struct trib_exchange *x,
			 enum trib_http_method method, const struct gw_path *path)
{
	if (method == TRIB_HTTP_PUT) {
		gw_upload_begin(worker, x, path->job, path->item);
	} else if (method == TRIB_HTTP_GET || method == TRIB_HTTP_HEAD) {
		gw_receipt_get(worker, x, path->job, path->item);
	} else {
		not_allowed(x, "GET, HEAD, PUT");
	}
}

/* The guard let it in. */
static void serve(struct gw_worker *worker, struct trib_exchange *x, const struct gw_path *path,
		  const struct gw_grant *grant)
{
	enum trib_http_method method = trib_exchange_request(x)->method;

	if (path->what[0] == 'c') {
		gw_checkin_begin(worker, x, path->job, grant);
	} else if (strcmp(path->what, "uploads") == 0) {
		gw_resume_serve(worker, x, path);
	} else if (path->what[0] == 'm') {
		route_model(worker, x, method, path, grant);
	} else {
		route_update(worker, x, method, path);
	}
}

void gw_on_request(struct trib_exchange *x, const struct trib_http_request *request, void *arg)
{
	struct gw_worker *worker = arg;
	struct gw_path path;
	struct trib_id id;

	gw_worker_stir(worker);
	if (gw_stopping(worker->gw)) {
		gw_unavailable(worker, x, "shutting down");
		return;
	}
	if (strncmp(request->path, GW_INTERNAL, sizeof(GW_INTERNAL) - 1) == 0) {
		gw_internal_request(worker, x, request);
		return;
	}
	if (strcmp(request->path, POOL_PATH) == 0) {
		if (request->method != TRIB_HTTP_POST) {
			not_allowed(x, "POST");
			return;
		}
		gw_checkin_pool(worker, x);
		return;
	}
	if (gw_path_parse(request->path, &path)) {
		gw_refuse(x, TRIB_PROBLEM_NO_SUCH_PATH, NULL);
		return;
	}
	if (strcmp(path.what, "checkins") == 0 && path.item[0] == '\0') {
		if (request->method != TRIB_HTTP_POST) {
			not_allowed(x, "POST");
			return;
		}
	} else if (strcmp(path.what, "uploads") == 0 && path.item[0]) {
		if (request->method != TRIB_HTTP_HEAD && request->method != TRIB_HTTP_PATCH &&
		    request->method != TRIB_HTTP_DELETE) {
			not_allowed(x, "HEAD, PATCH, DELETE");
			return;
		}
	} else if ((strcmp(path.what, "models") != 0 && strcmp(path.what, "updates") != 0) ||
		   path.item[0] == '\0') {
		gw_refuse(x, TRIB_PROBLEM_NO_SUCH_PATH, NULL);
		return;
	}
	if (trib_id_parse("job_", path.job, &id)) {
		gw_refuse(x, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
		return;
	}
	gw_guard(worker, x, &path, serve);
}
