/* SPDX-License-Identifier: Apache-2.0
 * Threads that post notifications, so that no loop waits for a receiver. Bounds: ORC_POSTS_MAX
 * wait; a post takes at most ORC_POST_MS.
 */
#ifndef TRIB_ORCHESTRATOR_HOOK_POOL_H
#define TRIB_ORCHESTRATOR_HOOK_POOL_H

#include "common/loop.h"

#define ORC_POSTS_MAX    64
#define ORC_POST_THREADS 4
#define ORC_POST_MS      3000

struct orc_post {
	char *url;          /* owned */
	char *body;         /* owned */
	char signature[96]; /* whole header line, "" = none */
	long status;        /* of the answer; 0 = none came */
	/* On the loop, once; frees the post (orc_post_free). */
	void (*done)(struct orc_post *post);
	void *arg;
};
void orc_post_free(struct orc_post *post);

struct orc_pool;
TRIB_MUST_CHECK int orc_pool_new(struct trib_loop *loop, struct orc_pool **ret_pool);
/* What waits is forgotten; what is under way is waited for (ORC_POST_MS at most). */
struct orc_pool *orc_pool_free(struct orc_pool *pool);
/* Takes the post; -ENOBUFS (not taken): too many wait. */
TRIB_MUST_CHECK int orc_pool_put(struct orc_pool *pool, struct orc_post *post);

#endif
