/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/norm.h"

#include "shm/descriptor.h"

#define WAYS 8

double agg_mean_norm(const struct agg_finish *finish)
{
	bool exact = finish->sums->accumulate == TRIB_ACCUMULATE_EXACT;
	const void *data = trib_partial_accumulator(finish->sums);
	const int64_t *whole = data;
	const float *floats = data;
	double weight = (double)finish->totals.weight / (double)(1u << TRIB_WEIGHT_BITS);
	double unit = exact ? 1.0 / (double)(1ull << (finish->scale_bits & 63)) : 1.0;
	double sums[WAYS] = { 0 };
	double total = 0;

	for (uint64_t i = 0; i < finish->sums->elements; i++) {
		double x = exact ? (double)whole[i] : (double)floats[i];

		sums[i % WAYS] += x * x;
	}
	for (uint32_t i = 0; i < WAYS; i++) {
		total += sums[i];
	}
	return total * (unit / weight) * (unit / weight);
}
