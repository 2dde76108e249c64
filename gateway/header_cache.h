/* SPDX-License-Identifier: Apache-2.0
 * Update headers seen lately and where their bytes go: clients of one framework all send the same
 * header, so it is parsed once. One per worker, its thread only. Entries are reference-counted
 * (an upload keeps its pieces while it lasts).
 */
#ifndef TRIB_GATEWAY_HEADER_CACHE_H
#define TRIB_GATEWAY_HEADER_CACHE_H

#include "gateway/job.h"

#define GW_HEADERS_MAX 8

struct gw_header {
	uint32_t refs; /* atomic: a resumed upload may end on another worker */
	char job[TRIB_JOB_ID_SIZE];
	uint64_t hash[2];
	size_t size;
	char *text;                /* owned */
	struct trib_piece *pieces; /* owned */
	uint32_t piece_count;
};

struct gw_header_cache {
	struct gw_header *entries[GW_HEADERS_MAX]; /* most recently used first */
};

/* The pieces of an update of `job` whose header is text[0..size) (data_size bytes follow): pinned
 * entry. Refusals as trib_layout_parse and trib_layout_match. */
TRIB_MUST_CHECK int gw_header_find(struct gw_header_cache *cache, const struct gw_job *job,
				   const char *text, size_t size, uint64_t data_size,
				   struct gw_header **ret_header, enum trib_problem *ret_problem,
				   const char **ret_detail);
struct gw_header *gw_header_put(struct gw_header *header); /* NULL allowed; returns NULL */
void gw_header_cache_fini(struct gw_header_cache *cache);

#endif
