/* SPDX-License-Identifier: Apache-2.0
 * Which handler serves a data-plane request. Worker threads.
 */
#ifndef TRIB_GATEWAY_ROUTER_H
#define TRIB_GATEWAY_ROUTER_H

#include "gateway/worker.h"

/* httpd handler; arg is the worker. */
void gw_on_request(struct trib_exchange *x, const struct trib_http_request *request, void *arg);

struct gw_path { /* /v1/jobs/{job}/{what}[/{item}] */
	char job[TRIB_JOB_ID_SIZE];
	char what[16];
	char item[64];
};
/* -ENOENT: not of this shape. */
TRIB_MUST_CHECK int gw_path_parse(const char *path, struct gw_path *ret_path);

#endif
