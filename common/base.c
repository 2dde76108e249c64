/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void trib_assert_failed(const char *cond, const char *file, int line)
{
	(void)fprintf(stderr, "tributary: assertion failed: %s (%s:%d)\n", cond, file, line);
	abort();
}

void *trib_alloc(size_t size)
{
	return calloc(1, size ? size : 1);
}

void *trib_alloc_array(size_t count, size_t size)
{
	return calloc(count ? count : 1, size ? size : 1);
}

void *trib_realloc(void *old, size_t size)
{
	return realloc(old, size ? size : 1);
}

char *trib_strdup(const char *text)
{
	return strdup(text);
}

char *trib_strndup(const char *text, size_t size)
{
	return strndup(text, size);
}

void trib_free(void *memory)
{
	free(memory);
}

int trib_copy(char *out, size_t size, const char *text)
{
	size_t length = strlen(text);

	if (length >= size) {
		out[0] = '\0';
		return -ENAMETOOLONG;
	}
	memcpy(out, text, length + 1);
	return 0;
}

int trib_parse_u64(const char *text, size_t size, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (size == 0 || (size > 1 && text[0] == '0')) {
		return -EINVAL;
	}
	for (size_t i = 0; i < size; i++) {
		if (text[i] < '0' || text[i] > '9') {
			return -EINVAL;
		}
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value)) {
			return -ERANGE;
		}
	}
	if (value < min || value > max) {
		return -ERANGE;
	}
	*ret_value = value;
	return 0;
}
