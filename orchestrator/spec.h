/* SPDX-License-Identifier: Apache-2.0
 * The job spec: one table (path, kind, bounds, default, help) from which come the check, the
 * normalised form (all defaults filled in) and the JSON Schema. Pure: no I/O. Input is hostile.
 *
 * Wire form: {apiVersion, kind, metadata: {name, labels}, spec: {..}}. The normalised form is the
 * inside of "spec" plus "labels" when there are any, and aggregation.scale_bits.
 */
#ifndef TRIB_ORCHESTRATOR_SPEC_H
#define TRIB_ORCHESTRATOR_SPEC_H

#include "common/json.h"

#define ORC_API_VERSION     "tributary/v1"
#define ORC_KIND            "AggregationJob"
#define ORC_SPEC_ERRORS_MAX 64
#define ORC_CONFIG_MAX      16384 /* bytes of client_config as JSON text */
#define ORC_LABELS_MAX      32
#define ORC_SELECTOR_MAX    16 /* labels, conditions and values of a selector, each */

struct orc_spec {
	char name[64];
	json_t *spec; /* normalised; owned */
	uint64_t goal;
	uint64_t quorum;
	uint64_t selected_max;
	uint64_t deadline_ms;
	uint64_t lease_ms;
	uint64_t stop_rounds;
};

/* Checks the whole of `body`. 0 and *ret_spec (orc_spec_fini it); -EBADMSG and *ret_errors, an
 * array [{pointer, detail}] of everything that is wrong (json_decref it); -ENOMEM. */
TRIB_MUST_CHECK int orc_spec_read(json_t *body, struct orc_spec *ret_spec, json_t **ret_errors);
void orc_spec_fini(struct orc_spec *spec);
/* JSON Schema (2020-12) of the wire form; NULL when out of memory. Caller json_decref's. */
json_t *orc_spec_schema(void);

#endif
