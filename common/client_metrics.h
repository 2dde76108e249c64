/* SPDX-License-Identifier: Apache-2.0
 * What clients measure (header FL-Metrics: "loss=0.31, accuracy=0.9"): names and finite decimals,
 * bounded. Input is hostile. Pure.
 */
#ifndef TRIB_COMMON_CLIENT_METRICS_H
#define TRIB_COMMON_CLIENT_METRICS_H

#include "common/base.h"
#include "common/json.h"

#define TRIB_METRICS_MAX       32
#define TRIB_METRIC_NAME_MAX   48
#define TRIB_METRIC_NAME_TEXT  "a letter or _, then up to 47 of A-Z a-z 0-9 _ . -"
#define TRIB_METRIC_VALUE_SIZE 26 /* "-1.2345678901234567e+15" */
/* Of the normalised text "name=value,..". */
#define TRIB_METRICS_TEXT_SIZE \
	(TRIB_METRICS_MAX * (TRIB_METRIC_NAME_MAX + 1 + TRIB_METRIC_VALUE_SIZE))

bool trib_metric_name_valid(const char *name, size_t size);
/* The header's value, normalised, into out. Values are decimals without exponent of at most 1e15.
 * 0; -EINVAL: not understood; -E2BIG: more than TRIB_METRICS_MAX; -EEXIST: a name twice. */
TRIB_MUST_CHECK int trib_metrics_read(const char *text, char out[TRIB_METRICS_TEXT_SIZE]);
/* The normalised text as an object; what is not understood is left out. NULL: out of memory. */
json_t *trib_metrics_json(const char *text);

#endif
