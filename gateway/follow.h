/* SPDX-License-Identifier: Apache-2.0
 * Lets functions fold an update while it arrives: the slot's record says how far it is here, and a
 * body that comes fast is told to the agent before its end (docs/adr/0009-cut-through.md). Worker
 * thread.
 */
#ifndef TRIB_GATEWAY_FOLLOW_H
#define TRIB_GATEWAY_FOLLOW_H

#include "gateway/upload.h"

/* The header is known, the payload begins. */
void gw_follow_begin(struct gw_upload *u);
/* More of the payload has landed and was looked at. */
void gw_follow_landed(struct gw_upload *u);

#endif
