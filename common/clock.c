/* SPDX-License-Identifier: Apache-2.0 */
#include "common/clock.h"

#include <stdio.h>

void trib_rfc3339(uint64_t wall_ms, char out[TRIB_RFC3339_SIZE])
{
	time_t seconds = (time_t)(wall_ms / 1000u);
	struct tm t;
	char buffer[80];

	if (!gmtime_r(&seconds, &t)) {
		t = (struct tm){ .tm_mday = 1 };
	}
	(void)snprintf(buffer, sizeof(buffer), "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ",
		       (t.tm_year + 1900) % 10000, t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min,
		       t.tm_sec, (unsigned)(wall_ms % 1000u));
	(void)snprintf(out, TRIB_RFC3339_SIZE, "%.24s", buffer);
}
