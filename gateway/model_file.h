/* SPDX-License-Identifier: Apache-2.0
 * An open model file: mapped read-only, reference-counted (a download pins it), any thread.
 * Files are immutable: <models>/<job>/v<version>.safetensors.
 */
#ifndef TRIB_GATEWAY_MODEL_FILE_H
#define TRIB_GATEWAY_MODEL_FILE_H

#include "gateway/job.h"

struct gw_model {
	int refs; /* atomic */
	struct gw_version version;
	const uint8_t *memory;
	uint64_t size; /* of the file */
};

/* Opens and maps; checks the size against the version's data bytes. Pinned. -ENOENT: no such
 * file on this node; -EBADMSG: not the file it should be. Reads file metadata: quick. */
TRIB_MUST_CHECK int gw_model_open(const char *dir, const char *job,
				  const struct gw_version *version, struct gw_model **ret_model);
struct gw_model *gw_model_put(struct gw_model *model); /* NULL allowed; returns NULL */
/* The job's cache. find: pinned or NULL. keep: the cache pins it too. */
struct gw_model *gw_job_model(struct gw_job *job, uint32_t version);
void gw_job_keep_model(struct gw_job *job, struct gw_model *model);

#endif
