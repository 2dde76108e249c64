/* SPDX-License-Identifier: Apache-2.0
 * The present rings to and from the agent: set by the link (main), used by workers. What goes
 * through them are hints; losing them loses nothing.
 */
#ifndef TRIB_GATEWAY_RINGS_H
#define TRIB_GATEWAY_RINGS_H

#include "gateway/gateway.h"

/* fd: the channels, taken, also on failure. bell: what workers ring, borrowed. Main thread. */
TRIB_MUST_CHECK int gw_rings_new(int fd, uint32_t workers, int bell, struct gw_rings **ret_rings);
struct gw_rings *gw_rings_put(struct gw_rings *rings); /* NULL allowed; returns NULL */
/* rings: taken; NULL: the link is down. */
void gw_rings_set(struct gw *gw, struct gw_rings *rings);
/* Worker `worker` tells the agent. Counts what could not be told. */
void gw_rings_push(struct gw *gw, uint32_t worker, struct trib_descriptor *descriptor);

#endif
