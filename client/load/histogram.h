/* SPDX-License-Identifier: Apache-2.0
 * Latencies in logarithmic buckets with linear steps inside (as HdrHistogram does): values up to
 * 2^42 ns (73 minutes) with an error below 1.6 %. One writer; any thread may copy or read, since
 * every count is one relaxed atomic.
 */
#ifndef TRIB_CLIENT_LOAD_HISTOGRAM_H
#define TRIB_CLIENT_LOAD_HISTOGRAM_H

#include "common/base.h"

#define LOAD_HISTOGRAM_STEP_BITS 6
#define LOAD_HISTOGRAM_TOP_BITS  42
#define LOAD_HISTOGRAM_BUCKETS \
	((LOAD_HISTOGRAM_TOP_BITS - LOAD_HISTOGRAM_STEP_BITS + 1) << LOAD_HISTOGRAM_STEP_BITS)

struct load_histogram { /* all zero = empty */
	uint64_t counts[LOAD_HISTOGRAM_BUCKETS];
	uint64_t count;
	uint64_t sum_ns;
	uint64_t max_ns;
};

void load_histogram_add(struct load_histogram *histogram, uint64_t ns);
/* into += from */
void load_histogram_merge(struct load_histogram *into, const struct load_histogram *from);
/* into = now - then: what came in between. The maximum is the highest bucket's upper end. */
void load_histogram_between(const struct load_histogram *now, const struct load_histogram *then,
			    struct load_histogram *into);
/* Highest value of the bucket that holds the q-th (0..1) of all values; 0 when empty. */
uint64_t load_histogram_quantile(const struct load_histogram *histogram, double q);
double load_histogram_mean(const struct load_histogram *histogram);

#endif
