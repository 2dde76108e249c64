/* SPDX-License-Identifier: Apache-2.0
 * /healthz, /readyz and /metrics on the admin listener. Main thread.
 */
#ifndef TRIB_GATEWAY_ADMIN_H
#define TRIB_GATEWAY_ADMIN_H

#include "gateway/gateway.h"

struct gw_admin {
	struct gw *gw;
	const struct trib_redis *redis; /* main's, borrowed */
};

/* httpd handler; arg is a struct gw_admin. */
void gw_admin_on_request(struct trib_exchange *x, const struct trib_http_request *request,
			 void *arg);

#endif
