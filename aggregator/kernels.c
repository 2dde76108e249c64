/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/kernels.h"

#if defined(__x86_64__)

extern const struct agg_kernels agg_kernels_v2;
extern const struct agg_kernels agg_kernels_v3;
extern const struct agg_kernels agg_kernels_v4;

/* gcc 12 knows "x86-64-v3", clang 14 does not: name the features that the levels mean to us. */
static bool runs_v4(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl");
}

static bool runs_v3(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
	       __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
}

const struct agg_kernels *agg_kernels_at(uint32_t index)
{
	const struct agg_kernels *list[3];
	uint32_t count = 0;

	__builtin_cpu_init();
	if (runs_v4()) {
		list[count++] = &agg_kernels_v4;
	}
	if (runs_v3()) {
		list[count++] = &agg_kernels_v3;
	}
	list[count++] = &agg_kernels_v2;
	return index < count ? list[index] : NULL;
}

#else

extern const struct agg_kernels agg_kernels_base;

const struct agg_kernels *agg_kernels_at(uint32_t index)
{
	return index == 0 ? &agg_kernels_base : NULL;
}

#endif

const struct agg_kernels *agg_kernels_best(void)
{
	return agg_kernels_at(0);
}
