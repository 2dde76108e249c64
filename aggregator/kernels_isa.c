/* SPDX-License-Identifier: Apache-2.0
 * Compiled once per ISA level with -O3 and TRIB_ISA = v2, v3, v4 or base. Plain loops that gcc 12
 * and clang 14 vectorise; `inputs` and `first` are constants in every instance.
 */
#include "aggregator/kernels.h"

#include <string.h>

#ifndef TRIB_ISA
#define TRIB_ISA base
#endif
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#define GLUE2(a, b) a##b
#define GLUE(a, b)  GLUE2(a, b)
#define INLINE      static inline __attribute__((always_inline))

/* Adding 1.5 * 2^52 to |t| <= 2^51 rounds t to an integer (nearest even) and leaves it in the low
 * bits of the sum: a conversion that every ISA level has, in two cheap operations. */
#define MAGIC      6755399441055744.0
#define MAGIC_BITS 0x4338000000000000u

INLINE uint64_t bits_of(double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

INLINE double double_of(uint64_t bits)
{
	double value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

INLINE uint64_t fixed(float x, double scale)
{
	return bits_of((double)x * scale + MAGIC);
}

/* (double)sum, correctly rounded, from shifts and adds: only AVX-512 has the instruction. */
INLINE double to_double(int64_t sum)
{
	uint64_t bits = (uint64_t)sum;
	double high = double_of((bits >> 32) ^ 0x4530000080000000u); /* 2^84 + 2^63 + high * 2^32 */
	double low = double_of((bits & 0xffffffffu) | 0x4330000000000000u); /* 2^52 + low */

	return (high - (0x1p84 + 0x1p63 + 0x1p52)) +
	       low; /* the first is exact, the sum rounds once */
}

INLINE void exact(uint64_t *restrict sums, const float *const *inputs, const double *scales,
		  size_t count, unsigned k, bool first)
{
	const float *in[AGG_KERNEL_INPUTS];
	double s[AGG_KERNEL_INPUTS];

	for (unsigned j = 0; j < AGG_KERNEL_INPUTS; j++) {
		in[j] = inputs[j < k ? j : 0];
		s[j] = scales[j < k ? j : 0];
	}
	for (size_t i = 0; i < count; i++) {
		uint64_t sum = (first ? 0 : sums[i]) - k * MAGIC_BITS;

		sum += fixed(in[0][i], s[0]);
		sum += k > 1 ? fixed(in[1][i], s[1]) : 0;
		sum += k > 2 ? fixed(in[2][i], s[2]) : 0;
		sum += k > 3 ? fixed(in[3][i], s[3]) : 0;
		sum += k > 4 ? fixed(in[4][i], s[4]) : 0;
		sum += k > 5 ? fixed(in[5][i], s[5]) : 0;
		sum += k > 6 ? fixed(in[6][i], s[6]) : 0;
		sum += k > 7 ? fixed(in[7][i], s[7]) : 0;
		sums[i] = sum;
	}
}

/* One float rounding per product and per sum, in the order of the inputs. */
INLINE void f32(float *restrict sums, const float *const *inputs, const float *weights,
		size_t count, unsigned k, bool first)
{
	const float *in[AGG_KERNEL_INPUTS];
	float w[AGG_KERNEL_INPUTS];

	for (unsigned j = 0; j < AGG_KERNEL_INPUTS; j++) {
		in[j] = inputs[j < k ? j : 0];
		w[j] = weights ? weights[j < k ? j : 0] : 1.0f;
	}
	for (size_t i = 0; i < count; i++) {
		float sum = w[0] * in[0][i];

		sum = first ? sum : sums[i] + sum;
		sum = k > 1 ? sum + w[1] * in[1][i] : sum;
		sum = k > 2 ? sum + w[2] * in[2][i] : sum;
		sum = k > 3 ? sum + w[3] * in[3][i] : sum;
		sum = k > 4 ? sum + w[4] * in[4][i] : sum;
		sum = k > 5 ? sum + w[5] * in[5][i] : sum;
		sum = k > 6 ? sum + w[6] * in[6][i] : sum;
		sum = k > 7 ? sum + w[7] * in[7][i] : sum;
		sums[i] = sum;
	}
}

INLINE void merge_exact(uint64_t *restrict sums, const int64_t *const *inputs, size_t count,
			unsigned k, bool first)
{
	const uint64_t *in[AGG_KERNEL_INPUTS];

	for (unsigned j = 0; j < AGG_KERNEL_INPUTS; j++) {
		in[j] = (const uint64_t *)inputs[j < k ? j : 0];
	}
	for (size_t i = 0; i < count; i++) {
		uint64_t sum = first ? 0 : sums[i];

		sum += in[0][i];
		sum += k > 1 ? in[1][i] : 0;
		sum += k > 2 ? in[2][i] : 0;
		sum += k > 3 ? in[3][i] : 0;
		sum += k > 4 ? in[4][i] : 0;
		sum += k > 5 ? in[5][i] : 0;
		sum += k > 6 ? in[6][i] : 0;
		sum += k > 7 ? in[7][i] : 0;
		sums[i] = sum;
	}
}

#define INSTANCE(k, first)                                                                         \
	static void exact_##k##_##first(int64_t *sums, const float *const *inputs,                 \
					const double *scales, size_t count)                        \
	{                                                                                          \
		exact((uint64_t *)sums, inputs, scales, count, k, first);                          \
	}                                                                                          \
	static void f32_##k##_##first(float *sums, const float *const *inputs,                     \
				      const float *weights, size_t count)                          \
	{                                                                                          \
		f32(sums, inputs, weights, count, k, first);                                       \
	}                                                                                          \
	static void merge_exact_##k##_##first(int64_t *sums, const int64_t *const *inputs,         \
					      size_t count)                                        \
	{                                                                                          \
		merge_exact((uint64_t *)sums, inputs, count, k, first);                            \
	}                                                                                          \
	static void merge_f32_##k##_##first(float *sums, const float *const *inputs, size_t count) \
	{                                                                                          \
		f32(sums, inputs, NULL, count, k, first);                                          \
	}
#define INSTANCES(k)   \
	INSTANCE(k, 0) \
	INSTANCE(k, 1)

INSTANCES(1)
INSTANCES(2)
INSTANCES(3)
INSTANCES(4)
INSTANCES(5)
INSTANCES(6)
INSTANCES(7)
INSTANCES(8)

INLINE float final_one(const struct agg_final *f, double value, bool has_base, float base)
{
	double mean = value * f->unit / f->weight;

	return has_base ? (float)((double)base + f->lr * mean) : (float)mean;
}

static void final_exact(const struct agg_final *final, const int64_t *sums, const float *base,
			float *restrict out, size_t count)
{
	const struct agg_final f = *final;

	if (!base) {
		for (size_t i = 0; i < count; i++) {
			out[i] = final_one(&f, to_double(sums[i]), false, 0);
		}
		return;
	}
	for (size_t i = 0; i < count; i++) {
		out[i] = final_one(&f, to_double(sums[i]), true, base[i]);
	}
}

static void final_f32(const struct agg_final *final, const float *sums, const float *base,
		      float *restrict out, size_t count)
{
	const struct agg_final f = *final;

	if (!base) {
		for (size_t i = 0; i < count; i++) {
			out[i] = final_one(&f, (double)sums[i], false, 0);
		}
		return;
	}
	for (size_t i = 0; i < count; i++) {
		out[i] = final_one(&f, (double)sums[i], true, base[i]);
	}
}

#define PAIR(name, k)                          \
	{                                      \
		name##_##k##_0, name##_##k##_1 \
	}
#define PAIRS(name)                                                                        \
	{                                                                                  \
		PAIR(name, 1), PAIR(name, 2), PAIR(name, 3), PAIR(name, 4), PAIR(name, 5), \
			PAIR(name, 6), PAIR(name, 7), PAIR(name, 8)                        \
	}
#define TEXT2(a) #a
#define TEXT(a)  TEXT2(a)

extern const struct agg_kernels GLUE(agg_kernels_, TRIB_ISA);
const struct agg_kernels GLUE(agg_kernels_, TRIB_ISA) = {
	.name = TEXT(TRIB_ISA),
	.exact = PAIRS(exact),
	.f32 = PAIRS(f32),
	.merge_exact = PAIRS(merge_exact),
	.merge_f32 = PAIRS(merge_f32),
	.final_exact = final_exact,
	.final_f32 = final_f32,
};
