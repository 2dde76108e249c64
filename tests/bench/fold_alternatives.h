/* SPDX-License-Identifier: Apache-2.0
 * The other ways to one answer that docs/adr/0001-exact-sums.md weighed, for tests/bench/fold.c
 * alone: nothing here is linked into a program. Built as the kernels are for v4.
 */
#ifndef TRIB_TESTS_BENCH_FOLD_ALTERNATIVES_H
#define TRIB_TESTS_BENCH_FOLD_ALTERNATIVES_H

#include <stddef.h>
#include <stdint.h>

/* sums: 16 bytes per element; the chunk begins at element `from`; k is 1, 4 or 8. */
typedef void agg_alternative_fn(void *sums, size_t from, const float *const *inputs,
				const double *scales, size_t count, uint32_t k);

struct agg_alternative {
	const char *name;
	agg_alternative_fn *fold;
};

#if defined(__x86_64__) && !defined(__clang__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3")
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")

#define ALTERNATIVE static inline __attribute__((always_inline))

/* k is dispatched to constants: 1, 4, 8 (what the bench asks for). */
#define DISPATCH(name, type)                                                  \
	static void name(void *sums, size_t from, const float *const *inputs, \
			 const double *scales, size_t count, uint32_t k)      \
	{                                                                     \
		type *at = (type *)sums + from;                               \
                                                                              \
		if (k == 1) {                                                 \
			name##_k(at, inputs, scales, count, 1);               \
		} else if (k == 4) {                                          \
			name##_k(at, inputs, scales, count, 4);               \
		} else if (k == 8) {                                          \
			name##_k(at, inputs, scales, count, 8);               \
		}                                                             \
	}

/* Plain double sums: the reference for speed; depends on the order. */
ALTERNATIVE void f64_k(double *restrict sums, const float *const *inputs, const double *scales,
		       size_t count, uint32_t k)
{
	for (size_t i = 0; i < count; i++) {
		double sum = sums[i];

#pragma GCC unroll 8
		for (uint32_t j = 0; j < k; j++) {
			sum += (double)inputs[j][i] * scales[j];
		}
		sums[i] = sum;
	}
}
DISPATCH(f64, double)

/* One bin: each product rounded to a multiple of a common unit by adding and subtracting a big
 * constant; double sums of such multiples are exact while they stay below 2^53 units. */
ALTERNATIVE void f64_one_bin_k(double *restrict sums, const float *const *inputs,
			       const double *scales, size_t count, uint32_t k)
{
	const double big = 6755399441055744.0;

	for (size_t i = 0; i < count; i++) {
		double sum = sums[i];

#pragma GCC unroll 8
		for (uint32_t j = 0; j < k; j++) {
			sum += ((double)inputs[j][i] * scales[j] + big) - big;
		}
		sums[i] = sum;
	}
}
DISPATCH(f64_one_bin, double)

/* Two bins of float (Demmel and Nguyen's shape, without renormalisation): 8 bytes per element. */
struct two {
	float high;
	float low;
};
ALTERNATIVE void f32_two_bins_k(struct two *restrict sums, const float *const *inputs,
				const double *scales, size_t count, uint32_t k)
{
	const float big_high = 12582912.0f;          /* 1.5 * 2^23: high bin in units of 1 */
	const float big_low = 12582912.0f / 4096.0f; /* low bin in units of 2^-12 */

	for (size_t i = 0; i < count; i++) {
		float high = sums[i].high;
		float low = sums[i].low;

#pragma GCC unroll 8
		for (uint32_t j = 0; j < k; j++) {
			float x = inputs[j][i] * (float)scales[j];
			float h = (x + big_high) - big_high;

			high += h;
			low += ((x - h) + big_low) - big_low;
		}
		sums[i] = (struct two){ high, low };
	}
}
DISPATCH(f32_two_bins, struct two)

/* The same integers by AVX-512's own conversion. */
ALTERNATIVE void int64_cvt_k(int64_t *restrict sums, const float *const *inputs,
			     const double *scales, size_t count, uint32_t k)
{
	for (size_t i = 0; i + 8 <= count; i += 8) {
		__m512i sum = _mm512_loadu_si512(sums + i);

#pragma GCC unroll 8
		for (uint32_t j = 0; j < k; j++) {
			__m512d x = _mm512_cvtps_pd(_mm256_loadu_ps(inputs[j] + i));

			x = _mm512_mul_pd(x, _mm512_set1_pd(scales[j]));
			sum = _mm512_add_epi64(sum, _mm512_cvtpd_epi64(x));
		}
		_mm512_storeu_si512(sums + i, sum);
	}
}
DISPATCH(int64_cvt, int64_t)

/* The magic trick by hand, 8 at a time: is the compiler's version as good? */
ALTERNATIVE void int64_magic_hand_k(int64_t *restrict sums, const float *const *inputs,
				    const double *scales, size_t count, uint32_t k)
{
	const __m512d magic = _mm512_set1_pd(6755399441055744.0);
	const __m512i bits = _mm512_set1_epi64((long long)k * 0x4338000000000000ll);

	for (size_t i = 0; i + 8 <= count; i += 8) {
		__m512i sum = _mm512_sub_epi64(_mm512_loadu_si512(sums + i), bits);

#pragma GCC unroll 8
		for (uint32_t j = 0; j < k; j++) {
			__m512d x = _mm512_cvtps_pd(_mm256_loadu_ps(inputs[j] + i));

			x = _mm512_add_pd(_mm512_mul_pd(x, _mm512_set1_pd(scales[j])), magic);
			sum = _mm512_add_epi64(sum, _mm512_castpd_si512(x));
		}
		_mm512_storeu_si512(sums + i, sum);
	}
}
DISPATCH(int64_magic_hand, int64_t)

/* Every op as a first one with streaming stores: what a first fold could save. */
ALTERNATIVE void int64_first_stream_k(int64_t *restrict sums, const float *const *inputs,
				      const double *scales, size_t count, uint32_t k)
{
	const __m512d magic = _mm512_set1_pd(6755399441055744.0);
	const __m512i bits = _mm512_set1_epi64(-(long long)k * 0x4338000000000000ll);

	for (size_t i = 0; i + 8 <= count; i += 8) {
		__m512i sum = bits;

#pragma GCC unroll 8
		for (uint32_t j = 0; j < k; j++) {
			__m512d x = _mm512_cvtps_pd(_mm256_loadu_ps(inputs[j] + i));

			x = _mm512_add_pd(_mm512_mul_pd(x, _mm512_set1_pd(scales[j])), magic);
			sum = _mm512_add_epi64(sum, _mm512_castpd_si512(x));
		}
		_mm512_stream_si512((void *)(sums + i), sum);
	}
	_mm_sfence();
}
DISPATCH(int64_first_stream, int64_t)

#pragma GCC pop_options

/* Only for CPUs with AVX-512 (kernels "v4"). */
static const struct agg_alternative agg_alternatives[] = {
	{ "alt_f64", f64 },
	{ "alt_f64_one_bin", f64_one_bin },
	{ "alt_f32_two_bins", f32_two_bins },
	{ "alt_int64_cvt", int64_cvt },
	{ "alt_int64_magic_hand", int64_magic_hand },
	{ "alt_int64_first_stream", int64_first_stream },
	{ NULL, NULL },
};

#else
static const struct agg_alternative agg_alternatives[] = { { NULL, NULL } };
#endif

#endif
