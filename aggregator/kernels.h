/* SPDX-License-Identifier: Apache-2.0
 * The numeric core: fused k-way folds, merges of partials and the final step, compiled once per
 * ISA level (kernels_isa.c) and chosen once per process (kernels.c). Pure functions on the
 * caller's memory, any thread. Every level gives the same bits: no contraction, no reassociation,
 * only IEEE operations in the order written.
 *
 * Exact: q = round_to_nearest_even(w * x * 2^scale_bits), integer sum, wrapping. |w * x| * 2^scale
 * must be <= 2^51 (the gateway's promise); anything else gives garbage bits, never undefined
 * behaviour.
 */
#ifndef TRIB_AGGREGATOR_KERNELS_H
#define TRIB_AGGREGATOR_KERNELS_H

#include "common/base.h"

#define AGG_KERNEL_INPUTS 8u /* = TRIB_FOLD_MAX */

/* scale[j] = w[j] * 2^scale_bits */
typedef void agg_exact_fn(int64_t *sums, const float *const *inputs, const double *scales,
			  size_t count);
typedef void agg_f32_fn(float *sums, const float *const *inputs, const float *weights,
			size_t count);
typedef void agg_merge_exact_fn(int64_t *sums, const int64_t *const *inputs, size_t count);
typedef void agg_merge_f32_fn(float *sums, const float *const *inputs, size_t count);

struct agg_final {
	double unit;   /* value of one: 2^-scale_bits, or 1 for f32 */
	double weight; /* sum of weights, > 0 */
	double lr;
};
/* base NULL: out = mean; else out = base + lr * mean. mean = (double)sum * unit / weight. */
typedef void agg_final_exact_fn(const struct agg_final *final, const int64_t *sums,
				const float *base, float *out, size_t count);
typedef void agg_final_f32_fn(const struct agg_final *final, const float *sums, const float *base,
			      float *out, size_t count);

/* [inputs - 1][first]: first overwrites `sums`, which it does not read. */
struct agg_kernels {
	const char *name;
	agg_exact_fn *exact[AGG_KERNEL_INPUTS][2];
	agg_f32_fn *f32[AGG_KERNEL_INPUTS][2];
	agg_merge_exact_fn *merge_exact[AGG_KERNEL_INPUTS][2];
	agg_merge_f32_fn *merge_f32[AGG_KERNEL_INPUTS][2];
	agg_final_exact_fn *final_exact;
	agg_final_f32_fn *final_f32;
};

/* The best this CPU has; never NULL. */
const struct agg_kernels *agg_kernels_best(void);
/* The index-th of those this CPU can run, best first; NULL past the end (tests, bench). */
const struct agg_kernels *agg_kernels_at(uint32_t index);

#endif
