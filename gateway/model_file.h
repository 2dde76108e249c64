/* SPDX-License-Identifier: Apache-2.0
 * A version to be served: its file or its memory (gateway/model_offer.h), mapped read-only,
 * reference-counted (a download pins it), any thread. Files are immutable:
 * <models>/<job>/v<version>.safetensors.
 */
#ifndef TRIB_GATEWAY_MODEL_FILE_H
#define TRIB_GATEWAY_MODEL_FILE_H

#include "gateway/job.h"

struct gw_model {
	int refs; /* atomic */
	struct gw_version version;
	const uint8_t *memory;
	uint64_t size; /* of the file */
	bool offered;  /* a memory of the agent's */
};

/* Opens and maps; checks the size against the version's data bytes. Pinned. -ENOENT: no such
 * file on this node; -EBADMSG: not the file it should be. Reads file metadata: quick. */
TRIB_MUST_CHECK int gw_model_open(const char *dir, const char *job,
				  const struct gw_version *version, struct gw_model **ret_model);
/* The first `size` bytes of a memfd, which must be such a file. fd is borrowed. Pinned. */
TRIB_MUST_CHECK int gw_model_map(int fd, uint32_t version, const char *digest, uint64_t size,
				 struct gw_model **ret_model);
struct gw_model *gw_model_put(struct gw_model *model); /* NULL allowed; returns NULL */
bool gw_model_drop(struct gw_model *model);            /* the same; was it the last pin? */
/* The job's cache (of files: what is offered is in a table of its own, and goes). find: pinned or
 * NULL. keep: the cache pins it too. */
struct gw_model *gw_job_model(struct gw_job *job, uint32_t version);
void gw_job_keep_model(struct gw_job *job, struct gw_model *model);

#endif
