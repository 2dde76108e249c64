/* SPDX-License-Identifier: Apache-2.0
 * The admin listener: /healthz, /readyz, /metrics. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_ADMIN_H
#define TRIB_ORCHESTRATOR_ADMIN_H

#include "orchestrator/app.h"

TRIB_MUST_CHECK int orc_admin_new(struct orc_app *app, int listen_fd,
				  struct trib_httpd **ret_httpd);

#endif
