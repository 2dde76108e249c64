/* SPDX-License-Identifier: Apache-2.0
 * Time. Deadlines inside a process are monotonic; what people read is wall time.
 */
#ifndef TRIB_COMMON_CLOCK_H
#define TRIB_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t trib_clock_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t trib_clock_ms(void)
{
	return trib_clock_ns() / 1000000u;
}

static inline uint64_t trib_wall_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

#define TRIB_RFC3339_SIZE 25
/* "2026-11-21T03:04:05.678Z" into out[TRIB_RFC3339_SIZE]. */
void trib_rfc3339(uint64_t wall_ms, char out[TRIB_RFC3339_SIZE]);

#endif
