/* SPDX-License-Identifier: Apache-2.0
 * Receipts against the service's own record of its rounds: the reason to trust a run.
 *
 *   lost      receipts whose round counted fewer
 *   double    counted beyond the receipts, as far as unresolved uploads cannot explain it
 *
 * An upload is unresolved when all of it was sent and the run ended before any answer came.
 */
#ifndef TRIB_CLIENT_LOAD_COUNTING_H
#define TRIB_CLIENT_LOAD_COUNTING_H

#include "client/load/report.h"

/* Both owned by the caller. *ret_ok: neither lost nor double, and the model (when it can be
 * computed) is what it must be. */
json_t *load_counting_json(const struct load_result *result, bool *ret_ok);
json_t *load_rounds_json(const struct load_result *result);

#endif
