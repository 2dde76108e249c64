/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

#define LINE_SIZE 2048

static const char *program_name = "tributary";
static enum trib_log_level level_max = TRIB_LOG_INFO;
static const char *const level_names[] = { "err", "warn", "info", "debug" };

void trib_log_init(const char *program, enum trib_log_level level)
{
	const char *wanted = getenv("TRIBUTARY_LOG"); /* NOLINT(concurrency-mt-unsafe): at start */

	program_name = program;
	level_max = level;
	for (size_t i = 0; wanted && i < TRIB_COUNT(level_names); i++) {
		if (strcmp(wanted, level_names[i]) == 0) {
			level_max = (enum trib_log_level)i;
		}
	}
}

bool trib_log_wants(enum trib_log_level level)
{
	return level <= level_max;
}

/* True when the line may be written; races between threads only blur the limit. */
static bool site_allows(struct trib_log_site *site, uint32_t *ret_skipped)
{
	uint64_t now = trib_clock_ns() / 1000000000u + 1;
	uint64_t seen = __atomic_load_n(&site->second, __ATOMIC_RELAXED);

	*ret_skipped = 0;
	if (seen != now) {
		__atomic_store_n(&site->second, now, __ATOMIC_RELAXED);
		__atomic_store_n(&site->lines, 0, __ATOMIC_RELAXED);
		*ret_skipped = __atomic_exchange_n(&site->skipped, 0, __ATOMIC_RELAXED);
	}
	if (__atomic_add_fetch(&site->lines, 1, __ATOMIC_RELAXED) > TRIB_LOG_BURST) {
		(void)__atomic_add_fetch(&site->skipped, 1, __ATOMIC_RELAXED);
		return false;
	}
	return true;
}

static size_t escape(char *out, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text && n + 7 < size; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\') {
			out[n++] = '\\';
			out[n++] = (char)c;
		} else if (c < 0x20 || c >= 0x7f) {
			n += (size_t)snprintf(out + n, size - n, "\\u%04x", c);
		} else {
			out[n++] = (char)c;
		}
	}
	out[n] = '\0';
	return n;
}

void trib_log_write(struct trib_log_site *site, enum trib_log_level level, const char *area,
		    const char *format, ...)
{
	char message[LINE_SIZE / 2];
	char escaped[LINE_SIZE];
	char line[LINE_SIZE + 256];
	char when[TRIB_RFC3339_SIZE];
	char skipped_text[40] = "";
	char clock_text[40] = "";
	uint32_t skipped;
	va_list args;
	int size;

	if (!site_allows(site, &skipped)) {
		return;
	}
	va_start(args, format);
	(void)vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	(void)escape(escaped, sizeof(escaped), message);
	trib_rfc3339(trib_wall_ms(), when);
	if (skipped) {
		(void)snprintf(skipped_text, sizeof(skipped_text), ",\"skipped\":%u", skipped);
	}
	if (level ==
	    TRIB_LOG_DEBUG) { /* what several processes did, in order (tests/bench/after.py) */
		(void)snprintf(clock_text, sizeof(clock_text), ",\"ns\":%llu",
			       (unsigned long long)trib_clock_ns());
	}
	size = snprintf(line, sizeof(line),
			"{\"t\":\"%s\",\"p\":\"%s\",\"pid\":%d,\"l\":\"%s\",\"a\":\"%s\",\"m\":\"%"
			"s\"%s%s}\n",
			when, program_name, (int)getpid(), level_names[level], area, escaped,
			skipped_text, clock_text);
	if (size >= (int)sizeof(line)) {
		size = (int)sizeof(line) - 1;
	}
	if (write(STDERR_FILENO, line, (size_t)size) < 0) {
		return; /* nowhere left to say it */
	}
}
