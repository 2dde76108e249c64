/* SPDX-License-Identifier: Apache-2.0
 * A client's connection: made when a request needs it, kept between requests while the service and
 * --close allow, plain or TLS. Bodies go out of shared pages; replies' heads and small bodies are
 * collected, models are thrown away as they come.
 */
#ifndef TRIB_CLIENT_LOAD_CONN_H
#define TRIB_CLIENT_LOAD_CONN_H

#include "client/load/worker.h"

struct load_conn;

struct load_request {
	size_t head_size; /* of worker->head: everything but the payload */
	bool payload;     /* followed by body bytes [0, body_end) of `variant` */
	unsigned variant;
	uint64_t body_end;
	uint64_t pace; /* bytes a second; 0 = no limit. Without payload: of the head */
	uint64_t timeout_ms;
	bool stops; /* what is given is all that is ever sent, and no answer is waited for
		     * (LOAD_CONN_STOPPED) */
};

/* The answer; borrowed during load_client_answer. */
struct load_reply {
	unsigned status;
	uint64_t size;      /* of the body */
	const char *body;   /* terminated; "" when it was thrown away */
	double retry_after; /* seconds; negative: not told */
};

/* 0: under way (load_client_answer or load_client_failed follow, never from within). -EBUSY: no
 * connection may be made now; the client is queued and woken. Else -errno: nothing was sent. */
TRIB_MUST_CHECK int load_conn_request(struct load_worker *worker, struct load_client *client,
				      const struct load_request *request);
enum load_conn_due {
	LOAD_CONN_FINE,    /* nothing to tell: the timer is set again */
	LOAD_CONN_STOPPED, /* all of a request that stops is out */
	LOAD_CONN_LATE,    /* no answer in time; closed */
};
/* The client's timer fired during a request. */
enum load_conn_due load_conn_due(struct load_worker *worker, struct load_client *client);
/* Was every byte of the payload handed to the kernel? */
bool load_conn_all_sent(const struct load_client *client);
void load_conn_close(struct load_worker *worker, struct load_client *client); /* none: fine */

#endif
