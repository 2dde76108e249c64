/* SPDX-License-Identifier: Apache-2.0
 * The one pass over payload bytes right after they landed (cache-warm): CRC32C in arrival order,
 * the largest |x| of the floats, and, when it is wanted, the sum of their squares. Pure; any
 * thread. Non-finite values show as a largest |x| of infinity or more, so one maximum answers both
 * "finite?" and "in range?".
 */
#ifndef TRIB_GATEWAY_CHECK_H
#define TRIB_GATEWAY_CHECK_H

#include "common/base.h"

/* Largest (bits & 0x7fffffff) of `count` floats at any alignment, or `worst` if that is larger. */
uint32_t gw_check_floats(const void *floats, size_t count, uint32_t worst);
/* The same by the portable kernel (for tests). */
uint32_t gw_check_floats_portable(const void *floats, size_t count, uint32_t worst);

static inline bool gw_check_finite(uint32_t worst)
{
	return worst < 0x7f800000u;
}
/* Sum of squares of `count` floats at any alignment, the same bits on every CPU. */
double gw_check_squares(const void *floats, size_t count);
/* |x| * weight <= range for the largest finite |x|. */
bool gw_check_in_range(uint32_t worst, double weight, double range);

struct gw_check {
	uint32_t crc; /* CRC32C of the body so far */
	uint32_t worst;
	bool wants_norm;
	double norm; /* sum of squares, when wanted */
};
/* `size` bytes landed at data + begin of one run of floats (begin counts from the run's start,
 * which is an element's start): CRC over them, and the check of every element they complete. */
void gw_check_run(struct gw_check *check, const uint8_t *data, uint64_t begin, uint64_t size);

#endif
