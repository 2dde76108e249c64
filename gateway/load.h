/* SPDX-License-Identifier: Apache-2.0
 * Getting at a job from a worker: from the shared table when it is certain, else read from Redis
 * once for all who wait.
 */
#ifndef TRIB_GATEWAY_LOAD_H
#define TRIB_GATEWAY_LOAD_H

#include "gateway/worker.h"

/* job: taken (pinned for the callee), or NULL with the problem to answer. */
typedef void gw_load_cb(struct gw_job *job, enum trib_problem problem, const char *detail,
			void *arg);
/* Calls cb once: at once or later. need_model: a job known to have none is read again. */
void gw_load(struct gw_worker *worker, const char *id, bool need_model, gw_load_cb *cb, void *arg);
void gw_loads_fini(struct gw_worker *worker);

#endif
