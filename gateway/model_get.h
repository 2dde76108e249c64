/* SPDX-License-Identifier: Apache-2.0
 * GET and HEAD models/{version|latest}: from the mapped file, never copied. Worker thread.
 */
#ifndef TRIB_GATEWAY_MODEL_GET_H
#define TRIB_GATEWAY_MODEL_GET_H

#include "gateway/worker.h"

void gw_model_get(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		  const char *version);

#endif
