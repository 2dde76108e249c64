/* SPDX-License-Identifier: Apache-2.0
 * A change of a job's spec (JSON Merge Patch, RFC 7396, of the job as GET shows it). The whole that
 * comes out is checked as a new spec is; what the sums and the memory of a live job rest on cannot
 * be changed. Pure: no I/O. Input is hostile.
 */
#ifndef TRIB_ORCHESTRATOR_SPEC_PATCH_H
#define TRIB_ORCHESTRATOR_SPEC_PATCH_H

#include "orchestrator/spec.h"

/* `stored`: the normalised spec as Redis keeps it. 0 and *ret_spec (orc_spec_fini it); -EBADMSG and
 * *ret_errors as of orc_spec_read; -EINVAL: `stored` is not JSON; -ENOMEM. */
TRIB_MUST_CHECK int orc_spec_patch(const char *name, const char *stored, json_t *patch,
				   struct orc_spec *ret_spec, json_t **ret_errors);

#endif
