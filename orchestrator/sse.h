/* SPDX-License-Identifier: Apache-2.0
 * Event streams: GET /v1/jobs/{job}/events and /v1/events as text/event-stream.
 *
 * Each stream reads Redis from its own place, when trib:wake says something and once a second; so
 * an id is all it takes to resume (Last-Event-ID, or ?last_event_id=). The stream of one job is
 * exact; the one of all jobs may repeat events of the very millisecond it resumes in, and follows
 * the ORC_SOURCES_MAX newest jobs. Without an id a stream begins now.
 *
 * A tenant's stream of all jobs holds its own ones. A stream ends with its caller's JWT, and when
 * the operators change (whoever may, resumes it).
 *
 * Bounds: ORC_STREAMS_MAX streams, 1 MiB waiting per stream (then it is ended). Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_SSE_H
#define TRIB_ORCHESTRATOR_SSE_H

#include "orchestrator/api.h"

#define ORC_STREAMS_MAX     1024
#define ORC_STREAMS_ALL_MAX 64 /* of all jobs: they cost more */

struct orc_sse;

TRIB_MUST_CHECK int orc_sse_new(struct trib_loop *loop, struct orc_store *store,
				struct orc_tenants *tenants, struct orc_sse **ret_sse);
/* The listeners and the store are freed before. */
struct orc_sse *orc_sse_free(struct orc_sse *sse);
void orc_sse_end_all(struct orc_sse *sse); /* while the listeners still live */
void orc_sse_wake(struct orc_sse *sse, const char *what, const char *job);
void orc_sse_again(struct orc_sse *sse); /* messages may have been missed */
/* Handlers. */
void orc_sse_job(struct orc_request *r);
void orc_sse_all(struct orc_request *r);

#endif
