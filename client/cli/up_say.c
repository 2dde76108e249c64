/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/up_say.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

void up_say(const char *who, const char *format, ...)
{
	char line[1024];
	char text[896];
	struct tm tm = { 0 };
	time_t now = time(NULL);
	va_list args;
	int size;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)localtime_r(&now, &tm);
	size = snprintf(line, sizeof(line), "%02d:%02d:%02d %s: %s\n", tm.tm_hour, tm.tm_min,
			tm.tm_sec, who, text);
	size = size < (int)sizeof(line) ? size : (int)sizeof(line) - 1;
	if (write(STDERR_FILENO, line, (size_t)size) < 0) {
		return; /* nowhere left to say it */
	}
}
