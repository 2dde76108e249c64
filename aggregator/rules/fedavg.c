/* SPDX-License-Identifier: Apache-2.0
 * FedAvg: the weighted mean of the updates, added to the base times the server's learning rate
 * (deltas), or taken as it is (whole weights). McMahan et al., AISTATS 2017.
 */
#include "aggregator/rules/rules.h"

#include <errno.h>

#include "shm/descriptor.h"

static int finish(const struct agg_finish *f)
{
	bool exact = f->sums->accumulate == TRIB_ACCUMULATE_EXACT;
	struct agg_final final = {
		.unit = exact ? 1.0 / (double)(1ull << (f->scale_bits & 63)) : 1.0,
		.weight = (double)(f->divisor ? f->divisor : f->totals.weight) /
			  (double)(1u << TRIB_WEIGHT_BITS),
		.lr = f->lr,
	};
	const void *sums = trib_partial_accumulator(f->sums);
	const float *base = f->base ? f->base + f->from : NULL;

	if (f->totals.weight == 0) {
		return -EINVAL;
	}
	if (exact) {
		f->kernels->final_exact(&final, (const int64_t *)sums + f->from, base,
					f->out + f->from, f->count);
	} else {
		f->kernels->final_f32(&final, (const float *)sums + f->from, base, f->out + f->from,
				      f->count);
	}
	return 0;
}

const struct agg_rule agg_rule_fedavg = { .name = "fedavg", .finish = finish };
