/* SPDX-License-Identifier: Apache-2.0
 * The file of an initial model while it is received and put into place. Blocking file calls:
 * open/map at once (quick), gw_store_settle in a helper thread.
 */
#ifndef TRIB_GATEWAY_MODEL_STORE_H
#define TRIB_GATEWAY_MODEL_STORE_H

#include "common/base.h"

struct gw_store {
	int fd; /* -1: none */
	uint8_t *memory;
	uint64_t size;
	char temporary[512]; /* "" once gone */
	char final[512];
	char dir[448];
	bool created; /* `final` is a link made by us */
	bool differs; /* `final` was there with other content */
};

/* <models>/<job>/: a temporary file of `size` bytes, mapped writable. */
TRIB_MUST_CHECK int gw_store_open(const char *models, const char *job, const char *unique,
				  uint64_t size, struct gw_store *ret_store);
/* Makes the bytes durable and links the file as v0 unless there is one: sets created or differs. */
TRIB_MUST_CHECK int gw_store_settle(struct gw_store *store);
/* Ours is the truth: replaces a `final` that differs. */
TRIB_MUST_CHECK int gw_store_replace(struct gw_store *store);
/* Another one is the truth: takes our link away again. */
void gw_store_withdraw(struct gw_store *store);
void gw_store_fini(struct gw_store *store); /* removes the temporary name; idempotent */

#endif
