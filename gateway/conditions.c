/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/conditions.h"

#include <errno.h>
#include <string.h>

int gw_range_parse(const char *text, uint64_t size, uint64_t *ret_first, uint64_t *ret_last)
{
	const char *dash;
	uint64_t first = 0;
	uint64_t last = 0;

	if (strncmp(text, "bytes=", 6) != 0) {
		return -ENOENT;
	}
	text += 6;
	dash = strchr(text, '-');
	if (!dash || strchr(text, ',')) {
		return -ENOENT; /* several ranges: the whole is a valid answer */
	}
	if (dash == text) {
		if (trib_parse_u64(dash + 1, strlen(dash + 1), 0, UINT64_MAX, &last)) {
			return -ENOENT;
		}
		if (last == 0 || size == 0) {
			return -ERANGE;
		}
		*ret_first = last < size ? size - last : 0;
		*ret_last = size - 1;
		return 0;
	}
	if (trib_parse_u64(text, (size_t)(dash - text), 0, UINT64_MAX, &first)) {
		return -ENOENT;
	}
	last = size - 1;
	if (dash[1] &&
	    (trib_parse_u64(dash + 1, strlen(dash + 1), 0, UINT64_MAX, &last) || last < first)) {
		return -ENOENT;
	}
	if (first >= size) {
		return -ERANGE;
	}
	*ret_first = first;
	*ret_last = last < size ? last : size - 1;
	return 0;
}

bool gw_etag_listed(const char *list, const char *etag)
{
	size_t size = strlen(etag);

	for (const char *at = list; *at;) {
		at += strspn(at, " \t,");
		if (*at == '*') {
			return true;
		}
		if (strncmp(at, "W/", 2) == 0) {
			at += 2;
		}
		if (strncmp(at, etag, size) == 0 && strchr(", \t", at[size])) {
			return true;
		}
		at += strcspn(at, ",");
	}
	return false;
}
