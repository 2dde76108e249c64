/* SPDX-License-Identifier: Apache-2.0
 * The connection to the node's agent (shm/link.h), main thread only. Made again for ever, 50 ms
 * apart; every connection has new rings, and every attached job is attached again (the same
 * segment keeps its mapping).
 */
#ifndef TRIB_GATEWAY_LINK_H
#define TRIB_GATEWAY_LINK_H

#include "gateway/gateway.h"

TRIB_MUST_CHECK int gw_link_new(struct gw *gw, struct gw_link **ret_link);
struct gw_link *gw_link_free(struct gw_link *link);
bool gw_link_up(const struct gw_link *link);
/* Any thread: jobs want to be attached. */
void gw_link_poke(struct gw *gw);

#endif
