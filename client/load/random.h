/* SPDX-License-Identifier: Apache-2.0
 * Repeatable random numbers (splitmix64). Not for secrets.
 */
#ifndef TRIB_CLIENT_LOAD_RANDOM_H
#define TRIB_CLIENT_LOAD_RANDOM_H

#include "common/base.h"

static inline uint64_t load_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* An independent stream per number. */
static inline uint64_t load_random_seed(uint64_t seed, uint64_t number)
{
	uint64_t state = seed ^ (number + 1) * 0xd1342543de82ef95ull;

	return load_random(&state);
}

/* [0, 1) */
static inline double load_random_unit(uint64_t *state)
{
	return (double)(load_random(state) >> 11) * 0x1p-53;
}

/* [low, high] */
static inline uint64_t load_random_between(uint64_t *state, uint64_t low, uint64_t high)
{
	return low + load_random(state) % (high - low + 1);
}

#endif
