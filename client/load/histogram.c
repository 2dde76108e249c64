/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/histogram.h"

#include <math.h>

#define STEPS (1u << LOAD_HISTOGRAM_STEP_BITS)

/* Values below 2 * STEPS have a bucket of their own; above, each power of two has STEPS. */
static unsigned bucket_of(uint64_t ns)
{
	unsigned top;

	if (ns < STEPS) {
		return (unsigned)ns;
	}
	if (ns >> LOAD_HISTOGRAM_TOP_BITS) {
		return LOAD_HISTOGRAM_BUCKETS - 1;
	}
	top = 63u - (unsigned)__builtin_clzll(ns);
	return ((top - LOAD_HISTOGRAM_STEP_BITS + 1) << LOAD_HISTOGRAM_STEP_BITS) +
	       (unsigned)((ns >> (top - LOAD_HISTOGRAM_STEP_BITS)) & (STEPS - 1));
}

/* The highest value that falls into the bucket. */
static uint64_t bucket_end(unsigned bucket)
{
	unsigned power = bucket >> LOAD_HISTOGRAM_STEP_BITS;
	uint64_t step = bucket & (STEPS - 1);

	if (power == 0) {
		return bucket;
	}
	return ((STEPS + step + 1) << (power - 1)) - 1;
}

static uint64_t get(const uint64_t *value)
{
	return __atomic_load_n(value, __ATOMIC_RELAXED);
}

static void put(uint64_t *value, uint64_t number)
{
	__atomic_store_n(value, number, __ATOMIC_RELAXED);
}

void load_histogram_add(struct load_histogram *histogram, uint64_t ns)
{
	uint64_t *count = &histogram->counts[bucket_of(ns)];

	put(count, get(count) + 1);
	put(&histogram->count, get(&histogram->count) + 1);
	put(&histogram->sum_ns, get(&histogram->sum_ns) + ns);
	if (ns > get(&histogram->max_ns)) {
		put(&histogram->max_ns, ns);
	}
}

void load_histogram_merge(struct load_histogram *into, const struct load_histogram *from)
{
	for (unsigned i = 0; i < LOAD_HISTOGRAM_BUCKETS; i++) {
		into->counts[i] += get(&from->counts[i]);
	}
	into->count += get(&from->count);
	into->sum_ns += get(&from->sum_ns);
	if (get(&from->max_ns) > into->max_ns) {
		into->max_ns = get(&from->max_ns);
	}
}

void load_histogram_between(const struct load_histogram *now, const struct load_histogram *then,
			    struct load_histogram *into)
{
	into->count = 0;
	into->max_ns = 0;
	into->sum_ns = now->sum_ns - then->sum_ns;
	for (unsigned i = 0; i < LOAD_HISTOGRAM_BUCKETS; i++) {
		into->counts[i] = now->counts[i] - then->counts[i];
		into->count += into->counts[i];
		if (into->counts[i]) {
			into->max_ns = bucket_end(i);
		}
	}
}

uint64_t load_histogram_quantile(const struct load_histogram *histogram, double q)
{
	uint64_t total = 0;
	uint64_t seen = 0;
	uint64_t rank;

	/* The counts themselves, not ->count: a writer may be between the two. */
	for (unsigned i = 0; i < LOAD_HISTOGRAM_BUCKETS; i++) {
		total += get(&histogram->counts[i]);
	}
	if (total == 0) {
		return 0;
	}
	rank = (uint64_t)ceil(q * (double)total);
	rank = rank < 1 ? 1 : rank > total ? total : rank;
	for (unsigned i = 0; i < LOAD_HISTOGRAM_BUCKETS; i++) {
		seen += get(&histogram->counts[i]);
		if (seen >= rank) {
			uint64_t end = bucket_end(i);
			uint64_t max = get(&histogram->max_ns);

			return max && end > max ? max : end;
		}
	}
	return get(&histogram->max_ns);
}

double load_histogram_mean(const struct load_histogram *histogram)
{
	uint64_t count = get(&histogram->count);

	return count ? (double)get(&histogram->sum_ns) / (double)count : 0;
}
