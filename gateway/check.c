/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/check.h"

#include <string.h>

#include "common/crypto.h"

#define BLOCK (8u << 10) /* CRC, then floats while the bytes are in the first-level cache */

struct gw_bits { /* an unaligned 32-bit load that may alias anything */
	int32_t value;
} __attribute__((packed, may_alias));

struct gw_float {
	float value;
} __attribute__((packed, may_alias));

/* Absolute bits are not negative, so the signed maximum is the unsigned one (and SSE2 has it). */
#define CHECK_BODY                                        \
	const struct gw_bits *bits = floats;              \
	int32_t most = (int32_t)worst;                    \
	for (size_t i = 0; i < count; i++) {              \
		int32_t now = bits[i].value & 0x7fffffff; \
		most = now > most ? now : most;           \
	}                                                 \
	return (uint32_t)most;

__attribute__((optimize("O3"))) uint32_t gw_check_floats_portable(const void *floats, size_t count,
								  uint32_t worst)
{
	CHECK_BODY
}

#if defined(__x86_64__)
__attribute__((optimize("O3"), target("avx2"))) static uint32_t
check_avx2(const void *floats, size_t count, uint32_t worst)
{
	CHECK_BODY
}

__attribute__((optimize("O3"), target("avx512f,prefer-vector-width=512"))) static uint32_t
check_avx512(const void *floats, size_t count, uint32_t worst){ CHECK_BODY }
#endif

uint32_t gw_check_floats(const void *floats, size_t count, uint32_t worst)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f")) {
		return check_avx512(floats, count, worst);
	}
	if (__builtin_cpu_supports("avx2")) {
		return check_avx2(floats, count, worst);
	}
#endif
	return gw_check_floats_portable(floats, count, worst);
}

/* Eight sums that never meet: vectorised without reassociation, and the same on every CPU. */
#define SQUARES_BODY                                         \
	const struct gw_float *in = floats;                  \
	double sums[8] = { 0 };                              \
	size_t i = 0;                                        \
	for (; i + 8 <= count; i += 8) {                     \
		for (size_t j = 0; j < 8; j++) {             \
			double x = (double)in[i + j].value;  \
			sums[j] += x * x;                    \
		}                                            \
	}                                                    \
	for (; i < count; i++) {                             \
		double x = (double)in[i].value;              \
		sums[i % 8] += x * x;                        \
	}                                                    \
	return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + \
	       ((sums[2] + sums[6]) + (sums[3] + sums[7]));

__attribute__((optimize("O3"))) static double squares_portable(const void *floats, size_t count)
{
	SQUARES_BODY
}

#if defined(__x86_64__)
__attribute__((optimize("O3"), target("avx2"))) static double squares_avx2(const void *floats,
									   size_t count)
{
	SQUARES_BODY
}
#endif

double gw_check_squares(const void *floats, size_t count)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2")) {
		return squares_avx2(floats, count);
	}
#endif
	return squares_portable(floats, count);
}

bool gw_check_in_range(uint32_t worst, double weight, double range)
{
	float most;

	memcpy(&most, &worst, sizeof(most));
	return (double)most * weight <= range;
}

void gw_check_run(struct gw_check *check, const uint8_t *data, uint64_t begin, uint64_t size)
{
	uint64_t end = begin + size;

	while (begin < end) {
		uint64_t stop = end - begin > BLOCK ? begin + BLOCK : end;
		uint64_t first = begin & ~(uint64_t)3;
		uint64_t last = stop & ~(uint64_t)3;

		check->crc = trib_crc32c(check->crc, data + begin, stop - begin);
		if (last > first) {
			check->worst =
				gw_check_floats(data + first, (last - first) / 4, check->worst);
			if (check->wants_norm) {
				check->norm += gw_check_squares(data + first, (last - first) / 4);
			}
		}
		begin = stop;
	}
}
