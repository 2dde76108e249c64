/* SPDX-License-Identifier: Apache-2.0
 * Conditional and partial requests (RFC 9110): If-None-Match and Range. Pure; any thread.
 */
#ifndef TRIB_GATEWAY_CONDITIONS_H
#define TRIB_GATEWAY_CONDITIONS_H

#include "common/base.h"

/* Range of a body of `size` bytes: 0 and [*ret_first, *ret_last]; -ENOENT: none that counts (send
 * all); -ERANGE: not satisfiable. */
TRIB_MUST_CHECK int gw_range_parse(const char *text, uint64_t size, uint64_t *ret_first,
				   uint64_t *ret_last);
/* If-None-Match: does the list hold `etag` (weak comparison) or "*"? */
bool gw_etag_listed(const char *list, const char *etag);

#endif
