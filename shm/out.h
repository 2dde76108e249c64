/* SPDX-License-Identifier: Apache-2.0
 * What a top finalises into: the model's floats, zeros to the end of the page, then a page that
 * says how far the floats are as they will be if nothing changes
 * (docs/adr/0010-versions-in-memory.md). One 64-bit word: generation << 32 | chunks (of
 * TRIB_PARTIAL_CHUNK elements) from 0 on. Whoever makes the model anew counts the generation up
 * before it writes a float. Written by functions: a reader believes no number in it.
 */
#ifndef TRIB_SHM_OUT_H
#define TRIB_SHM_OUT_H

#include "common/base.h"

#define TRIB_OUT_PAGE 4096u

/* Where the word lies. */
static inline uint64_t trib_out_at(uint64_t elements)
{
	return trib_round_up(elements * sizeof(float), TRIB_OUT_PAGE);
}

static inline uint64_t trib_out_size(uint64_t elements)
{
	return trib_out_at(elements) + TRIB_OUT_PAGE;
}

static inline uint32_t trib_out_generation(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

static inline uint32_t trib_out_chunks(uint64_t word)
{
	return (uint32_t)word;
}

static inline uint64_t trib_out_load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* The owner's: none of it is final any more. NULL allowed. */
static inline void trib_out_anew(uint64_t *word)
{
	if (word) {
		uint32_t generation = trib_out_generation(__atomic_load_n(word, __ATOMIC_RELAXED));

		__atomic_store_n(word, (uint64_t)(generation + 1) << 32, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_RELEASE); /* before the floats that follow */
	}
}

/* The owner's: so many chunks are. NULL allowed. */
static inline void trib_out_made(uint64_t *word, uint32_t chunks)
{
	if (word) {
		uint64_t was = __atomic_load_n(word, __ATOMIC_RELAXED);

		__atomic_store_n(word, (was & ~(uint64_t)UINT32_MAX) | chunks, __ATOMIC_RELEASE);
	}
}

#endif
