/* SPDX-License-Identifier: Apache-2.0
 * The life of a synthetic client:
 *
 *   CHECKIN --place--> MODEL (if new) --> training --> [ATTACK] --> UPLOAD --receipt--> [DUPLICATE]
 *      ^  \--wait: held, or again when told--^              |  \--503, lost connection: again
 *      '----------------- next round, or the next arrival --'   with the same ticket
 *
 * Loop thread only.
 */
#ifndef TRIB_CLIENT_LOAD_CLIENT_H
#define TRIB_CLIENT_LOAD_CLIENT_H

#include "client/load/conn.h"
#include "client/load/worker.h"

/* First check-in of a client (closed loop) or of a visit (open loop). */
void load_client_begin(struct load_worker *worker, struct load_client *client,
		       uint64_t intended_ns);
/* The same from the timer, at the next turn. */
void load_client_begin_soon(struct load_worker *worker, struct load_client *client,
			    uint64_t intended_ns);
void load_client_wake(struct load_worker *worker, struct load_client *client);
void load_client_answer(struct load_worker *worker, struct load_client *client,
			const struct load_reply *reply);
/* The connection is closed already. stale: an idle connection had gone; nothing was answered. */
void load_client_failed(struct load_worker *worker, struct load_client *client,
			enum load_trouble trouble, bool stale);
/* Ends it now unless the fate of an update of its must be known. */
void load_client_drain(struct load_worker *worker, struct load_client *client);

#endif
