/* SPDX-License-Identifier: Apache-2.0
 * Calls of one kind for one job, many in one FCALL (docs/adr/0013-many-in-one-call.md). While one
 * is in flight the next ones are gathered; they go when it is answered, at most GW_BATCH_MAX in
 * each. So a call that comes alone goes at once. Worker thread.
 */
#ifndef TRIB_GATEWAY_BATCH_H
#define TRIB_GATEWAY_BATCH_H

#include "common/redis.h"

#define GW_BATCH_MAX       64 /* calls in one: so Redis is busy with it for about a millisecond */
#define GW_BATCH_WORDS_MAX 9  /* of one call */
#define GW_BATCH_CALLS_MAX 65536 /* without an answer, of a worker */

enum gw_batch_kind {
	GW_BATCH_COMMIT,  /* trib_commit_many */
	GW_BATCH_CHECKIN, /* trib_checkin_many */
	GW_BATCH_KINDS
};

struct gw_batches;

/* redis is borrowed; it is freed before this, and what waits is answered NULL then. */
TRIB_MUST_CHECK int gw_batches_new(struct trib_redis *redis, struct gw_batches **ret_batches);
struct gw_batches *gw_batches_free(struct gw_batches *batches);

/* The words of one call, terminated by NULL, are copied; key: the job's. cb gets what the function
 * for one would have answered, an error, or NULL: it was not sent, or the connection was freed.
 * 0, -ENOBUFS (too many outstanding), -ENOMEM, -EINVAL (not as many words as the kind has) or as
 * trib_redis_call; cb is not called then. */
TRIB_MUST_CHECK int gw_batch_call(struct gw_batches *batches, enum gw_batch_kind kind,
				  const char *key, trib_redis_cb *cb, void *arg, ...)
	__attribute__((sentinel));

#endif
