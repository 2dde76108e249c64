/* SPDX-License-Identifier: Apache-2.0
 * PUT models/0: the initial model, received straight into a mapped temporary file, checked, made
 * durable (in a helper thread: fsync blocks), linked as v0.safetensors, told to Redis. Redis
 * decides between rivals; a file it does not know never replaces one it does. Worker thread.
 */
#ifndef TRIB_GATEWAY_MODEL_PUT_H
#define TRIB_GATEWAY_MODEL_PUT_H

#include "gateway/guard.h"
#include "gateway/worker.h"

void gw_model_put_begin(struct gw_worker *worker, struct trib_exchange *x, const char *job,
			const struct gw_grant *grant);
/* At the end of the worker's thread: waits for helpers, removes what is unfinished. */
void gw_model_puts_fini(struct gw_worker *worker);

#endif
