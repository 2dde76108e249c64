/* SPDX-License-Identifier: Apache-2.0
 * Counters and gauges as one static table per program, Prometheus text 0.0.4 out of it.
 * Updating is a relaxed atomic add: any thread.
 */
#ifndef TRIB_COMMON_METRICS_H
#define TRIB_COMMON_METRICS_H

#include "common/base.h"

enum trib_metric_kind {
	TRIB_COUNTER,
	TRIB_GAUGE
};

struct trib_metric {
	const char *name;   /* with the prefix tributary_ */
	const char *labels; /* "reason=\"x\"" or NULL; rows of one name must be neighbours */
	const char *help;
	enum trib_metric_kind kind;
	double scale;  /* printed value = value * scale; 0 means 1 */
	int64_t value; /* atomic */
};

static inline void trib_metric_add(struct trib_metric *metric, int64_t amount)
{
	(void)__atomic_add_fetch(&metric->value, amount, __ATOMIC_RELAXED);
}

static inline void trib_metric_set(struct trib_metric *metric, int64_t value)
{
	__atomic_store_n(&metric->value, value, __ATOMIC_RELAXED);
}

static inline int64_t trib_metric_get(const struct trib_metric *metric)
{
	return __atomic_load_n(&metric->value, __ATOMIC_RELAXED);
}

/* Heap text (trib_free), NULL when out of memory. Adds tributary_build_info and process_* rows. */
char *trib_metrics_print(const struct trib_metric *metrics, size_t count, const char *program);

#endif
