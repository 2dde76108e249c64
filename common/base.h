/* SPDX-License-Identifier: Apache-2.0
 * Small things every folder needs: attributes, assertions, arithmetic.
 * Not a grab bag: whatever has state or a name of its own gets its own file.
 */
#ifndef TRIB_COMMON_BASE_H
#define TRIB_COMMON_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRIB_MUST_CHECK   __attribute__((warn_unused_result))
#define TRIB_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define TRIB_UNUSED       __attribute__((unused))
#define TRIB_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Our bug, never input: aborts in every build, after printing where. */
#define TRIB_ASSERT(cond) ((cond) ? (void)0 : trib_assert_failed(#cond, __FILE__, __LINE__))

__attribute__((noreturn)) void trib_assert_failed(const char *cond, const char *file, int line);

/* Allocation door of the process heap (jemalloc underneath when linked): zeroed, aborts never.
 * Return NULL only when out of memory or when count * size overflows. */
TRIB_MUST_CHECK void *trib_alloc(size_t size);
TRIB_MUST_CHECK void *trib_alloc_array(size_t count, size_t size);
TRIB_MUST_CHECK void *trib_realloc(void *old, size_t size);
TRIB_MUST_CHECK char *trib_strdup(const char *text);
TRIB_MUST_CHECK char *trib_strndup(const char *text, size_t size);
void trib_free(void *memory);

/* Copy `text` into `out[size]`, always terminated. 0, or -ENAMETOOLONG (out holds ""). */
TRIB_MUST_CHECK int trib_copy(char *out, size_t size, const char *text);

/* Whole-string decimal in [min, max]: 0, -EINVAL or -ERANGE. No sign, no blanks, no leading '+'. */
TRIB_MUST_CHECK int trib_parse_u64(const char *text, size_t size, uint64_t min, uint64_t max,
				   uint64_t *ret_value);

static inline uint64_t trib_round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

#endif
