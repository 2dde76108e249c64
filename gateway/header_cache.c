/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/header_cache.h"

#include <errno.h>
#include <string.h>

#include "common/crypto.h"
#include "gateway/metrics.h"

struct gw_header *gw_header_put(struct gw_header *header)
{
	if (header && __atomic_sub_fetch(&header->refs, 1, __ATOMIC_ACQ_REL) == 0) {
		trib_free(header->text);
		trib_free(header->pieces);
		trib_free(header);
	}
	return NULL;
}

void gw_header_cache_fini(struct gw_header_cache *cache)
{
	for (size_t i = 0; i < GW_HEADERS_MAX; i++) {
		cache->entries[i] = gw_header_put(cache->entries[i]);
	}
}

static struct gw_header *find(struct gw_header_cache *cache, const struct gw_job *job,
			      struct trib_digest hash, const char *text, size_t size)
{
	for (size_t i = 0; i < GW_HEADERS_MAX && cache->entries[i]; i++) {
		struct gw_header *entry = cache->entries[i];

		if (entry->hash[0] == hash.high && entry->hash[1] == hash.low &&
		    entry->size == size && strcmp(entry->job, job->id) == 0 &&
		    memcmp(entry->text, text, size) == 0) {
			memmove(&cache->entries[1], &cache->entries[0],
				i * sizeof(cache->entries[0]));
			cache->entries[0] = entry;
			(void)__atomic_add_fetch(&entry->refs, 1, __ATOMIC_RELAXED);
			return entry;
		}
	}
	return NULL;
}

static int parse(const struct gw_job *job, const char *text, size_t size, uint64_t data_size,
		 struct gw_header *entry, enum trib_problem *ret_problem, const char **ret_detail)
{
	struct trib_layout *layout = NULL;
	int rc = trib_layout_parse(text, size, data_size, &layout, ret_problem, ret_detail);

	if (rc) {
		return rc;
	}
	rc = trib_layout_match(job->layout, layout, &entry->pieces, &entry->piece_count,
			       ret_problem, ret_detail);
	(void)trib_layout_free(layout);
	return rc;
}

int gw_header_find(struct gw_header_cache *cache, const struct gw_job *job, const char *text,
		   size_t size, uint64_t data_size, struct gw_header **ret_header,
		   enum trib_problem *ret_problem, const char **ret_detail)
{
	struct trib_digest hash;
	struct gw_header *entry;
	int rc;

	if (data_size != job->payload) { /* so the size need not be part of the key */
		*ret_problem = TRIB_PROBLEM_LAYOUT_MISMATCH;
		*ret_detail = "data size differs from the job's model";
		return -EBADMSG;
	}
	hash = trib_digest(text, size);
	entry = find(cache, job, hash, text, size);
	if (entry) {
		gw_count(GW_M_HEADER_HITS, 1);
		*ret_header = entry;
		return 0;
	}
	gw_count(GW_M_HEADER_MISSES, 1);
	entry = trib_alloc(sizeof(*entry));
	if (!entry) {
		return -ENOMEM;
	}
	*entry = (struct gw_header){ .refs = 1, .hash = { hash.high, hash.low }, .size = size };
	rc = trib_copy(entry->job, sizeof(entry->job), job->id);
	if (rc == 0) {
		rc = parse(job, text, size, data_size, entry, ret_problem, ret_detail);
	}
	if (rc == 0) {
		entry->text = trib_alloc(size);
		rc = entry->text ? 0 : -ENOMEM;
	}
	if (rc) {
		(void)gw_header_put(entry);
		return rc;
	}
	memcpy(entry->text, text, size);
	(void)gw_header_put(cache->entries[GW_HEADERS_MAX - 1]);
	memmove(&cache->entries[1], &cache->entries[0],
		(GW_HEADERS_MAX - 1) * sizeof(cache->entries[0]));
	cache->entries[0] = entry;
	(void)__atomic_add_fetch(&entry->refs, 1, __ATOMIC_RELAXED);
	*ret_header = entry;
	return 0;
}
